//! Resolving: the deployer's question, judged again at each asking, writing nothing.

use crate::harness::{Client, Found, Registry, expect, header};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

struct Scene {
    registry: Registry,
    builder: Client,
    promoter: Client,
    deployer: Client,
}

async fn scene(gates: &str) -> Scene {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let deployer = registry.client(Role::Deployer, "**").await;
    registry.environment("prod", gates).await;
    Scene { registry, builder, promoter, deployer }
}

impl Scene {
    async fn promoted(&self, version: &str) -> Digest {
        let digest = self.builder.push_release("app", version, version).await;
        self.registry.scanned(&digest, "trivy", 5, &[]).await;
        expect(self.promoter.promote("app", &digest, "prod").await, 201).await;
        digest
    }
}

#[tokio::test]
async fn the_newest_promotion_is_the_answer_with_all_that_proves_it() {
    let scene = scene("scan: {max_age: 24h}").await;
    let first = scene.promoted("1.0").await;
    let second = scene.promoted("1.1").await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    assert_eq!((&good["digest"], &good["version"]), (&json!(second), &json!("1.1")));
    let host = scene.registry.url.trim_start_matches("http://");
    assert_eq!(good["reference"], format!("{host}/app@{second}"));
    assert_eq!(good["previous"]["digest"], json!(first));
    assert_eq!(good["scan"][0]["scanner"], "trivy");
    assert_eq!(good["log_proof"], json!(null));
    let expected = proofmark::attestation::summary::Expectations {
        part: proofmark::attestation::summary::Part::Any,
        digest: &second,
        kind: proofmark::attestation::summary::SubjectKind::Manifest,
        repository: &"app".parse().unwrap(),
        environment: &"prod".parse().unwrap(),
        level: None,
        max_age: None,
        at: proofmark::clock::now(),
    };
    let summary = good["summary"].to_string();
    proofmark::attestation::summary::check(summary.as_bytes(), scene.registry.app.keys.trust(), &expected)
        .unwrap();
    let text = scene
        .deployer
        .get("/api/v1/known-good?repository=app&environment=prod&format=text")
        .send()
        .await
        .unwrap();
    assert_eq!(text.text().await.unwrap().trim_end(), good["reference"]);
    let back =
        scene.deployer.document("/api/v1/known-good?repository=app&environment=prod&for=rollback").await;
    assert_eq!(back["digest"], json!(first));
    scene.registry.check().await;
}

#[tokio::test]
async fn the_etag_changes_when_the_answer_does_and_not_before() {
    let scene = scene("scan: {max_age: 24h}").await;
    scene.promoted("1.0").await;
    let etag = header(&scene.deployer.known_good("app", "prod").await, "etag");
    let again = async |etag: &str| {
        scene
            .deployer
            .get("/api/v1/known-good?repository=app&environment=prod")
            .header("if-none-match", etag)
            .send()
            .await
            .unwrap()
    };
    let same = again(&etag).await;
    assert_eq!((same.status().as_u16(), header(&same, "etag")), (304, etag.clone()));
    assert!(same.bytes().await.unwrap().is_empty());
    scene.promoted("1.1").await;
    let other = again(&etag).await;
    assert_eq!(other.status(), 200);
    assert_ne!(header(&other, "etag"), etag);
    scene.registry.check().await;
}

#[tokio::test]
async fn a_block_takes_the_answer_back_to_the_version_before_and_says_why() {
    let scene = scene("").await;
    let first = scene.promoted("1.0").await;
    let second = scene.promoted("1.1").await;
    let block = scene.promoter.block("app", &second, Some("prod")).await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    assert_eq!(good["digest"], json!(first));
    assert!(good["passed_over"][0]["reasons"][0].as_str().unwrap().contains("it corrupts data"));
    scene.promoter.block("app", &first, None).await;
    let none = expect(scene.deployer.known_good("app", "prod").await, 404).await;
    assert_eq!(none["code"], "no-known-good");
    assert_eq!(none["candidates"].as_array().unwrap().len(), 2);
    let path = format!("/api/v1/blocks/{}/revocation", block["id"]);
    scene.promoter.post_document(&path, &json!({"reason": "mended"}), 200).await;
    assert_eq!(expect(scene.deployer.known_good("app", "prod").await, 200).await["digest"], json!(second));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_stricter_policy_and_an_old_scan_are_told_and_end_nothing() {
    let scene = scene("").await;
    let digest = scene.builder.push_release("app", "1.0", "one").await;
    scene.registry.scanned(&digest, "trivy", 120, &[]).await;
    expect(scene.promoter.promote("app", &digest, "prod").await, 201).await;
    expect(scene.deployer.known_good("app", "prod").await, 200).await;
    scene.registry.policy("prod", "scan: {max_age: 1h}").await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    let told = good["would_not_be_promoted_today"][0]["message"].as_str().unwrap();
    assert!(told.contains("a scan counts for 1h"), "{good}");
    assert_eq!(good["at_risk"], json!([]), "the recorded policy does not ask for a newer scan");
    expect(scene.promoter.promote("app", &digest, "prod").await, 409).await;
    scene.registry.scanned(&digest, "trivy", 1, &[]).await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    assert_eq!(good["would_not_be_promoted_today"], json!([]));
    scene.registry.check().await;
}

#[tokio::test]
async fn what_runs_is_tolerated_for_the_grace_and_what_is_new_is_not() {
    let scene = scene("scan: {max_age: 24h, deny: {severity: high}, grace: {high: 10d}}").await;
    let running = scene.promoted("1.0").await;
    let found = [Found { vulnerability: "CVE-1", severity: "high" }];
    scene.registry.scanned(&running, "trivy", 1, &found).await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    assert!(good["warnings"][0].as_str().unwrap().contains("tolerated until"), "{good}");
    expect(scene.promoter.promote("app", &running, "prod").await, 409).await;
    let risk = &good["at_risk"][0];
    assert_eq!((&risk["reason"], risk["ends_at"].is_string()), (&json!("denied_finding"), true), "{good}");
    let strict = "/api/v1/known-good?repository=app&environment=prod&at_risk=deny";
    let refused = expect(scene.deployer.get(strict).send().await.unwrap(), 409).await;
    assert_eq!(refused["code"], "at-risk");
    scene.registry.policy("prod", "scan: {max_age: 24h, deny: {severity: high}}").await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    assert_eq!(good["at_risk"][0]["ends_at"], Value::Null, "no grace is stated: a risk without end");
    scene.registry.policy("prod", "scan: {max_age: 24h, deny: {severity: high}, grace: {high: 0s}}").await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    assert!(good["at_risk"][0]["ends_at"].is_string(), "the recorded wording is more favourable: {good}");
    scene.registry.check().await;
}

#[tokio::test]
async fn an_expired_summary_is_warned_of_and_renewed_by_the_job() {
    let registry = Registry::with(|settings| settings.summary_validity_seconds = Some(1)).await;
    let longer = registry.replica().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("prod", "").await;
    let digest = builder.push_release("app", "1.0", "one").await;
    expect(promoter.promote("app", &digest, "prod").await, 201).await;
    let over = "select pg_sleep_until(valid_until) from promotions";
    sqlx::query(over).execute(&mut *registry.sql().await).await.unwrap();
    let old = expect(promoter.known_good("app", "prod").await, 200).await;
    let warned = old["warnings"][0].as_str().unwrap();
    assert!(warned.starts_with("summary-expired: the verification summary was valid until"), "{warned}");
    let channel = "env/prod/app".parse().unwrap();
    assert_eq!(longer.app.renew_summaries(&channel).await.unwrap(), 1);
    assert_eq!(longer.app.renew_summaries(&channel).await.unwrap(), 0, "it is renewed once");
    let renewed = expect(promoter.known_good("app", "prod").await, 200).await;
    assert_eq!((&renewed["warnings"], &renewed["decision"]), (&json!([]), &old["decision"]));
    assert_ne!(renewed["summary"], old["summary"]);
    let payload = renewed["summary"]["payload"].as_str().unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, payload).unwrap();
    assert!(String::from_utf8(payload).unwrap().contains(r#"/evaluation":"running""#));
    promoter.block("app", &digest, None).await;
    assert_eq!(longer.app.renew_summaries(&channel).await.unwrap(), 0, "what is blocked gets no summary");
    longer.check().await;
    registry.check().await;
}

#[tokio::test]
async fn what_is_remembered_of_a_release_is_no_answer_once_another_is_newer() {
    let scene = scene("").await;
    let other = scene.registry.replica().await;
    let elsewhere = scene.deployer.at(&other.url);
    let ask =
        async |client: &Client| expect(client.known_good("app", "prod").await, 200).await["digest"].clone();
    for version in ["1.0", "1.1"] {
        let digest = scene.promoted(version).await;
        assert_eq!(ask(&scene.deployer).await, json!(digest));
        assert_eq!(ask(&elsewhere).await, json!(digest));
    }
    let newest = scene.builder.push_release("app", "1.2", "1.2").await;
    scene.registry.scanned(&newest, "trivy", 5, &[]).await;
    expect(scene.promoter.at(&other.url).promote("app", &newest, "prod").await, 201).await;
    assert_eq!(ask(&scene.deployer).await, json!(newest));
    let body = json!({"repository": "app", "environment": "prod", "reason": "errors"});
    let back = scene.promoter.post_document("/api/v1/rollbacks", &body, 201).await;
    for client in [&scene.deployer, &elsewhere] {
        assert_eq!(ask(client).await, back["digest"]);
    }
    other.check().await;
    scene.registry.check().await;
}

/// A statement of this size costs more to plan than to run.
#[tokio::test]
async fn the_statement_that_gathers_facts_is_planned_once_and_not_for_each_question() {
    let scene = scene("scan: {max_age: 24h}").await;
    scene.promoted("1.0").await;
    // Leave one connection to the service, so that it is known which one answers.
    let mut taken = Vec::new();
    for _ in 1..scene.registry.app.db.pool().options().get_max_connections() {
        taken.push(scene.registry.sql().await);
    }
    for _ in 0..20 {
        expect(scene.deployer.known_good("app", "prod").await, 200).await;
    }
    let (generic, custom): (i64, i64) = sqlx::query_as(
        "select sum(generic_plans)::bigint, sum(custom_plans)::bigint from pg_prepared_statements
         where statement like '%as materialized%attestation_subjects%'",
    )
    .fetch_one(&mut *scene.registry.sql().await)
    .await
    .unwrap();
    assert!(
        generic >= 15 && custom <= 5,
        "{generic} times the plan that was made once, {custom} times a new one"
    );
    drop(taken);
    scene.registry.check().await;
}

#[tokio::test]
async fn versions_that_went_to_and_fro_are_looked_at_once_and_never_answered_as_the_way_back() {
    let scene = scene("").await;
    let oldest = scene.promoted("1.0").await;
    let (one, other) = (scene.promoted("1.1").await, scene.promoted("1.2").await);
    for _ in 0..6 {
        expect(scene.promoter.promote("app", &one, "prod").await, 201).await;
        expect(scene.promoter.promote("app", &other, "prod").await, 201).await;
    }
    let rollback = "/api/v1/known-good?repository=app&environment=prod&for=rollback";
    assert_eq!(scene.deployer.document(rollback).await["digest"], json!(one));
    scene.promoter.block("app", &one, None).await;
    let back = scene.deployer.document(rollback).await;
    assert_eq!(back["digest"], json!(oldest), "{back}");
    assert_eq!(back["passed_over"].as_array().unwrap().len(), 1);
    let block = scene.promoter.block("app", &oldest, None).await;
    let none = expect(scene.deployer.get(rollback).send().await.unwrap(), 404).await;
    assert_eq!(none["candidates"].as_array().unwrap().len(), 2, "{none}");
    scene.promoter.block("app", &other, None).await;
    let none = expect(scene.deployer.known_good("app", "prod").await, 404).await;
    let candidates = none["candidates"].as_array().unwrap().iter().map(|c| c["digest"].clone());
    assert_eq!(candidates.collect::<Vec<_>>(), [json!(other), json!(one), json!(oldest)]);
    let path = format!("/api/v1/blocks/{}/revocation", block["id"]);
    scene.promoter.post_document(&path, &json!({"reason": "mended"}), 200).await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    assert_eq!(good["digest"], json!(oldest));
    scene.registry.check().await;
}

#[tokio::test]
async fn the_approvals_that_the_promotion_counted_are_told_whatever_becomes_of_them() {
    let scene = scene("approvals: {count: 2}").await;
    let author = scene.registry.named("carol", Role::Admin, "**", None).await;
    let digest = author.push_release("app", "1.0", "one").await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
    let ann = scene.registry.named("ann", Role::Approver, "**", None).await;
    let eve = scene.registry.named("eve", Role::Approver, "**", None).await;
    for approver in [&author, &ann, &ann, &eve] {
        approver.post_document("/api/v1/approvals", &body, 201).await;
    }
    expect(scene.promoter.promote("app", &digest, "prod").await, 201).await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    assert_eq!(good["approvals"], json!(["ann", "eve"]), "the author's own does not count");
    scene.registry.policy("prod", "approvals: {count: 9, from: [ann]}").await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    assert_eq!(good["approvals"], json!(["ann", "eve"]));
    assert_eq!(good["would_not_be_promoted_today"][0]["gate"], "approvals");
    scene.registry.check().await;
}

#[tokio::test]
async fn an_environment_that_is_not_there_is_told_apart_from_one_without_promotions() {
    let scene = scene("").await;
    scene.registry.environment("staging", "").await;
    scene.builder.push_release("app", "1.0", "one").await;
    assert_eq!(expect(scene.deployer.known_good("app", "staging").await, 404).await["code"], "no-known-good");
    let unknown = expect(scene.deployer.known_good("app", "prodd").await, 404).await;
    assert_eq!(
        (&unknown["code"], &unknown["environments"]),
        (&json!("environment-unknown"), &json!(["prod", "staging"]))
    );
    assert!(unknown["detail"].as_str().unwrap().contains("there are prod, staging"), "{unknown}");
    // Who has no role there learns nothing of what there is.
    let elsewhere = scene.registry.named("elsewhere", Role::Deployer, "**", Some(&["staging"])).await;
    for environment in ["prod", "prodd"] {
        let answer = expect(elsewhere.known_good("app", environment).await, 403).await;
        assert_eq!(answer["code"], "forbidden");
        assert!(answer.get("environments").is_none(), "{answer}");
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn times_in_messages_are_written_as_in_the_rest_of_the_answer() {
    let scene = scene("scan: {max_age: 24h, deny: {severity: high}, grace: {high: 10d}}").await;
    let digest = scene.promoted("1.0").await;
    let found = [Found { vulnerability: "CVE-1", severity: "high" }];
    scene.registry.scanned(&digest, "trivy", 1, &found).await;
    let good = expect(scene.deployer.known_good("app", "prod").await, 200).await;
    let message = |gate: &str| {
        let gates = good["gates"].as_array().unwrap();
        gates.iter().find(|one| one["gate"] == gate).unwrap()["message"].as_str().unwrap().to_owned()
    };
    assert!(message("summary").ends_with(good["valid_until"].as_str().unwrap()), "{good}");
    let warning = good["warnings"][0].as_str().unwrap();
    assert!(warning.ends_with('Z') && !warning.contains("+00:00"), "{good}");
    scene.registry.check().await;
}

#[tokio::test]
async fn asking_writes_nothing() {
    let scene = scene("scan: {max_age: 24h}").await;
    let digest = scene.promoted("1.0").await;
    let other = scene.builder.push_release("app", "1.1", "other").await;
    let count = async || -> Vec<i64> {
        let mut connection = scene.registry.sql().await;
        let tables =
            ["events", "decisions", "promotions", "pins", "policies", "blocks", "approvals", "holds"];
        let mut counts = Vec::new();
        for table in tables {
            let query = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
            counts.push(sqlx::query_scalar(query).fetch_one(&mut *connection).await.unwrap());
        }
        counts
    };
    let before = count().await;
    expect(scene.deployer.known_good("app", "prod").await, 200).await;
    expect(scene.deployer.known_good("app", "nowhere").await, 404).await;
    assert_eq!(scene.deployer.verdict("app", &digest, "prod").await["verdict"], "allow");
    assert_eq!(scene.deployer.verdict("app", &other, "prod").await["verdict"], "deny");
    assert_eq!(count().await, before);
    scene.registry.check().await;
}

#[tokio::test]
async fn a_promoted_index_carries_its_children_and_a_block_on_one_stops_it() {
    let scene = scene("scan: {max_age: 24h}").await;
    let amd = scene.builder.push_release("app", "amd", "for amd64").await;
    let arm = scene.builder.push_release("app", "arm", "for arm64").await;
    let index = scene.builder.push_index("app", "1.0", &[(&amd, "linux/amd64"), (&arm, "linux/arm64")]).await;
    scene.registry.scanned(&amd, "trivy", 1, &[]).await;
    let refused = expect(scene.promoter.promote("app", &index, "prod").await, 409).await;
    let message = refused["gates"][2]["message"].as_str().unwrap();
    assert!(message.contains(arm.as_str()) && !message.contains(amd.as_str()), "{message}");
    scene.registry.scanned(&arm, "trivy", 1, &[]).await;
    let made = expect(scene.promoter.promote("app", &index, "prod").await, 201).await;
    for digest in [&index, &amd, &arm] {
        let expected = proofmark::attestation::summary::Expectations {
            part: proofmark::attestation::summary::Part::Any,
            kind: proofmark::attestation::summary::SubjectKind::Manifest,
            digest,
            repository: &"app".parse().unwrap(),
            environment: &"prod".parse().unwrap(),
            level: None,
            max_age: None,
            at: proofmark::clock::now(),
        };
        let (summary, trust) = (made["summary"].to_string(), scene.registry.app.keys.trust());
        proofmark::attestation::summary::check(summary.as_bytes(), trust, &expected).unwrap();
    }
    let answer = scene.deployer.verdict("app", &arm, "prod").await;
    assert_eq!((&answer["verdict"], &answer["index"]), (&json!("allow"), &json!(index)));
    let platform = "/api/v1/known-good?repository=app&environment=prod&platform=linux/amd64";
    assert_eq!(scene.deployer.document(platform).await["digest"], json!(amd));

    scene.promoter.block("app", &arm, None).await;
    assert_eq!(scene.deployer.verdict("app", &arm, "prod").await["verdict"], "deny");
    assert_eq!(scene.deployer.verdict("app", &index, "prod").await["verdict"], "deny");
    assert_eq!(scene.deployer.verdict("app", &amd, "prod").await["verdict"], "allow");
    assert_eq!(scene.deployer.document(platform).await["digest"], json!(amd));
    expect(scene.deployer.known_good("app", "prod").await, 404).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_repository_with_dots_is_named_behind_the_registrys_host() {
    let scene = scene("scan: {max_age: 24h}").await;
    let digest = scene.builder.push_release("acme.io/app", "1.0", "dotted").await;
    scene.registry.scanned(&digest, "trivy", 5, &[]).await;
    expect(scene.promoter.promote("acme.io/app", &digest, "prod").await, 201).await;
    let host = scene.registry.url.trim_start_matches("http://");
    for body in [
        json!({"environment": "prod", "reference": format!("{host}/acme.io/app@{digest}")}),
        json!({"environment": "prod", "reference": format!("{host}/acme.io/app:1.0")}),
        json!({"environment": "prod", "repository": "acme.io/app", "version": "1.0"}),
    ] {
        let verdict = scene.deployer.post_document("/api/v1/verify", &body, 200).await;
        assert_eq!(verdict["verdict"], "allow", "{verdict}");
    }
    let body = json!({"environment": "prod", "reference": format!("acme.io/app@{digest}")});
    let verdict = scene.deployer.post_document("/api/v1/verify", &body, 200).await;
    assert_eq!(verdict["gates"][0]["gate"], "registry", "to every other tool it is a host: {verdict}");
    scene.registry.check().await;
}
