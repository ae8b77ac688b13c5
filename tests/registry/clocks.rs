//! What time it is: the later of the database's clock and the newest event's, and what is written while the
//! clocks of the database and of the service differ.

use crate::harness::{Client, Registry, eventually};
use chrono::{DateTime, Utc};
use proofmark::failure::ClocksDiffer;
use proofmark::postgres::agreed_time;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// Sets the clock of a registry's database, for connections that are opened afterwards.
async fn set_clock(registry: &Registry, offset: &str) {
    let set = format!(
        "create or replace function public.clock_timestamp() returns timestamptz language sql volatile
           return pg_catalog.clock_timestamp() + interval '{offset}';
         do $$ begin
           execute format('alter database %I set search_path = public, pg_catalog', current_database());
         end $$"
    );
    let set = sqlx::AssertSqlSafe(set);
    sqlx::raw_sql(set).execute(&mut *registry.sql().await).await.unwrap();
}

/// The time of the newest event, and how many there are.
async fn newest_event(registry: &Registry) -> (DateTime<Utc>, i64) {
    sqlx::query_as("select max(at), count(*) from events")
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap()
}

async fn ready(registry: &Registry) -> (u16, Value) {
    let answer = registry.anyone().get("/readyz").send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The answer says 503 `clocks-differ`, or at `/v2/` the same in its own terms, and when to come back.
async fn refused(request: RequestBuilder) {
    let answer = request.send().await.unwrap();
    let path = answer.url().path().to_owned();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    assert_eq!(answer.headers()["retry-after"], "5", "{path}");
    let document: Value = answer.json().await.unwrap();
    if path.starts_with("/v2") {
        assert_eq!(document["errors"][0]["code"], "TOOMANYREQUESTS", "{document}");
        assert!(document["errors"][0]["message"].as_str().unwrap().contains("clocks"), "{document}");
    } else {
        assert_eq!(document["code"], "clocks-differ", "{document}");
    }
}

/// Writes of every kind that waits until the clocks agree.
async fn writes_are_refused(admin: &Client, promotion: &Value) {
    refused(admin.post("/v2/app/blobs/uploads/")).await;
    refused(admin.put("/v2/app/manifests/2.0").body("{}")).await;
    refused(admin.delete("/v2/app/manifests/1.0")).await;
    refused(admin.post("/api/v1/promotions").json(promotion)).await;
    refused(admin.post("/api/v1/rollbacks").json(promotion)).await;
    refused(admin.post("/api/v1/approvals").json(promotion)).await;
    refused(admin.post("/api/v1/tokens").json(&json!({"principal": "ann", "grants": []}))).await;
    refused(admin.put("/api/v1/policies").body("environment: prod\nrepositories: ['**']\ngates: []\n")).await;
}

#[tokio::test]
async fn while_clocks_differ_only_what_stops_something_is_written_with_the_newest_events_time() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.know_signer("release").await;
    let digest = registry.admin().push_release("app", "1.0", "one").await;
    let promotion = json!({"repository": "app", "digest": digest, "environment": "prod"});
    assert_eq!(registry.admin().promote("app", &digest, "prod").await.status(), 201);
    let token = json!({"principal": "ann", "grants": [{"role": "reader", "repositories": "**"}]});
    let token = registry.admin().post_document("/api/v1/tokens", &token, 201).await;

    set_clock(&registry, "2 minutes").await;
    let mut replica = registry.replica().await;
    let (status, readiness) = ready(&replica).await;
    assert_eq!((status, &readiness["reasons"][0]["code"]), (503, &json!("clocks-differ")), "{readiness}");
    let (before, count) = newest_event(&registry).await;
    // Also what came through before the difference was noticed.
    let dated = agreed_time(&mut *replica.sql().await).await;
    assert!(dated.is_err_and(|failure| failure.is::<ClocksDiffer>()));
    let admin = replica.admin();
    writes_are_refused(&admin, &promotion).await;
    assert_eq!(newest_event(&registry).await, (before, count), "nothing was written");

    assert_eq!(admin.known_good("app", "prod").await.status(), 200);
    assert_eq!(admin.verdict("app", &digest, "prod").await["verdict"], "allow");
    assert_eq!(admin.get("/v2/app/manifests/1.0").send().await.unwrap().status(), 200);
    admin.post_document("/api/v1/promotions?dry_run=true", &promotion, 200).await;

    let block = admin.block("app", &digest, None).await;
    assert_eq!(admin.verdict("app", &digest, "prod").await["verdict"], "deny");
    let end = json!({"reason": "over"});
    admin.post_document(&format!("/api/v1/blocks/{}/revocation", block["id"]), &end, 200).await;
    // By the clock of Postgres it would have ended.
    let until = json!(proofmark::clock::now() + chrono::TimeDelta::seconds(100));
    let temporary = json!({"repository": "app", "digest": digest, "reason": "for a while", "until": until});
    let temporary = admin.post_document("/api/v1/blocks", &temporary, 201).await;
    assert_eq!(admin.verdict("app", &digest, "prod").await["verdict"], "deny");
    admin.post_document(&format!("/api/v1/blocks/{}/revocation", temporary["id"]), &end, 200).await;
    let hold = json!({"repository": "app", "environment": "prod", "reason": "wait"});
    admin.post_document("/api/v1/holds", &hold, 201).await;
    admin.post_document("/api/v1/signers/release/revocation", &json!({"reason": "lost"}), 201).await;
    let path = format!("/api/v1/tokens/{}", token["id"].as_str().unwrap());
    assert!(admin.request(Method::DELETE, &path).send().await.unwrap().status().is_success());
    let times: Vec<DateTime<Utc>> = sqlx::query_scalar("select at from events order by id desc limit 7")
        .fetch_all(&mut *registry.sql().await)
        .await
        .unwrap();
    assert_eq!((times, newest_event(&registry).await), (vec![before; 7], (before, count + 7)));

    set_clock(&registry, "0").await;
    eventually("the service writes again", async || !replica.app.clocks.differ()).await;
    admin.push_release("app", "2.0", "two").await;
    assert!(newest_event(&registry).await.0 > before);
    replica.stop_jobs().await;
    registry.check().await;
}

#[tokio::test]
async fn jobs_that_delete_do_not_run_while_clocks_differ() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    sqlx::raw_sql("delete from job_leases").execute(&mut *registry.sql().await).await.unwrap();
    set_clock(&registry, "-2 minutes").await;
    let mut replica = registry.replica().await;
    assert!(replica.app.clocks.differ());
    let had_turn = async |name: &str| {
        let jobs = ready(&replica).await.1["jobs"].as_array().unwrap().clone();
        jobs.into_iter().any(|job| job["job"] == name && !job["last_succeeded_at"].is_null())
    };
    eventually("the jobs had their turn", async || {
        had_turn("retention").await && had_turn("collection").await
    })
    .await;
    // A run writes the row of the job's lease.
    let runs = async || -> i64 {
        let count = sqlx::query_scalar("select count(*) from job_leases");
        count.fetch_one(&mut *registry.sql().await).await.unwrap()
    };
    assert_eq!(runs().await, 0);
    set_clock(&registry, "0").await;
    eventually("they run", async || runs().await == 2).await;
    replica.stop_jobs().await;
    registry.check().await;
}

#[tokio::test]
async fn no_fact_is_older_than_the_newest_event_when_the_clock_was_set_back() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let digest = registry.admin().push_release("app", "1.0", "one").await;
    let hold = json!({"repository": "app", "environment": "prod", "reason": "wait",
        "until": proofmark::clock::now() + chrono::TimeDelta::minutes(30)});
    let hold = registry.admin().post_document("/api/v1/holds", &hold, 201).await;
    registry
        .tamper("update events set at = at + interval '1 hour' where id = (select max(id) from events)")
        .await;
    let (future, _) = newest_event(&registry).await;
    assert!(future > proofmark::clock::now() + chrono::TimeDelta::minutes(50));

    // The hold ended before the newest event, whatever the clock says now.
    let holds = registry.admin().document("/api/v1/holds?repository=app").await;
    assert_eq!(holds["items"], json!([]), "{hold}");
    let promoted = registry.admin().promote("app", &digest, "prod").await;
    assert_eq!(promoted.status(), 201, "{}", promoted.text().await.unwrap());
    let block = registry.admin().block("app", &digest, None).await;
    let facts: Vec<DateTime<Utc>> = sqlx::query_scalar(
        "select promoted_at from promotions union all select decided_at from decisions
         union all select at from blocks union all (select at from events order by id desc limit 2)",
    )
    .fetch_all(&mut *registry.sql().await)
    .await
    .unwrap();
    assert!(facts.len() == 5 && facts.iter().all(|at| *at >= future), "{facts:?} {block}");
}
