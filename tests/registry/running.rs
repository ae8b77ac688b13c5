//! May what was promoted go on running? What ends it, what is only told, and that every interface says the same.

use crate::harness::{Client, Found, Registry, eventually, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

const TESTS: &str = "https://in-toto.io/attestation/test-result/v0.1";

struct Scene {
    registry: Registry,
    admin: Client,
}

async fn scene(gates: &str) -> Scene {
    let registry = Registry::start().await;
    registry.environment("prod", gates).await;
    Scene { admin: registry.admin(), registry }
}

impl Scene {
    async fn pushed(&self, version: &str) -> Digest {
        self.admin.push_release("app", version, version).await
    }

    async fn promoted(&self, version: &str) -> Digest {
        let digest = self.pushed(version).await;
        expect(self.admin.promote("app", &digest, "prod").await, 201).await;
        digest
    }

    async fn back(&self, to: Option<&str>) -> Value {
        let body = json!({"repository": "app", "environment": "prod", "reason": "errors", "to": to});
        self.admin.post_document("/api/v1/rollbacks", &body, 201).await
    }

    /// Every interface about one digest: verify's verdict, whether the view serves it, and whether it is what
    /// known-good answers.
    async fn everywhere(&self, digest: &Digest) -> (bool, bool, bool) {
        let verify = self.admin.verdict("app", digest, "prod").await;
        let view = format!("/v2/env/prod/app/manifests/{digest}");
        let view = self.admin.get(&view).send().await.unwrap().status() == 200;
        let good = self.admin.known_good("app", "prod").await;
        let good = good.json::<Value>().await.unwrap();
        (verify["verdict"] == "allow", view, good["digest"] == json!(digest))
    }

    /// Lets every summary end, and waits until a job has renewed that of the answer.
    async fn with_renewed_summary(&self, path: &str) -> Value {
        self.registry.tamper("update promotions set valid_until = promoted_at").await;
        self.registry.tamper("update release_channels set summary_until = '2001-01-01Z'").await;
        self.registry.app.enqueue_renewals().await.unwrap();
        self.valid_summary(path).await
    }

    /// Waits until the answer has a summary that is valid.
    async fn valid_summary(&self, path: &str) -> Value {
        let mut good = Value::Null;
        eventually("the summary is renewed", async || {
            good = expect(self.admin.get(path).send().await.unwrap(), 200).await;
            !good["warnings"].to_string().contains("summary-expired")
        })
        .await;
        good
    }

    async fn lift_hold(&self) {
        let holds = self.admin.document("/api/v1/holds?repository=app&environment=prod").await;
        let lift = format!("/api/v1/holds/{}/revocation", holds["items"][0]["id"]);
        self.admin.post_document(&lift, &json!({"reason": "fixed"}), 200).await;
    }

    async fn tags(&self) -> Value {
        self.admin.document("/v2/env/prod/app/tags/list").await["tags"].clone()
    }
}

#[tokio::test]
async fn a_rollback_in_staging_ends_nothing_in_production() {
    let scene = scene("").await;
    scene.registry.environment("staging", "").await;
    scene.registry.policy("prod", "promoted_in: {environments: [staging], soak: 0s}").await;
    let one = scene.pushed("1.0").await;
    let two = scene.pushed("1.1").await;
    for digest in [&one, &two] {
        for environment in ["staging", "prod"] {
            expect(scene.admin.promote("app", digest, environment).await, 201).await;
        }
    }
    scene.registry.policy("prod", "promoted_in: {environments: [staging], soak: 9h}").await;
    let body = json!({"repository": "app", "environment": "staging", "reason": "errors"});
    scene.admin.post_document("/api/v1/rollbacks", &body, 201).await;
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert_eq!((&good["digest"], &good["at_risk"]), (&json!(two), &json!([])));
    assert_eq!(good["would_not_be_promoted_today"][0]["gate"], "promoted_in");
    assert_eq!(scene.everywhere(&two).await, (true, true, true));
    assert_eq!(scene.everywhere(&one).await, (true, true, false));
    scene.registry.check().await;
}

#[tokio::test]
async fn the_end_of_an_approval_and_of_its_author_ends_nothing_and_counts_for_no_promotion() {
    let scene = scene("approvals: {count: 1}").await;
    let digest = scene.pushed("1.0").await;
    let ann = scene.registry.named("ann", Role::Approver, "app", Some(&["prod"])).await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
    ann.post_document("/api/v1/approvals", &body, 201).await;
    expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
    let grants = scene.admin.document("/api/v1/grants?limit=1000").await;
    let of_ann =
        grants["items"].as_array().unwrap().iter().find(|grant| grant["principal"] == "ann").unwrap();
    let path = format!("/api/v1/grants/{}", of_ann["id"]);
    assert!(scene.admin.delete(&path).send().await.unwrap().status().is_success());
    assert_eq!(scene.everywhere(&digest).await, (true, true, true));
    let refused = expect(scene.admin.promote("app", &digest, "prod").await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("ann no longer has the right"), "{refused}");
    scene.registry.check().await;
}

#[tokio::test]
async fn a_compromised_signer_ends_what_stands_on_it_in_every_interface_and_a_retired_one_nothing() {
    for (compromised, runs) in [(false, true), (true, false)] {
        let scene = scene(CANARY).await;
        scene.registry.know_signer("canary").await;
        let digest = scene.pushed("1.0").await;
        scene.registry.state(&digest, "canary", TESTS, Some("PASSED")).await;
        expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
        let revoke = json!({"reason": "it left", "compromised": compromised});
        let path = "/api/v1/signers/canary/revocation";
        let response = scene.admin.post(path).json(&revoke).send().await.unwrap();
        assert!(response.status().is_success());
        assert_eq!(scene.everywhere(&digest).await, (runs, runs, runs));
        scene.registry.check().await;
    }
}

const CANARY: &str =
    "attestation: {type: https://in-toto.io/attestation/test-result/v0.1, by: [canary], result: PASSED}";

#[tokio::test]
async fn a_failed_test_ends_what_counted_it_until_it_passes_again() {
    let scene = scene(CANARY).await;
    scene.registry.know_signer("canary").await;
    let digest = scene.pushed("1.0").await;
    scene.registry.state(&digest, "canary", TESTS, Some("PASSED")).await;
    expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
    scene.registry.state(&digest, "canary", TESTS, Some("FAILED")).await;
    assert_eq!(scene.everywhere(&digest).await, (false, false, false));
    scene.registry.state(&digest, "canary", TESTS, Some("PASSED")).await;
    assert_eq!(scene.everywhere(&digest).await, (true, true, true));
    scene.registry.state(&digest, "canary", TESTS, Some("FAILED")).await;
    scene.registry.know_signer("other").await;
    scene.registry.state(&digest, "other", TESTS, Some("PASSED")).await;
    assert_eq!(scene.everywhere(&digest).await, (false, false, false), "not by a signer of the gate");
    scene.registry.state(&digest, "canary", TESTS, Some("PASSED")).await;
    scene.registry.state(&digest, "other", TESTS, Some("FAILED")).await;
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert_eq!(good["at_risk"][0]["reason"], "failed_result", "another test is a risk: {good}");
    scene.registry.check().await;
}

#[tokio::test]
async fn a_version_that_was_rolled_back_from_is_denied_and_one_that_was_skipped_runs_by_digest_only() {
    let scene = scene("").await;
    let one = scene.promoted("1.0").await;
    let two = scene.promoted("1.1").await;
    let three = scene.promoted("1.2").await;
    assert_eq!(scene.tags().await, json!(["1.0", "1.1", "1.2", "current"]));
    scene.back(Some("1.0")).await;
    assert_eq!(scene.everywhere(&three).await, (false, false, false), "rolled back from");
    assert_eq!(scene.everywhere(&two).await, (true, true, false), "skipped: what runs there restarts");
    assert_eq!(scene.everywhere(&one).await, (true, true, true));
    assert_eq!(scene.tags().await, json!(["1.0", "current"]));
    for tag in ["1.1", "1.2"] {
        let path = format!("/v2/env/prod/app/manifests/{tag}");
        assert_eq!(scene.admin.get(&path).send().await.unwrap().status(), 404, "{tag}");
        let body = json!({"reference": format!("app:{tag}"), "environment": "prod"});
        let answer = scene.admin.post_document("/api/v1/verify", &body, 200).await;
        assert_eq!(answer["verdict"], "deny", "{answer}");
    }
    scene.lift_hold().await;
    expect(scene.admin.promote("app", &three, "prod").await, 201).await;
    assert_eq!(scene.everywhere(&three).await, (true, true, true), "promoted again");
    scene.registry.check().await;
}

#[tokio::test]
async fn what_was_rolled_back_from_stays_denied_after_another_rollback_and_is_no_candidate() {
    let scene = scene("").await;
    let one = scene.promoted("1.0").await;
    let two = scene.promoted("1.1").await;
    let three = scene.promoted("1.2").await;
    scene.back(None).await;
    scene.back(None).await;
    for (digest, runs) in [(&three, false), (&two, false), (&one, true)] {
        assert_eq!(scene.everywhere(digest).await, (runs, runs, runs));
    }
    scene.lift_hold().await;
    expect(scene.admin.promote("app", &two, "prod").await, 201).await;
    expect(scene.admin.promote("app", &one, "prod").await, 201).await;
    scene.back(Some("1.1")).await;
    scene.admin.block("app", &two, None).await;
    let none = expect(scene.admin.known_good("app", "prod").await, 404).await;
    assert_eq!(none["candidates"].as_array().unwrap().len(), 1, "1.0 was rolled back from: {none}");
    let body = json!({"repository": "app", "environment": "prod", "reason": "errors", "to": "1.0"});
    scene.admin.post_document("/api/v1/rollbacks", &body, 409).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_waiver_of_another_repository_is_in_no_answer_and_in_no_decision() {
    let scene = scene("scan: {max_age: 30d, deny: {severity: high}, grace: {high: 10d}}").await;
    let digest = scene.promoted_after_scan().await;
    scene.registry.scanned(&digest, "trivy", 0, &[Found { vulnerability: "CVE-1", severity: "high" }]).await;
    let ann = scene.registry.named("ann", Role::Approver, "**", None).await;
    let body = json!({"repositories": "secret/**", "vulnerabilities": ["CVE-1"], "status": "false_positive",
        "reason": "not for everybody"});
    let waiver = ann.post_document("/api/v1/waivers", &body, 201).await;
    let path = format!("/api/v1/waivers/{}/approval", waiver["id"]);
    scene.admin.post_document(&path, &json!({}), 200).await;
    expect(scene.admin.promote("app", &digest, "prod").await, 409).await;
    let sql =
        "select count(*) from decisions where position('everybody' in convert_from(inputs, 'UTF8')) > 0";
    let told: i64 = sqlx::query_scalar(sql).fetch_one(&mut *scene.registry.sql().await).await.unwrap();
    assert_eq!(told, 0);
    scene.registry.check().await;
}

#[tokio::test]
async fn an_index_with_a_blocked_child_keeps_a_summary_that_leaves_the_child_out() {
    let scene = scene("").await;
    let amd = scene.admin.push_release("app", "amd", "for amd64").await;
    let arm = scene.admin.push_release("app", "arm", "for arm64").await;
    let images = [(&amd, "linux/amd64"), (&arm, "linux/arm64")];
    let index = scene.admin.push_index("app", "1.0", &images).await;
    expect(scene.admin.promote("app", &index, "prod").await, 201).await;
    scene.admin.block("app", &arm, None).await;
    let path = "/api/v1/known-good?repository=app&environment=prod&platform=linux/amd64";
    let good = scene.with_renewed_summary(path).await;
    let payload = good["summary"]["payload"].as_str().unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, payload).unwrap();
    let payload = String::from_utf8(payload).unwrap();
    assert!(payload.contains(amd.hex()) && !payload.contains(arm.hex()), "{payload}");
}

#[tokio::test]
async fn what_an_answer_falls_back_to_has_a_valid_summary_soon_after_each_fact_that_ends_the_newer_version() {
    let scene = scene("").await;
    let scan = "{scan: {max_age: 30d, deny: {severity: high}, grace: {high: 0s}}}";
    let gates = format!("{{{CANARY}}}, {scan}").replace("[canary]", "[canary, left]");
    for signer in ["canary", "left"] {
        scene.registry.know_signer(signer).await;
    }
    scene.registry.policy("prod", &gates).await;
    let mut digests = Vec::new();
    for version in ["1.0", "1.1", "1.2", "1.3", "1.4"] {
        let digest = scene.pushed(version).await;
        scene.registry.scanned(&digest, "trivy", 2, &[]).await;
        // The third rests on a signer of its own.
        let signer = if version == "1.2" { "left" } else { "canary" };
        scene.registry.state(&digest, signer, TESTS, Some("PASSED")).await;
        expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
        digests.push(digest);
    }
    scene.registry.tamper("update promotions set valid_until = promoted_at where version <> '1.4'").await;
    let path = "/api/v1/known-good?repository=app&environment=prod";
    let falls_back_to = async |digest: &Digest| {
        let good = scene.valid_summary(path).await;
        assert_eq!(good["digest"], json!(digest), "{}", good["fallback_from"]);
    };
    scene.admin.block("app", &digests[4], None).await;
    falls_back_to(&digests[3]).await;
    scene
        .registry
        .scanned(&digests[3], "trivy", 1, &[Found { vulnerability: "CVE-1", severity: "high" }])
        .await;
    falls_back_to(&digests[2]).await;
    let revoke = json!({"reason": "stolen", "compromised": true});
    let revoked = scene.admin.post("/api/v1/signers/left/revocation").json(&revoke).send().await.unwrap();
    assert!(revoked.status().is_success());
    falls_back_to(&digests[1]).await;
    scene.registry.state(&digests[1], "canary", TESTS, Some("FAILED")).await;
    falls_back_to(&digests[0]).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn one_fact_after_another_renews_every_release_channel_that_it_concerns() {
    let scene = scene("").await;
    let mut newest = Vec::new();
    for repository in ["a", "b", "c", "d", "e"] {
        for version in ["1.0", "1.1"] {
            let digest =
                scene.admin.push_release(repository, version, &format!("{repository} {version}")).await;
            expect(scene.admin.promote(repository, &digest, "prod").await, 201).await;
            if version == "1.1" {
                newest.push((repository, digest));
            }
        }
    }
    scene.registry.tamper("update promotions set valid_until = promoted_at where version = '1.0'").await;
    for (repository, digest) in &newest {
        scene.admin.block(repository, digest, None).await;
    }
    for (repository, _) in &newest {
        let good = scene
            .valid_summary(&format!("/api/v1/known-good?repository={repository}&environment=prod"))
            .await;
        assert_eq!(good["version"], "1.0");
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn a_policy_that_ends_what_runs_is_confirmed_though_no_gate_says_so_and_a_waivers_end_is_foreseen() {
    let strict = "scan: {max_age: 30d, deny: {severity: high}, grace: {high: 0s}}";
    let scene = scene(strict).await;
    let digest = scene.promoted_after_scan().await;
    scene.registry.policy("prod", "scan: {max_age: 30d, deny: {severity: critical}}").await;
    scene.registry.scanned(&digest, "trivy", 1, &[Found { vulnerability: "CVE-1", severity: "high" }]).await;
    assert_eq!(
        scene.everywhere(&digest).await,
        (true, true, true),
        "the policy in force counts in its favour"
    );
    let again = json!({"environment": "prod", "repositories": ["**"], "gates": [{"scan": {"max_age": "30d",
        "deny": {"severity": "high"}, "grace": {"high": "0s"}}}]});
    let refused = scene.admin.put_document("/api/v1/policies", &again, 409).await;
    assert_eq!((&refused["code"], &refused["ends"]), (&json!("policy-ends-running"), &json!(1)));
    let ann = scene.registry.named("ann", Role::Approver, "**", None).await;
    let end = json!(proofmark::clock::now() + chrono::TimeDelta::hours(1));
    let body = json!({"repositories": "app", "vulnerabilities": ["CVE-1"], "status": "accepted_risk",
        "reason": "until it is fixed", "expires_at": end});
    let waiver = ann.post_document("/api/v1/waivers", &body, 201).await;
    scene.admin.post_document(&format!("/api/v1/waivers/{}/approval", waiver["id"]), &json!({}), 200).await;
    let told = scene.admin.post_document("/api/v1/policies/simulate", &again, 200).await;
    let classes = &told["consequences"];
    assert_eq!(
        (&classes["ends_now"]["count"], &classes["ends_later"]["count"]),
        (&json!(0), &json!(1)),
        "{told}"
    );
    scene.admin.put_document("/api/v1/policies", &again, 201).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_question_that_postgres_does_not_answer_in_time_is_refused_and_the_next_is_answered() {
    let registry = Registry::with(|settings| settings.answer_seconds = Some(1)).await;
    registry.environment("prod", "").await;
    let digest = registry.admin().push_release("app", "1.0", "one").await;
    expect(registry.admin().promote("app", &digest, "prod").await, 201).await;
    let mut lock = registry.app.db.begin().await.unwrap();
    sqlx::query("lock table promotions in access exclusive mode").execute(&mut *lock).await.unwrap();
    let refused = expect(registry.admin().known_good("app", "prod").await, 503).await;
    assert_eq!(refused["code"], "overloaded");
    let view = registry.admin().get("/v2/env/prod/app/manifests/1.0").send().await.unwrap();
    assert_eq!((view.status().as_u16(), view.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    drop(lock);
    expect(registry.admin().known_good("app", "prod").await, 200).await;
    registry.check().await;
}

#[tokio::test]
async fn what_time_or_a_policy_ends_is_looked_at_again_when_it_ends() {
    let scene = scene("scan: {max_age: 30d, deny: {severity: high}, grace: {high: 1h}}").await;
    let one = scene.promoted_after_scan().await;
    let two = scene.pushed("1.1").await;
    scene.registry.scanned(&two, "trivy", 1, &[]).await;
    expect(scene.admin.promote("app", &two, "prod").await, 201).await;
    // The scan lets a grace begin: the channel is looked at again when it ends, and not when its summary does.
    scene.registry.scanned(&two, "trivy", 0, &[Found { vulnerability: "CVE-1", severity: "high" }]).await;
    let within = "select count(*) from release_channels where summary_until - interval '56 hours' < now() + interval '61 minutes'";
    eventually("the end of the grace is noted", async || {
        let found: i64 =
            sqlx::query_scalar(within).fetch_one(&mut *scene.registry.sql().await).await.unwrap();
        found == 1
    })
    .await;
    scene.registry.tamper("update promotions set valid_until = promoted_at where version = '1.0'").await;
    let strict = json!({"environment": "prod", "repositories": ["**"], "gates": [{"scan": {"max_age": "30d",
        "deny": {"severity": "high"}, "grace": {"high": "0s"}, "enforce_on_running_from": "2000-01-01T00:00:00Z"}}]});
    let put = scene.admin.put_document("/api/v1/policies?ends=1", &strict, 201).await;
    assert_eq!(put["consequences"]["ends_now"]["count"], 1, "{put}");
    let good = scene.valid_summary("/api/v1/known-good?repository=app&environment=prod").await;
    assert_eq!(good["digest"], json!(one));
    let lenient = json!({"environment": "prod", "repositories": ["**"], "gates": []});
    let told = scene.admin.post_document("/api/v1/policies/simulate", &lenient, 200).await;
    let returns = &told["consequences"]["relieved"]["channels"][0];
    assert_eq!(
        (&returns["version"], &returns["reasons"]),
        (&json!("1.1"), &json!(["it may run again"])),
        "{told}"
    );
    scene.registry.check().await;
}

#[tokio::test]
async fn a_child_that_a_good_and_a_blocked_index_share_is_served_through_the_good_one() {
    let scene = scene("").await;
    let amd = |n: &str| format!("amd64 {n}");
    let one = scene.admin.push_release("app", "amd-1", &amd("1")).await;
    let two = scene.admin.push_release("app", "amd-2", &amd("2")).await;
    let arm = scene.admin.push_release("app", "arm", "arm64").await;
    let mut indexes = Vec::new();
    for (version, amd) in [("1.0", &one), ("1.1", &two)] {
        let images = [(amd, "linux/amd64"), (&arm, "linux/arm64")];
        let index = scene.admin.push_index("app", version, &images).await;
        expect(scene.admin.promote("app", &index, "prod").await, 201).await;
        indexes.push(index);
    }
    scene.admin.block("app", &indexes[1], None).await;
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert_eq!(good["digest"], json!(indexes[0]));
    assert_eq!(good["fallback_from"][0]["digest"], json!(indexes[1]));
    assert_eq!(scene.everywhere(&arm).await, (true, true, false), "through the index that is good");
    assert_eq!(scene.everywhere(&one).await, (true, true, false));
    assert_eq!(scene.everywhere(&two).await, (false, false, false));
    let answer = scene.admin.verdict("app", &arm, "prod").await;
    assert_eq!((&answer["index"], &answer["current"]), (&json!(indexes[0]), &json!(true)));
    let layer = Digest::sha256(b"arm64");
    assert_eq!(scene.admin.head_blob("env/prod/app", &layer).await, 200);
    let blocked = Digest::sha256(amd("2").as_bytes());
    assert_eq!(
        scene.admin.head_blob("env/prod/app", &blocked).await,
        404,
        "no manifest that is served names it"
    );
    scene.registry.check().await;
}

#[tokio::test]
async fn a_block_on_one_platform_ends_that_platform_and_says_that_answers_differ() {
    let scene = scene("").await;
    let mut indexes = Vec::new();
    let mut arms = Vec::new();
    for version in ["1.0", "1.1"] {
        let amd = scene.admin.push_release("app", &format!("amd-{version}"), &format!("amd {version}")).await;
        let arm = scene.admin.push_release("app", &format!("arm-{version}"), &format!("arm {version}")).await;
        let index =
            scene.admin.push_index("app", version, &[(&amd, "linux/amd64"), (&arm, "linux/arm64")]).await;
        expect(scene.admin.promote("app", &index, "prod").await, 201).await;
        indexes.push(index);
        arms.push((amd, arm));
    }
    scene.admin.block("app", &arms[1].1, None).await;
    let ask = async |platform: &str| {
        let path = format!("/api/v1/known-good?repository=app&environment=prod{platform}");
        expect(scene.admin.get(&path).send().await.unwrap(), 200).await
    };
    let whole = ask("").await;
    assert_eq!((&whole["digest"], &whole["platform_answers_differ"]), (&json!(indexes[0]), &json!(true)));
    let amd = ask("&platform=linux/amd64").await;
    assert_eq!(amd["media_type"], "application/vnd.oci.image.manifest.v1+json", "of the image");
    // What a promoted index holds is listed where it is served.
    assert_eq!(scene.tags().await, json!(["1.0", "amd-1.0", "amd-1.1", "arm-1.0", "current"]));
    for (tag, status) in [("1.1", 404), ("amd-1.1", 200), ("arm-1.1", 404)] {
        let path = format!("/v2/env/prod/app/manifests/{tag}");
        assert_eq!(scene.admin.get(&path).send().await.unwrap().status(), status, "{tag}");
    }
    assert_eq!((&amd["digest"], &amd["platform_answers_differ"]), (&json!(arms[1].0), &json!(true)));
    assert_eq!(ask("&platform=linux/arm64").await["digest"], json!(arms[0].1));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_fallback_is_never_a_version_that_a_rollback_would_refuse_and_the_404_says_what_naming_allows() {
    let scene = scene("").await;
    let one = scene.promoted("1.0").await;
    let two = scene.promoted("1.1").await;
    scene.registry.scanned(&one, "trivy", 1, &[Found { vulnerability: "CVE-1", severity: "critical" }]).await;
    scene.admin.block("app", &two, None).await;
    let none = expect(scene.admin.known_good("app", "prod").await, 404).await;
    let named: Vec<bool> = none["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["rollback_may_name_it"] == json!(true))
        .collect();
    assert_eq!(named, [false, true], "{none}");
    scene.back(Some("1.0")).await;
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert_eq!(good["digest"], json!(one));
    let sql = "select recorded -> 'accepted' ->> 'by' from promotions order by id desc limit 1";
    let by: Option<String> =
        sqlx::query_scalar(sql).fetch_one(&mut *scene.registry.sql().await).await.unwrap();
    assert!(by.is_some(), "the event says who accepted the findings");
    scene.registry.check().await;
}

#[tokio::test]
async fn an_older_version_is_promoted_with_a_warning() {
    let scene = scene("").await;
    scene.promoted("1.0").await;
    scene.promoted("1.1").await;
    let digest = scene.pushed("1.0").await;
    let made = expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
    assert!(made["warnings"][0].as_str().unwrap().contains("older than 1.1"), "{made}");
    let again = expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
    assert_eq!(again["warnings"], json!([]));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_decided_and_records_nothing() {
    let scene = scene("approvals: {count: 1}").await;
    let digest = scene.pushed("1.0").await;
    let reader = scene.registry.client(Role::Reader, "app").await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod"});
    let answer = reader.post_document("/api/v1/promotions?dry_run=true", &body, 200).await;
    assert_eq!((&answer["verdict"], &answer["version"]), (&json!("deny"), &json!("1.0")));
    assert!(answer["reasons"][0].as_str().unwrap().starts_with("approvals: not approved"), "{answer}");
    let count = "select count(*) from decisions";
    let decisions: i64 = sqlx::query_scalar(count).fetch_one(&mut *scene.registry.sql().await).await.unwrap();
    assert_eq!(decisions, 0);
    let outsider = scene.registry.client(Role::Admin, "other/**").await;
    outsider.post_document("/api/v1/promotions?dry_run=true", &body, 404).await;
    let unknown = json!({"repository": "app", "version": "9.9", "environment": "prod"});
    reader.post_document("/api/v1/promotions?dry_run=true", &unknown, 404).await;
    reader.post_document("/api/v1/promotions?dry=true", &body, 400).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn what_waits_for_approvals_is_listed_until_it_is_approved_or_promoted() {
    let scene = scene("approvals: {count: 1}").await;
    let digest = scene.pushed("1.0").await;
    let pending = async || scene.admin.document("/api/v1/approvals?pending=true").await["items"].clone();
    assert_eq!(pending().await, json!([]));
    expect(scene.admin.promote("app", &digest, "prod").await, 409).await;
    let one = pending().await;
    assert_eq!((&one[0]["digest"], &one[0]["environment"]), (&json!(digest), &json!("prod")), "{one}");
    assert!(one[0]["waits_for"][0]["message"].as_str().unwrap().contains("not approved"), "{one}");
    let elsewhere = scene.registry.client(Role::Approver, "other/**").await;
    assert_eq!(elsewhere.document("/api/v1/approvals?pending=true").await["items"], json!([]));
    let ann = scene.registry.client(Role::Approver, "**").await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
    ann.post_document("/api/v1/approvals", &body, 201).await;
    assert_eq!(pending().await, json!([]), "it no longer waits");
    expect(scene.admin.get("/api/v1/approvals").send().await.unwrap(), 400).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_policy_says_what_it_changes_for_what_runs_before_and_when_it_is_put() {
    let scene = scene("scan: {max_age: 30d, deny: {severity: high}, grace: {high: 10d}}").await;
    let digest = scene.pushed("1.0").await;
    scene.registry.scanned(&digest, "trivy", 1, &[]).await;
    expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
    scene
        .registry
        .scanned(&digest, "trivy", 0, &[Found { vulnerability: "CVE-1", severity: "medium" }])
        .await;
    let policy = |gate: &str| json!({"environment": "prod", "repositories": ["**"], "gates": [serde_json::from_str::<Value>(gate).unwrap()]});
    let simulate =
        async |gate: &str| scene.admin.post_document("/api/v1/policies/simulate", &policy(gate), 200).await;
    let strict = r#"{"scan": {"max_age": "30d", "deny": {"severity": "medium"}, "grace": {"medium": "0s"}}}"#;
    let told = simulate(strict).await;
    assert_eq!(told["consequences"]["ends_now"]["count"], 0, "{told}");
    let named = &told["consequences"]["would_not_be_promoted_today"]["channels"][0];
    assert_eq!((&named["repository"], &named["version"]), (&json!("app"), &json!("1.0")));
    let from = r#"{"scan": {"max_age": "30d", "deny": {"severity": "medium"}, "grace": {"medium": "0s"}, "enforce_on_running_from": "2000-01-01T00:00:00Z"}}"#;
    assert_eq!(simulate(from).await["consequences"]["ends_now"]["count"], 1);
    let later = from.replace("2000", "2099");
    let told = simulate(&later).await;
    assert_eq!(
        told["consequences"]["ends_later"]["channels"][0]["ends_at"], "2099-01-01T00:00:00Z",
        "{told}"
    );
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert_eq!(good["would_not_be_promoted_today"], json!([]), "nothing was put in force: {good}");

    let put = async |query: &str, status: u16| {
        let path = format!("/api/v1/policies{query}");
        scene.admin.put_document(&path, &policy(from), status).await
    };
    let refused = put("", 409).await;
    assert_eq!((&refused["code"], &refused["ends"]), (&json!("policy-ends-running"), &json!(1)));
    put("?ends=2", 409).await;
    let put = put("?ends=1", 201).await;
    assert_eq!(put["consequences"]["ends_now"]["count"], 1);
    assert_eq!(scene.everywhere(&digest).await, (false, false, false));
    for (gates, warned) in [
        (json!([]), "has none"),
        (json!([{"scan": {"max_age": "1h"}}]), "without `deny`"),
        (json!([{"scan": {"max_age": "1h", "deny": {"severity": "high"}}}]), "no grace is stated for high"),
        (json!([{"approvals": {"count": 1, "mode": "dry_run"}}]), "refuses nothing"),
        (json!([{"approvals": {"count": 1, "from": ["nobody-*"]}}]), "nobody who may approve matches"),
        (json!([{"signed_by": {"any_of": ["nobody"]}}]), "no signer nobody"),
    ] {
        let body = json!({"environment": "prod", "repositories": ["**"], "gates": gates});
        let told = scene.admin.post_document("/api/v1/policies/simulate", &body, 200).await;
        let warnings = told["warnings"].to_string();
        assert!(warnings.contains(warned), "{warnings}");
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn a_simulation_counts_everything_and_names_it_in_pages_of_what_the_caller_sees() {
    let scene = scene("").await;
    // More than one connection takes.
    let repositories: Vec<String> = (0..120).map(|n| format!("app-{n:03}")).collect();
    for repository in &repositories {
        let digest = scene.admin.push_release(repository, "1.0", repository).await;
        expect(scene.admin.promote(repository, &digest, "prod").await, 201).await;
    }
    let body = |repositories: &str| json!({"environment": "prod", "repositories": [repositories], "gates": [{"approvals": {"count": 1}}]});
    let ask = async |repositories: &str, query: &str| {
        let path = format!("/api/v1/policies/simulate?{query}");
        scene.admin.post_document(&path, &body(repositories), 200).await["consequences"].take()
    };
    let (mut cursor, mut named, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let told = ask("**", &format!("limit=50{cursor}")).await;
        let class = &told["would_not_be_promoted_today"];
        assert_eq!((&told["evaluated"], &class["count"]), (&json!(120), &json!(120)));
        let page = class["channels"].as_array().unwrap();
        assert!(page.len() <= 50);
        named.extend(page.iter().map(|one| one["repository"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = told["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!((named, pages), (repositories, 3));
    let told = ask("app-00*", "limit=1000").await;
    let channels = told["would_not_be_promoted_today"]["channels"].as_array().unwrap();
    let uncovered = channels.iter().filter(|one| one["reasons"].to_string().contains("no policy")).count();
    assert_eq!((channels.len(), uncovered, &told["next"]), (120, 110, &Value::Null), "{told}");
    scene.registry.check().await;
}

#[tokio::test]
async fn an_environment_is_shown_as_a_list_with_its_risks() {
    let scene = scene("scan: {max_age: 30d, deny: {severity: high}, grace: {high: 10d}}").await;
    let mut digests = Vec::new();
    for repository in ["a/one", "a/two", "b/three"] {
        let digest = scene.admin.push_release(repository, "1.0", repository).await;
        scene.registry.scanned(&digest, "trivy", 1, &[]).await;
        expect(scene.admin.promote(repository, &digest, "prod").await, 201).await;
        digests.push(digest);
    }
    scene
        .registry
        .scanned(&digests[1], "trivy", 0, &[Found { vulnerability: "CVE-1", severity: "high" }])
        .await;
    scene.admin.block("b/three", &digests[2], None).await;
    let path = "/api/v1/environments/prod/releases";
    let names = async |query: &str| -> Vec<String> {
        let page = scene.admin.document(&format!("{path}{query}")).await;
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["repository"].as_str().unwrap().into())
            .collect()
    };
    assert_eq!(names("").await, ["a/one", "a/two", "b/three"]);
    assert_eq!(names("?at_risk=true").await, ["a/two"]);
    assert_eq!(names("?blocked=true").await, ["b/three"]);
    assert_eq!(names("?repository=a/*&at_risk=false").await, ["a/one"]);
    assert_eq!(names("?would_not_be_promoted_today=true").await, ["a/two"]);
    let page = scene.admin.document(&format!("{path}?limit=2")).await;
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (2, &json!("a/two")));
    assert_eq!(names("?limit=2&cursor=a/two").await, ["b/three"]);
    let row = &scene.admin.document(&format!("{path}?blocked=true")).await["items"][0];
    assert_eq!((&row["digest"], &row["fallback_from"][0]["digest"]), (&Value::Null, &json!(digests[2])));
    let only_a = scene.registry.named("of-a", Role::Deployer, "a/*", Some(&["prod"])).await;
    let page = only_a.document(path).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 2, "{page}");
    let elsewhere = scene.registry.named("staging", Role::Deployer, "**", Some(&["staging"])).await;
    expect(elsewhere.get(path).send().await.unwrap(), 404).await;
    expect(scene.admin.get(&format!("{path}?colour=red")).send().await.unwrap(), 400).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn the_tag_of_a_current_version_is_not_deleted() {
    let scene = scene("").await;
    scene.promoted("1.0").await;
    scene.promoted("1.1").await;
    let delete = async |tag: &str| {
        scene.admin.delete(&format!("/v2/app/manifests/{tag}")).send().await.unwrap().status().as_u16()
    };
    assert_eq!(delete("1.1").await, 405);
    assert_eq!(delete("1.0").await, 202);
    expect(scene.admin.known_good("app", "prod").await, 200).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_suppression_that_ends_starts_the_grace_once_more() {
    let scene = scene("scan: {max_age: 30d, deny: {severity: high}, grace: {high: 10d}}").await;
    let digest = scene.promoted_after_scan().await;
    let high = [Found { vulnerability: "CVE-1", severity: "high" }];
    scene.registry.scanned(&digest, "trivy", 9, &high).await;
    let since = async || -> Vec<(bool, bool)> {
        sqlx::query_as("select fixable, unsuppressed_at is not null from vulnerabilities_known")
            .fetch_all(&mut *scene.registry.sql().await)
            .await
            .unwrap()
    };
    assert_eq!(since().await.iter().filter(|(_, again)| *again).count(), 0);
    scene.registry.suppressed(&digest, 8, "CVE-1").await;
    scene.registry.scanned(&digest, "trivy", 7, &high).await;
    assert_eq!(since().await.iter().filter(|(_, again)| *again).count(), 1);
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert_eq!(good["at_risk"].as_array().unwrap().len(), 1, "{good}");
    scene.registry.check().await;
}

impl Scene {
    async fn promoted_after_scan(&self) -> Digest {
        let digest = self.pushed("1.0").await;
        self.registry.scanned(&digest, "trivy", 10, &[]).await;
        expect(self.admin.promote("app", &digest, "prod").await, 201).await;
        digest
    }
}

#[tokio::test]
async fn a_waiver_ends_a_risk_once_another_person_approves_it_and_a_revoked_one_counts_no_more() {
    let scene = scene("scan: {max_age: 30d, deny: {severity: high}, grace: {high: 0s}}").await;
    let digest = scene.promoted_after_scan().await;
    scene.registry.scanned(&digest, "trivy", 0, &[Found { vulnerability: "CVE-1", severity: "high" }]).await;
    assert_eq!(scene.everywhere(&digest).await, (false, false, false));
    let ann = scene.registry.named("ann", Role::Approver, "**", None).await;
    let expires = proofmark::clock::now() + chrono::TimeDelta::days(3);
    let body = json!({"repositories": "app", "environment": "prod", "vulnerabilities": ["cve-1"],
        "status": "accepted_risk", "reason": "no fix exists", "expires_at": expires});
    let waiver = ann.post_document("/api/v1/waivers", &body, 201).await;
    assert_eq!(scene.everywhere(&digest).await, (false, false, false), "proposed only");
    let path = format!("/api/v1/waivers/{}", waiver["id"]);
    scene.admin.post_document(&format!("{path}/approval"), &json!({}), 200).await;
    assert_eq!(scene.everywhere(&digest).await, (true, true, true));
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    let shown = good["gates"].as_array().unwrap().iter().find(|gate| gate["gate"] == "scan").unwrap();
    assert_eq!(shown["waived"][0]["vulnerability"], "CVE-1", "shown as waived, never hidden: {good}");
    expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
    scene.admin.post_document(&format!("{path}/revocation"), &json!({"reason": "a fix is out"}), 200).await;
    assert_eq!(scene.everywhere(&digest).await, (false, false, false));
    scene.registry.check().await;
}

#[tokio::test]
async fn an_override_passes_a_failed_gate_is_shown_and_is_told_until_it_is_reviewed() {
    let scene = scene("approvals: {count: 1}").await;
    let digest = scene.pushed("1.0").await;
    expect(scene.admin.promote("app", &digest, "prod").await, 409).await;
    let expires = proofmark::clock::now() + chrono::TimeDelta::hours(1);
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "gates": ["approvals"],
        "reason": "incident 42", "expires_at": expires});
    let made = scene.admin.post_document("/api/v1/overrides", &body, 201).await;
    let promoted = expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
    assert!(promoted["warnings"].to_string().contains("passed by override"), "{promoted}");
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert_eq!(good["promoted_by_override"][0]["id"], made["id"]);
    let other = scene.registry.named("carol", Role::Admin, "**", None).await;
    let review = format!("/api/v1/overrides/{}/review", made["id"]);
    other.post_document(&review, &json!({"reason": "it was right"}), 200).await;
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    assert!(good.get("promoted_by_override").is_none(), "{good}");
    let revoke = format!("/api/v1/overrides/{}/revocation", made["id"]);
    scene.admin.post_document(&revoke, &json!({"reason": "over"}), 200).await;
    assert_eq!(scene.everywhere(&digest).await, (true, true, true), "its end ends nothing");
    expect(scene.admin.promote("app", &digest, "prod").await, 409).await;
    let again =
        scene.admin.document(&format!("/api/v1/decisions/{}", good["decision"].as_str().unwrap())).await;
    let replayed = scene.admin.post(&format!("/api/v1/decisions/{}/replay", again["id"].as_str().unwrap()));
    let replayed = expect(replayed.send().await.unwrap(), 200).await;
    assert_eq!(replayed["same"], true, "{replayed}");
    scene.registry.check().await;
}

#[tokio::test]
async fn an_override_that_nobody_reviewed_in_time_counts_for_no_new_promotion_and_ends_nothing() {
    let scene = scene("approvals: {count: 1}").await;
    let digest = scene.pushed("1.0").await;
    let expires = proofmark::clock::now() + chrono::TimeDelta::hours(30);
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "gates": ["approvals"],
        "reason": "incident 42", "expires_at": expires});
    let made = scene.admin.post_document("/api/v1/overrides", &body, 201).await;
    let (id, review) = (&made["id"], format!("/api/v1/overrides/{}/review", made["id"]));
    let time = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(time(&made["review_due_at"]) - time(&made["created_at"]), chrono::TimeDelta::hours(24));
    expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    let used = &good["promoted_by_override"][0];
    assert_eq!((&used["review_due_at"], &used["review_overdue"]), (&made["review_due_at"], &json!(false)));
    assert!(!good["warnings"].to_string().contains("overdue"), "{good}");

    let text =
        "name: strict\nenvironment: prod\nrepositories: [app]\noverride_review: 0s\ngates: [min_age: 0s]\n";
    let put = scene.admin.put("/api/v1/policies").body(text).send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    let refused = expect(scene.admin.promote("app", &digest, "prod").await, 409).await;
    assert!(refused["gates"].to_string().contains("proofmark override review"), "{refused}");
    assert_eq!(scene.everywhere(&digest).await, (true, true, true), "it ends nothing that runs");
    let good = expect(scene.admin.known_good("app", "prod").await, 200).await;
    let used = &good["promoted_by_override"][0];
    assert_eq!((&used["review_due_at"], &used["review_overdue"]), (&made["created_at"], &json!(true)));
    assert!(good["warnings"].to_string().contains("override-review-overdue"), "{good}");
    let verified = scene.admin.verdict("app", &digest, "prod").await;
    assert_eq!((&verified["promoted_by_override"][0], &verified["warnings"]), (used, &good["warnings"]));
    let list = scene.admin.document("/api/v1/environments/prod/releases").await;
    assert_eq!(&list["items"][0]["promoted_by_override"][0], used);
    let list = scene.admin.document("/api/v1/overrides?reviewed=false").await;
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["review_overdue"]), (id, &json!(true)));
    let list = scene.admin.document("/api/v1/exceptions?kind=override").await;
    assert_eq!(
        list["items"][0]["needs_attention"],
        json!(["ends_within_a_week", "unreviewed", "review_overdue"])
    );

    let other = scene.registry.named("carol", Role::Admin, "**", None).await;
    let reviewed = other.post_document(&review, &json!({"reason": "it was right"}), 200).await;
    assert_eq!((&reviewed["review_due_at"], &reviewed["review_overdue"]), (&Value::Null, &json!(false)));
    expect(scene.admin.promote("app", &digest, "prod").await, 201).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn what_refers_to_a_release_and_is_blocked_or_could_run_is_not_in_the_view() {
    let scene = scene("").await;
    let digest = scene.promoted("1.0").await;
    let size = scene
        .admin
        .get(&format!("/v2/app/manifests/{digest}"))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
        .len();
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let blob = Digest::sha256(b"1.0");
    let of = |kind: &str, config: &str| {
        json!({"schemaVersion": 2, "mediaType": kind, "artifactType": "application/vnd.note",
            "config": {"mediaType": config, "digest": blob, "size": 3},
            "layers": [{"mediaType": "application/octet-stream", "digest": blob, "size": 3}],
            "subject": {"mediaType": oci, "digest": digest, "size": size}})
    };
    let note = of(oci, "application/octet-stream");
    let note = scene.admin.push_manifest("app", "note", oci, &note).await;
    let mut image = of(docker, "application/octet-stream");
    image.as_object_mut().unwrap().remove("artifactType");
    let image = scene.admin.push_manifest("app", "image", docker, &image).await;
    let seen = async |digest: &Digest| {
        let path = format!("/v2/env/prod/app/manifests/{digest}");
        scene.admin.get(&path).send().await.unwrap().status().as_u16()
    };
    assert_eq!(
        (seen(&note).await, seen(&image).await),
        (200, 404),
        "runtimes take docker's type for an image"
    );
    scene.admin.block("app", &note, None).await;
    assert_eq!((seen(&note).await, seen(&digest).await), (404, 200));
    scene.registry.check().await;
}

#[tokio::test]
async fn an_exception_that_expired_is_in_no_list_of_open_ones() {
    let scene = scene("").await;
    let digest = scene.promoted("1.0").await;
    let until = proofmark::clock::now() + chrono::TimeDelta::milliseconds(700);
    let hold = json!({"environment": "prod", "reason": "short", "until": until});
    scene.admin.post_document("/api/v1/holds", &hold, 201).await;
    let approval = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "short", "until": until});
    scene.admin.post_document("/api/v1/approvals", &approval, 201).await;
    let over = "select pg_sleep_until(max(until)) from holds";
    sqlx::query(over).execute(&mut *scene.registry.sql().await).await.unwrap();
    for path in ["/api/v1/holds?environment=prod", "/api/v1/approvals?repository=app"] {
        assert_eq!(scene.admin.document(path).await["items"], json!([]), "{path}");
    }
    assert_eq!(
        scene.admin.document("/api/v1/environments/prod/releases").await["items"][0]["holds"],
        json!([])
    );
    scene.registry.check().await;
}
