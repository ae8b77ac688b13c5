//! Deleting is a right of its own, and what is in use stays, with all that belongs to it.

use crate::harness::oci::{Document, refusal};
use crate::harness::{PROVENANCE, Registry, Signing, expect, provenance};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::json;

#[tokio::test]
async fn whoever_may_push_may_not_delete() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let document = Document::marked(1);
    ci.pushes("app", "1.0", &document).await;
    let blob = ci.push_blob("app", b"a blob").await;
    for path in ["manifests/1.0", &format!("manifests/{}", document.digest), &format!("blobs/{blob}")] {
        let (status, error) = refusal(ci.delete(&format!("/v2/app/{path}")).send().await.unwrap()).await;
        assert_eq!((status, error["code"].as_str()), (401, Some("UNAUTHORIZED")), "{path}");
    }
    assert_eq!(ci.digest_of("app", "1.0").await, Some(document.digest));
    registry.check().await;
}

#[tokio::test]
async fn the_evidence_and_the_parts_of_what_is_pinned_are_held_with_it() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let child = Document::marked("child");
    let index = Document::index(&[&child]);
    let about_child = child.referrer("application/vnd.example.sbom");
    let about_that = about_child.referrer("application/vnd.example.signature");
    let by_tag = Document::marked("a signature of cosign's");
    let signature = format!("{}.sig", index.digest.replace(':', "-"));
    for document in [&child, &index, &about_child, &about_that] {
        ci.pushes("app", &document.digest, document).await;
    }
    ci.pushes("app", &signature, &by_tag).await;
    let free = Document::marked("free");
    let about_free = free.referrer("application/vnd.example.sbom");
    for document in [&free, &about_free] {
        ci.pushes("app", &document.digest, document).await;
    }
    let mut sql = registry.sql().await;
    let home = proofmark::content::repository(&mut sql, &"app".parse().unwrap()).await.unwrap().unwrap();
    let digest: Digest = index.digest.parse().unwrap();
    proofmark::content::pin(&mut sql, home.id, &digest, "promoted to prod", None).await.unwrap();
    drop(sql);

    let held = json!({"belongs_to": {"digest": index.digest, "reason": "promoted to prod", "until": null}});
    for reference in [&child.digest, &about_child.digest, &about_that.digest, &by_tag.digest, &signature] {
        let answer = admin.delete(&format!("/v2/app/manifests/{reference}")).send().await.unwrap();
        let refused = expect(answer, 405).await;
        let error = &refused["errors"][0];
        assert_eq!(error["code"], "DENIED");
        assert!(error["detail"]["held_by"].as_array().unwrap().contains(&held), "{reference}: {error}");
    }
    assert_eq!(admin.deletes("app", &about_free.digest).await, 202, "what nothing needs goes");
    registry.check().await;
}

#[tokio::test]
async fn what_carries_the_evidence_of_a_promotion_stays_whatever_it_refers_to() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    registry
        .environment("prod", &format!("{{signed_by: {{any_of: [ci], predicate: '{PROVENANCE}'}}}}"))
        .await;
    let key = Signing::new(7);
    admin.register_signer("ci", &key.pem(), &["**"]).await;
    let digest = admin.push_release("app", "1.0", "one").await;
    let other = admin.push_release("app", "other", "other").await;
    let envelope = key.statement(&digest, PROVENANCE, &provenance("https://ci.example/builder", "0000000"));
    let carrier =
        admin.push_referrer("app", &other, "application/vnd.dsse.envelope.v1+json", &envelope).await;
    expect(admin.promote("app", &digest, "prod").await, 201).await;
    assert_eq!(admin.deletes("app", carrier.as_str()).await, 405, "the promotion stands on it");
    registry.check().await;
}
