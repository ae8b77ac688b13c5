//! The OpenAPI document that is checked in is the one that the service serves.

use crate::harness::Registry;

#[tokio::test]
async fn the_checked_in_document_is_the_served_one() {
    let registry = Registry::start().await;
    let served = registry.anyone().document("/api/v1/openapi.json").await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/proofmark.json");
    let text = std::fs::read_to_string(path).unwrap();
    let checked_in: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(served, checked_in, "run: proofmark openapi > openapi/proofmark.json");
    registry.check().await;
}
