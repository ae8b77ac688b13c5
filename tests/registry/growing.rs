//! What does not grow: a question reads the rows of its answer, however many releases there are.

use crate::harness::{Client, PROVENANCE, Registry, eventually, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// What a question may read beside its answer: who asks, the policies, the signers, the system's
/// catalogs, and of each listed repository the changes of its size that are not summed up yet.
const ROWS_AT_MOST: i64 = 400;

const REPOSITORIES: usize = 10;

/// Releases in each repository.
fn each() -> usize {
    #[allow(clippy::disallowed_methods, reason = "a test's own environment")]
    let long = std::env::var_os("PROOFMARK_LONG").is_some();
    if long { 100_000 } else { 1_000 }
}

#[tokio::test]
async fn no_question_reads_more_rows_than_its_answer_needs() {
    let mut registry = Registry::start().await;
    let digest = registry.released("bench/template").await;
    let admin = registry.admin();
    let decision = admin.document("/api/v1/promotions?repository=bench/template&environment=prod").await;
    let decision = decision["items"][0]["decision"].as_str().unwrap().to_owned();
    let mut counter = PgConnection::connect(&registry.database_url()).await.unwrap();
    copy_releases(&mut counter).await;

    let newest = expect(admin.known_good("bench/many-7", "prod").await, 200).await;
    assert_eq!(newest["version"], json!(each().to_string()));
    let newest = newest["digest"].as_str().unwrap().to_owned();
    registry.stop_jobs().await;
    registry.app.db.close().await;
    let digest = digest.as_str();
    let mut greedy = Vec::new();
    for path in [
        "/api/v1/known-good?repository=bench/many-7&environment=prod",
        "/api/v1/known-good?repository=bench/many-7&environment=prod&for=rollback",
        "/api/v1/promotions?repository=bench/many-7&environment=prod&limit=10",
        "/api/v1/artifacts?repository=bench/many-7&limit=10",
        "/api/v1/artifacts?repository=bench/many-7&version=100",
        &format!("/api/v1/artifacts/{newest}?repository=bench/many-7"),
        &format!("/api/v1/attestations?repository=bench/many-7&digest={newest}"),
        &format!("/api/v1/scans?repository=bench/many-7&digest={newest}"),
        &format!("/api/v1/findings?repository=bench/many-7&digest={newest}"),
        &format!("/api/v1/decisions/{decision}"),
        "/api/v1/blocks?repository=bench/many-7",
        "/api/v1/approvals?repository=bench/many-7",
        "/api/v1/repositories?limit=10",
        &format!("/api/v1/audit/events?repository=bench/template&digest={digest}&limit=10"),
        "/v2/bench/many-7/tags/list?n=10",
        "/v2/bench/many-7/tags/list?n=10&last=2",
        "/v2/bench/template/manifests/1",
        &format!("/v2/bench/template/referrers/{digest}"),
        "/v2/_catalog?n=10",
    ] {
        let rows = registry.rows_read(&mut counter, &admin, path).await;
        if rows > ROWS_AT_MOST {
            greedy.push(format!("{rows} rows for {path}"));
        }
    }
    assert!(greedy.is_empty(), "{greedy:#?}");
}

impl Registry {
    /// Pushes, attests, scans and promotes one release under a policy that asks for all of it.
    async fn released(&self, repository: &str) -> Digest {
        let gates = r#"{provenance: {builders: ["https://ci.example/builder"]}}, {scan: {max_age: 24h}}"#;
        self.environment("prod", gates).await;
        self.know_signer("ci").await;
        let builder = self.client(Role::Pusher, "**").await;
        let digest = builder.push_release(repository, "1", "of many").await;
        self.state(&digest, "ci", PROVENANCE, None).await;
        self.scanned(&digest, "trivy", 5, &[]).await;
        expect(self.admin().promote(repository, &digest, "prod").await, 201).await;
        digest
    }

    /// The rows that Postgres read to answer one question, by any means. A replica without jobs
    /// answers it: its connections report what they did when they end.
    async fn rows_read(&self, counter: &mut PgConnection, asking: &Client, path: &str) -> i64 {
        let before = total(counter).await;
        let mut replica = self.replica().await;
        replica.stop_jobs().await;
        let answer = asking.at(&replica.url).get(path).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        answer.bytes().await.unwrap();
        replica.app.db.close().await;
        total(counter).await - before
    }
}

/// Rows read in the database so far, once every connection but this one has ended.
async fn total(counter: &mut PgConnection) -> i64 {
    let others = "select count(*) from pg_stat_activity
                  where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()";
    let alone = async || sqlx::query_scalar::<_, i64>(others).fetch_one(&mut *counter).await.unwrap() == 0;
    eventually("every other connection has ended", alone).await;
    let rows = "select ((select sum(seq_tup_read) from pg_stat_user_tables)
                      + (select sum(idx_tup_read) from pg_stat_user_indexes))::bigint";
    sqlx::query_scalar(rows).fetch_one(counter).await.unwrap()
}

/// Runs the benchmark's copying, which is written for psql.
async fn copy_releases(connection: &mut PgConnection) {
    let script = include_str!("../bench/releases.sql")
        .replace(":'prefix'", "'bench/many'")
        .replace(":repositories", &REPOSITORIES.to_string())
        .replace(":each", &each().to_string())
        .replace(r"\g /dev/null", ";");
    // VACUUM runs in no transaction, and statements sent together are one.
    let (copying, vacuum) = script.split_at(script.rfind("vacuum").unwrap());
    for statements in [copying, vacuum] {
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut *connection).await.unwrap();
    }
}
