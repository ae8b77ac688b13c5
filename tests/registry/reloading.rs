//! A hangup takes over what may change while the service runs, and a bad file changes nothing.

use crate::harness::{Client, Registry, Service, eventually};
use nix::sys::signal::{Signal, kill};
use proofmark::app::App;
use proofmark::config::{SecretFileMode, Settings};
use proofmark::postgres::{Db, Options};
use proofmark::server::reload;
use proofmark::telemetry::LogLevels;
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpListener;

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

async fn metrics(registry: &Registry, token: &str) -> u16 {
    let client = Client::new(&registry.url, Some(token.to_owned()));
    client.get("/metrics").send().await.unwrap().status().as_u16()
}

async fn kept(registry: &Registry) -> Option<String> {
    let ready = registry.anyone().document("/readyz").await;
    let reasons = ready["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["code"] == "reload-failed")?;
    assert_eq!(ready["status"], "degraded");
    Some(reason["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_reload_that_finds_a_bad_file_keeps_what_was_loaded_and_says_so_until_it_is_good() {
    let directory = tempfile::tempdir().unwrap();
    let (token, config) = (directory.path().join("metrics"), directory.path().join("proofmark.toml"));
    let (first, second) = ("first-metrics-token-1", "second-metrics-token-2");
    write(&token, first, 0o600);
    let registry = Registry::with(|settings| settings.metrics_token_file = Some(token.clone())).await;
    let settings =
        Settings { config: Some(config.clone()), data: Some(directory.path().into()), ..Settings::default() };
    write(&config, "log = \"info\"\n", 0o644);
    let reload = async || reload(&registry.app, &settings, &LogLevels::none()).await;
    assert_eq!((metrics(&registry, first).await, metrics(&registry, second).await), (200, 401));

    for (text, mode) in [(second, 0o644), ("aaaaaaaaaaaaaaaaaaaa", 0o600), ("short", 0o600), ("", 0o600)] {
        write(&token, text, mode);
        reload().await;
        assert_eq!(metrics(&registry, first).await, 200, "{text:?} {mode:o}");
        assert!(kept(&registry).await.unwrap().contains("metrics token"), "{text:?} {mode:o}");
    }
    fs::remove_file(&token).unwrap();
    reload().await;
    assert_eq!(metrics(&registry, first).await, 200, "a file that has gone is not a wish for no token");
    write(&token, second, 0o600);
    reload().await;
    assert_eq!(kept(&registry).await, None);
    assert_eq!((metrics(&registry, first).await, metrics(&registry, second).await), (401, 200));

    for bad in ["log = \"proofmark=nonsense=x\"\n", "lissten = 1\n"] {
        write(&config, bad, 0o644);
        reload().await;
        assert!(kept(&registry).await.unwrap().contains("log levels"), "{bad}");
    }
    write(&config, "log = \"proofmark=debug\"\n", 0o644);
    // Of the administrator's file the next content becomes a token too, if it is one.
    let admin = registry.app.config.admin_token_file.clone().unwrap();
    write(&admin, "aaaaaaaaaaaaaaaaaaaa", 0o600);
    reload().await;
    assert!(kept(&registry).await.unwrap().contains("administrator"));
    fs::remove_file(&admin).unwrap();
    reload().await;
    assert!(
        kept(&registry).await.unwrap().contains("administrator") && !admin.exists(),
        "a reload makes no token"
    );
    let next = "another-administrators-token";
    write(&admin, next, 0o600);
    reload().await;
    assert_eq!(kept(&registry).await, None);
    let client = Client::new(&registry.url, Some(next.into()));
    assert_eq!(client.get("/api/v1/tokens").send().await.unwrap().status(), 200);
    registry.check().await;
}

#[tokio::test]
async fn a_secret_file_that_others_may_read_starts_no_service_unless_the_operator_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (metrics, admin) = (directory.path().join("metrics"), directory.path().join("admin"));
    let (tls_key, certificate) = (directory.path().join("tls.key"), directory.path().join("tls.pem"));
    write(&metrics, "a-token-for-the-metrics", 0o600);
    write(&admin, "a-token-of-an-administrator", 0o600);
    make_certificate(&tls_key, &certificate);
    let registry = Registry::with(|settings| {
        settings.metrics_token_file = Some(metrics.clone());
        settings.admin_token_file = Some(admin.clone());
        settings.tls_key = Some(tls_key.clone());
        settings.tls_cert = Some(certificate.clone());
    })
    .await;
    let keys = registry.app.config.keys.clone().unwrap();
    for (mode, rule, starts) in [
        (0o600, SecretFileMode::Refuse, true),
        (0o640, SecretFileMode::Refuse, true),
        (0o644, SecretFileMode::Refuse, false),
        (0o602, SecretFileMode::Refuse, false),
        (0o644, SecretFileMode::Warn, true),
    ] {
        for file in [&metrics, &admin, &tls_key, &keys] {
            fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
            let started = start_again(&registry, rule).await;
            fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
            let name = file.display().to_string();
            match started {
                Ok(()) => assert!(starts, "{name} {mode:o} {rule:?}"),
                Err(why) => {
                    assert!(
                        !starts && why.contains(&name) && why.contains("chmod"),
                        "{name} {mode:o}: {why}"
                    );
                }
            }
        }
    }
    registry.check().await;
}

/// Starts the service once more with the files of a registry, and stops it once it listens.
async fn start_again(registry: &Registry, rule: SecretFileMode) -> Result<(), String> {
    let mut config = registry.app.config.clone();
    config.secret_file_mode = rule;
    let options = Options::new(registry.database_url(), 4, Duration::from_secs(30));
    let app = App::assemble(config, Db::connect(&options).await.unwrap()).await.map_err(|why| why.chain())?;
    let handle = axum_server::Handle::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serving = proofmark::http::serve_on(listener, app, handle.clone());
    tokio::select! {
        served = serving => served.map_err(|why| why.chain()),
        listening = handle.listening() => {
            assert!(listening.is_some());
            Ok(())
        }
    }
}

#[tokio::test]
async fn an_administrators_file_whose_token_was_rotated_keeps_no_replica_from_starting() {
    let registry = Registry::start().await;
    let file = registry.app.config.admin_token_file.clone().unwrap();
    let admin = registry.admin();
    let whoami = admin.document("/api/v1/whoami").await;
    let rotation = format!("/api/v1/tokens/{}/rotation", whoami["token"].as_str().unwrap());
    admin.post_document(&rotation, &json!({}), 201).await;
    let replica = registry.replica_with(|settings| settings.admin_token_file = Some(file)).await;
    assert!(kept(&replica).await.unwrap().contains("administrator"));
    assert_eq!(replica.admin().get("/api/v1/tokens").send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_hangup_reloads_and_ends_nothing() {
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("metrics");
    write(&token, "first-metrics-token-1", 0o600);
    let mut command = Command::new("env");
    command
        .arg(format!("PROOFMARK_METRICS_TOKEN_FILE={}", token.display()))
        .arg(env!("CARGO_BIN_EXE_proofmark"));
    let service = Service::start_with(command, home.path()).await;
    let asked = async |token: &str| {
        let client = Client::new(service.url(), Some(token.to_owned()));
        client.get("/metrics").send().await.unwrap().status().as_u16()
    };
    assert_eq!(asked("first-metrics-token-1").await, 200);
    write(&token, "second-metrics-token-2", 0o600);
    kill(service.pid(), Signal::SIGHUP).unwrap();
    eventually("the token is reloaded", async || asked("second-metrics-token-2").await == 200).await;
    assert_eq!(asked("first-metrics-token-1").await, 401);
    assert!(service.stop().success());
}

/// A key and a certificate for 127.0.0.1 that it signed itself.
pub fn make_certificate(key: &Path, certificate: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_certificate_is_reloaded_for_new_connections_and_one_that_does_not_fit_its_key_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (key, certificate) = (directory.path().join("tls.key"), directory.path().join("tls.pem"));
    make_certificate(&key, &certificate);
    let registry = Registry::with(|settings| {
        settings.tls_key = Some(key.clone());
        settings.tls_cert = Some(certificate.clone());
    })
    .await;
    let url = registry.url.replace("http://", "https://");
    let presented = async || {
        // A new connection each time.
        let client =
            reqwest::Client::builder().danger_accept_invalid_certs(true).tls_info(true).build().unwrap();
        let answer = client.get(format!("{url}/livez")).send().await.unwrap();
        assert!(answer.headers().contains_key("strict-transport-security"));
        answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap().peer_certificate().unwrap().to_vec()
    };
    let settings = Settings { data: Some(directory.path().into()), ..Settings::default() };
    let reload = async || reload(&registry.app, &settings, &LogLevels::none()).await;
    let bad = || registry.app.unused_files.lock().unwrap().clone();
    let first = presented().await;

    // A key of another certificate, a key that others may read, and no certificate at all.
    let (other_key, other_certificate) =
        (directory.path().join("other.key"), directory.path().join("other.pem"));
    make_certificate(&other_key, &other_certificate);
    let own_key = fs::read_to_string(&key).unwrap();
    fs::copy(&other_key, &key).unwrap();
    reload().await;
    assert_eq!((presented().await, bad().len()), (first.clone(), 1), "a key of another certificate");
    write(&key, &own_key, 0o644);
    reload().await;
    assert_eq!((presented().await, bad().len()), (first.clone(), 1), "a key that others may read");
    write(&key, "none", 0o600);
    reload().await;
    assert_eq!((presented().await, bad().len()), (first.clone(), 1), "no key");

    fs::copy(&other_key, &key).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    fs::copy(&other_certificate, &certificate).unwrap();
    reload().await;
    assert!(bad().is_empty());
    assert_ne!(presented().await, first);
    registry.check().await;
}
