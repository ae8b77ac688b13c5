//! `/readyz` and the wake-ups: what an operator sees of jobs and clocks, and who hears of new log entries.

use crate::harness::{Registry, as_limited_role, eventually};
use proofmark::ledger::{self, LogListener};
use proofmark::postgres::Growing;
use serde_json::Value;
use std::time::Duration;

async fn readiness(registry: &Registry) -> (u16, Value) {
    let answer = registry.anyone().get("/readyz").send().await.unwrap();
    (answer.status().as_u16(), as_limited_role(answer.json().await.unwrap()))
}

/// The codes of the reasons.
fn codes(document: &Value) -> Vec<&str> {
    document["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_service_that_is_well_is_ready_and_shows_its_jobs() {
    let registry = Registry::start().await;
    eventually("every short job has succeeded", async || {
        let (status, document) = readiness(&registry).await;
        assert_eq!((status, &document["status"]), (200, &Value::from("ready")), "{document}");
        assert!(codes(&document).is_empty(), "{document}");
        let jobs = document["jobs"].as_array().unwrap();
        let done = |name: &str| {
            let job =
                jobs.iter().find(|job| job["job"] == name).unwrap_or_else(|| panic!("{name}: {document}"));
            !job["last_succeeded_at"].is_null() && job["consecutive_failures"] == 0
        };
        ["sequencer", "expired-uploads", "sweep", "retention", "collection", "metrics", "queue"]
            .into_iter()
            .all(done)
    })
    .await;
    let metrics = registry.anyone().get("/metrics").send().await.unwrap().text().await.unwrap();
    for series in [
        "proofmark_job_last_success_timestamp_seconds{job=\"sequencer\"}",
        // Other tests of this process share the series, and let jobs fail.
        "proofmark_job_consecutive_failures{job=\"sequencer\"}",
        "proofmark_job_panics_total{job=\"sequencer\"}",
    ] {
        assert!(metrics.contains(series), "{series}");
    }
    registry.check().await;
}

#[tokio::test]
async fn a_job_that_keeps_failing_degrades_and_recovers() {
    let registry = Registry::start().await;
    let from = &registry;
    let rename =
        |sql: &'static str| async move { sqlx::raw_sql(sql).execute(&mut *from.sql().await).await.unwrap() };
    rename("alter table log_pending rename to log_pending_away").await;
    eventually("the sequencer is shown as failing", async || {
        let (status, document) = readiness(&registry).await;
        assert_eq!(status, 200, "a degraded service is ready: {document}");
        document["status"] == "degraded" && codes(&document) == ["job-failing"]
    })
    .await;
    let (_, document) = readiness(&registry).await;
    let message = document["reasons"][0]["message"].as_str().unwrap();
    assert!(message.contains("sequencer") && !message.contains("log_pending"), "{message}");
    rename("alter table log_pending_away rename to log_pending").await;
    eventually("it succeeds again", async || readiness(&registry).await.1["status"] == "ready").await;
    registry.check().await;
}

#[tokio::test]
async fn a_clock_behind_the_newest_event_degrades() {
    let registry = Registry::start().await;
    registry.tamper("update events set at = at + interval '1 hour'").await;
    let (status, document) = readiness(&registry).await;
    assert_eq!(status, 200);
    assert_eq!((&document["status"], codes(&document)), (&Value::from("degraded"), vec!["clock-behind"]));
    registry.tamper("update events set at = at - interval '1 hour'").await;
    assert_eq!(readiness(&registry).await.1["status"], "ready");
    registry.check().await;
}

#[tokio::test]
async fn a_database_whose_clock_is_set_wrong_makes_the_service_unavailable() {
    let registry = Registry::start().await;
    let set_wrong = "create function public.clock_timestamp() returns timestamptz language sql volatile
                       return pg_catalog.clock_timestamp() + interval '2 minutes';
                     do $$ begin
                       execute format('alter database %I set search_path = public, pg_catalog', current_database());
                     end $$";
    sqlx::raw_sql(set_wrong).execute(&mut *registry.sql().await).await.unwrap();
    // The search path is of new connections, so of a replica that starts now.
    let replica = registry.replica().await;
    let (status, document) = readiness(&replica).await;
    assert_eq!((status, &document["status"]), (503, &Value::from("unavailable")), "{document}");
    assert_eq!(codes(&document), ["clocks-differ"]);
}

#[tokio::test]
async fn who_waits_for_the_log_is_woken_when_events_are_sequenced() {
    let registry = Registry::start().await;
    let mut wake = registry.app.log_position().wake();
    registry.admin().push_release("app", "1.0", "one").await;
    let woken = tokio::time::timeout(Duration::from_secs(30), wake.changed()).await.expect("it is woken");
    assert!(woken > 0 && registry.app.log_position().get() >= woken);
    registry.check().await;
}

#[tokio::test]
async fn another_replica_hears_of_new_entries_also_after_its_connection_was_lost() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    registry.sequence_all().await;
    let position = Growing::default();
    let listener = std::sync::Arc::new(LogListener::new(position.clone()));
    let listen = || {
        let (listener, db) = (listener.clone(), registry.app.db.clone());
        tokio::spawn(async move { listener.listen(&db).await })
    };
    let sequenced = async |version: &str| {
        let mut wake = position.wake();
        registry.admin().push_release("app", version, version).await;
        ledger::sequence(&registry.app.db).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), wake.changed()).await.expect("it is notified")
    };
    let listening = listen();
    eventually("it listens", async || position.get() > 0).await;
    let first = sequenced("1.0").await;
    // The connection that waits for notifications is the one that last said LISTEN.
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and query ilike 'listen %'";
    let cut: i64 = sqlx::query_scalar(cut).fetch_one(&mut *registry.sql().await).await.unwrap();
    assert_eq!(cut, 1);
    listening.await.unwrap().expect_err("the connection was lost");
    registry.admin().push_release("app", "1.1", "two").await;
    ledger::sequence(&registry.app.db).await.unwrap();
    let listening = listen();
    eventually("what was sequenced meanwhile is known", async || position.get() > first).await;
    sequenced("1.2").await;
    listening.abort();
    registry.check().await;
}
