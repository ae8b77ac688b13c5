//! Rolling back: step by step, never forward, and what it says of the version it left.

use crate::harness::{Client, Found, Registry, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

struct Scene {
    registry: Registry,
    admin: Client,
}

async fn scene() -> Scene {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    Scene { admin: registry.admin(), registry }
}

impl Scene {
    async fn promoted(&self, versions: &[&str]) -> Vec<Digest> {
        let mut digests = Vec::new();
        for version in versions {
            let digest = self.admin.push_release("app", version, version).await;
            expect(self.admin.promote("app", &digest, "prod").await, 201).await;
            digests.push(digest);
        }
        digests
    }

    async fn back(&self, to: Option<&Digest>, status: u16) -> Value {
        let body = json!({"repository": "app", "environment": "prod", "reason": "errors", "to": to});
        self.admin.post_document("/api/v1/rollbacks", &body, status).await
    }

    async fn known_good(&self) -> Value {
        expect(self.admin.known_good("app", "prod").await, 200).await["digest"].take()
    }
}

#[tokio::test]
async fn rollbacks_go_back_step_by_step_and_never_forward() {
    let scene = scene().await;
    let versions = scene.promoted(&["1.0", "1.1", "1.2"]).await;
    assert_eq!(scene.back(None, 201).await["digest"], json!(versions[1]));
    let way = "/api/v1/known-good?repository=app&environment=prod&for=rollback";
    assert_eq!(scene.admin.document(way).await["digest"], json!(versions[0]));
    let forward = scene.back(Some(&versions[2]), 409).await;
    assert_eq!(forward["code"], "nothing-to-go-back-to");
    assert!(forward["detail"].as_str().unwrap().contains("a rollback went away from it"), "{forward}");

    assert_eq!(scene.back(None, 201).await["digest"], json!(versions[0]));
    assert_eq!(scene.back(None, 409).await["code"], "nothing-to-go-back-to");
    let holds = scene.admin.document("/api/v1/holds?repository=app&environment=prod").await;
    assert_eq!(holds["items"].as_array().unwrap().len(), 1, "{holds}");

    let lift = format!("/api/v1/holds/{}/revocation", holds["items"][0]["id"]);
    scene.admin.post_document(&lift, &json!({"reason": "mended"}), 200).await;
    expect(scene.admin.promote("app", &versions[2], "prod").await, 201).await;
    assert_eq!(scene.back(None, 201).await["digest"], json!(versions[0]), "what it stood on before");
    scene.registry.check().await;
}

#[tokio::test]
async fn the_hold_of_a_rollback_is_known_by_its_origin_and_not_by_its_reason() {
    let scene = scene().await;
    scene.promoted(&["1.0", "1.1", "1.2"]).await;
    let body = json!({"repository": "app", "environment": "prod", "reason": "rolled back: by hand"});
    let manual = scene.admin.post_document("/api/v1/holds", &body, 201).await;
    assert_eq!(manual["origin"], "manual");
    scene.back(None, 201).await;
    let holds = "/api/v1/holds?repository=app&environment=prod";
    let of = |holds: &Value| -> Vec<String> {
        holds["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hold| hold["origin"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        of(&scene.admin.document(holds).await),
        ["rollback", "manual"],
        "its own hold beside the other"
    );
    let lift = format!("/api/v1/holds/{}/revocation", manual["id"]);
    scene.admin.post_document(&lift, &json!({"reason": "over"}), 200).await;
    scene.back(None, 201).await;
    assert_eq!(of(&scene.admin.document(holds).await), ["rollback"], "one is enough");
    scene.registry.check().await;
}

#[tokio::test]
async fn what_was_gone_back_from_is_never_the_answer_when_the_next_is_blocked() {
    let scene = scene().await;
    let versions = scene.promoted(&["1.0", "1.1", "1.2"]).await;
    scene.back(None, 201).await;
    scene.admin.block("app", &versions[1], None).await;
    assert_eq!(scene.known_good().await, json!(versions[0]));
    scene.registry.check().await;
}

#[tokio::test]
async fn to_and_fro_and_back_is_not_where_it_came_from() {
    let scene = scene().await;
    let versions = scene.promoted(&["1.0", "1.1"]).await;
    expect(scene.admin.promote("app", &versions[0], "prod").await, 201).await;
    assert_eq!(scene.back(None, 201).await["digest"], json!(versions[1]));
    scene.back(None, 409).await;
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert_eq!((&good["digest"], &good["previous"]), (&json!(versions[1]), &Value::Null));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_known_critical_vulnerability_is_never_brought_back_unasked() {
    let scene = scene().await;
    let versions = scene.promoted(&["1.0", "1.1"]).await;
    let found = [Found { vulnerability: "CVE-2021-44228", severity: "critical" }];
    scene.registry.scanned(&versions[0], "trivy", 5, &found).await;
    let refused = scene.back(None, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("CVE-2021-44228"), "{refused}");
    assert_eq!(scene.back(Some(&versions[0]), 201).await["digest"], json!(versions[0]));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_stay_that_a_rollback_ended_is_no_proof_elsewhere() {
    let scene = scene().await;
    scene.registry.environment("next", "{promoted_in: {environments: [prod]}}").await;
    let versions = scene.promoted(&["1.0", "1.1"]).await;
    scene.back(None, 201).await;
    let refused = expect(scene.admin.promote("app", &versions[1], "next").await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("prod went back from it"), "{refused}");
    expect(scene.admin.promote("app", &versions[0], "next").await, 201).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_block_on_a_child_counts_in_the_environment_that_is_looked_back_to() {
    let scene = scene().await;
    scene.registry.environment("next", "{promoted_in: {environments: [prod]}}").await;
    let child = scene.admin.push_release("app", "1.0-amd64", "amd64").await;
    let index = scene.admin.push_index("app", "1.0", &[(&child, "linux/amd64")]).await;
    expect(scene.admin.promote("app", &index, "prod").await, 201).await;
    scene.admin.block("app", &child, Some("prod")).await;
    let refused = expect(scene.admin.promote("app", &index, "next").await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("blocked in prod"), "{refused}");
    scene.registry.check().await;
}

#[tokio::test]
async fn who_made_a_part_of_an_index_does_not_approve_it() {
    let scene = scene().await;
    scene.registry.policy("prod", "{approvals: {count: 1}}").await;
    let author = scene.registry.named("dora", Role::Pusher, "**", None).await;
    scene.registry.named("dora", Role::Approver, "**", None).await;
    let child = author.push_release("app", "1.0-amd64", "amd64").await;
    let index = scene.admin.push_index("app", "1.0", &[(&child, "linux/amd64")]).await;
    let approval = json!({"repository": "app", "digest": index, "environment": "prod", "reason": "mine"});
    author.post_document("/api/v1/approvals", &approval, 201).await;
    expect(scene.admin.promote("app", &index, "prod").await, 409).await;
    let other = scene.registry.named("eve", Role::Approver, "**", None).await;
    other.post_document("/api/v1/approvals", &approval, 201).await;
    expect(scene.admin.promote("app", &index, "prod").await, 201).await;
    scene.registry.check().await;
}
