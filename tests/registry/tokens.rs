//! Tokens with grants of their own, their ends, and principals that are disabled.

use crate::harness::{Client, Registry, eventually, expect};
use proofmark::access::Role;
use serde_json::{Value, json};

const TOKENS: &str = "/api/v1/tokens";

#[allow(clippy::needless_pass_by_value, reason = "each is asked with a literal")]
async fn made(registry: &Registry, body: Value) -> (Client, Value) {
    let made = registry.admin().post_document(TOKENS, &body, 201).await;
    (Client::new(&registry.url, made["token"].as_str().map(str::to_owned)), made)
}

fn path(token: &Value, act: &str) -> String {
    format!("{TOKENS}/{}{act}", token["id"].as_str().unwrap())
}

async fn id_of(registry: &Registry, principal: &str) -> Value {
    registry.admin().document(&format!("/api/v1/principals?name={principal}")).await["items"][0]["id"].clone()
}

#[tokio::test]
async fn attack_1_a_token_with_a_lesser_role_of_an_administrator_is_no_administrators() {
    let registry = Registry::start().await;
    let boss = registry.named("boss", Role::Admin, "**", None).await;
    boss.push_release("public/app", "1.0", "one").await;
    let reader = json!({"role": "reader", "repositories": "public/**"});
    let (weak, token) =
        made(&registry, json!({"principal": "boss", "grants": [reader], "expires_in_seconds": 3600})).await;
    let whoami = weak.document("/api/v1/whoami").await;
    assert_eq!(
        whoami["grants"],
        json!([{"role": "reader", "repositories": "public/**", "environments": null}])
    );
    assert_eq!(weak.get("/v2/public/app/manifests/1.0").send().await.unwrap().status(), 200);
    let refused = [
        weak.get(TOKENS),
        weak.get("/api/v1/grants"),
        weak.post(TOKENS).json(&json!({"principal": "boss"})),
        weak.post("/api/v1/grants").json(&json!({"principal": "boss", "role": "admin"})),
        weak.post(&path(&registry.admin().document(TOKENS).await["items"][0], "/rotation")).json(&json!({})),
        weak.delete("/v2/public/app/manifests/1.0"),
        weak.post("/v2/public/app/blobs/uploads/"),
    ];
    for request in refused {
        let answer = request.send().await.unwrap();
        let (status, path) = (answer.status().as_u16(), answer.url().path().to_owned());
        assert!([401, 404].contains(&status), "{path}: {status}");
    }
    // Nor is a token of docker's flow that was made with it, nor what takes its place.
    let docker = weak.document("/auth/token?service=x&scope=repository:public/app:pull,push,delete").await;
    let docker = Client::new(&registry.url, docker["token"].as_str().map(str::to_owned));
    assert_eq!(docker.post("/v2/public/app/blobs/uploads/").send().await.unwrap().status(), 401);
    let next = weak.post_document(&path(&token, "/rotation"), &json!({}), 201).await;
    let next_client = Client::new(&registry.url, next["token"].as_str().map(str::to_owned));
    expect(next_client.get(TOKENS).send().await.unwrap(), 404).await;
    expect(weak.get("/api/v1/whoami").send().await.unwrap(), 401).await;

    // Its grants end with it, and the principal's stay.
    expect(registry.admin().delete(&path(&next, "")).send().await.unwrap(), 204).await;
    let grants = registry.admin().document("/api/v1/grants?limit=1000").await;
    let open = |own: bool| {
        let of = |one: &&Value| one["token"].is_null() == own && one["ended_at"].is_null();
        grants["items"].as_array().unwrap().iter().filter(of).count()
    };
    assert_eq!((open(true), open(false)), (2, 1), "of the replaced token only the token ended: {grants}");
    expect(boss.get(TOKENS).send().await.unwrap(), 200).await;
    registry.check().await;
}

#[tokio::test]
async fn an_approval_counts_by_a_live_token_with_the_right_and_no_longer() {
    let registry = Registry::start().await;
    registry.environment("prod", "approvals: {count: 1}").await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    let approver = json!([{"role": "approver", "repositories": "app"}]);
    let (ann, token) = made(&registry, json!({"principal": "ann", "grants": approver})).await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
    ann.post_document("/api/v1/approvals", &body, 201).await;
    expect(admin.promote("app", &digest, "prod").await, 201).await;
    expect(admin.delete(&path(&token, "")).send().await.unwrap(), 204).await;
    let refused = expect(admin.promote("app", &digest, "prod").await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("ann no longer has the right"), "{refused}");
    registry.check().await;
}

#[tokio::test]
async fn a_token_that_may_more_than_pull_ends_by_itself_unless_its_maker_says_never() {
    let registry = Registry::start().await;
    let pusher = json!([{"role": "pusher"}]);
    let reader = json!([{"role": "reader"}, {"role": "runner"}]);
    let days = |made: &Value| {
        let end: Option<chrono::DateTime<chrono::Utc>> =
            serde_json::from_value(made["expires_at"].clone()).unwrap();
        end.map(|end| (end - proofmark::clock::now() + chrono::TimeDelta::hours(1)).num_days())
    };
    for (body, life) in [
        (json!({"principal": "ci", "grants": pusher}), Some(90)),
        (json!({"principal": "ci", "grants": [{"role": "reader"}, {"role": "scanner"}]}), Some(90)),
        (json!({"principal": "ci", "grants": reader}), None),
        (json!({"principal": "ci"}), Some(90)),
        (json!({"principal": "ci", "grants": pusher, "expires": "never"}), None),
        (json!({"principal": "ci", "grants": pusher, "expires_in_seconds": 864_000}), Some(10)),
    ] {
        let (client, made) = made(&registry, body.clone()).await;
        assert_eq!(days(&made), life, "{body}");
        let whoami = client.document("/api/v1/whoami").await;
        assert_eq!(
            (&whoami["expires_at"], &whoami["ends_soon"]),
            (&made["expires_at"], &json!(life == Some(10)))
        );
    }
    let both = json!({"principal": "ci", "expires": "never", "expires_in_seconds": 60});
    registry.admin().post_document(TOKENS, &both, 400).await;
    let owner = registry.admin().document("/api/v1/whoami").await;
    assert_eq!(owner["expires_at"], Value::Null, "the token of the administrator's file");
    registry.check().await;
}

#[tokio::test]
async fn a_rotated_token_goes_on_for_the_overlap_and_can_be_revoked_before() {
    let registry = Registry::start().await;
    let pusher = json!([{"role": "pusher", "repositories": "team/*"}]);
    let (ci, token) = made(&registry, json!({"principal": "ci", "grants": pusher})).await;
    let next = ci.post_document(&path(&token, "/rotation"), &json!({"overlap_seconds": 3600}), 201).await;
    let next_ci = Client::new(&registry.url, next["token"].as_str().map(str::to_owned));
    for client in [&ci, &next_ci] {
        assert_eq!(client.document("/api/v1/whoami").await["grants"][0]["repositories"], "team/*");
    }
    assert_eq!(next["principal"], "ci");
    let again = ci.post_document(&path(&token, "/rotation"), &json!({}), 409).await;
    assert_eq!(again["code"], "not-open", "a thief of the old one gets no other by it");
    let other = registry.named("other", Role::Pusher, "other/**", None).await;
    other.post_document(&path(&token, "/rotation"), &json!({}), 404).await;
    let long = json!({"overlap_seconds": 40 * 86_400});
    next_ci.post_document(&path(&next, "/rotation"), &long, 422).await;
    expect(registry.admin().delete(&path(&token, "")).send().await.unwrap(), 204).await;
    expect(ci.get("/api/v1/whoami").send().await.unwrap(), 401).await;
    expect(next_ci.get("/api/v1/whoami").send().await.unwrap(), 200).await;

    // One whose own grants were taken back does not get its principal's by it.
    registry.named("ci", Role::Admin, "**", None).await;
    let grants = registry.admin().document("/api/v1/grants?limit=1000").await;
    for grant in grants["items"].as_array().unwrap() {
        if grant["token"] == next["id"] {
            let ended =
                registry.admin().delete(&format!("/api/v1/grants/{}", grant["id"])).send().await.unwrap();
            expect(ended, 204).await;
        }
    }
    let next = next_ci.post_document(&path(&next, "/rotation"), &json!({}), 201).await;
    let next_ci = Client::new(&registry.url, next["token"].as_str().map(str::to_owned));
    assert_eq!(next_ci.document("/api/v1/whoami").await["grants"], json!([]));

    // One whose overlap is over is refused, also where its caller was remembered.
    let last = next_ci.post_document(&path(&next, "/rotation"), &json!({"overlap_seconds": 1}), 201).await;
    eventually("the old token ends", async || {
        next_ci.get("/api/v1/whoami").send().await.unwrap().status() == 401
    })
    .await;
    expect(registry.admin().delete(&path(&last, "")).send().await.unwrap(), 204).await;
    registry.check().await;
}

#[tokio::test]
async fn a_token_that_is_bound_to_networks_is_nobodys_elsewhere() {
    let registry = Registry::start().await;
    let with =
        |addresses: Value| json!({"principal": "ci", "grants": [{"role": "reader"}], "addresses": addresses});
    for (addresses, status) in [
        (json!(["127.0.0.0/8"]), 200),
        (json!(["10.0.0.0/8", "127.0.0.1/32"]), 200),
        (json!(["10.0.0.0/8"]), 401),
        (json!(["::1/128"]), 401),
        (Value::Null, 200),
    ] {
        let (client, token) = made(&registry, with(addresses.clone())).await;
        assert_eq!(client.get("/api/v1/whoami").send().await.unwrap().status(), status, "{addresses}");
        assert_eq!(client.get("/v2/").send().await.unwrap().status(), status, "{addresses}");
        assert_eq!(client.get("/auth/token?service=x").send().await.unwrap().status(), status, "{addresses}");
        let form = format!("grant_type=password&service=x&username=x&password={}", client.token().unwrap());
        let request = registry.anyone().post("/auth/token");
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        assert_eq!(request.send().await.unwrap().status(), status, "{addresses}");
        let listed = registry.admin().document(&format!("{TOKENS}?limit=1000")).await;
        let listed = listed["items"].as_array().unwrap().iter().find(|one| one["id"] == token["id"]).unwrap();
        assert_eq!(listed["addresses"], addresses);
    }
    for bad in [json!(["10.0.0.0/33"]), json!(["localhost"]), json!([])] {
        let refused = registry.admin().post(TOKENS).json(&with(bad.clone())).send().await.unwrap();
        assert_eq!(refused.status(), 422, "{bad}");
    }
    registry.check().await;
}

#[tokio::test]
async fn the_last_use_of_a_token_is_listed() {
    let registry = Registry::start().await;
    let (ci, token) = made(&registry, json!({"principal": "ci", "grants": [{"role": "reader"}]})).await;
    let used = async || {
        let listed = registry.admin().document(&format!("{TOKENS}?limit=1000")).await;
        let found = listed["items"].as_array().unwrap().iter().find(|one| one["id"] == token["id"]).cloned();
        found.unwrap()["last_used_at"].clone()
    };
    assert_eq!(used().await, Value::Null);
    let before = proofmark::clock::now();
    expect(ci.get("/api/v1/whoami").send().await.unwrap(), 200).await;
    registry.app.callers.write_uses(&registry.app.db).await.unwrap();
    let at: chrono::DateTime<chrono::Utc> = serde_json::from_value(used().await).unwrap();
    assert!(at >= before - chrono::TimeDelta::seconds(1), "{at}");
    registry.check().await;
}

#[tokio::test]
async fn the_end_of_a_token_is_announced_once_within_14_days_of_it() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    for days in [13, 15] {
        let body = json!({"principal": format!("ci-{days}"), "expires_in_seconds": days * 86_400});
        made(&registry, body).await;
    }
    for _ in 0..2 {
        proofmark::identity::announce_ends(&registry.app.db).await.unwrap();
    }
    let said: Vec<String> = sqlx::query_scalar(
        "select facts_said(leaf) ->> 'for_name' from events where kind = 'token.end-announced'",
    )
    .fetch_all(&mut *registry.sql().await)
    .await
    .unwrap();
    assert_eq!(said, ["ci-13"]);
    assert!(registry.app.metrics.render().contains("proofmark_tokens_ending_soon"));
    registry.check().await;
}

#[tokio::test]
async fn a_disabled_principal_has_no_token_grant_or_approval_and_gets_none() {
    let registry = Registry::start().await;
    registry.environment("prod", "approvals: {count: 1}").await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    let bad = admin.push_release("app", "0.9", "bad").await;
    let ann = registry.named("ann/x", Role::Approver, "**", None).await;
    registry.named("ann/x", Role::Security, "**", None).await;
    let (own, _) = made(&registry, json!({"principal": "ann/x", "grants": [{"role": "approver"}]})).await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
    let approval = own.post_document("/api/v1/approvals", &body, 201).await;
    let block = ann.block("app", &bad, None).await;
    let hold = json!({"repository": "other", "reason": "x"});
    admin.push_release("other", "1.0", "one").await;
    let hold = ann.post_document("/api/v1/holds", &hold, 201).await;
    let id = id_of(&registry, "ann/x").await;
    let revocation = format!("/api/v1/principals/{id}/revocation");
    let because = json!({"reason": "left"});
    expect(ann.post(&revocation).json(&because).send().await.unwrap(), 403).await;
    let ended = admin.post_document(&revocation, &because, 200).await;
    assert_eq!(ended["approvals"], json!([approval["id"]]), "{ended}");
    assert_eq!(
        (ended["tokens"].as_array().unwrap().len(), ended["grants"].as_array().unwrap().len()),
        (3, 3)
    );
    assert_eq!(
        ended["stays"],
        json!({"blocks": [block["id"]], "holds": [hold["id"]], "waivers": [], "overrides": []})
    );
    for client in [&ann, &own] {
        expect(client.get("/api/v1/whoami").send().await.unwrap(), 401).await;
    }
    expect(admin.promote("app", &digest, "prod").await, 409).await;
    let refused = admin.post_document(TOKENS, &json!({"principal": "ann/x"}), 409).await;
    assert_eq!(refused["code"], "principal-disabled");
    let grant = json!({"principal": "ann/x", "role": "reader"});
    assert_eq!(admin.post_document("/api/v1/grants", &grant, 409).await["code"], "principal-disabled");
    admin.post_document(&revocation, &because, 409).await;

    // Enabled again it has nothing until it is given something, and its approvals stay ended.
    admin.post_document(&format!("/api/v1/principals/{id}/restoration"), &because, 200).await;
    let back = registry.named("ann/x", Role::Approver, "**", None).await;
    expect(admin.promote("app", &digest, "prod").await, 409).await;
    back.post_document("/api/v1/approvals", &body, 201).await;
    expect(admin.promote("app", &digest, "prod").await, 201).await;
    for built_in in ["anonymous", "proofmark"] {
        let id = id_of(&registry, built_in).await;
        let answer =
            admin.post(&format!("/api/v1/principals/{id}/revocation")).json(&because).send().await.unwrap();
        assert_eq!(answer.status(), 422, "{built_in}");
    }
    registry.check().await;
}

#[tokio::test]
async fn an_approval_that_disabling_left_open_ends_before_its_author_is_enabled() {
    let registry = Registry::start().await;
    registry.environment("prod", "approvals: {count: 1}").await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    let ann = registry.named("ann", Role::Approver, "**", None).await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
    let approval = ann.post_document("/api/v1/approvals", &body, 201).await;
    let id = id_of(&registry, "ann").await;
    let because = json!({"reason": "left"});
    admin.post_document(&format!("/api/v1/principals/{id}/revocation"), &because, 200).await;
    // As if the service had stopped before it ended. The log does not know of it, so it is not compared at the end.
    let left = sqlx::query_scalar::<_, i64>(
        "insert into approvals(repository_id, manifest, sha256, environment_id, why, by, at)
         select repository_id, manifest, sha256, environment_id, why, by, at from approvals where id = $1 returning id",
    );
    let left = left.bind(approval["id"].as_i64()).fetch_one(registry.app.db.pool()).await.unwrap();
    expect(admin.promote("app", &digest, "prod").await, 409).await;
    admin.post_document(&format!("/api/v1/principals/{id}/restoration"), &because, 200).await;
    let ended = sqlx::query_scalar::<_, bool>("select ended_at is not null from approvals where id = $1");
    assert!(ended.bind(left).fetch_one(registry.app.db.pool()).await.unwrap());
    registry.named("ann", Role::Approver, "**", None).await;
    expect(admin.promote("app", &digest, "prod").await, 409).await;
}

#[tokio::test]
async fn the_last_administrator_stays_whatever_of_it_is_taken_back_and_in_a_race() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let because = json!({"reason": "left"});
    let token = admin.document(TOKENS).await["items"][0].clone();
    let grant = admin.document("/api/v1/grants").await["items"][0]["id"].clone();
    let id = id_of(&registry, "admin").await;
    // None of these carries the right to administer everything everywhere.
    registry.named("some", Role::Admin, "team/**", None).await;
    registry.named("stage", Role::Admin, "**", Some(&["staging"])).await;
    made(&registry, json!({"principal": "admin", "grants": [{"role": "reader"}]})).await;
    for request in [
        admin.delete(&path(&token, "")),
        admin.delete(&format!("/api/v1/grants/{grant}")),
        admin.post(&format!("/api/v1/principals/{id}/revocation")).json(&because),
    ] {
        let refused = expect(request.send().await.unwrap(), 409).await;
        assert_eq!(refused["code"], "last-administrator");
        assert!(refused["detail"].as_str().unwrap().contains("proofmark token create"), "{refused}");
    }
    // Of two that end each other at once, one stays.
    for _ in 0..5 {
        let (bob, token_of_bob) =
            made(&registry, json!({"principal": "bob", "grants": [{"role": "admin"}]})).await;
        let (eve, token_of_eve) =
            made(&registry, json!({"principal": "eve", "grants": [{"role": "admin"}]})).await;
        let others = admin.document("/api/v1/tokens?limit=1000").await;
        let others = others["items"].as_array().unwrap().iter();
        let administrators = others.filter(|one| {
            one["ended_at"].is_null()
                && one["id"] != token_of_bob["id"]
                && one["id"] != token_of_eve["id"]
                && one["id"] != token["id"]
                && ["bob", "eve"].contains(&one["principal"].as_str().unwrap())
        });
        for other in administrators {
            expect(admin.delete(&path(other, "")).send().await.unwrap(), 204).await;
        }
        let disable = admin.post(&format!("/api/v1/principals/{id}/revocation")).json(&because);
        let ends = [
            tokio::spawn(bob.delete(&path(&token_of_eve, "")).send()),
            tokio::spawn(eve.delete(&path(&token_of_bob, "")).send()),
            tokio::spawn(disable.send()),
        ];
        for end in ends {
            let status = end.await.unwrap().unwrap().status().as_u16();
            assert!([200, 204, 401, 409].contains(&status), "{status}");
        }
        let remains: bool = sqlx::query_scalar("select an_administrator_remains()")
            .fetch_one(&mut *registry.sql().await)
            .await
            .unwrap();
        assert!(remains);
        if admin.get(TOKENS).send().await.unwrap().status() != 200 {
            break;
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn an_administrator_asks_who_may_do_what_and_by_which_grants() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let ann = registry.named("ann", Role::Promoter, "team/*", Some(&["prod"])).await;
    let approver = json!([{"role": "approver", "repositories": "team/app"}]);
    let (_, token) = made(&registry, json!({"principal": "ann", "grants": approver})).await;
    let check = "/api/v1/access/check";
    let ask = |action: &str, repository: &str, environment: Value| json!({"principal": "ann", "action": action, "repository": repository, "environment": environment});
    for (question, by) in [
        (ask("promote", "team/app", json!("prod")), vec![Value::Null]),
        (ask("promote", "team/app", json!("staging")), vec![]),
        (ask("promote", "team/app", Value::Null), vec![]),
        (ask("approve", "team/app", json!("staging")), vec![token["id"].clone()]),
        (ask("approve", "team/db", json!("prod")), vec![]),
        (ask("view", "team/app", json!("prod")), vec![Value::Null, token["id"].clone()]),
        (ask("pull", "team/app", Value::Null), vec![token["id"].clone()]),
        (ask("push", "team/app", Value::Null), vec![]),
    ] {
        let answer = admin.post_document(check, &question, 200).await;
        let grants: Vec<Value> =
            answer["grants"].as_array().unwrap().iter().map(|grant| grant["token"].clone()).collect();
        assert_eq!((&answer["allowed"], &grants), (&json!(!by.is_empty()), &by), "{question}: {answer}");
    }
    expect(admin.delete(&path(&token, "")).send().await.unwrap(), 204).await;
    let answer = admin.post_document(check, &ask("approve", "team/app", json!("prod")), 200).await;
    assert_eq!(answer["allowed"], false);
    ann.post_document(check, &ask("pull", "team/app", Value::Null), 404).await;
    admin.post_document(check, &json!({"principal": "nobody", "action": "pull"}), 404).await;
    let unknown = admin.post_document(check, &ask("fly", "team/app", Value::Null), 400).await;
    assert!(unknown["detail"].as_str().unwrap().contains("promote"), "{unknown}");
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_tokens_and_principals_do_what_they_say() {
    let registry = Registry::start().await;
    let admin = registry.shell(Some(registry.admin_token())).await;
    let made =
        admin.yes(&["token", "create", "ci", "--role", "pusher", "--expires-in", "3d", "--json"]).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    let ci = registry.shell(made["token"].as_str()).await;
    let who = ci.run(&["whoami"]).await;
    assert!(who.err.contains("proofmark token rotate"), "{}", who.err);
    let id = made["id"].as_str().unwrap();
    let next = ci.yes(&["token", "rotate", id, "--overlap", "1h"]).await;
    assert!(next.trim().starts_with("pmk_"), "{next}");
    assert!(admin.yes(&["access", "check", "ci", "push", "--repository", "app"]).await.contains("pusher"));
    assert_eq!(admin.run(&["access", "check", "ci", "delete", "--repository", "app"]).await.code, 1);
    let ended = admin.yes(&["principal", "disable", "ci", "--reason", "left"]).await;
    assert!(ended.contains("2 tokens, 2 grants and 0 approvals ended; nothing of it stays"), "{ended}");
    assert!(admin.yes(&["principal", "list"]).await.contains("left"));
    admin.yes(&["principal", "enable", "ci", "--reason", "back"]).await;
    registry.check().await;
}
