//! Attesting again: what comes twice, in another envelope, late, or before its key.

use crate::attesting::{DSSE, TEST_RESULT, somebody_waits_for_a_scope, verdicts};
use crate::harness::{PROVENANCE, Registry, Signing, eventually, expect, provenance, sha256};
use proofmark::access::{Principal, Role};
use proofmark::attestation::{self, Carrier, Known, Received, Through};
use serde_json::{Value, json};

/// The same envelope with something about it that nobody signed.
fn altered(envelope: &[u8], alter: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut document = serde_json::from_slice(envelope).unwrap();
    alter(&mut document);
    document.to_string().into_bytes()
}

#[tokio::test]
async fn who_has_no_key_makes_no_statement_newer_than_it_is() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "**").await, registry.client(Role::Attester, "**").await);
    let promoter = registry.client(Role::Promoter, "**").await;
    let key = Signing::new(1);
    registry.admin().register_signer("ci", &key.pem(), &["**"]).await;
    registry
        .environment("prod", &format!("{{attestation: {{type: '{TEST_RESULT}', result: PASSED}}}}"))
        .await;
    let image = builder.push_release("app", "1.0", "one").await;
    let result = |result: &str| key.statement(&image, TEST_RESULT, &json!({"result": result}));
    let (passed, failed) = (result("PASSED"), result("FAILED"));
    // What comes before anybody signed it takes no place in the order: FAILED stays to be the newest.
    let foreseen = altered(&failed, |envelope| envelope["signatures"] = json!([{"sig": "AAAA"}]));
    builder.push_referrer("app", &image, DSSE, &foreseen).await;
    let first = attester.attest("app", &passed, 201).await;
    expect(promoter.promote("app", &image, "prod").await, 201).await;
    attester.attest("app", &failed, 201).await;
    expect(promoter.promote("app", &image, "prod").await, 409).await;

    // The same message, with a space more, in another envelope, for another subject.
    let spaced = [&passed[..], b" "].concat();
    let again = attester.attest("app", &spaced, 201).await;
    assert_ne!(again[0]["id"], first[0]["id"], "each envelope is listed as it came");
    builder.push_referrer("app", &sha256(b"elsewhere"), DSSE, &passed).await;
    let commented = altered(&passed, |envelope| envelope["comment"] = json!("not signed"));
    builder.push_referrer("app", &image, DSSE, &commented).await;
    let refused = expect(promoter.promote("app", &image, "prod").await, 409).await;
    assert!(refused.to_string().contains("the newest result is FAILED"), "{refused}");
    let listed = builder.attestations("app", &image).await;
    let reason = json!(format!("the same as attestation {}, and as old", first[0]["id"]));
    assert_eq!(verdicts(&listed), ["trusted", "trusted", "trusted", "trusted", "trusted", "untrusted"]);
    assert_eq!(
        [&listed[0]["reason"], &listed[2]["reason"], &listed[4]["reason"]],
        [&reason, &reason, &Value::Null]
    );

    // Whoever has the key says so anew.
    let anew = key.statement(&image, TEST_RESULT, &json!({"result": "PASSED", "run": 2}));
    attester.attest("app", &anew, 201).await;
    expect(promoter.promote("app", &image, "prod").await, 201).await;
    registry.check().await;
}

#[tokio::test]
async fn a_copy_is_believed_by_when_the_first_came_and_each_signers_signature_by_its_own() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "**").await, registry.client(Role::Attester, "**").await);
    let (ci, lead) = (Signing::new(1), Signing::new(2));
    registry.admin().register_signer("ci", &ci.pem(), &["**"]).await;
    registry.admin().register_signer("lead", &lead.pem(), &["**"]).await;
    let image = builder.push_subject("app", "one").await;
    let by = |key: &Signing| key.statement(&image, PROVENANCE, &provenance("b", "c"));
    attester.attest("app", &by(&ci), 201).await;
    let body = json!({"reason": "rotated"});
    registry.admin().post_document("/api/v1/signers/ci/revocation", &body, 201).await;
    // The copy is as old as the first; a signature that comes for the first time is new.
    builder.push_referrer("app", &image, DSSE, &[&by(&ci)[..], b" "].concat()).await;
    attester.attest("app", &by(&lead), 201).await;
    let listed = builder.attestations("app", &image).await;
    assert_eq!(verdicts(&listed), ["trusted"; 3]);
    assert_eq!((&listed[0]["signer"], &listed[0]["reason"]), (&json!("lead"), &Value::Null));
    assert_eq!(listed[1]["signer"], "ci");
    registry.check().await;
}

/// How many attestations have a signature that no registered key made.
async fn waiting(registry: &Registry) -> i64 {
    let count = sqlx::query_scalar("select count(*) from attestations_waiting");
    count.fetch_one(&mut *registry.sql().await).await.unwrap()
}

#[tokio::test]
async fn a_hint_decides_nothing_and_what_is_verified_waits_for_no_key() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "**").await, registry.client(Role::Attester, "**").await);
    let (known, late, later) = (Signing::new(1), Signing::new(2), Signing::new(3));
    registry.admin().register_signer("known", &known.pem(), &["**"]).await;
    let image = builder.push_subject("app", "one").await;
    let by = |key: &Signing, commit| key.statement(&image, PROVENANCE, &provenance("b", commit));
    attester.attest("app", &by(&known, "c1"), 201).await;
    assert_eq!(waiting(&registry).await, 0, "it has no hint, and was verified without one");

    // in-toto's own key ids have the form of ours and are something else.
    let theirs = json!("5".repeat(64));
    let hinted = altered(&by(&late, "c2"), |envelope| envelope["signatures"][0]["keyid"] = theirs);
    builder.push_referrer("app", &image, DSSE, &hinted).await;
    let signature =
        |key: &Signing| serde_json::from_slice::<Value>(&by(key, "c3")).unwrap()["signatures"][0].clone();
    let (of_late, of_later) = (signature(&late), signature(&later));
    let both = altered(&by(&known, "c3"), |envelope| {
        envelope["signatures"].as_array_mut().unwrap().extend([of_late, of_later]);
    });
    attester.attest("app", &both, 201).await;
    assert_eq!(waiting(&registry).await, 2);
    assert_eq!(verdicts(&builder.attestations("app", &image).await), ["trusted", "untrusted", "trusted"]);

    registry.admin().register_signer("late", &late.pem(), &["**"]).await;
    assert_eq!(verdicts(&builder.attestations("app", &image).await), ["trusted"; 3]);
    let again = attester.attest("app", &hinted, 201).await;
    assert_eq!(again[0]["signer"], "late");
    assert_eq!(waiting(&registry).await, 1, "one has a signature left");
    registry.admin().register_signer("later", &later.pem(), &["**"]).await;
    assert_eq!(waiting(&registry).await, 0);
    for signer in ["late", "later"] {
        let page = builder.document(&format!("/api/v1/attestations?signer={signer}&commit=c3")).await;
        assert_eq!(page["items"].as_array().unwrap().len(), 1, "{signer}: {page}");
    }
    registry.check().await;
}

#[tokio::test]
async fn what_comes_while_a_signer_is_registered_is_held_against_its_key_too() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let key = Signing::new(1);
    let image = builder.push_subject("app", "one").await;
    let envelope = key.statement(&image, PROVENANCE, &provenance("b", "c"));
    let db = &registry.app.db;
    let mut tx = db.begin().await.unwrap();
    let repository = proofmark::content::repository(&mut tx, &"app".parse().unwrap()).await.unwrap().unwrap();
    let received = Received::documents(&envelope.into()).unwrap();
    Received::scopes(&received, repository.id).lock(&mut tx).await.unwrap();
    // The registration has looked through all that waits when it comes to its locks.
    let admin = registry.admin();
    let pem = key.pem();
    let registering = tokio::spawn(async move { admin.register_signer("ci", &pem, &["**"]).await });
    eventually("somebody waits for a scope", async || {
        assert!(!registering.is_finished(), "a signer was registered while an attestation was recorded");
        somebody_waits_for_a_scope(&registry).await
    })
    .await;
    let principal = Principal { id: 2, name: "proofmark".into() };
    let (manifest, subject, through) = (&image, &image, Through::Post);
    let carrier = Carrier { repository: &repository, principal: &principal, manifest, subject, through };
    let known = Known::read(&mut tx, repository.id, 100, &received).await.unwrap();
    attestation::record(&mut tx, carrier, &received[0], &known).await.unwrap();
    tx.commit().await.unwrap();
    registering.await.unwrap();
    assert_eq!(verdicts(&builder.attestations("app", &image).await), ["trusted"]);
    registry.check().await;
}
