//! A whole registry for one test: its own database, its own storage, served on a real socket.
#![allow(dead_code, reason = "a client of every method, whichever tests use now")]
mod blobs;
mod client;
mod database;
mod google;
mod log_lines;
pub mod oci;
mod relay;
mod releases;
mod service;
mod serving;
mod shell;
mod signing;
mod storages;

pub use blobs::{header, noise, sha256, sha512};
pub use client::{Client, expect};
pub use database::fresh as fresh_database;
pub use log_lines::LogLines;
pub use relay::{Fault, Relay};
pub use releases::{Found, debian_report};
pub use service::Service;
pub use shell::{Ended, Shell};
pub use signing::{Case, PROVENANCE, Signing, provenance, public_key, push_folder};
pub use storages::Cloud;
pub(crate) use storages::on_every_storage;

use proofmark::access::Role;
use proofmark::app::App;
use proofmark::config::{Config, LogFormat, Settings};
use proofmark::jobs::Jobs;
use proofmark::postgres::{Db, Options};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The answer of `/readyz` without what is true of every test: its service's role owns the tables.
pub fn as_limited_role(mut ready: serde_json::Value) -> serde_json::Value {
    let reasons = ready["reasons"].as_array_mut().unwrap();
    reasons.retain(|reason| reason["code"] != "database-role-unlimited");
    if reasons.is_empty() {
        ready["status"] = "ready".into();
    }
    ready
}

/// Waits for what has no event to wait for, for a minute at the most.
pub async fn eventually(what: &str, mut happens: impl AsyncFnMut() -> bool) {
    let look = async {
        while !happens().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), look)
        .await
        .unwrap_or_else(|_| panic!("in a minute: {what}"));
}

/// A registry that runs for one test.
pub struct Registry {
    /// What its requests can reach, for looking inside.
    pub app: App,
    /// The base URL, without a slash at the end.
    pub url: String,
    admin: String,
    jobs: Option<Jobs>,
    directory: TempDir,
}

/// Starts a registry with settings changed by the test.
pub struct Starting {
    settings: Settings,
}

impl Registry {
    /// A registry with the default settings.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A registry whose settings the test changes first.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = database::fresh().await;
        let mut starting = Starting { settings: settings(directory.path(), url) };
        change(&mut starting.settings);
        if starting.settings.trust_file.is_none() {
            let made = make_named_keys(directory.path(), starting.settings.public_name.as_deref().unwrap());
            starting.settings.keys = Some(made.keys);
            starting.settings.trust_file = Some(made.trust);
        }
        Self::open(starting, directory).await
    }

    /// Another replica of this registry: the same database and storage, an own process' worth of
    /// caches and jobs.
    pub async fn replica(&self) -> Self {
        self.replica_with(|_| ()).await
    }

    /// The same, with settings of its own.
    pub async fn replica_with(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(self.directory.path(), self.database_url());
        settings.storage = Some(self.app.config.storage.clone());
        settings.keys.clone_from(&self.app.config.keys);
        settings.trust_file.clone_from(&self.app.config.trust_file);
        settings.collection_seconds = Some(self.app.config.collection.as_secs());
        settings.background_percent = Some(self.app.config.background_percent);
        change(&mut settings);
        Self::open(Starting { settings }, tempfile::tempdir().unwrap()).await
    }

    async fn open(starting: Starting, directory: TempDir) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = starting.settings;
        settings.listen = Some(address);
        let token_file = settings.admin_token_file.clone().unwrap();
        let config: Config = settings.resolve().unwrap();
        let proofmark::config::Database::Given(url) = config.database.clone() else { unreachable!() };
        let statement_time = Some(config.statement_time);
        let options = Options {
            reserved_connections: 2,
            statement_time,
            ..Options::new(url, 20, Duration::from_secs(30))
        };
        let db = Db::connect(&options).await.unwrap();
        let app = App::assemble(config, db).await.unwrap();
        let jobs = app.start_jobs();
        let (serving, handle) = (app.clone(), axum_server::Handle::new());
        tokio::spawn(async move { proofmark::http::serve_on(listener, serving, handle).await });
        let admin = std::fs::read_to_string(token_file).unwrap().trim().to_owned();
        Self { app, url: format!("http://{address}"), admin, jobs: Some(jobs), directory }
    }

    /// The URL of its database.
    pub fn database_url(&self) -> String {
        match &self.app.config.database {
            proofmark::config::Database::Given(url) => url.clone(),
            proofmark::config::Database::Private(_) => unreachable!("tests give a database"),
        }
    }

    /// The fingerprint of its root, as its operator has it.
    pub fn fingerprint(&self) -> String {
        self.app.keys.trust().fingerprint().unwrap()
    }

    /// Somebody at a shell who pinned its trust file.
    pub async fn shell(&self, token: Option<&str>) -> Shell {
        let shell = Shell::at(&self.url, token);
        shell.yes(&["trust", "pin", "--fingerprint", &self.fingerprint()]).await;
        shell
    }

    /// A directory that lives as long as the registry.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The administrator's token.
    pub fn admin_token(&self) -> &str {
        &self.admin
    }

    /// Who shows no credential.
    pub fn anyone(&self) -> Client {
        Client::new(&self.url, None)
    }

    /// The administrator.
    pub fn admin(&self) -> Client {
        Client::new(&self.url, Some(self.admin.clone()))
    }

    /// Somebody with one role on the repositories that match a pattern, in all environments. Each
    /// call is another principal.
    pub async fn client(&self, role: Role, repositories: &str) -> Client {
        self.named(&format!("{role}-{}", uuid::Uuid::now_v7().simple()), role, repositories, None).await
    }

    /// A principal with a name, and perhaps with few environments. What it is given in several calls adds up.
    pub async fn named(
        &self,
        principal: &str,
        role: Role,
        repositories: &str,
        environments: Option<&[&str]>,
    ) -> Client {
        let grant = serde_json::json!({ "principal": principal, "role": role, "repositories": repositories,
            "environments": environments });
        let given = self.admin().post("/api/v1/grants").json(&grant).send().await.unwrap();
        assert!(given.status().is_success(), "{}", given.text().await.unwrap());
        let body = serde_json::json!({ "principal": principal });
        let answer = self.admin().post("/api/v1/tokens").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        let document: serde_json::Value = answer.json().await.unwrap();
        Client::new(&self.url, Some(document["token"].as_str().unwrap().to_owned()))
    }

    /// A connection to its database, for looking inside.
    pub async fn sql(&self) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
        self.app.db.pool().acquire().await.unwrap()
    }

    /// Changes rows as nobody can who comes through the service: without triggers and foreign keys.
    pub async fn tamper(&self, sql: &'static str) {
        let mut connection = self.sql().await;
        sqlx::raw_sql("set session_replication_role = replica").execute(&mut *connection).await.unwrap();
        let changed = sqlx::raw_sql(sql).execute(&mut *connection).await.unwrap().rows_affected();
        sqlx::raw_sql("set session_replication_role = origin").execute(&mut *connection).await.unwrap();
        assert!(changed > 0, "{sql} changed nothing");
    }

    /// Stops what runs beside the requests.
    pub async fn stop_jobs(&mut self) {
        if let Some(jobs) = self.jobs.take() {
            jobs.stop().await;
        }
    }

    /// Stops the jobs and audits the whole house. Every test ends with it.
    pub async fn check(mut self) {
        self.stop_jobs().await;
        self.sequence_all().await;
        let mut connection = self.sql().await;
        let gaps: i64 = sqlx::query_scalar(
            "select (select size from log_state) - (select count(*) from log_entries)
                  + (select count(*) from events) - (select count(*) from log_entries)
                  + coalesce((select max(idx) + 1 from log_entries), 0) - (select size from log_state)",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        assert_eq!(gaps, 0, "every event is logged once and the indices have no gaps");
        let report = proofmark::audit::fsck(&self.app.db, &self.app.store).await.unwrap();
        assert!(report.is_clean(), "{:#?}", report.violations);
    }

    /// Sequences until nothing waits: what another replica is sequencing waits until it commits.
    pub async fn sequence_all(&self) {
        let all = async {
            loop {
                proofmark::ledger::sequence(&self.app.db).await.unwrap();
                let waiting = "select exists(select from log_pending)";
                if !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut *self.sql().await).await.unwrap() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), all).await.expect("every event is sequenced");
    }
}

/// The files that an operator makes before the first start with a Postgres of their own.
pub struct MadeKeys {
    /// The key file.
    pub keys: PathBuf,
    /// The root key.
    pub root: PathBuf,
    /// The first trust file.
    pub trust: PathBuf,
}

/// Makes them in a directory, for a registry of the usual name.
pub fn make_keys(directory: &Path) -> MadeKeys {
    make_named_keys(directory, "registry.example")
}

fn make_named_keys(directory: &Path, public_name: &str) -> MadeKeys {
    use proofmark::keys::{First, Root, RootKey};
    let made = MadeKeys {
        keys: directory.join("keys.json"),
        root: directory.join("root.json"),
        trust: directory.join("trust.json"),
    };
    let keys = proofmark::keys::init(&made.keys).unwrap();
    let root = RootKey::init(&made.root).unwrap();
    let at = proofmark::clock::now();
    let roots = Root { threshold: 1, keys: vec![root.public()] };
    let first =
        First { public_name, root: roots, keys: &keys, valid_from: at - chrono::TimeDelta::days(7), at };
    let mut draft = first.draft().unwrap();
    draft.sign(&root);
    std::fs::write(&made.trust, draft.complete().unwrap().bytes()).unwrap();
    made
}

fn settings(directory: &Path, database_url: String) -> Settings {
    Settings {
        data: Some(directory.join("data")),
        database_url: Some(database_url),
        storage: Some(format!("file://{}", directory.join("objects").display())),
        admin_token_file: Some(directory.join("admin-token")),
        public_name: Some("registry.example".into()),
        log: Some("warn".into()),
        log_format: Some(LogFormat::Text),
        ..Settings::default()
    }
}
