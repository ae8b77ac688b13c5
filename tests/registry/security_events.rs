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
