//! Refusing: wrong roles, wrong inputs, and the race between a block and promotions.

use crate::harness::{Registry, Signing, expect};
use proofmark::access::Role;
use serde_json::{Value, json};

#[tokio::test]
async fn each_act_needs_its_own_right() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "team/*").await;
    registry.environment("prod", "").await;
    let digest = builder.push_release("team/app", "1.0", "one").await;
    let lane = json!({"repository": "team/app", "digest": digest, "environment": "prod", "reason": "x"});
    let place = json!({"repository": "team/app", "environment": "prod", "reason": "x"});
    for (path, body, right) in [
        ("promotions", &lane, Role::Promoter),
        ("approvals", &lane, Role::Approver),
        ("blocks", &lane, Role::Promoter),
        ("holds", &place, Role::Promoter),
    ] {
        let path = format!("/api/v1/{path}");
        for role in [Role::Reader, Role::Pusher, Role::Scanner, Role::Deployer, Role::Auditor] {
            let client = registry.client(role, "team/*").await;
            client.post_document(&path, body, 403).await;
        }
        // Outside of what one may see the answer does not tell whether it exists.
        let stranger = registry.client(right, "other/*").await;
        let hidden = stranger.post_document(&path, body, 404).await;
        let mut nowhere = body.clone();
        nowhere["repository"] = "team/nothing".into();
        let missing = stranger.post_document(&path, &nowhere, 404).await;
        assert_eq!((&hidden["code"], &hidden["detail"]), (&missing["code"], &missing["detail"]));
        let elsewhere = registry.named("far", right, "team/*", Some(&["staging"])).await;
        elsewhere.post_document(&path, body, 403).await;
        registry.client(right, "team/*").await.post_document(&path, body, 201).await;
    }
    registry.anyone().post_document("/api/v1/promotions", &lane, 401).await;
    let promoter = registry.client(Role::Promoter, "**").await;
    promoter.put_document("/api/v1/environments", &json!({"name": "new"}), 403).await;
    builder.put_document("/api/v1/environments", &json!({"name": "new"}), 404).await;
    registry.check().await;
}

#[tokio::test]
async fn a_policy_that_asks_for_what_is_not_built_is_refused_where_it_says_so() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let put = async |text: &str| admin.put("/api/v1/policies").body(text.to_owned()).send().await.unwrap();
    let text = "environment: prod\nrepositories: ['**']\ngates:\n  - window: { deny: [x] }\n";
    let refused = expect(put(text).await, 422).await;
    assert_eq!((&refused["code"], &refused["line"]), (&json!("invalid-policy"), &json!(4)));
    assert!(refused["detail"].as_str().unwrap().contains("promoted_in"), "{refused}");
    let unknown = "environment: prod\nrepositories: ['**']\ngates: [{promoted_in: {environments: [moon]}}]";
    assert_eq!(expect(put(unknown).await, 422).await["code"], "invalid-policy");
    let nowhere = "environment: moon\nrepositories: ['**']\ngates: []";
    assert_eq!(expect(put(nowhere).await, 404).await["code"], "environment-unknown");
    let schema = admin.document("/api/v1/policies/schema").await;
    assert_eq!(schema["additionalProperties"], json!(false));
    registry.check().await;
}

#[tokio::test]
async fn every_version_of_a_policy_is_kept_and_the_same_one_is_no_change() {
    let registry = Registry::start().await;
    registry.environment("prod", "min_age: 1s").await;
    let admin = registry.admin();
    let yaml = "environment: prod\nrepositories: ['**']\ngates: [{min_age: 1s}]\n";
    let same = expect(admin.put("/api/v1/policies").body(yaml).send().await.unwrap(), 200).await;
    let json = json!({"environment": "prod", "repositories": ["**"], "gates": [{"min_age": {"age": "2s"}}]});
    let changed = admin.put_document("/api/v1/policies", &json, 201).await;
    assert_ne!(same["digest"], changed["digest"]);
    let listed = admin.document("/api/v1/policies?environment=prod&history=true").await;
    let digests: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|row| &row["digest"]).collect();
    assert_eq!(digests, [&changed["digest"], &same["digest"]]);
    let end = json!({"reason": "moved"});
    let path = "/api/v1/policies/prod/default/revocation";
    assert_eq!(admin.post(path).json(&end).send().await.unwrap().status(), 204);
    let builder = registry.client(Role::Pusher, "**").await;
    let digest = builder.push_release("app", "1.0", "one").await;
    let refused = expect(admin.promote("app", &digest, "prod").await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("no policy covers app in prod"), "{refused}");
    registry.check().await;
}

#[tokio::test]
async fn bad_input_is_refused_with_what_would_be_accepted() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let builder = registry.client(Role::Pusher, "**").await;
    let digest = builder.push_release("app", "1.0", "one").await;
    let unknown = format!("sha256:{}", "0".repeat(64));
    for (path, body, status, part) in [
        (
            "promotions",
            json!({"repository": "app", "environment": "prod"}),
            422,
            "either a digest or a version",
        ),
        (
            "promotions",
            json!({"repository": "App", "version": "1.0", "environment": "prod"}),
            422,
            "lower-case",
        ),
        (
            "promotions",
            json!({"repository": "app", "version": "2.0", "environment": "prod"}),
            404,
            "no artifact 2.0",
        ),
        (
            "promotions",
            json!({"repository": "app", "digest": unknown, "environment": "prod"}),
            404,
            "no artifact",
        ),
        (
            "promotions",
            json!({"repository": "app", "version": "1.0", "environment": "moon"}),
            404,
            "no environment",
        ),
        (
            "promotions",
            json!({"repository": "app", "version": "1.0", "enviroment": "prod"}),
            422,
            "enviroment",
        ),
        ("blocks", json!({"repository": "app", "digest": digest}), 422, "reason"),
        ("blocks", json!({"repository": "app", "digest": digest, "reason": " "}), 422, "1 to 1000"),
        (
            "blocks",
            json!({"repository": "app", "digest": digest, "reason": "x", "until": "2020-01-01T00:00:00Z"}),
            422,
            "future",
        ),
        ("holds", json!({"reason": "x"}), 422, "names a repository, an environment"),
        ("verify", json!({"environment": "prod", "reference": "app"}), 400, "repository@sha256"),
    ] {
        let refused = admin.post_document(&format!("/api/v1/{path}"), &body, status).await;
        assert!(refused["detail"].as_str().unwrap().contains(part), "{body}: {refused}");
        assert!(refused["request_id"].is_string());
    }
    let hold = json!({"environment": "prod", "reason": "x"});
    let long =
        admin.post("/api/v1/holds").header("idempotency-key", "x".repeat(300)).json(&hold).send().await;
    expect(long.unwrap(), 400).await;
    let asked =
        admin.get("/api/v1/known-good?repository=app&environment=prod&wait=60s").send().await.unwrap();
    assert!(expect(asked, 400).await["detail"].as_str().unwrap().contains("wait"));
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promotion_is_decided_after_an_acknowledged_block() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("prod", "").await;
    registry.environment("staging", "").await;
    let mut tasks = Vec::new();
    for number in 0..8 {
        let digest = builder.push_release("app", &format!("1.{number}"), &format!("{number}")).await;
        for environment in ["prod", "staging"] {
            let (promoter, digest) = (promoter.clone(), digest.clone());
            tasks.push(tokio::spawn(async move {
                loop {
                    let status = promoter.promote("app", &digest, environment).await.status().as_u16();
                    match status {
                        201 => {}
                        409 => return None,
                        other => panic!("{other}"),
                    }
                }
            }));
        }
        // Some everywhere, some in one environment after the other.
        let (promoter, scope) = (promoter.clone(), (number % 2 == 0).then_some("prod"));
        tasks.push(tokio::spawn(async move {
            let here = promoter.block("app", &digest, scope).await;
            let there =
                if scope.is_some() { promoter.block("app", &digest, Some("staging")).await } else { here };
            Some((digest, there))
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let late: i64 = sqlx::query_scalar(
        "select count(*) from promotions p join blocks b on b.sha256 = p.sha256
         where (b.environment_id is null or b.environment_id = p.environment_id) and p.promoted_at >= b.at",
    )
    .fetch_one(&mut *registry.sql().await)
    .await
    .unwrap();
    assert_eq!(late, 0, "promotions that overlooked a block");
    registry.check().await;
}

#[tokio::test]
async fn a_time_that_not_everybody_can_read_is_kept_nowhere() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    registry.environment("prod", "").await;
    let digest = admin.push_release("app", "1.0", "one").await;
    expect(admin.promote("app", &digest, "prod").await, 201).await;
    let lane = json!({"repository": "app", "environment": "prod", "digest": digest, "reason": "why"});
    let pem = Signing::new(1).pem();
    let signer = json!({"name": "ci", "public_key": pem, "repositories": ["**"], "predicate_types": ["**"]});
    registry.admin().post_document("/api/v1/signers", &signer, 201).await;
    let signer = json!({"name": "x", "public_key": Signing::new(2).pem(), "repositories": ["**"],
                        "predicate_types": ["**"]});
    let doors = [
        ("/api/v1/approvals", "until", &lane),
        ("/api/v1/blocks", "until", &lane),
        ("/api/v1/holds", "until", &json!({"repository": "app", "environment": "prod", "reason": "why"})),
        ("/api/v1/signers", "valid_from", &signer),
        ("/api/v1/signers", "valid_until", &signer),
        ("/api/v1/signers/ci/revocation", "at", &json!({"reason": "why"})),
    ];
    for (path, member, body) in doors {
        for time in ["+262000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "-0005-01-01T00:00:00Z"] {
            let mut body = body.clone();
            body[member] = json!(time);
            let refused = admin.post_document(path, &body, 422).await;
            assert!(refused["detail"].as_str().unwrap().contains("1970 to 9999"), "{path}: {refused}");
        }
    }
    let path =
        format!("/api/v1/scans?repository=app&digest={digest}&database_updated_at=-0005-01-01T00:00:00Z");
    admin.post_document(&path, &json!({}), 400).await;
    expect(admin.known_good("app", "prod").await, 200).await;
    registry.check().await;
}

#[tokio::test]
async fn the_database_itself_keeps_no_time_that_cannot_be_written() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    for year in ["10000", "1969", "262000"] {
        let refused = sqlx::query(
            "insert into holds(environment_id, why, until, by, at, rank)
             select e.id, 'why', make_timestamptz($1, 1, 1, 0, 0, 0, 'UTC'), p.id, clock_timestamp(), 'promoter'
             from environments e cross join principals p limit 1",
        )
        .bind(year.parse::<i32>().unwrap())
        .execute(&mut *registry.sql().await)
        .await
        .unwrap_err();
        assert!(refused.to_string().contains("a_holds_end_can_be_written"), "{refused}");
    }
    registry.check().await;
}

#[tokio::test]
async fn lists_of_environments_holds_and_policies_come_in_pages() {
    let registry = Registry::start().await;
    registry.admin().push_release("app", "1.0", "one").await;
    let admin = registry.admin();
    for number in 0..5 {
        registry.environment(&format!("e{number}"), "").await;
        let hold = json!({"repository": "app", "environment": format!("e{number}"), "reason": "x"});
        admin.post_document("/api/v1/holds", &hold, 201).await;
    }
    for (list, member) in [
        ("holds?repository=app", "environment"),
        ("policies?repository=app", "environment"),
        ("environments?", "name"),
    ] {
        let mut found = Vec::new();
        let mut path = format!("/api/v1/{list}&limit=2");
        loop {
            let page = admin.document(&path).await;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2, "{page}");
            found.extend(items.iter().map(|item| item[member].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/api/v1/{list}&limit=2&cursor={next}");
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(found, ["e4", "e3", "e2", "e1", "e0"], "{list}");
    }
    registry.check().await;
}

#[tokio::test]
async fn a_right_in_one_environment_tells_nothing_of_another() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    registry.environment("staging", "").await;
    registry.environment("prod", "").await;
    let digest = admin.push_release("app", "1.0", "one").await;
    let decided = expect(admin.promote("app", &digest, "staging").await, 201).await["decision"].take();
    expect(admin.promote("app", &digest, "prod").await, 201).await;
    let cluster = registry.named("cluster/prod", Role::Deployer, "**", Some(&["prod"])).await;
    expect(cluster.known_good("app", "prod").await, 200).await;
    expect(cluster.known_good("app", "staging").await, 403).await;
    assert_eq!(cluster.verdict("app", &digest, "prod").await["verdict"], "allow");
    let body = json!({"repository": "app", "digest": digest, "environment": "staging"});
    cluster.post_document("/api/v1/verify", &body, 403).await;
    let decision = format!("/api/v1/decisions/{}", decided["id"].as_str().unwrap());
    expect(cluster.get(&decision).send().await.unwrap(), 404).await;
    let listed = cluster.document("/api/v1/promotions?repository=app").await;
    let environments: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|p| &p["environment"]).collect();
    assert_eq!(environments, ["prod"]);
    let listed = cluster.get("/api/v1/promotions?repository=app&environment=staging").send().await.unwrap();
    expect(listed, 403).await;
    // What happens in no environment is not theirs.
    let record = format!("/api/v1/artifacts/{digest}?repository=app");
    expect(cluster.get(&record).send().await.unwrap(), 403).await;

    // A right everywhere, beside it, counts everywhere.
    registry.named("cluster/prod", Role::Reader, "app", None).await;
    expect(cluster.known_good("app", "staging").await, 200).await;

    // Nor do lists of what was approved, blocked, held and written for both, or the log.
    for environment in ["staging", "prod"] {
        let artifact =
            json!({"repository": "app", "digest": digest, "environment": environment, "reason": "x"});
        admin.post_document("/api/v1/approvals", &artifact, 201).await;
        admin.post_document("/api/v1/blocks", &artifact, 201).await;
        let place = json!({"repository": "app", "environment": environment, "reason": "x"});
        admin.post_document("/api/v1/holds", &place, 201).await;
    }
    registry.sequence_all().await;
    let auditor = registry.named("auditor/prod", Role::Auditor, "app", Some(&["prod"])).await;
    for path in ["approvals", "blocks", "holds", "policies", "promotions", "audit/events"] {
        let path = format!("/api/v1/{path}?repository=app");
        let (all, some) = (admin.document(&path).await, auditor.document(&path).await);
        let of = |page: &Value, environment: Value| {
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|item| item.get("event").unwrap_or(item)["environment"] == environment)
                .count()
        };
        assert!(of(&all, json!("staging")) > 0, "{all}");
        assert_eq!(of(&some, json!("staging")), 0, "{some}");
        // An event of no environment is not of theirs; a block or hold of all environments counts in theirs.
        let of_all = (path != "/api/v1/audit/events?repository=app").then_some(Value::Null);
        for shown in of_all.into_iter().chain([json!("prod")]) {
            assert_eq!(of(&some, shown.clone()), of(&all, shown), "{some}");
        }
    }
    for format in ["ndjson", "csv"] {
        let path = format!("/api/v1/audit/events?repository=app&format={format}");
        let lines = auditor.get(&path).send().await.unwrap().text().await.unwrap();
        assert!(lines.contains("prod") && !lines.contains("staging"), "{lines}");
        assert!(!lines.contains("manifest.pushed"), "{lines}");
    }
    registry.check().await;
}

#[tokio::test]
async fn neither_findings_nor_numbers_tell_what_is_in_an_environment_of_others() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    registry.environment("staging", "").await;
    registry.environment("prod", "").await;
    let digest = admin.push_release("app", "1.0", "one").await;
    let of_staging = json!({"repository": "app", "digest": digest, "environment": "staging", "reason": "x"});
    admin.post_document("/api/v1/approvals", &of_staging, 201).await;
    admin.post_document("/api/v1/blocks", &of_staging, 201).await;
    let place = json!({"repository": "app", "environment": "staging", "reason": "x"});
    admin.post_document("/api/v1/holds", &place, 201).await;
    let auditor = registry.named("auditor/prod", Role::Auditor, "app", Some(&["prod"])).await;
    let asked = "/api/v1/findings?environment=staging";
    expect(auditor.get(&format!("{asked}&repository=app")).send().await.unwrap(), 403).await;
    let found = auditor.document(asked).await;
    assert_eq!(found["items"], json!([]));
    let promoter = registry.named("promoter/prod", Role::Promoter, "app", Some(&["prod"])).await;
    let approver = registry.named("approver/prod", Role::Approver, "app", Some(&["prod"])).await;
    for (kind, who) in [("approvals", &approver), ("blocks", &promoter), ("holds", &promoter)] {
        let listed = admin.document(&format!("/api/v1/{kind}?repository=app")).await;
        let items = listed["items"].as_array().unwrap();
        let one = items.iter().find(|item| item["environment"] == "staging").unwrap();
        let path = format!("/api/v1/{kind}/{}/revocation", one["id"]);
        who.post_document(&path, &json!({"reason": "x"}), 404).await;
    }
    registry.check().await;
}

#[tokio::test]
async fn a_block_of_another_team_tells_that_it_is_there_and_nothing_more() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    registry.environment("prod", "").await;
    for team in ["zeus/app", "vic/app"] {
        let digest = admin.push_release(team, "1.0", "the same bytes").await;
        expect(admin.promote(team, &digest, "prod").await, 201).await;
    }
    let digest = admin.push_release("zeus/app", "1.1", "the same bytes").await;
    let theirs = registry.named("secret-agent", Role::Promoter, "{zeus,vic}/*", None).await;
    let body = json!({"repository": "zeus/app", "digest": digest, "reason": "SECRET project"});
    let block = theirs.post_document("/api/v1/blocks", &body, 201).await;
    let ours = registry.client(Role::Promoter, "vic/*").await;
    let told = ours.verdict("vic/app", &digest, "prod").await;
    let listed = ours.document("/api/v1/blocks?repository=vic/app").await;
    assert_eq!(
        (&told["verdict"], &listed["items"][0]["id"]),
        (&json!("deny"), &block["id"]),
        "{told} {listed}"
    );
    assert!(told["reasons"][0].as_str().unwrap().contains("by those of another repository"), "{told}");
    for secret in ["SECRET", "secret-agent", "zeus"] {
        assert!(!format!("{told}{listed}").contains(secret), "{told} {listed}");
    }
    let lift = format!("/api/v1/blocks/{}/revocation", block["id"]);
    ours.post_document(&lift, &json!({"reason": "ours"}), 404).await;
    let known = admin.document("/api/v1/blocks?repository=vic/app").await;
    assert_eq!(
        (&known["items"][0]["reason"], &known["items"][0]["by"]),
        (&json!("SECRET project"), &json!("secret-agent"))
    );
    registry.check().await;
}
