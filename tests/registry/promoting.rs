//! Promoting: what the policy asks for, decided under locks, recorded, and decided again.

use crate::harness::oci::Document;
use crate::harness::{Found, Registry, expect, header};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// The gates that do not hold.
fn missed(answer: &Value) -> Vec<&str> {
    let gates = answer["gates"].as_array().unwrap().iter();
    gates.filter(|gate| gate["outcome"] != "pass").map(|gate| gate["gate"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_promotion_too_early_is_refused_with_every_reason_and_recorded() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("staging", "").await;
    registry.environment("prod", &WHOLE.replace("min_age: 0s", "min_age: 1h")).await;
    let digest = builder.push_release("app", "1.0", "one").await;
    let refused = expect(promoter.promote("app", &digest, "prod").await, 409).await;
    assert_eq!(refused["code"], "promotion-denied");
    assert_eq!(
        missed(&refused),
        ["signed_by", "provenance", "attestation", "scan", "promoted_in", "approvals", "min_age"]
    );
    for gate in refused["gates"].as_array().unwrap() {
        assert!(!gate["message"].as_str().unwrap().is_empty());
        assert!(gate["outcome"] == "pass" || gate["solution"].is_string(), "{gate}");
    }
    let decision = refused["decision"].as_str().unwrap();
    let stored = promoter.document(&format!("/api/v1/decisions/{decision}")).await;
    assert_eq!((&stored["verdict"], &stored["digest"]), (&json!("deny"), &json!(digest)));
    assert_eq!(expect(promoter.known_good("app", "prod").await, 404).await["code"], "no-known-good");
    registry.check().await;
}

const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// A policy that every gate of a release can meet at once.
const WHOLE: &str = "{signed_by: {any_of: [ci]}}, {provenance: {builders: ['https://ci.example/*'], branches: [main]}}, \
    {attestation: {type: 'https://in-toto.io/attestation/test-result/v0.1', result: PASSED}}, \
    {scan: {max_age: 24h, database_max_age: 72h, deny: {severity: high}}}, {promoted_in: {environments: [staging]}}, \
    {approvals: {count: 2}}, {min_age: 0s}";

async fn whole(registry: &Registry) -> Digest {
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("staging", "").await;
    registry.environment("prod", WHOLE).await;
    registry.know_signer("ci").await;
    let digest = builder.push_release("app", "1.0", "one").await;
    registry.state(&digest, "ci", COSIGN_SIGN, None).await;
    registry.state(&digest, "ci", PROVENANCE, None).await;
    registry.state(&digest, "ci", TEST_RESULT, Some("PASSED")).await;
    registry.scanned(&digest, "trivy", 5, &[Found { vulnerability: "CVE-1", severity: "low" }]).await;
    expect(promoter.promote("app", &digest, "staging").await, 201).await;
    for name in ["ann", "bob"] {
        let approver = registry.named(name, Role::Approver, "**", None).await;
        let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
        approver.post_document("/api/v1/approvals", &body, 201).await;
    }
    digest
}

#[tokio::test]
async fn a_release_that_meets_every_gate_is_promoted_with_a_signed_summary() {
    let registry = Registry::start().await;
    let digest = whole(&registry).await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let body = json!({"repository": "app", "version": "1.0", "environment": "prod", "reason": "release"});
    let made = promoter.post_document("/api/v1/promotions", &body, 201).await;
    assert_eq!((&made["digest"], &made["version"]), (&json!(digest), &json!("1.0")));
    assert_eq!(made["decision"]["verdict"], "allow");
    assert_eq!(made["decision"]["gates"].as_array().unwrap().len(), 9);

    let expected = proofmark::attestation::summary::Expectations {
        part: proofmark::attestation::summary::Part::Any,
        digest: &digest,
        kind: proofmark::attestation::summary::SubjectKind::Manifest,
        repository: &"app".parse().unwrap(),
        environment: &"prod".parse().unwrap(),
        level: Some("PROOFMARK_SIGNED_BY"),
        max_age: None,
        at: proofmark::clock::now(),
    };
    let summary = made["summary"].to_string();
    let trust = registry.app.keys.trust();
    let checked = proofmark::attestation::summary::check(summary.as_bytes(), trust, &expected).unwrap();
    assert_eq!(checked.resource_uri, "registry.example/env/prod/app");
    assert_eq!(json!(checked.valid_until), made["valid_until"]);
    let staging = proofmark::attestation::summary::Expectations {
        environment: &"staging".parse().unwrap(),
        ..expected
    };
    proofmark::attestation::summary::check(summary.as_bytes(), trust, &staging).unwrap_err();

    let listed = promoter.document("/api/v1/promotions?repository=app").await;
    let environments: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|p| &p["environment"]).collect();
    assert_eq!(environments, ["prod", "staging"]);
    registry.check().await;
}

#[tokio::test]
async fn each_fact_that_is_taken_away_is_a_no() {
    let registry = Registry::start().await;
    let digest = whole(&registry).await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let ask = async || expect(promoter.promote("app", &digest, "prod").await, 409).await;
    expect(promoter.promote("app", &digest, "prod").await, 201).await;

    let approvals = promoter.document("/api/v1/approvals?repository=app").await;
    let id = approvals["items"][0]["id"].as_i64().unwrap();
    let end = json!({"reason": "second thoughts"});
    promoter.post(&format!("/api/v1/approvals/{id}/revocation")).json(&end).send().await.unwrap();
    expect(promoter.promote("app", &digest, "prod").await, 201).await;
    registry.admin().post_document(&format!("/api/v1/approvals/{id}/revocation"), &end, 200).await;
    assert_eq!(missed(&ask().await), ["approvals"]);
    registry.admin().post_document(&format!("/api/v1/approvals/{id}/revocation"), &end, 404).await;

    registry.state(&digest, "ci", TEST_RESULT, Some("FAILED")).await;
    assert_eq!(missed(&ask().await), ["attestation", "approvals"]);
    registry.scanned(&digest, "grype", 1, &[Found { vulnerability: "CVE-2", severity: "critical" }]).await;
    assert_eq!(missed(&ask().await), ["attestation", "scan", "approvals"]);
    promoter.block("app", &digest, Some("staging")).await;
    assert_eq!(missed(&ask().await), ["attestation", "scan", "promoted_in", "approvals"]);
    promoter.block("app", &digest, None).await;
    assert_eq!(missed(&ask().await)[0], "not_blocked");
    registry.check().await;
}

#[tokio::test]
async fn a_soak_time_puts_off_and_says_for_how_long() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let soak = |span| format!("promoted_in: {{environments: [staging], soak: {span}}}");
    registry.environment("staging", "").await;
    registry.environment("prod", &soak("1h")).await;
    let first = builder.push_release("app", "1.0", "one").await;
    let second = builder.push_release("app", "1.1", "two").await;
    expect(promoter.promote("app", &first, "staging").await, 201).await;
    let early = promoter.promote("app", &first, "prod").await;
    let seconds: u64 = header(&early, "retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    let early = expect(early, 409).await;
    assert_eq!(early["code"], "promotion-deferred");
    // Promoting the same bytes again does not begin the soak anew.
    expect(promoter.promote("app", &first, "staging").await, 201).await;
    let again = expect(promoter.promote("app", &first, "prod").await, 409).await;
    assert_eq!((&again["code"], &again["until"]), (&early["code"], &early["until"]));
    // What another version replaced too soon did not soak, and will not by waiting.
    expect(promoter.promote("app", &second, "staging").await, 201).await;
    let replaced = expect(promoter.promote("app", &first, "prod").await, 409).await;
    assert_eq!(replaced["code"], "promotion-denied");
    // Whoever stood long enough passes, and may have been replaced since.
    registry.policy("prod", &soak("0s")).await;
    for digest in [&first, &second] {
        expect(promoter.promote("app", digest, "prod").await, 201).await;
    }
    registry.check().await;
}

#[tokio::test]
async fn approvals_count_different_people_and_not_the_author() {
    let registry = Registry::start().await;
    let author = registry.named("carol", Role::Admin, "**", None).await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("prod", "approvals: {count: 2, from: [ann, bob, carol]}").await;
    let digest = author.push_release("app", "1.0", "one").await;
    let approvers = [
        author.clone(),
        registry.named("ann", Role::Approver, "**", None).await,
        registry.named("ann", Role::Approver, "**", None).await,
        registry.named("mallory", Role::Approver, "**", None).await,
    ];
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
    for approver in &approvers {
        approver.post_document("/api/v1/approvals", &body, 201).await;
    }
    let refused = expect(promoter.promote("app", &digest, "prod").await, 409).await;
    let gate = &refused["gates"].as_array().unwrap().last().unwrap()["message"];
    for part in ["1 of 2", "ann", "carol is its author", "mallory is not among"] {
        assert!(gate.as_str().unwrap().contains(part), "{gate}");
    }
    let bob = registry.named("bob", Role::Approver, "**", None).await;
    bob.post_document("/api/v1/approvals", &body, 201).await;
    expect(promoter.promote("app", &digest, "prod").await, 201).await;
    registry.check().await;
}

#[tokio::test]
async fn a_hold_stops_promotions_until_it_is_lifted() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("prod", "").await;
    let digest = builder.push_release("app", "1.0", "one").await;
    let later = proofmark::clock::now() + chrono::TimeDelta::hours(1);
    for (scope, code) in [
        (json!({"environment": "prod"}), "promotion-denied"),
        (json!({"repository": "app"}), "promotion-denied"),
        (json!({"repository": "app", "environment": "prod", "until": later}), "promotion-deferred"),
    ] {
        let mut body = scope;
        body["reason"] = "incident".into();
        let id = promoter.post_document("/api/v1/holds", &body, 201).await["id"].as_i64().unwrap();
        let refused = expect(promoter.promote("app", &digest, "prod").await, 409).await;
        assert_eq!((&refused["code"], missed(&refused)), (&json!(code), vec!["not_held"]));
        let end = json!({"reason": "over"});
        promoter.post_document(&format!("/api/v1/holds/{id}/revocation"), &end, 200).await;
    }
    expect(promoter.promote("app", &digest, "prod").await, 201).await;
    registry.check().await;
}

#[tokio::test]
async fn every_recorded_decision_is_replayed_to_the_same_answer() {
    let registry = Registry::start().await;
    let digest = whole(&registry).await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let auditor = registry.client(Role::Auditor, "**").await;
    expect(promoter.promote("app", &digest, "prod").await, 201).await;
    registry.scanned(&digest, "trivy", 1, &[Found { vulnerability: "CVE-2", severity: "high" }]).await;
    expect(promoter.promote("app", &digest, "prod").await, 409).await;
    // Facts and policies of later do not matter to what was decided before.
    registry.policy("prod", "approvals: {count: 9}").await;
    promoter.block("app", &digest, None).await;
    expect(promoter.promote("app", &digest, "prod").await, 409).await;
    let ids: Vec<String> =
        sqlx::query_scalar("select id from decisions").fetch_all(&mut *registry.sql().await).await.unwrap();
    assert_eq!(ids.len(), 4);
    for id in &ids {
        let replayed =
            auditor.post_document(&format!("/api/v1/decisions/{id}/replay"), &json!({}), 200).await;
        assert_eq!((&replayed["same"], &replayed["differs"]), (&json!(true), &json!([])), "{replayed}");
    }
    let unknown = format!("/api/v1/decisions/{}/replay", Digest::sha256(b"none"));
    auditor.post_document(&unknown, &json!({}), 404).await;
    registry.check().await;
}

#[tokio::test]
async fn a_rollback_goes_to_the_newest_version_that_is_still_allowed_and_holds_the_lane() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("prod", "").await;
    let mut digests = Vec::new();
    for version in ["1.0", "1.1", "1.2"] {
        let digest = builder.push_release("app", version, version).await;
        expect(promoter.promote("app", &digest, "prod").await, 201).await;
        digests.push(digest);
    }
    promoter.block("app", &digests[1], None).await;
    let body = json!({"repository": "app", "environment": "prod", "reason": "errors since 1.2"});
    let back = promoter.post_document("/api/v1/rollbacks", &body, 201).await;
    assert_eq!((&back["digest"], &back["version"]), (&json!(digests[0]), &json!("1.0")));
    assert_eq!(expect(promoter.known_good("app", "prod").await, 200).await["digest"], json!(digests[0]));
    let refused = expect(promoter.promote("app", &digests[2], "prod").await, 409).await;
    assert_eq!(missed(&refused), ["not_held"]);
    let blocked = json!({"repository": "app", "environment": "prod", "reason": "x", "to": digests[1]});
    promoter.post_document("/api/v1/rollbacks", &blocked, 409).await;
    registry.check().await;
}

#[tokio::test]
async fn a_repeated_request_with_its_key_is_answered_and_not_done_again() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("prod", "").await;
    let digest = builder.push_release("app", "1.0", "one").await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod"});
    let send = async |body: &Value| {
        promoter
            .post("/api/v1/promotions")
            .header("idempotency-key", "build-7")
            .json(body)
            .send()
            .await
            .unwrap()
    };
    let first = expect(send(&body).await, 201).await;
    assert_eq!(expect(send(&body).await, 201).await, first);
    let listed = promoter.document("/api/v1/promotions?repository=app").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let other = json!({"repository": "app", "version": "1.0", "environment": "prod"});
    assert_eq!(expect(send(&other).await, 422).await["code"], "idempotency-key-reused");
    registry.check().await;
}

#[tokio::test]
async fn a_promoted_file_vouches_for_no_manifest_that_has_its_bytes() {
    use proofmark::attestation::summary::{Expectations, Refused, SubjectKind, check};
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("prod", "").await;
    let evil = Document::marked("evil");
    let path = "/api/v1/artifacts?repository=app&version=1.0&filename=config.json";
    let put = ci.put(path).body(evil.body.clone()).send().await.unwrap();
    let file: Digest = serde_json::from_value(expect(put, 201).await["digest"].take()).unwrap();
    let evil_digest: Digest = evil.digest.parse().unwrap();
    let trust = registry.app.keys.trust();
    let vouches = async |kind| {
        let made = expect(promoter.promote("app", &file, "prod").await, 201).await;
        let expected = Expectations {
            part: proofmark::attestation::summary::Part::Any,
            digest: &evil_digest,
            kind,
            repository: &"app".parse().unwrap(),
            environment: &"prod".parse().unwrap(),
            level: None,
            max_age: None,
            at: proofmark::clock::now(),
        };
        check(made["summary"].to_string().as_bytes(), trust, &expected).map(|_| ())
    };
    assert_eq!(vouches(SubjectKind::File).await, Ok(()));
    assert_eq!(vouches(SubjectKind::Manifest).await, Err(Refused::OnlyAFile(evil_digest.clone())));

    ci.pushes("other", "6.6.6", &evil).await;
    for kind in [SubjectKind::Manifest, SubjectKind::File] {
        assert_eq!(vouches(kind).await, Err(Refused::OtherSubject(evil_digest.clone())));
    }
    registry.check().await;
}
