//! Results of tests and verifications: statements that say no, and the order in which results count.

use crate::attesting::{DSSE, TEST_RESULT};
use crate::harness::{Client, Registry, Shell, Signing, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

const SUMMARY: &str = "https://slsa.dev/verification_summary/v1";

/// An image, a signer `ci`, and a policy for production.
struct Scene {
    registry: Registry,
    admin: Client,
    key: Signing,
    image: Digest,
}

async fn scene(gates: &str) -> Scene {
    let registry = Registry::start().await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    admin.register_signer("ci", &key.pem(), &["**"]).await;
    registry.environment("prod", gates).await;
    let image = admin.push_release("app", "1.0", "one").await;
    Scene { registry, admin, key, image }
}

impl Scene {
    /// A signed result of the test `e2e`; each number is another statement.
    fn result(&self, word: &str, number: u8) -> Vec<u8> {
        let predicate = json!({"result": word, "configuration": [{"name": "e2e"}], "number": number});
        self.key.statement(&self.image, TEST_RESULT, &predicate)
    }

    /// The same, with the time of its signing.
    fn signed_result(&self, word: &str, signed_at: &str) -> Vec<u8> {
        let mut predicate = json!({"result": word, "configuration": [{"name": "e2e"}]});
        let member = format!("{}/signed_at", self.registry.app.keys.verifier_id());
        predicate[member] = json!(signed_at);
        self.key.statement(&self.image, TEST_RESULT, &predicate)
    }

    async fn post(&self, envelope: &[u8]) -> Value {
        self.admin.attest("app", envelope, 201).await
    }

    async fn push(&self, envelope: &[u8]) {
        let builder = self.registry.client(Role::Pusher, "**").await;
        builder.push_referrer("app", &self.image, DSSE, envelope).await;
    }

    async fn promotes(&self) -> bool {
        self.admin.promote("app", &self.image, "prod").await.status() == 201
    }

    /// Why a promotion is refused.
    async fn refused(&self) -> String {
        expect(self.admin.promote("app", &self.image, "prod").await, 409).await["detail"].to_string()
    }

    async fn runs(&self) -> bool {
        self.admin.verdict("app", &self.image, "prod").await["verdict"] == "allow"
    }

    /// How many results were received again.
    async fn repeated(&self) -> i64 {
        let count = sqlx::query_scalar("select count(*) from events where kind = 'attestation.repeated'");
        count.fetch_one(&mut *self.registry.sql().await).await.unwrap()
    }
}

const E2E: &str =
    "attestation: {type: https://in-toto.io/attestation/test-result/v0.1, by: [ci], result: PASSED}";

#[tokio::test]
async fn a_verification_summary_that_says_failed_satisfies_no_gate() {
    let of = |gate: &str| format!("{{{gate}}}");
    let attestation = format!("attestation: {{type: '{SUMMARY}', by: [ci]}}");
    for gate in [
        attestation.clone(),
        format!("attestation: {{type: '{SUMMARY}', by: [ci], result: any}}"),
        format!("signed_by: {{any_of: [ci], predicate: '{SUMMARY}'}}"),
    ] {
        let scene = scene(&of(&gate)).await;
        let summary = |word: &str| {
            let predicate = json!({"verificationResult": word, "verifier": {"id": "https://v.example"}});
            scene.key.statement(&scene.image, SUMMARY, &predicate)
        };
        scene.post(&summary("FAILED")).await;
        let why = scene.refused().await;
        assert!(why.contains("a statement by ci says FAILED"), "{gate}: {why}");
        scene.post(&summary("PASSED")).await;
        assert!(scene.promotes().await, "{gate}");
        scene.registry.check().await;
    }
    let scene = scene(&of(&attestation)).await;
    let text = format!(
        "environment: prod\nrepositories: ['**']\ngates: [{{attestation: {{type: '{SUMMARY}', result: FAILED}}}}]\n"
    );
    let put = scene.admin.put("/api/v1/policies").body(text).send().await.unwrap();
    let refused = expect(put, 422).await.to_string();
    assert!(refused.contains("PASSED, WARNED or any"), "{refused}");
}

#[tokio::test]
async fn a_failed_result_a_report_and_an_sbom_are_no_signatures() {
    let scene = scene("signed_by: {any_of: [ci]}").await;
    for (kind, predicate) in [
        (TEST_RESULT, json!({"result": "FAILED", "configuration": []})),
        (TEST_RESULT, json!({"result": "PASSED", "configuration": []})),
        (SUMMARY, json!({"verificationResult": "FAILED"})),
        ("https://cosign.sigstore.dev/attestation/vuln/v1", json!({})),
        ("https://cyclonedx.org/bom", json!({"bomFormat": "CycloneDX"})),
        ("https://slsa.dev/provenance/v1", json!({})),
    ] {
        scene.post(&scene.key.statement(&scene.image, kind, &predicate)).await;
        let why = scene.refused().await;
        assert!(why.contains(kind) && why.contains("which are no signatures"), "{kind}: {why}");
    }
    scene.post(&scene.key.statement(&scene.image, "https://sigstore.dev/cosign/sign/v1", &json!({}))).await;
    assert!(scene.promotes().await);
    scene.registry.check().await;
}

#[tokio::test]
async fn a_test_is_the_names_in_its_configuration_and_not_their_order_or_digests() {
    let scene = scene(E2E).await;
    let result = |word: &str, configuration: Value| {
        let predicate = json!({"result": word, "configuration": configuration});
        scene.key.statement(&scene.image, TEST_RESULT, &predicate)
    };
    let plan = |commit: &str| json!({"name": "e2e", "digest": {"gitCommit": commit}});
    let data = |commit: &str| json!({"uri": "https://git.example/data", "digest": {"gitCommit": commit}});
    scene.post(&result("FAILED", json!([plan("aa"), data("aa")]))).await;
    scene.post(&result("PASSED", json!([plan("bb")]))).await;
    let why = scene.refused().await;
    assert!(why.contains("for e2e, https://git.example/data is FAILED"), "{why}");
    scene.post(&result("PASSED", json!([data("bb"), plan("bb")]))).await;
    assert!(scene.promotes().await);
    scene.post(&result("FAILED", json!([{"name": "load"}]))).await;
    assert!(!scene.promotes().await, "another test's failure counts");
    scene.registry.check().await;
}

#[tokio::test]
async fn a_passed_that_was_held_back_clears_no_failed_when_it_is_pushed() {
    let scene = scene(E2E).await;
    let (passed, failed) = (scene.result("PASSED", 1), scene.result("FAILED", 2));
    scene.post(&failed).await;
    scene.push(&passed).await;
    let why = scene.refused().await;
    for says in ["a statement by ci says FAILED", "proofmark attest", "POST /api/v1/attestations"] {
        assert!(why.contains(says), "{why}");
    }
    scene.post(&passed).await;
    assert!(scene.promotes().await, "a principal with the right to attest recorded it");
    assert_eq!(scene.repeated().await, 1);
    // Once more, and with another envelope around it, it is as old as it is.
    scene.post(&passed).await;
    scene.post(&[&passed[..], b" "].concat()).await;
    assert_eq!(scene.repeated().await, 1);
    scene.registry.check().await;
}

#[tokio::test]
async fn a_pushed_passed_counts_where_nothing_failed_and_so_does_an_older_release() {
    let scene = scene(E2E).await;
    scene.push(&scene.result("PASSED", 1)).await;
    assert!(scene.promotes().await);
    scene.push(&scene.result("FAILED", 2)).await;
    assert!(!scene.promotes().await && !scene.runs().await);
    scene.push(&scene.result("PASSED", 3)).await;
    assert!(!scene.promotes().await && !scene.runs().await);
    // Rows that were received before the way was recorded look like this.
    scene.registry.tamper("update attestations set pushed = false").await;
    scene.registry.tamper("update generations set value = value + 1").await;
    assert!(scene.promotes().await && scene.runs().await);
    scene.registry.check().await;
}

#[tokio::test]
async fn a_failed_that_is_posted_again_counts_from_then_on() {
    let scene = scene(E2E).await;
    let failed = scene.result("FAILED", 1);
    scene.post(&failed).await;
    scene.post(&scene.result("PASSED", 2)).await;
    assert!(scene.promotes().await && scene.runs().await);
    scene.push(&failed).await;
    scene.push(&[&failed[..], b" "].concat()).await;
    assert!(scene.promotes().await && scene.runs().await, "a push makes it no newer");
    assert_eq!(scene.repeated().await, 0);

    scene.post(&failed).await;
    assert_eq!(scene.repeated().await, 1);
    assert!(!scene.promotes().await && !scene.runs().await);
    scene.post(&scene.result("PASSED", 3)).await;
    assert!(scene.promotes().await && scene.runs().await);
    // In another envelope it is the same statement.
    scene.post(&[b" ", &failed[..]].concat()).await;
    assert!(!scene.promotes().await && !scene.runs().await);
    scene.post(&scene.result("PASSED", 4)).await;
    assert!(scene.promotes().await && scene.runs().await);
    // One that was pushed first counts from its newest receipt through POST too.
    scene.post(&[&failed[..], b" "].concat()).await;
    assert!(!scene.promotes().await && !scene.runs().await);
    assert_eq!(scene.repeated().await, 2);
    scene.registry.check().await;
}

#[tokio::test]
async fn a_failed_that_is_posted_again_puts_another_version_at_risk() {
    let scene = scene("").await;
    let failed = scene.result("FAILED", 1);
    scene.post(&failed).await;
    scene.post(&scene.result("PASSED", 2)).await;
    assert!(scene.promotes().await);
    let good = async || expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert_eq!(good().await["at_risk"], json!([]));
    scene.post(&failed).await;
    let at_risk = &good().await["at_risk"][0];
    assert_eq!(at_risk["reason"], "failed_result");
    let since = "select to_jsonb(max(received_at)) from attestation_receipts";
    let since: Value = sqlx::query_scalar(since).fetch_one(&mut *scene.registry.sql().await).await.unwrap();
    let time = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(time(&at_risk["since"]), time(&since), "since its newest receipt");
    scene.registry.check().await;
}

#[tokio::test]
async fn signed_times_order_results_whenever_they_are_received() {
    let scene = scene(E2E).await;
    let passed = scene.signed_result("PASSED", "2026-01-02T00:00:00.000001Z");
    scene.post(&passed).await;
    let older = scene.signed_result("FAILED", "2026-01-02T01:00:00.000000999+01:00");
    scene.post(&older).await;
    scene.post(&older).await;
    assert!(scene.promotes().await && scene.runs().await, "the FAILED was signed before");
    let newer = scene.signed_result("FAILED", "2026-01-03T00:00:00Z");
    scene.push(&newer).await;
    assert!(!scene.promotes().await && !scene.runs().await);
    scene.post(&passed).await;
    assert!(!scene.promotes().await, "posting again changes nothing");
    for (word, time) in [
        ("PASSED", "2026-01-02T12:00:00Z"),
        ("FAILED", "9999-01-01T00:00:00Z"),
        ("PASSED", "9999-12-31T23:59:59.999999999Z"),
    ] {
        scene.post(&scene.signed_result(word, time)).await;
        // A time to come counts as the receipt.
        assert_eq!(scene.promotes().await, time.starts_with("9999-12"), "{word} {time}");
    }
    for unreadable in ["yesterday", "2026-01-01", "+10000-01-01T00:00:00Z", "1969-12-31T23:59:59Z"] {
        scene.post(&scene.signed_result("WARNED", unreadable)).await;
    }
    scene.registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_signs_results_with_the_time_and_posting_one_again_changes_nothing() {
    let registry = Registry::start().await;
    let shell = Shell::at(&registry.url, Some(registry.admin_token()));
    let keys = |name: &str| format!("{}/tests/fixtures/signing/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    let admin = registry.admin();
    let public = keys("ed25519.pub");
    shell
        .yes(&["signer", "add", "ci", "--key", &public, "--scheme", "ed25519", "--repositories", "**"])
        .await;
    registry.environment("prod", E2E).await;
    let image = admin.push_release("app", "1.0", "one").await;
    let promotes = async || admin.promote("app", &image, "prod").await.status() == 201;
    let private = keys("test-only-ed25519.key.pem");
    let attest = async |word: &str| {
        let predicate = json!({"result": word, "configuration": [{"name": "e2e"}]}).to_string();
        let file = shell.file("predicate.json", predicate.as_bytes());
        let words = ["attest", "app:1.0", "--type", "test-result", "--predicate", file.to_str().unwrap()];
        let made = shell.json(&[&words[..], &["--key", &private]].concat()).await;
        let shown = shell.yes(&["attest", "show", &made[0]["id"].to_string()]).await;
        shell.file(word, shown.as_bytes())
    };
    let again = async |file: &std::path::Path| {
        shell.yes(&["attest", "app", "--envelope", file.to_str().unwrap()]).await;
    };
    let passed = attest("PASSED").await;
    assert!(promotes().await);
    let failed = attest("FAILED").await;
    assert!(!promotes().await);
    again(&passed).await;
    assert!(!promotes().await);
    attest("PASSED").await;
    assert!(promotes().await);
    again(&failed).await;
    assert!(promotes().await);
    let all = "select count(distinct signed_at), bool_and(signed_at > received_at - interval '1 minute') from attestations";
    let all: (i64, Option<bool>) = sqlx::query_as(all).fetch_one(&mut *registry.sql().await).await.unwrap();
    assert_eq!(all, (3, Some(true)), "each states when it was signed");
    let list = shell.file("list.json", b"[]");
    let words = ["attest", "app:1.0", "--type", "test-result", "--predicate", list.to_str().unwrap()];
    let refused = shell.run(&[&words[..], &["--key", &private]].concat()).await;
    assert!(refused.code == 2 && refused.err.contains("a JSON object"), "{}", refused.err);
    registry.check().await;
}
