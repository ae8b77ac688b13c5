//! A database for each test, cloned from a template that holds the migrated schema.

use proofmark::postgres::{Db, Options};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The server of the run, started by tests/run; a developer's own may stand in for it.
fn server() -> String {
    #[allow(clippy::disallowed_methods, reason = "a test's own environment")]
    std::env::var("PROOFMARK_TEST_DATABASE_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5499/postgres".to_owned())
}

static TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// The URL of a new database with the whole schema.
pub async fn fresh() -> String {
    let template = TEMPLATE.get_or_init(make_template).await;
    let name = format!("test_{}", uuid::Uuid::now_v7().simple());
    let mut connection = connect().await;
    let create = format!("create database {name} template {template}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut connection).await.unwrap();
    at(&name)
}

async fn make_template() -> String {
    let name = format!("template_{}", std::process::id());
    let mut connection = connect().await;
    for statement in [format!("drop database if exists {name}"), format!("create database {name}")] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    }
    let options = Options::new(at(&name), 1, Duration::from_secs(30));
    let db = Db::connect(&options).await.unwrap();
    db.migrate().await.unwrap();
    db.close().await;
    name
}

async fn connect() -> PgConnection {
    PgConnection::connect(&server()).await.expect("tests/run starts a Postgres for the run")
}

fn at(database: &str) -> String {
    PgConnectOptions::from_str(&server()).unwrap().database(database).to_url_lossy().to_string()
}
