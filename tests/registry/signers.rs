//! Signers: a key is its public key, revocations that only become stricter, and verification of what is pending.

use crate::attesting::{DSSE, TEST_RESULT, verdicts};
use crate::harness::{Client, PROVENANCE, Registry, Signing, eventually, expect, provenance, public_key};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proofmark::access::Role;
use proofmark::names::Digest;
use proofmark::{attestation, trust};
use serde_json::{Value, json};
use std::sync::Arc;

const STATEMENT: &str = "https://sigstore.dev/cosign/sign/v1";

fn signer(name: &str, pem: &str) -> Value {
    json!({"name": name, "public_key": pem, "repositories": ["**"], "predicate_types": ["**"]})
}

/// The same envelope with other hints of keys and the signature as often as there are hints.
fn hinted(envelope: &[u8], hints: &[&str]) -> Vec<u8> {
    let mut document: Value = serde_json::from_slice(envelope).unwrap();
    let signature = document["signatures"][0]["sig"].clone();
    document["signatures"] = hints.iter().map(|hint| json!({"keyid": hint, "sig": signature})).collect();
    document.to_string().into_bytes()
}

async fn revoke(admin: &Client, signer: &str, body: &Value, status: u16) -> Value {
    admin.post_document(&format!("/api/v1/signers/{signer}/revocation"), body, status).await
}

#[tokio::test]
async fn one_key_under_two_schemes_is_one_signer() {
    let registry = Registry::start().await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    admin.post_document("/api/v1/signers", &signer("alice", &key.pem()), 201).await;
    let mut other = signer("bob", &key.pem());
    other["scheme"] = json!("ed25519ph");
    let taken = admin.post_document("/api/v1/signers", &other, 409).await;
    assert_eq!(taken["code"], "signer-exists");
    assert!(taken["detail"].as_str().unwrap().contains("belongs to the signer alice"), "{taken}");

    let added = json!({"public_key": key.pem(), "schemes": ["ed25519ph"]});
    let alice = admin.post_document("/api/v1/signers/alice/keys", &added, 201).await;
    assert_eq!(alice["keys"].as_array().unwrap().len(), 1);
    assert_eq!(alice["keys"][0]["schemes"], json!(["ed25519", "ed25519ph"]));
    assert_eq!(admin.post_document("/api/v1/signers/alice/keys", &added, 201).await, alice, "the same again");
    admin.post_document("/api/v1/signers/nobody/keys", &added, 404).await;

    admin.register_signer("carol", &Signing::new(2).pem(), &["**"]).await;
    registry.environment("prod", "signed_by: {any_of: [alice, carol], at_least: 2}").await;
    let image = admin.push_release("app", "1.0", "one").await;
    admin.attest("app", &key.statement(&image, STATEMENT, &json!({})), 201).await;
    admin.attest("app", &key.prehashed(&image, STATEMENT, &json!({})), 201).await;
    let refused = expect(admin.promote("app", &image, "prod").await, 409).await;
    assert!(refused["detail"].to_string().contains("1 of 2 needed signatures"), "{refused}");
    admin.attest("app", &Signing::new(2).statement(&image, STATEMENT, &json!({})), 201).await;
    expect(admin.promote("app", &image, "prod").await, 201).await;

    // A revocation is of the key, by whatever scheme it signs.
    revoke(&admin, "alice", &json!({"reason": "stolen", "compromised": true}), 201).await;
    let next = admin.push_release("app", "2.0", "two").await;
    admin.attest("app", &key.prehashed(&next, STATEMENT, &json!({})), 422).await;
    registry.check().await;
}

#[tokio::test]
async fn every_encoding_of_a_key_is_that_key_or_refused_with_what_to_do() {
    let registry = Registry::start().await;
    let (admin, pem) = (registry.admin(), public_key("ci"));
    let first = admin.post_document("/api/v1/signers", &signer("one", &pem), 201).await;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    let block = |der: &[u8]| {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    };
    let mut compressed = der.clone();
    let parity = compressed[der.len() - 1] & 1;
    compressed.truncate(27 + 32);
    compressed[26] = 2 + parity;
    compressed[1] -= 32;
    compressed[24] -= 32;
    for same in [pem.replace('\n', "\r\n"), block(&der), block(&compressed)] {
        let taken = admin.post_document("/api/v1/signers", &signer("two", &same), 409).await;
        assert!(taken["detail"].as_str().unwrap().contains("belongs to the signer one"), "{same}: {taken}");
        let again = admin.post_document("/api/v1/signers", &signer("one", &same), 201).await;
        assert_eq!(again["key_id"], first["key_id"]);
    }
    let trailing = block(&[&der[..], b"x"].concat());
    for bad in [trailing, format!("{pem}{pem}"), format!("the key of ci\n{pem}")] {
        let refused = admin.post_document("/api/v1/signers", &signer("two", &bad), 422).await;
        assert!(refused["detail"].as_str().unwrap().contains("openssl"), "{refused}");
    }
    let mut keyless = signer("two", &pem);
    keyless["certificate"] = json!({"issuer": "https://ci.example", "identity": "https://ci.example/app"});
    let refused = admin.post_document("/api/v1/signers", &keyless, 422).await;
    assert!(refused["detail"].as_str().unwrap().contains("keyless"), "{refused}");
    registry.check().await;
}

#[tokio::test]
async fn one_signature_sent_twice_with_two_key_ids_is_one() {
    let registry = Registry::start().await;
    let (admin, key, other) = (registry.admin(), Signing::new(1), Signing::new(2));
    let mut key_ids = Vec::new();
    for (name, key) in [("one", &key), ("two", &other)] {
        let added = admin.post_document("/api/v1/signers", &signer(name, &key.pem()), 201).await;
        key_ids.push(added["key_id"].as_str().unwrap().to_owned());
    }
    registry.environment("prod", "signed_by: {any_of: [one, two], at_least: 2}").await;
    let image = admin.push_release("app", "1.0", "one").await;
    let envelope = key.statement(&image, STATEMENT, &json!({}));
    for hints in [&[key_ids[0].as_str()][..], &[key_ids[1].as_str()], &[&key_ids[0], &key_ids[1]]] {
        admin.attest("app", &hinted(&envelope, hints), 201).await;
    }
    let refused = expect(admin.promote("app", &image, "prod").await, 409).await;
    assert!(refused["detail"].to_string().contains("1 of 2 needed signatures"), "{refused}");
    registry.check().await;
}

#[tokio::test]
async fn a_rotated_key_can_be_called_compromised_later_and_never_the_other_way() {
    let registry = Registry::start().await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    admin.register_signer("ci", &key.pem(), &["**"]).await;
    registry.environment("prod", "signed_by: {any_of: [ci]}").await;
    let image = admin.push_release("app", "1.0", "one").await;
    admin.attest("app", &key.statement(&image, STATEMENT, &json!({})), 201).await;
    expect(admin.promote("app", &image, "prod").await, 201).await;

    let rotated = revoke(&admin, "ci", &json!({"reason": "rotated"}), 201).await;
    let resting = &rotated["rests_on"];
    assert_eq!((&resting["count"], &resting["ends"]), (&json!(1), &json!(0)), "{rotated}");
    assert_eq!(resting["versions"][0]["gates"], json!(["signed_by"]));
    expect(admin.known_good("app", "prod").await, 200).await;
    let again = revoke(&admin, "ci", &json!({"reason": "again"}), 409).await;
    assert_eq!(again["code"], "signer-revoked");
    assert!(again["detail"].as_str().unwrap().contains("distrusted from"), "{again}");

    let stolen = json!({"reason": "was stolen", "compromised": true});
    let path = "/api/v1/signers/ci/revocation?dry_run=true";
    let shown = admin.post_document(path, &stolen, 200).await;
    assert_eq!((&shown["dry_run"], &shown["rests_on"]["ends"]), (&json!(true), &json!(1)), "{shown}");
    assert_eq!(shown["rests_on"]["versions"][0]["consequence"], "ends");
    expect(admin.known_good("app", "prod").await, 200).await;

    let done = revoke(&admin, "ci", &stolen, 201).await;
    assert_eq!(done["rests_on"], shown["rests_on"], "as it was shown before");
    assert_eq!(done["revocation"]["compromised"], true);
    assert_eq!(done["revocation"]["distrusted_from"], rotated["revocation"]["distrusted_from"]);
    expect(admin.known_good("app", "prod").await, 404).await;
    let softer = json!({"reason": "only rotated", "at": "2999-01-01T00:00:00Z"});
    let softer = revoke(&admin, "ci", &softer, 409).await;
    assert!(softer["detail"].as_str().unwrap().contains("compromised"), "{softer}");
    let earlier =
        revoke(&admin, "ci", &json!({"reason": "earlier", "at": "2020-01-01T00:00:00Z"}), 201).await;
    assert_eq!(earlier["revocation"]["distrusted_from"], "2020-01-01T00:00:00Z");
    assert_eq!(earlier["keys"][0]["revocations"].as_array().unwrap().len(), 3);
    registry.check().await;
}

#[tokio::test]
async fn a_signer_rotates_its_key_with_an_overlap_and_each_is_revoked_alone() {
    let registry = Registry::start().await;
    let (admin, old, new) = (registry.admin(), Signing::new(1), Signing::new(2));
    let first = admin.register_signer("ci", &old.pem(), &["**"]).await;
    registry.environment("prod", "signed_by: {any_of: [ci]}").await;
    let both = admin.push_release("app", "1.0", "one").await;
    admin.attest("app", &old.statement(&both, STATEMENT, &json!({})), 201).await;
    // What the next key signed waits for it.
    let builder = registry.client(Role::Pusher, "**").await;
    builder.push_referrer("app", &both, DSSE, &new.statement(&both, STATEMENT, &json!({"n": 1}))).await;
    let added = json!({"public_key": new.pem(), "valid_until": "2998-01-01T00:00:00Z"});
    let ci = admin.post_document("/api/v1/signers/ci/keys", &added, 201).await;
    assert_eq!((&ci["status"], ci["keys"].as_array().unwrap().len()), (&json!("active"), 2));
    assert_eq!(verdicts(&builder.attestations("app", &both).await), ["trusted", "trusted"]);
    expect(admin.promote("app", &both, "prod").await, 201).await;

    let unknown = json!({"reason": "r", "key_id": "00"});
    assert_eq!(revoke(&admin, "ci", &unknown, 404).await["code"], "unknown-key");
    let stolen = json!({"reason": "stolen", "key_id": first["key_id"], "compromised": true});
    let revoked = revoke(&admin, "ci", &stolen, 201).await;
    assert_eq!(revoked["revoked_keys"], json!([first["key_id"]]));
    assert_eq!(
        (&revoked["rests_on"]["count"], &revoked["rests_on"]["ends"]),
        (&json!(1), &json!(0)),
        "{revoked}"
    );
    assert_eq!(verdicts(&builder.attestations("app", &both).await), ["trusted", "untrusted"]);
    expect(admin.known_good("app", "prod").await, 200).await;
    let next = admin.push_release("app", "2.0", "two").await;
    admin.attest("app", &new.statement(&next, STATEMENT, &json!({})), 201).await;
    expect(admin.promote("app", &next, "prod").await, 201).await;

    let shorter = json!({"public_key": new.pem(), "valid_until": "2997-01-01T00:00:00Z"});
    let refused = admin.post_document("/api/v1/signers/ci/keys", &shorter, 409).await;
    assert_eq!(refused["code"], "validity-shortened");
    let longer = json!({"public_key": new.pem(), "valid_until": "2999-01-01T00:00:00Z"});
    let ci = admin.post_document("/api/v1/signers/ci/keys", &longer, 201).await;
    assert_eq!(ci["keys"][1]["valid_until"], "2999-01-01T00:00:00Z");
    let all = revoke(&admin, "ci", &json!({"reason": "the team left", "compromised": true}), 201).await;
    assert_eq!((&all["rests_on"]["ends"], &all["rests_on"]["count"]), (&json!(1), &json!(1)), "{all}");
    registry.check().await;
}

#[tokio::test]
async fn two_signers_of_an_earlier_version_with_one_key_stay_and_count_once() {
    let registry = Registry::start().await;
    let (admin, key, other) = (registry.admin(), Signing::new(1), Signing::new(2));
    admin.register_signer("alice", &key.pem(), &["**"]).await;
    admin.register_signer("bob", &other.pem(), &["**"]).await;
    registry
        .tamper(
            "update signer_identities set is_canonical = false, public_key_pem = (
               select public_key_pem from signer_identities order by id limit 1)",
        )
        .await;
    trust::take_over(&registry.app.db).await.unwrap();
    trust::take_over(&registry.app.db).await.unwrap();
    let listed = admin.document("/api/v1/signers").await;
    let (alice, bob) = (&listed["items"][0], &listed["items"][1]);
    assert_eq!(alice["key_id"], bob["key_id"]);
    assert_eq!(
        (&alice["keys"][0]["shares_key_with"], &bob["keys"][0]["shares_key_with"]),
        (&json!("bob"), &json!("alice"))
    );
    assert!(bob["warnings"][0].as_str().unwrap().contains("alice has the same key"), "{bob}");
    registry.environment("prod", "signed_by: {any_of: [alice, bob], at_least: 2}").await;
    registry.environment("staging", "signed_by: {any_of: [bob]}").await;
    let image = admin.push_release("app", "1.0", "one").await;
    admin.attest("app", &key.statement(&image, STATEMENT, &json!({})), 201).await;
    let refused = expect(admin.promote("app", &image, "prod").await, 409).await;
    let detail = refused["detail"].to_string();
    assert!(detail.contains("1 of 2 needed") && detail.contains("share a key"), "{refused}");
    expect(admin.promote("app", &image, "staging").await, 201).await;

    // A key is revoked, under whichever name, and not only one of its signers.
    let rotated = json!({"reason": "rotated"});
    let shown = admin.post_document("/api/v1/signers/alice/revocation?dry_run=true", &rotated, 200).await;
    let done = revoke(&admin, "alice", &rotated, 201).await;
    assert_eq!((&shown["also_revoked"], &done["also_revoked"]), (&json!(["bob"]), &json!(["bob"])));
    let stolen = json!({"reason": "stolen", "compromised": true, "key_id": alice["key_id"]});
    let done = revoke(&admin, "alice", &stolen, 201).await;
    assert_eq!((&done["rests_on"]["count"], &done["rests_on"]["ends"]), (&json!(1), &json!(1)), "{done}");
    assert_eq!(admin.document("/api/v1/signers/bob").await["revocation"]["compromised"], true);
    expect(admin.known_good("app", "staging").await, 404).await;
    expect(admin.promote("app", &image, "staging").await, 409).await;
    assert_eq!(revoke(&admin, "bob", &stolen, 409).await["code"], "signer-revoked");
    registry.check().await;
}

#[tokio::test]
async fn a_key_that_was_revoked_for_one_of_its_signers_is_revoked_for_both_when_it_is_taken_over() {
    let registry = Registry::start().await;
    let (admin, key, other) = (registry.admin(), Signing::new(1), Signing::new(2));
    admin.register_signer("alice", &key.pem(), &["**"]).await;
    admin.register_signer("bob", &other.pem(), &["**"]).await;
    registry.environment("prod", "signed_by: {any_of: [bob]}").await;
    revoke(&admin, "alice", &json!({"reason": "stolen", "compromised": true}), 201).await;
    registry
        .tamper(
            "update signer_identities set is_canonical = false, public_key_pem = (
               select public_key_pem from signer_identities order by id limit 1)",
        )
        .await;
    trust::take_over(&registry.app.db).await.unwrap();
    let bob = admin.document("/api/v1/signers/bob").await;
    assert_eq!(bob["revocation"]["compromised"], true, "{bob}");
    assert!(bob["revocation"]["reason"].as_str().unwrap().contains("alice has the same key"), "{bob}");
    let image = admin.push_release("app", "1.0", "one").await;
    admin.attest("app", &key.statement(&image, STATEMENT, &json!({})), 422).await;
    expect(admin.promote("app", &image, "prod").await, 409).await;
    trust::take_over(&registry.app.db).await.unwrap();
    assert_eq!(admin.document("/api/v1/signers/bob").await, bob, "once");
    registry.check().await;
}

/// Pushes one referrer with many envelopes as layers.
async fn push_many(client: &Client, repository: &str, subject: &Digest, envelopes: &[Vec<u8>]) {
    let config = client.push_blob(repository, b"{}").await;
    let mut layers = Vec::new();
    for envelope in envelopes {
        let digest = client.push_blob(repository, envelope).await;
        layers.push(json!({"mediaType": DSSE, "digest": digest, "size": envelope.len()}));
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": DSSE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": layers,
        "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1}});
    client.push_manifest_bytes(repository, None, manifest.to_string().as_bytes()).await;
}

/// Statements of a stranger.
fn strange(subject: &Digest, count: u32) -> Vec<Vec<u8>> {
    let stranger = Signing::new(99);
    (0..count).map(|number| stranger.statement(subject, STATEMENT, &json!({"n": number}))).collect()
}

async fn identity_of(registry: &Registry, name: &str) -> String {
    let id: i64 = sqlx::query_scalar(
        "select k.id from signer_identities k join signers s on s.id = k.signer_id where s.name = $1",
    )
    .bind(name)
    .fetch_one(&mut *registry.sql().await)
    .await
    .unwrap();
    id.to_string()
}

#[tokio::test]
async fn a_signer_counts_for_and_against_once_what_is_pending_was_verified_by_its_key() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    let (admin, ci, late) = (registry.admin(), Signing::new(1), Signing::new(2));
    admin.register_signer("ci", &ci.pem(), &["**"]).await;
    let gate = format!("attestation: {{type: {TEST_RESULT}, by: [ci, late], result: PASSED}}");
    registry.environment("prod", &gate).await;
    registry.environment("signed", "signed_by: {any_of: [late]}").await;
    let image = admin.push_release("app", "1.0", "one").await;
    let result = |key: &Signing, word: &str| {
        key.statement(&image, TEST_RESULT, &json!({"result": word, "configuration": []}))
    };
    admin.attest("app", &result(&ci, "PASSED"), 201).await;
    expect(admin.promote("app", &image, "prod").await, 201).await;
    let mut pending = strange(&image, 130);
    pending.push(result(&late, "FAILED"));
    push_many(&registry.client(Role::Pusher, "**").await, "app", &image, &pending).await;

    let late_signer = admin.post_document("/api/v1/signers", &signer("late", &late.pem()), 201).await;
    assert_eq!(late_signer["status"], "verifying");
    let deferred = expect(admin.promote("app", &image, "signed").await, 409).await;
    let gates = deferred["gates"].as_array().unwrap().clone();
    let deferred = gates.iter().find(|gate| gate["gate"] == "signed_by").unwrap();
    assert_eq!(deferred["outcome"], "wait", "{deferred}");
    expect(admin.known_good("app", "prod").await, 200).await;
    // What comes meanwhile is kept for the key too, and counts for nothing yet.
    let meanwhile = admin.attest("app", &late.statement(&image, STATEMENT, &json!({})), 201).await;
    assert!(meanwhile[0]["warnings"][0].as_str().unwrap().contains("is being verified"), "{meanwhile}");
    let listed = admin.attestations("app", &image).await;
    assert_eq!(listed[0]["verdict"], "pending", "{}", listed[0]);
    expect(admin.promote("app", &image, "signed").await, 409).await;

    // Two replicas do the same job at once, and a third does it again.
    let identity = identity_of(&registry, "late").await;
    let db = &registry.app.db;
    let (one, other) =
        tokio::join!(attestation::verify_key(db, &identity, 1), attestation::verify_key(db, &identity, 1));
    one.unwrap();
    other.unwrap();
    attestation::verify_key(db, &identity, 2).await.unwrap();
    assert_eq!(admin.document("/api/v1/signers/late").await["status"], "active");
    expect(admin.known_good("app", "prod").await, 200).await;
    expect(admin.promote("app", &image, "signed").await, 201).await;
    let refused = expect(admin.promote("app", &image, "prod").await, 409).await;
    assert!(refused["detail"].to_string().contains("FAILED"), "{refused}");
    let of_late = admin.document("/api/v1/attestations?repository=app&signer=late").await;
    assert_eq!(verdicts(of_late["items"].as_array().unwrap()), ["trusted"; 2]);
    registry.check().await;
}

#[tokio::test]
async fn a_scheme_that_is_added_while_a_key_is_verified_loses_nothing() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    let image = admin.push_release("app", "1.0", "one").await;
    let mut pending = strange(&image, 120);
    pending.insert(0, key.statement(&image, STATEMENT, &json!({})));
    pending.insert(1, key.prehashed(&image, PROVENANCE, &provenance("b", "c")));
    push_many(&registry.client(Role::Pusher, "**").await, "app", &image, &pending).await;
    admin.post_document("/api/v1/signers", &signer("ci", &key.pem()), 201).await;
    let added = json!({"public_key": key.pem(), "scheme": "ed25519ph"});
    let ci = admin.post_document("/api/v1/signers/ci/keys", &added, 201).await;
    assert_eq!(ci["status"], "verifying");
    let identity = identity_of(&registry, "ci").await;
    attestation::verify_key(&registry.app.db, &identity, 1).await.unwrap();
    let of_ci = admin.document("/api/v1/attestations?repository=app&signer=ci").await;
    assert_eq!(verdicts(of_ci["items"].as_array().unwrap()), ["trusted"; 2]);
    let by_commit = admin
        .document(
            "/api/v1/attestations?repository=app&material=git%2Bhttps://git.example/team/app@refs/heads/main",
        )
        .await;
    assert_eq!(by_commit["items"].as_array().unwrap().len(), 1, "{by_commit}");
    registry.check().await;
}

/// A signer with more pending envelopes than a request verifies, all of its own, of which a job has tried all without
/// coming to its end.
async fn nearly_verified(registry: &Registry, key: &Signing) -> (Client, Digest, String) {
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("app", "one").await;
    let own: Vec<_> = (0..110).map(|n| key.statement(&image, STATEMENT, &json!({"number": n}))).collect();
    push_many(&builder, "app", &image, &own).await;
    let registered = registry.admin().post_document("/api/v1/signers", &signer("ci", &key.pem()), 201).await;
    assert_eq!(registered["status"], "verifying");
    let identity = identity_of(registry, "ci").await;
    let mut sql = registry.sql().await;
    sqlx::raw_sql(
        "create function refused() returns trigger language plpgsql as $$ begin raise exception 'not yet'; end $$;
         create trigger refused before update on signer_identities for each row
           when (new.active_schemes <> old.active_schemes) execute function refused()",
    )
    .execute(&mut *sql)
    .await
    .unwrap();
    while attestation::verify_key(&registry.app.db, &identity, 1).await.is_ok() {}
    sqlx::raw_sql("drop trigger refused on signer_identities; drop function refused()")
        .execute(&mut *sql)
        .await
        .unwrap();
    (builder, image, identity)
}

#[tokio::test]
async fn a_scheme_that_is_added_just_before_a_key_counts_loses_nothing() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    let key = Signing::new(1);
    let (_, _, identity) = nearly_verified(&registry, &key).await;
    let admin = registry.admin();
    let added = json!({"public_key": key.pem(), "scheme": "ed25519ph"});
    let ci = admin.post_document("/api/v1/signers/ci/keys", &added, 201).await;
    assert_eq!(ci["status"], "active", "nothing is pending");
    attestation::verify_key(&registry.app.db, &identity, 1).await.unwrap();
    let of_ci = admin.document("/api/v1/attestations?repository=app&signer=ci&limit=200").await;
    assert_eq!(verdicts(of_ci["items"].as_array().unwrap()), ["trusted"; 110]);
    registry.check().await;
}

#[tokio::test]
async fn what_a_slower_worker_leaves_behind_says_nothing_of_a_revoked_key() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    let key = Signing::new(1);
    let (builder, image, identity) = nearly_verified(&registry, &key).await;
    attestation::verify_key(&registry.app.db, &identity, 1).await.unwrap();
    registry
        .tamper(
            "insert into attestation_signatures_found(identity_id, attestation_id, scheme)
             select identity_id, attestation_id, 'ed25519' from attestation_signatures",
        )
        .await;
    assert_eq!(verdicts(&builder.attestations("app", &image).await)[0], "trusted");
    revoke(&registry.admin(), "ci", &json!({"reason": "stolen", "compromised": true}), 201).await;
    assert_eq!(verdicts(&builder.attestations("app", &image).await)[0], "untrusted");
    registry.check().await;
}

#[tokio::test]
async fn a_database_that_fails_makes_no_envelope_malformed() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("app", "one").await;
    let own: Vec<_> = (0..110).map(|n| key.statement(&image, STATEMENT, &json!({"number": n}))).collect();
    push_many(&builder, "app", &image, &own).await;
    admin.post_document("/api/v1/signers", &signer("ci", &key.pem()), 201).await;
    let identity = identity_of(&registry, "ci").await;
    let mut sql = registry.sql().await;
    sqlx::raw_sql("alter table envelopes rename column media_type to elsewhere")
        .execute(&mut *sql)
        .await
        .unwrap();
    for attempt in 1..=9 {
        attestation::verify_key(&registry.app.db, &identity, attempt).await.unwrap_err();
    }
    sqlx::raw_sql("alter table envelopes rename column elsewhere to media_type")
        .execute(&mut *sql)
        .await
        .unwrap();
    attestation::verify_key(&registry.app.db, &identity, 10).await.unwrap();
    let of_ci = admin.document("/api/v1/attestations?repository=app&signer=ci&limit=200").await;
    assert_eq!(verdicts(of_ci["items"].as_array().unwrap()), ["trusted"; 110]);
    registry.check().await;
}

#[tokio::test]
async fn a_signer_that_is_registered_again_waits_for_no_evidence() {
    let registry = Registry::start().await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    let first = admin.post_document("/api/v1/signers", &signer("ci", &key.pem()), 201).await;
    // As evidence holds it that is being recorded.
    let mut evidence = registry.sql().await;
    sqlx::raw_sql("begin; select pg_advisory_xact_lock_shared(9, 0)").execute(&mut *evidence).await.unwrap();
    assert_eq!(admin.post_document("/api/v1/signers", &signer("ci", &key.pem()), 201).await, first);
    let key = json!({"public_key": key.pem()});
    assert_eq!(admin.post_document("/api/v1/signers/ci/keys", &key, 201).await, first);
    sqlx::raw_sql("rollback").execute(&mut *evidence).await.unwrap();
    registry.check().await;
}

#[tokio::test]
async fn every_envelope_that_is_pushed_while_its_signer_is_registered_counts_in_the_end() {
    let registry = Registry::start().await;
    let (admin, key) = (registry.admin(), Arc::new(Signing::new(1)));
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("app", "one").await;
    push_many(&builder, "app", &image, &strange(&image, 150)).await;
    let pushes = (0..24).map(|number| {
        let (builder, key, image) = (builder.clone(), Arc::clone(&key), image.clone());
        tokio::spawn(async move {
            let envelope = key.statement(&image, STATEMENT, &json!({"number": number}));
            builder.push_referrer("app", &image, DSSE, &envelope).await
        })
    });
    let pushes: Vec<_> = pushes.collect();
    let registered = admin.post_document("/api/v1/signers", &signer("ci", &key.pem()), 201).await;
    assert!(registered["status"].is_string());
    for push in pushes {
        push.await.unwrap();
    }
    eventually("the signer is active", async || {
        admin.document("/api/v1/signers/ci").await["status"] == "active"
    })
    .await;
    let of_ci = admin.document("/api/v1/attestations?repository=app&signer=ci&limit=100").await;
    assert_eq!(verdicts(of_ci["items"].as_array().unwrap()), ["trusted"; 24]);
    registry.check().await;
}

#[tokio::test]
async fn an_envelope_that_cannot_be_read_is_malformed_and_holds_no_signer_back() {
    let registry = Registry::start().await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("app", "one").await;
    builder.push_referrer("app", &image, DSSE, &key.statement(&image, STATEMENT, &json!({}))).await;
    push_many(&builder, "app", &image, &strange(&image, 1)).await;
    let restore: Vec<u8> = sqlx::query_scalar("select body from envelopes order by digest limit 1")
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap();
    registry
        .tamper("update envelopes set body = 'broken' where digest = (select min(digest) from envelopes)")
        .await;
    let added = admin.post_document("/api/v1/signers", &signer("ci", &key.pem()), 201).await;
    assert_eq!(added["status"], "active");
    let listed = admin.attestations("app", &image).await;
    let malformed: Vec<&Value> = listed.iter().filter(|one| one["verdict"] == "malformed").collect();
    assert_eq!(malformed.len(), 1, "{listed:?}");
    assert!(malformed[0]["reason"].as_str().unwrap().contains("cannot be read"), "{listed:?}");
    sqlx::query("update envelopes set body = $1 where body = 'broken'")
        .bind(restore)
        .execute(&mut *registry.sql().await)
        .await
        .unwrap();
    registry.check().await;
}

#[tokio::test]
async fn a_repository_has_so_many_pending_envelopes_and_pushes_go_on() {
    let registry = Registry::with(|settings| settings.max_pending_envelopes = Some(3)).await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("app", "one").await;
    let other = builder.push_subject("other", "one").await;
    push_many(&builder, "app", &image, &strange(&image, 5)).await;
    let late = key.statement(&image, STATEMENT, &json!({}));
    builder.push_referrer("app", &image, DSSE, &late).await;
    builder.push_referrer("other", &other, DSSE, &key.statement(&other, STATEMENT, &json!({}))).await;
    let listed = builder.attestations("app", &image).await;
    assert_eq!(verdicts(&listed), ["untrusted"; 6]);
    let reason = listed[0]["reason"].as_str().unwrap();
    assert!(reason.contains("3 pending envelopes") && reason.contains("post it again"), "{reason}");
    let pending: i64 = sqlx::query_scalar("select count(*) from attestations_waiting")
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap();
    assert_eq!(pending, 4, "three here and one of the other repository");
    admin.post_document("/api/v1/signers", &signer("ci", &key.pem()), 201).await;
    assert_eq!(verdicts(&builder.attestations("other", &other).await), ["trusted"]);
    assert_eq!(verdicts(&builder.attestations("app", &image).await)[0], "untrusted");
    admin.attest("app", &late, 201).await;
    assert_eq!(verdicts(&builder.attestations("app", &image).await)[0], "trusted");
    registry.check().await;
}

#[tokio::test]
async fn a_signer_is_verified_by_what_is_in_its_scope_only() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    let admin = registry.admin();
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("flood/app", "one").await;
    push_many(&builder, "flood/app", &image, &strange(&image, 150)).await;
    let mut elsewhere = signer("ci", &Signing::new(1).pem());
    elsewhere["repositories"] = json!(["team/*"]);
    assert_eq!(admin.post_document("/api/v1/signers", &elsewhere, 201).await["status"], "active");
    registry.check().await;
}
