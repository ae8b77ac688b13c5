//! Nobody starves: what one client sends costs the others little, whoever it is.

use crate::attesting::{DSSE, TEST_RESULT};
use crate::bounding::Wire;
use crate::harness::oci::refusal;
use crate::harness::{Client, Registry, Signing, eventually, expect};
use proofmark::access::Role;
use serde_json::{Value, json};
use sqlx::Connection;
use std::time::Duration;
use tokio::time::timeout;

/// A body that is announced and never comes.
const NEVER: &str = "Content-Type: application/json\r\nContent-Length: 60000\r\n";

const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Every request of the API that may have a body, with what it needs beside one.
async fn writes(registry: &Registry) -> Vec<String> {
    let document = registry.anyone().document("/api/v1/openapi.json").await;
    let mut lines = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if !["post", "put", "patch", "delete"].contains(&method.as_str()) {
                continue;
            }
            let (mut target, mut query) = (path.clone(), Vec::new());
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                match (parameter["in"].as_str(), parameter["required"].as_bool()) {
                    (Some("path"), _) => {
                        let value = match name {
                            "id" if path.contains("tokens") => "0192c5a8-0000-7000-8000-000000000000",
                            "id" if path.contains("decisions") => DIGEST,
                            "id" => "1",
                            _ => "some",
                        };
                        target = target.replace(&format!("{{{name}}}"), value);
                    }
                    (Some("query"), Some(true)) => {
                        let value = if name == "digest" { DIGEST } else { "team/app" };
                        query.push(format!("{name}={value}"));
                    }
                    _ => {}
                }
            }
            lines.push(format!("{} {target}?{}", method.to_uppercase(), query.join("&")));
        }
    }
    assert!(lines.len() > 30, "{lines:?}");
    lines
}

async fn refused_at_once(registry: &Registry, line: &str, token: Option<&str>) -> String {
    let answering = async { Wire::begin(registry, line, token, NEVER).await.answer().await };
    let answer = timeout(Duration::from_secs(1), answering).await;
    answer.unwrap_or_else(|_| panic!("{line} waits for its body"))
}

#[tokio::test]
async fn cpu_before_authentication_every_write_is_refused_before_its_body() {
    let registry = Registry::with(|settings| settings.wrong_credentials_per_minute = Some(1000)).await;
    let of_oci = [
        "PUT /v2/team/app/manifests/1.0",
        "POST /v2/team/app/blobs/uploads/",
        "PATCH /v2/team/app/blobs/uploads/0192c5a8-0000-7000-8000-000000000000",
        "PUT /v2/team/app/blobs/uploads/0192c5a8-0000-7000-8000-000000000000?digest=sha256:00",
        "DELETE /v2/team/app/manifests/1.0",
    ];
    let lines: Vec<String> = writes(&registry).await.into_iter().chain(of_oci.map(str::to_owned)).collect();
    // Neither a stranger, nor with a credential that is nobody's, nor one that has no right to anything.
    let body = json!({ "principal": "nobody", "grants": [] });
    let made = registry.admin().post_document("/api/v1/tokens", &body, 201).await;
    let nobody = made["token"].as_str();
    for (who, token) in [("stranger", None), ("wrong", Some("pmk_wrong")), ("nobody", nobody)] {
        for line in &lines {
            let answer = refused_at_once(&registry, line, token).await;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            let expected = if who == "wrong" { &["401"][..] } else { &["401", "403", "404"][..] };
            assert!(expected.contains(&status), "{who}: {line}: {answer}");
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn what_is_said_in_a_body_is_read_for_who_may_do_it_somewhere_only() {
    let registry = Registry::start().await;
    registry.admin().push_release("team/app", "1.0", "one").await;
    let reader = registry.client(Role::Reader, "team/*").await;
    let promoter = registry.client(Role::Promoter, "team/*").await;
    let line = "POST /api/v1/promotions";
    let code = |answer: &str| -> Value {
        serde_json::from_str::<Value>(answer.split_once("\r\n\r\n").unwrap().1).unwrap()["code"].clone()
    };
    let answer = refused_at_once(&registry, line, None).await;
    assert_eq!(code(&answer), "unauthenticated", "{answer}");
    let answer = refused_at_once(&registry, line, reader.token()).await;
    assert_eq!(code(&answer), "forbidden", "{answer}");
    // Who reads may ask what would be decided, and a promoter may say more.
    for (line, who) in [("POST /api/v1/promotions?dry_run=true", &reader), (line, &promoter)] {
        let headers = "Content-Type: application/json\r\nContent-Length: 2\r\n";
        let mut wire = Wire::begin(&registry, line, who.token(), headers).await;
        wire.say(b"{}").await;
        let answer = wire.answer().await;
        assert!(answer.contains("missing field"), "{line}: {answer}");
    }
    registry.check().await;
}

#[tokio::test]
async fn random_tokens_are_slowed_for_their_address_and_known_ones_go_on() {
    let registry = Registry::with(|settings| settings.wrong_credentials_per_minute = Some(5)).await;
    let admin = registry.admin();
    let reader = registry.client(Role::Reader, "**").await;
    for known in [&admin, &reader] {
        expect(known.get("/api/v1/whoami").send().await.unwrap(), 200).await;
    }
    let random = || Client::new(&registry.url, Some(format!("pmk_{}", uuid::Uuid::now_v7())));
    // A job that comes again and again with the same credential that has ended guesses nothing.
    let ended = random();
    for _ in 0..20 {
        expect(ended.get("/api/v1/whoami").send().await.unwrap(), 401).await;
    }
    for _ in 0..4 {
        expect(random().get("/api/v1/whoami").send().await.unwrap(), 401).await;
    }
    let slowed = random().get("/api/v1/whoami").send().await.unwrap();
    let seconds: u64 = slowed.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=13).contains(&seconds), "{seconds}");
    assert_eq!(expect(slowed, 429).await["code"], "too-many-wrong-credentials");
    let slowed = expect(random().get("/v2/").send().await.unwrap(), 429).await;
    assert_eq!(slowed["errors"][0]["code"], "TOOMANYREQUESTS");
    let slowed = registry
        .anyone()
        .post("/auth/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=password&password=pmk_another-one-that-is-nobodys")
        .send()
        .await
        .unwrap();
    assert!(slowed.headers().contains_key("retry-after"));
    expect(slowed, 429).await;
    // Those that held go on, also when all that was looked up is to be looked up anew, and so do docker's.
    registry.client(Role::Reader, "another").await;
    for known in [&admin, &reader] {
        expect(known.get("/api/v1/whoami").send().await.unwrap(), 200).await;
    }
    let docker = expect(reader.get("/auth/token").send().await.unwrap(), 200).await;
    let docker = Client::new(&registry.url, docker["token"].as_str().map(str::to_owned));
    expect(docker.get("/v2/").send().await.unwrap(), 200).await;
    // Who shows nothing guesses nothing.
    expect(registry.anyone().get("/api/v1/repositories").send().await.unwrap(), 200).await;
    registry.check().await;
}

#[tokio::test]
async fn forty_connections_of_one_principal_take_its_share_and_no_more() {
    let registry = Registry::with(|settings| {
        settings.database_connections = Some(8);
        settings.reserved_connections = Some(2);
    })
    .await;
    let (flooding, other) =
        (registry.client(Role::Reader, "**").await, registry.client(Role::Reader, "**").await);
    for known in [&flooding, &other] {
        expect(known.get("/api/v1/environments").send().await.unwrap(), 200).await;
    }
    // What asks for repositories waits, and holds a connection.
    let mut lock = sqlx::PgConnection::connect(&registry.database_url()).await.unwrap();
    sqlx::raw_sql("begin; lock table repositories in access exclusive mode")
        .execute(&mut lock)
        .await
        .unwrap();
    let asked: Vec<_> = (0..40)
        .map(|_| {
            let client = flooding.at(&registry.url);
            tokio::spawn(async move { client.get("/api/v1/repositories").send().await.unwrap() })
        })
        .collect();
    eventually("its share is taken", async || registry.app.turns.free() == 3).await;
    for _ in 0..20 {
        expect(other.get("/api/v1/environments").send().await.unwrap(), 200).await;
    }
    assert_eq!(registry.app.turns.free(), 3, "it has half of them and no more");
    // Whoever waits too long for itself is told so.
    let mut asked = asked.into_iter();
    let refused = loop {
        let answer = asked.next().expect("one of them is refused").await.unwrap();
        if answer.status() == 429 {
            break answer;
        }
        sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(expect(refused, 429).await["code"], "too-many-requests");
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    for answer in asked {
        let status = answer.await.unwrap().status();
        assert!(status == 200 || status == 429, "{status}");
    }
    eventually("all of them are free", async || registry.app.turns.free() == 6).await;
    expect(flooding.get("/api/v1/repositories").send().await.unwrap(), 200).await;
    registry.check().await;
}

#[tokio::test]
async fn who_waits_for_its_bodies_holds_no_turn() {
    let registry = Registry::with(|settings| {
        settings.database_connections = Some(4);
        settings.reserved_connections = Some(2);
    })
    .await;
    let attester = registry.client(Role::Attester, "**").await;
    let pieces = registry.app.document_room.free_pieces();
    let line = "POST /api/v1/attestations?repository=team/app";
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut wire = Wire::begin(&registry, line, attester.token(), NEVER).await;
        wire.say(b"{").await;
        open.push(wire);
    }
    eventually("all of them are read", async || registry.app.document_room.free_pieces() == pieces - 8).await;
    assert_eq!(registry.app.turns.free(), 2);
    expect(attester.get("/api/v1/whoami").send().await.unwrap(), 200).await;
    // What came in goes on in its turn.
    for wire in &mut open {
        wire.say(&vec![b' '; 59_999]).await;
        let answer = wire.answer().await;
        assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    }
    eventually("all turns are free", async || registry.app.turns.free() == 2).await;
    registry.check().await;
}

const LINT: &str = "https://lint.example/v1";
const BUILD: &str = "https://build.example/v1";

/// The inputs of the newest decision.
async fn newest_inputs(registry: &Registry) -> String {
    let inputs = "select convert_from(inputs, 'UTF8') from decisions order by decided_at desc limit 1";
    sqlx::query_scalar(inputs).fetch_one(&mut *registry.sql().await).await.unwrap()
}

#[tokio::test]
async fn evidence_flood_of_what_no_gate_names_is_in_no_decision_also_after_a_revocation() {
    let registry = Registry::start().await;
    let (admin, ci, lint) = (registry.admin(), Signing::new(1), Signing::new(2));
    admin.register_signer("ci", &ci.pem(), &["**"]).await;
    admin.register_signer("lint", &lint.pem(), &["**"]).await;
    registry.environment("prod", &format!("{{attestation: {{type: '{BUILD}', by: [ci]}}}}")).await;
    let image = admin.push_release("app", "1.0", "one").await;
    admin.attest("app", &ci.statement(&image, BUILD, &json!({})), 201).await;
    expect(admin.promote("app", &image, "prod").await, 201).await;
    let before = newest_inputs(&registry).await;
    assert!(before.contains(BUILD));
    let good = expect(admin.known_good("app", "prod").await, 200).await;
    // Of another type by the gate's own signer and another's, of the gate's type by another, and by nobody.
    let nobody = Signing::new(3);
    let mut lines = Vec::new();
    for number in 0..100 {
        let predicate = json!({ "number": number });
        for (key, kind) in [(&ci, LINT), (&lint, LINT), (&lint, BUILD)] {
            lines.extend(key.statement(&image, kind, &predicate));
            lines.push(b'\n');
        }
    }
    admin.attest("app", &lines, 201).await;
    admin
        .push_referrer("app", &image, DSSE, &nobody.statement(&image, BUILD, &json!({"by": "nobody"})))
        .await;
    for revoked in [false, true] {
        if revoked {
            let reason = json!({"reason": "flood", "compromised": true});
            admin.post_document("/api/v1/signers/lint/revocation", &reason, 201).await;
        }
        expect(admin.promote("app", &image, "prod").await, 201).await;
        let after = newest_inputs(&registry).await;
        assert!(!after.contains(LINT) && !after.contains("\"lint\""), "{after}");
        assert!(after.len() < before.len() + 200, "{} and {} bytes", before.len(), after.len());
        let now = expect(admin.known_good("app", "prod").await, 200).await;
        assert_eq!((&now["digest"], &now["at_risk"]), (&good["digest"], &good["at_risk"]));
    }
    // A gate that comes into force sees what it names, and a FAILED of a type that no gate names is told.
    let named = format!("{{attestation: {{type: '{LINT}', by: [ci]}}}}");
    registry.policy("prod", &named).await;
    expect(admin.promote("app", &image, "prod").await, 201).await;
    assert!(newest_inputs(&registry).await.contains(LINT));
    let failed =
        ci.statement(&image, TEST_RESULT, &json!({"result": "FAILED", "configuration": [{"name": "e2e"}]}));
    admin.attest("app", &failed, 201).await;
    let now = expect(admin.known_good("app", "prod").await, 200).await;
    assert_eq!(now["at_risk"][0]["reason"], "failed_result");
    registry.check().await;
}

#[tokio::test]
async fn who_signed_something_else_is_told_so_by_the_gate_that_misses_its_signature() {
    let registry = Registry::start().await;
    let (admin, ci) = (registry.admin(), Signing::new(1));
    admin.register_signer("ci", &ci.pem(), &["**"]).await;
    registry.environment("prod", "{signed_by: {any_of: [ci]}}").await;
    let image = admin.push_release("app", "1.0", "one").await;
    admin.attest("app", &ci.statement(&image, LINT, &json!({})), 201).await;
    let refused = expect(admin.promote("app", &image, "prod").await, 409).await["detail"].to_string();
    assert!(
        refused.contains(&format!("ci made statements of type {LINT}, which are no signatures")),
        "{refused}"
    );
    registry.check().await;
}

#[tokio::test]
async fn the_same_refusal_is_one_record_with_a_count_and_others_are_so_many_a_minute() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    registry.environment("prod", "{approvals: {count: 1}}").await;
    let image = admin.push_release("app", "1.0", "one").await;
    let refused =
        async |digest| expect(admin.promote("app", digest, "prod").await, 409).await["decision"].clone();
    let first = refused(&image).await;
    for _ in 0..99 {
        assert_eq!(refused(&image).await, first);
    }
    let count = async |sql: &'static str| -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut *registry.sql().await).await.unwrap()
    };
    assert_eq!(count("select count(*) from decisions").await, 1);
    assert_eq!(count("select count(*) from events where kind = 'promotion.refused'").await, 1);
    let decision = admin.document(&format!("/api/v1/decisions/{}", first.as_str().unwrap())).await;
    assert_eq!(decision["refused_times"], 100);
    // Another caller's is another, and so is one that another gate refuses.
    let other = registry.client(Role::Promoter, "**").await;
    assert_ne!(expect(other.promote("app", &image, "prod").await, 409).await["decision"], first);
    registry.policy("prod", "{min_age: 1h}").await;
    assert_ne!(refused(&image).await, first);
    // So is one by another version of the policy, though the same gate refuses.
    registry.policy("prod", "{min_age: 2h}").await;
    let second = refused(&image).await;
    registry.policy("prod", "{min_age: 3h}").await;
    let third = expect(admin.promote("app", &image, "prod").await, 409).await;
    assert_ne!(third["decision"], second);
    let recorded = format!("/api/v1/decisions/{}", third["decision"].as_str().unwrap());
    assert_eq!(admin.document(&recorded).await["gates"], third["gates"]);
    // An hour later it is recorded anew.
    registry.tamper("update promotion_refusals set first_at = first_at - interval '61 minutes'").await;
    assert_ne!(refused(&image).await, first);
    let more: Vec<_> = futures::future::join_all((0..60).map(|number| {
        let (admin, version) = (&admin, format!("2.{number}"));
        async move { admin.push_release("app", &version, &version).await }
    }))
    .await;
    for digest in &more[..59] {
        refused(digest).await;
    }
    let slowed = admin.promote("app", &more[59], "prod").await;
    assert_eq!(slowed.headers()["retry-after"], "60");
    assert_eq!(expect(slowed, 429).await["code"], "too-many-requests");
    // What was refused before is counted, and others have their own minute.
    refused(&more[0]).await;
    expect(other.promote("app", &more[59], "prod").await, 409).await;
    registry.check().await;
}

#[tokio::test]
async fn open_sessions_count_in_the_quota_of_their_repository() {
    let registry = Registry::start().await;
    let (admin, pusher) = (registry.admin(), registry.client(Role::Pusher, "**").await);
    let rules = json!({"name": "app", "quota_bytes": 1_000_000});
    admin.put_document("/api/v1/repositories", &rules, 201).await;
    let mut taken = 0;
    for number in 0..20 {
        let opened = pusher.post("/v2/app/blobs/uploads/").send().await.unwrap();
        assert_eq!(opened.status(), 202);
        let session = opened.headers()["location"].to_str().unwrap().to_owned();
        // Small bodies are looked at too, and so is each chunk of a session.
        let size = if number % 2 == 0 { 300_000 } else { 60_000 };
        let answer = pusher.patch(&session).body(vec![number; size]).send().await.unwrap();
        if answer.status() == 202 {
            taken += size;
        } else {
            let (status, error) = refusal(answer).await;
            assert_eq!((status, error["code"].as_str()), (403, Some("DENIED")), "{error}");
        }
    }
    assert!((900_000..=1_000_000).contains(&taken), "{taken}");
    let held: i64 = sqlx::query_scalar("select sum(offset_bytes)::bigint from uploads")
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap();
    assert_eq!(usize::try_from(held).unwrap(), taken);
    registry.check().await;
}
