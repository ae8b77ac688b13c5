//! The service as an operator runs it: the built binary, a process of its own with everything in
//! one data directory, its private Postgres included.

use super::Client;
use proofmark::access::Role;
use proofmark::audit;
use proofmark::postgres::{Db, Options, local};
use proofmark::storage::Store;
use serde_json::json;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A running service; dropping it kills it.
pub struct Service {
    process: Child,
    home: PathBuf,
    url: String,
}

impl Service {
    /// Starts the service on the data in a directory and waits until it is ready.
    pub async fn start(home: &Path) -> Self {
        Self::start_with(Command::new(env!("CARGO_BIN_EXE_proofmark")), home).await
    }

    /// Starts the service with a command that ends in the binary's name.
    pub async fn start_with(mut command: Command, home: &Path) -> Self {
        // A port that was free a moment ago; the system hands out others before it comes back to it.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = File::options().create(true).append(true).open(home.join("log")).unwrap();
        let process = command
            .arg("serve")
            .env_clear()
            .envs([("PATH", variable("PATH")), ("PROOFMARK_LISTEN", address.to_string())])
            .env("PROOFMARK_DATA", home.join("data"))
            .env("PROOFMARK_ADMIN_TOKEN_FILE", home.join("admin-token"))
            .env("PROOFMARK_PUBLIC_NAME", "registry.example")
            .env("PROOFMARK_LOG_FORMAT", "text")
            // Half of these for one principal, whose 200 push at once in a test.
            .env("PROOFMARK_MAX_CONCURRENT_UPLOADS", "512")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut service = Self { process, home: home.to_owned(), url: format!("http://{address}") };
        service.ready().await;
        service
    }

    async fn ready(&mut self) {
        let ready = async {
            let anyone = Client::new(&self.url, None);
            while !anyone.get("/readyz").send().await.is_ok_and(|answer| answer.status() == 200) {
                if let Some(status) = self.process.try_wait().unwrap() {
                    panic!("the service ended with {status}: {}", log(&self.home));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ready = tokio::time::timeout(Duration::from_mins(2), ready).await;
        assert!(ready.is_ok(), "the service is not ready after two minutes: {}", log(&self.home));
    }

    /// Ends it with SIGKILL, as a crash does.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        assert_eq!(self.process.wait().unwrap().signal(), Some(9));
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGTERM).unwrap();
        self.process.wait().unwrap()
    }

    /// Its process id.
    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.process.id().try_into().unwrap())
    }

    /// The base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The administrator.
    pub fn admin(&self) -> Client {
        let token = fs::read_to_string(self.home.join("admin-token")).unwrap();
        Client::new(&self.url, Some(token.trim().to_owned()))
    }

    /// A new principal with one role on every repository.
    pub async fn client(&self, role: Role) -> Client {
        let grant = json!({ "role": role, "repositories": "**" });
        let body = json!({ "principal": format!("{role}-{}", uuid::Uuid::now_v7()), "grants": [grant] });
        let made = self.admin().post_document("/api/v1/tokens", &body, 201).await;
        Client::new(&self.url, Some(made["token"].as_str().unwrap().to_owned()))
    }

    /// The process id of its Postgres.
    pub fn postmaster(&self) -> i32 {
        let text = fs::read_to_string(self.home.join("data/postgres/data/postmaster.pid")).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    /// Its database, for looking inside.
    pub async fn db(&self) -> Db {
        let url = local::connect_url(&self.home.join("data/postgres")).unwrap().expect("Postgres runs");
        Db::connect(&Options::new(url, 2, Duration::from_secs(30))).await.unwrap()
    }

    /// Where it keeps large blobs.
    pub async fn store(&self) -> Store {
        Store::open(&format!("file://{}", self.home.join("data/objects").display())).await.unwrap()
    }

    /// Audits everything it stores, as `proofmark fsck` does beside a service that runs.
    pub async fn check(&self) {
        let (db, store) = (self.db().await, self.store().await);
        let report = audit::fsck(&db, &store).await.unwrap();
        assert!(report.is_clean(), "{:#?}", report.violations);
        assert!(report.checked > 0);
        db.close().await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // One that has ended already is no concern here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The end of what the service logged.
fn log(home: &Path) -> String {
    let text = fs::read_to_string(home.join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[allow(clippy::disallowed_methods, reason = "a test's own environment")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}
