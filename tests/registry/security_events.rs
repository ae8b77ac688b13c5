//! What a thief tries leaves a trace that an auditor finds, and that nobody can flood.

use crate::harness::{Client, LogLines, Registry, Shell, expect};
use proofmark::access::Role;
use proofmark::config::Settings;
use serde_json::{Value, json};

const FORM: &str = "application/x-www-form-urlencoded";

/// A registry without jobs, which would write what is pending meanwhile.
async fn quiet(change: impl FnOnce(&mut Settings)) -> Registry {
    let mut registry = Registry::with(change).await;
    registry.stop_jobs().await;
    registry
}

/// The security events of a kind.
async fn events(registry: &Registry, kind: &str) -> Vec<Value> {
    registry.app.write_security_events().await.unwrap();
    let page = registry.admin().document(&format!("/api/v1/security-events?kind={kind}")).await;
    page["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn who_tries_tokens_is_counted_by_address_and_never_by_what_was_tried() {
    let lines = LogLines::start();
    let registry = quiet(|settings| settings.trusted_proxies = Some("127.0.0.1".into())).await;
    for number in 0..5 {
        let thief = Client::new(&registry.url, Some(format!("pmk_guessed{number}")));
        for path in ["/api/v1/whoami", "/v2/team/app/tags/list"] {
            let answer = thief.get(path).header("x-forwarded-for", "203.0.113.9").send().await.unwrap();
            assert_eq!(answer.status(), 401);
        }
    }
    let posted = registry.anyone().post("/auth/token").header("x-forwarded-for", "198.51.100.7");
    let posted = posted.header("content-type", FORM).body("grant_type=password&password=pmk_guessed");
    assert_eq!(posted.send().await.unwrap().status(), 401);
    // Who shows nothing has guessed nothing.
    assert_eq!(registry.anyone().get("/v2/").send().await.unwrap().status(), 401);

    let found = events(&registry, "authentication.failed").await;
    let mut counted: Vec<_> = found
        .iter()
        .map(|event| (event["client_address"].as_str().unwrap(), event["count"].as_i64().unwrap()))
        .collect();
    counted.sort_unstable();
    assert_eq!(counted, [("198.51.100.7", 1), ("203.0.113.9", 10)]);
    assert!(found.iter().all(|event| event["principal"].is_null() && event["repository"].is_null()));
    assert!(!lines.text().contains("guessed"), "no credential is in the log");
    let metrics = registry.anyone().get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("proofmark_security_events_total{kind=\"authentication.failed\"}"), "{metrics}");
    registry.check().await;
}

#[tokio::test]
async fn what_is_refused_for_want_of_a_right_names_who_asked_for_what() {
    let registry = quiet(|_| {}).await;
    let reader = registry.named("mallory", Role::Reader, "team/**", None).await;
    for _ in 0..3 {
        assert_eq!(reader.delete("/v2/team/app/manifests/1.0").send().await.unwrap().status(), 401);
    }
    let upload = reader.post("/v2/team/app/blobs/uploads/").send().await.unwrap();
    assert_eq!(upload.status(), 401);
    // Of what it may not see the name is not written either: it may be made up.
    for number in 0..4 {
        let hidden = reader.get(&format!("/v2/other/secret{number}/tags/list")).send().await.unwrap();
        assert_eq!(hidden.status(), 401);
    }
    // What is merely not there is no refusal.
    let missing = reader.get("/v2/team/app/manifests/1.0").send().await.unwrap();
    assert_eq!(missing.status(), 404);

    let found = events(&registry, "access.refused").await;
    let mut seen: Vec<_> = found
        .iter()
        .map(|event| {
            assert_eq!(event["principal"], "mallory", "{event}");
            assert!(event["token_id"].is_string() && event["client_address"] == "127.0.0.1", "{event}");
            let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
            (text("action"), text("repository"), event["count"].as_i64().unwrap())
        })
        .collect();
    seen.sort_unstable();
    let expected = [("delete", "team/app", 3), ("pull", "-", 4), ("push", "team/app", 1)];
    let expected =
        expected.map(|(action, repository, count)| (action.to_owned(), repository.to_owned(), count));
    assert_eq!(seen, expected);
    registry.check().await;
}

#[tokio::test]
async fn who_reads_or_exports_the_audit_trail_is_named() {
    let registry = quiet(|_| {}).await;
    let auditor = registry.named("eve", Role::Auditor, "**", None).await;
    auditor.document("/api/v1/audit/events").await;
    auditor.document("/api/v1/audit/events?repository=team/app").await;
    for format in ["ndjson", "csv"] {
        let answer = auditor.get(&format!("/api/v1/audit/events?format={format}")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
    }
    auditor.document("/api/v1/security-events").await;
    let exported = events(&registry, "audit.exported").await;
    assert_eq!(
        (exported.len(), &exported[0]["principal"], &exported[0]["count"]),
        (1, &json!("eve"), &json!(2))
    );
    let read = events(&registry, "audit.read").await;
    let by = |name: &str| -> i64 {
        read.iter()
            .filter(|event| event["principal"] == name)
            .map(|event| event["count"].as_i64().unwrap())
            .sum()
    };
    assert_eq!((by("eve"), by("admin")), (3, 1), "{read:?}");
    assert!(read.iter().any(|event| event["repository"] == "team/app"));

    // Only auditors of everything read them, and asking is noted too.
    for client in
        [registry.client(Role::Pusher, "**").await, registry.named("a", Role::Auditor, "team/**", None).await]
    {
        let refused = client.get("/api/v1/security-events").send().await.unwrap();
        assert!([403, 404].contains(&refused.status().as_u16()));
    }
    assert_eq!(events(&registry, "access.refused").await.len(), 2);
    let shell = Shell::at(&registry.url, auditor.token());
    let listed = shell.yes(&["audit", "security", "--kind", "audit.exported"]).await;
    assert!(listed.contains("eve") && listed.contains("audit.exported"), "{listed}");
    let bad = auditor.get("/api/v1/security-events?kind=made.up").send().await.unwrap();
    assert!(expect(bad, 400).await["detail"].as_str().unwrap().contains("authentication.failed"));
    registry.check().await;
}

#[tokio::test]
async fn a_flood_of_refusals_is_a_bounded_number_of_rows_and_they_go_in_time() {
    let registry = quiet(|settings| {
        settings.trusted_proxies = Some("127.0.0.1".into());
        settings.security_events_per_minute = Some(10);
        settings.max_security_events = Some(3);
    })
    .await;
    let thief = Client::new(&registry.url, Some("pmk_guessed".into()));
    for number in 0..60 {
        let answer =
            thief.get("/v2/").header("x-forwarded-for", format!("203.0.113.{number}")).send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }
    let found = events(&registry, "authentication.failed").await;
    let count: i64 = found.iter().map(|event| event["count"].as_i64().unwrap()).sum();
    assert_eq!((found.len(), count), (6, 60), "five addresses, and all others together");
    assert!(found.iter().any(|event| event["client_address"].is_null() && event["count"] == 55));
    let forget =
        async |days| proofmark::audit::forget_security_events(&registry.app.db, days, 3).await.unwrap();
    assert_eq!(forget(90).await, 3, "three of a kind are kept");
    registry.tamper("update security_events set last_at = last_at - interval '2 days'").await;
    forget(1).await;
    assert!(events(&registry, "authentication.failed").await.is_empty());
    registry.check().await;
}

#[tokio::test]
async fn a_reader_that_makes_up_names_hides_nobody_else() {
    let registry = quiet(|settings| settings.security_events_per_minute = Some(40)).await;
    let reader = registry.named("mallory", Role::Reader, "**", None).await;
    for number in 0..50 {
        let made_up = format!("/v2/made/up-{number}/manifests/1.0");
        assert_eq!(reader.delete(&made_up).send().await.unwrap().status(), 401);
    }
    let auditor = registry.named("eve", Role::Auditor, "**", None).await;
    auditor.get("/api/v1/audit/events?format=ndjson").send().await.unwrap().bytes().await.unwrap();
    let refused = events(&registry, "access.refused").await;
    let count: i64 = refused.iter().map(|event| event["count"].as_i64().unwrap()).sum();
    assert_eq!((refused.len(), count), (11, 50), "ten with a repository, and the others together");
    assert!(refused.iter().all(|event| event["principal"] == "mallory"), "{refused:?}");
    let exported = events(&registry, "audit.exported").await;
    assert_eq!(exported.len(), 1);
    assert_eq!(exported[0]["principal"], "eve");
    assert!(exported[0]["token_id"].is_string());
    registry.check().await;
}

/// What is refused with this status and code.
async fn refused(answer: reqwest::Response, status: u16, code: &str) {
    let document = expect(answer, status).await;
    assert_eq!(document["code"], code, "{document}");
}

#[tokio::test]
async fn each_refusal_of_the_api_for_want_of_a_right_is_recorded_and_nothing_else() {
    let registry = quiet(|_| {}).await;
    let admin = registry.admin();
    registry.environment("prod", "{approvals: {count: 1}}").await;
    registry.environment("staging", "{min_age: 0s}").await;
    let digest = admin.push_release("team/app", "1.0", "one").await;
    let decision = expect(admin.promote("team/app", &digest, "prod").await, 409).await["decision"].clone();
    let about = json!({"repository": "team/app", "digest": digest, "environment": "prod", "reason": "why"});
    let made = async |path: &str, body: &Value| {
        let made = admin.post_document(&format!("/api/v1/{path}"), body, 201).await;
        made["id"].as_i64().unwrap()
    };
    let approval = made("approvals", &about).await;
    let block = made("blocks", &about).await;
    let hold =
        made("holds", &json!({"repository": "team/app", "environment": "prod", "reason": "why"})).await;
    let mut waiver = json!({"repository": "team/app", "environment": "prod", "vulnerabilities": ["CVE-2021-44228"],
        "status": "not_affected", "justification": "component_not_present", "reason": "why"});
    let of_findings = made("waivers", &waiver).await;
    let mut overriding = about.clone();
    overriding["gates"] = json!(["approvals"]);
    overriding["expires_at"] = json!(proofmark::clock::now() + chrono::TimeDelta::hours(1));
    let overridden = made("overrides", &overriding).await;

    // What it may not see is as if it were not there, and what is not there is no refusal.
    let outsider = registry.named("outsider", Role::Admin, "other/**", Some(&["staging"])).await;
    let why = json!({"reason": "over"});
    let unseen = async |path: &str, id: &Value| {
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let answer = match path.split_once(' ').unwrap() {
            ("GET", path) => outsider.get(&format!("/api/v1/{path}").replace("{id}", &id)),
            (_, path) => outsider.post(&format!("/api/v1/{path}").replace("{id}", &id)).json(&why),
        };
        refused(answer.send().await.unwrap(), 404, "not-found").await;
    };
    for (path, id) in [
        ("POST approvals/{id}/revocation", json!(approval)),
        ("POST blocks/{id}/revocation", json!(block)),
        ("POST holds/{id}/revocation", json!(hold)),
        ("GET waivers/{id}", json!(of_findings)),
        ("GET overrides/{id}", json!(overridden)),
        ("GET decisions/{id}", decision),
    ] {
        unseen(path, &id).await;
        let missing = if path.contains("decisions") { json!(digest) } else { json!(999_999) };
        unseen(path, &missing).await;
    }
    for path in ["/api/v1/policies", "/api/v1/environments/prod/releases"] {
        refused(outsider.get(path).send().await.unwrap(), 404, "not-found").await;
    }
    let anywhere = json!({"digest": digest, "environment": "prod"});
    let asked = outsider.post("/api/v1/verify").json(&anywhere).send().await.unwrap();
    refused(asked, 404, "not-found").await;

    // What takes a higher rank, or a wider grant.
    let promoter = registry.named("promoter", Role::Promoter, "team/*", None).await;
    for lifting in [format!("blocks/{block}"), format!("holds/{hold}")] {
        let lifted = promoter.post(&format!("/api/v1/{lifting}/revocation")).json(&why).send().await.unwrap();
        refused(lifted, 403, "rank-too-low").await;
    }
    let proposer = registry.named("proposer", Role::Security, "team/*", None).await;
    let members = waiver.as_object_mut().unwrap();
    members.remove("repository");
    members.insert("repositories".into(), json!("**"));
    let wider = proposer.post("/api/v1/waivers").json(&waiver).send().await.unwrap();
    refused(wider, 403, "forbidden").await;
    let nobody = registry.anyone().get("/api/v1/holds").send().await.unwrap();
    refused(nobody, 401, "unauthenticated").await;

    let found = events(&registry, "access.refused").await;
    let mut seen: Vec<_> = found
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
            (text("principal"), text("action"), text("repository"), event["count"].as_i64().unwrap())
        })
        .collect();
    seen.sort_unstable();
    let expected = [
        ("-", "pull", "-", 1),
        ("outsider", "audit", "-", 1),
        ("outsider", "pull", "-", 7),
        ("outsider", "view", "-", 1),
        ("promoter", "block", "team/app", 1),
        ("promoter", "hold", "team/app", 1),
        ("proposer", "waive", "-", 1),
    ];
    let expected = expected
        .map(|(who, action, name, count)| (who.to_owned(), action.to_owned(), name.to_owned(), count));
    assert_eq!(seen, expected);
    registry.check().await;
}

#[tokio::test]
async fn a_wrong_credential_that_is_one_of_too_many_is_counted_too() {
    let registry = quiet(|settings| settings.wrong_credentials_per_minute = Some(1)).await;
    // Its token is known from then on, and is not slowed.
    registry.admin().document("/api/v1/whoami").await;
    let wrong = |number: u32| Client::new(&registry.url, Some(format!("pmk_guessed{number}")));
    for (number, path, status) in
        [(1, "/v2/", 401), (2, "/v2/", 429), (3, "/api/v1/whoami", 429), (4, "/auth/token", 429)]
    {
        let answer = wrong(number).get(path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    let posted = registry.anyone().post("/auth/token").header("content-type", FORM);
    let posted = posted.body("grant_type=password&password=pmk_guessed5").send().await.unwrap();
    assert_eq!(posted.status(), 429);
    let found = events(&registry, "authentication.failed").await;
    assert_eq!((found.len(), &found[0]["count"]), (1, &json!(5)), "{found:?}");
    registry.check().await;
}

#[tokio::test]
async fn what_postgres_does_not_take_now_is_written_later() {
    let registry = quiet(|_| {}).await;
    let thief = Client::new(&registry.url, Some("pmk_guessed".into()));
    thief.get("/v2/").send().await.unwrap();
    let rename =
        async |sql: &'static str| sqlx::raw_sql(sql).execute(&mut *registry.sql().await).await.unwrap();
    rename("alter table security_events rename to security_events_away").await;
    registry.app.write_security_events().await.unwrap_err();
    rename("alter table security_events_away rename to security_events").await;
    assert_eq!(events(&registry, "authentication.failed").await.len(), 1);
    registry.check().await;
}
