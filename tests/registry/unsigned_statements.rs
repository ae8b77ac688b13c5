//! What build tools say of images without signing it is shown, and counts for nothing.

use crate::harness::{Client, PROVENANCE, Registry, expect, provenance};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SBOM: &str = "https://spdx.dev/Document";

/// A statement about a digest, without an envelope.
fn statement(about: &Digest, predicate_type: &str, predicate: &Value) -> Vec<u8> {
    json!({"_type": "https://in-toto.io/Statement/v0.1", "predicateType": predicate_type, "predicate": predicate,
        "subject": [{"name": "pkg:docker/cart@2?platform=linux%2Farm64", "digest": {"sha256": about.hex()}}]})
    .to_string()
    .into_bytes()
}

/// Pushes the manifest that BuildKit keeps statements in.
async fn push_document(client: &Client, statements: &[Vec<u8>]) -> Digest {
    let config = client.push_blob("cart", br#"{"architecture":"unknown","os":"unknown"}"#).await;
    let mut layers = Vec::new();
    for statement in statements {
        let digest = client.push_blob("cart", statement).await;
        layers.push(json!({"mediaType": "application/vnd.in-toto+json", "digest": digest,
                           "size": statement.len()}));
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": layers,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 41}});
    client.push_manifest_bytes("cart", None, manifest.to_string().as_bytes()).await
}

/// Pushes an index of an image with a document about it.
async fn push_index(client: &Client, image: &Digest, document: &Digest) -> Digest {
    let size = async |digest: &Digest| {
        let path = format!("/v2/cart/manifests/{digest}");
        client.get(&path).send().await.unwrap().bytes().await.unwrap().len()
    };
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": IMAGE, "digest": image, "size": size(image).await,
         "platform": {"os": "linux", "architecture": "arm64"}},
        {"mediaType": IMAGE, "digest": document, "size": size(document).await,
         "platform": {"os": "unknown", "architecture": "unknown"},
         "annotations": {"vnd.docker.reference.type": "attestation-manifest",
                         "vnd.docker.reference.digest": image}}]});
    client.push_manifest("cart", "2.0", INDEX, &index).await
}

#[tokio::test]
async fn what_buildkit_pushes_beside_an_image_is_listed_for_it_and_never_counts() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("cart", "the image").await;
    let predicate = provenance("https://ci.example/builder", "c0ffee");
    let statements =
        [statement(&image, PROVENANCE, &predicate), statement(&image, SBOM, &json!({"packages": []}))];
    let document = push_document(&builder, &statements).await;
    let index = push_index(&builder, &image, &document).await;
    let listed = builder.attestations("cart", &image).await;
    let shown: Vec<_> =
        listed.iter().map(|one| (&one["predicate_type"], &one["verdict"], &one["reason"])).collect();
    let (untrusted, reason) = (json!("untrusted"), json!("not signed"));
    let (provenance_type, sbom) = (json!(PROVENANCE), json!(SBOM));
    assert_eq!(shown.len(), 2, "{listed:?}");
    assert!(shown.contains(&(&provenance_type, &untrusted, &reason)), "{shown:?}");
    assert!(shown.contains(&(&sbom, &untrusted, &reason)), "{shown:?}");
    assert!(listed.iter().all(|one| one["manifest"] == json!(document) && one["signer"].is_null()));
    let one = listed.iter().find(|one| one["predicate_type"] == PROVENANCE).unwrap();
    let bytes = builder.get(&format!("/api/v1/attestations/{}", one["id"])).send().await.unwrap();
    assert_eq!(bytes.bytes().await.unwrap(), statements[0]);

    let gate = "provenance: {builders: ['https://ci.example/builder']}";
    registry.know_signer("ci").await;
    registry.environment("live", gate).await;
    let refused = expect(registry.admin().promote("cart", &index, "live").await, 409).await;
    assert!(!refused["gates"].to_string().contains("built by"), "{refused}");
    registry.check().await;
}

#[tokio::test]
async fn a_statement_is_listed_for_the_image_that_the_index_names_too() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("cart", "packed anew").await;
    let before = Digest::sha256(b"the image before it was packed anew");
    let document = push_document(&builder, &[statement(&before, PROVENANCE, &json!({}))]).await;
    assert_eq!(builder.attestations("cart", &before).await.len(), 1);
    assert_eq!(builder.attestations("cart", &image).await, [Value::Null; 0]);
    push_index(&builder, &image, &document).await;
    let listed = builder.attestations("cart", &image).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0]["verdict"], &listed[0]["reason"]), (&json!("untrusted"), &json!("not signed")));
    assert_eq!(listed[0]["subjects"], json!([before]));
    push_index(&builder, &image, &document).await;
    assert_eq!(builder.attestations("cart", &image).await.len(), 1, "pushed again it is the same");
    registry.check().await;
}

#[tokio::test]
async fn bytes_that_came_under_a_wrong_media_type_are_what_they_are_when_they_come_again() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("cart", "the image").await;
    let key = crate::harness::Signing::new(9);
    let envelope = key.statement(&image, PROVENANCE, &provenance("https://ci.example/builder", "c0ffee"));
    builder.push_referrer("cart", &image, "application/vnd.in-toto+json", &envelope).await;
    let other = builder.push_subject("cart", "another subject of the referrer").await;
    builder.push_referrer("cart", &other, "application/vnd.dsse.envelope.v1+json", &envelope).await;
    registry.admin().register_signer("ci", &key.pem(), &["**"]).await;
    let listed = builder.attestations("cart", &image).await;
    let trusted = listed.iter().filter(|one| one["verdict"] == "trusted").count();
    assert_eq!((listed.len(), trusted), (2, 1), "{listed:?}");

    let bare = statement(&image, SBOM, &json!({}));
    builder.push_referrer("cart", &other, "application/vnd.dsse.envelope.v1+json", &bare).await;
    push_document(&builder, &[bare, b"{}".to_vec(), b"no statement".to_vec()]).await;
    let listed = builder.attestations("cart", &image).await;
    assert_eq!(listed.iter().filter(|one| one["predicate_type"] == SBOM).count(), 1, "{listed:?}");
    registry.check().await;
}
