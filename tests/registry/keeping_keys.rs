//! The registry's own keys: made once, never changed, and enough for a stranger to check what it says.

use crate::harness::{Registry, fresh_database, sha256};
use proofmark::app::App;
use proofmark::attestation::IN_TOTO;
use proofmark::attestation::summary::{self, Expectations, Input, SubjectKind, SummarySubject, Verification};
use proofmark::config::Settings;
use proofmark::keys::{self, Keys, Source, Trust};
use proofmark::postgres::{Db, Options};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

async fn empty_database() -> Db {
    let url = fresh_database().await;
    let acquire_timeout = Duration::from_secs(30);
    Db::connect(&Options::new(url, 4, acquire_timeout)).await.unwrap()
}

async fn open(db: &Db, source: &Source, name: &str) -> Result<keys::Opened, String> {
    let mut tx = db.begin().await.unwrap();
    let opened = Keys::open(&mut tx, source, name).await.map_err(|failure| failure.chain())?;
    tx.commit().await.unwrap();
    Ok(opened)
}

#[tokio::test]
async fn the_identity_is_written_once_and_follows_no_later_name() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    let source = Source::Made(directory.path().join("keys.json"));
    let first = open(&db, &source, "registry.example").await.unwrap();
    let later = open(&db, &source, "127.0.0.1:9999").await.unwrap();
    assert!(first.first && !later.first);
    assert_eq!(first.keys.trust(), later.keys.trust());
    assert_eq!(later.keys.verifier_id(), "https://registry.example/proofmark");
    let change = sqlx::query("update registry_identity set verifier_id = 'x'").execute(db.pool()).await;
    assert!(change.unwrap_err().to_string().contains("never changed"));
    db.close().await;
}

#[tokio::test]
async fn replicas_that_start_at_once_write_one_identity() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    let path = directory.path().join("keys.json");
    keys::init(&path).unwrap();
    let source = Source::Given(path);
    let starts = (0..4).map(|n| {
        let (db, source) = (db.clone(), source.clone());
        tokio::spawn(async move { open(&db, &source, &format!("replica-{n}.example")).await.unwrap() })
    });
    let mut opened = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        opened.push(start.await.unwrap());
    }
    assert_eq!(opened.iter().filter(|opened| opened.first).count(), 1);
    assert!(opened.iter().all(|one| one.keys.trust() == opened[0].keys.trust()));
    db.close().await;
}

#[tokio::test]
async fn a_database_is_left_alone_until_the_keys_are_given() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    sqlx::raw_sql("drop schema public cascade; create schema public").execute(db.pool()).await.unwrap();
    let settings = Settings {
        data: Some(directory.path().into()),
        database_url: Some("postgres://somebody@elsewhere/theirs".into()),
        ..Settings::default()
    };
    let refused = App::assemble(settings.resolve().unwrap(), db.clone()).await.err().unwrap().chain();
    assert!(refused.contains("proofmark key init") && refused.contains("PROOFMARK_KEYS"), "{refused}");
    let tables = "select count(*) from information_schema.tables where table_schema = 'public'";
    assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(db.pool()).await.unwrap(), 0);
    db.close().await;
}

#[tokio::test]
async fn a_replica_with_other_keys_or_without_its_keys_does_not_start() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    let absent = Source::Given(directory.path().join("absent.json"));
    let absent = open(&db, &absent, "registry.example").await.unwrap_err();
    assert!(absent.contains("proofmark key init"), "{absent}");

    let ours = directory.path().join("keys.json");
    open(&db, &Source::Made(ours.clone()), "registry.example").await.unwrap();
    let theirs = directory.path().join("other.json");
    keys::init(&theirs).unwrap();
    let refused = open(&db, &Source::Given(theirs), "registry.example").await.unwrap_err();
    assert!(refused.contains("this is not the key file of this registry"), "{refused}");

    // A lost key file is never replaced by new keys.
    std::fs::remove_file(&ours).unwrap();
    let lost = open(&db, &Source::Made(ours.clone()), "registry.example").await.unwrap_err();
    assert!(lost.contains("backup") && !ours.exists(), "{lost}");
    db.close().await;
}

#[tokio::test]
async fn openssl_alone_checks_what_the_registry_signed() {
    let registry = Registry::start().await;
    let trust: Value = registry.anyone().document("/.well-known/proofmark").await;
    let trust_text = trust.to_string();
    let trust: Trust = serde_json::from_value(trust).unwrap();
    let (repository, environment) = ("team/app".parse().unwrap(), "prod".parse().unwrap());
    let digest = sha256(b"manifest");
    let at = "2099-01-01T00:00:00Z".parse().unwrap();
    let statement = summary::build(
        &trust,
        &Verification {
            repository: &repository,
            environment: &environment,
            subjects: &[SummarySubject { kind: SubjectKind::Manifest, name: "1.0.0", digests: &[&digest] }],
            policy_uri: "https://registry.example/policy",
            policy_digest: &sha256(b"policy"),
            inputs: &[Input { uri: "a".into(), digest: sha256(b"a") }],
            levels: &[],
            time_verified: at,
            valid_until: "2099-02-01T00:00:00Z".parse().unwrap(),
            running: false,
        },
    )
    .unwrap();
    let envelope = registry.app.keys.sign_summary(IN_TOTO, &statement);
    let expected = Expectations {
        kind: SubjectKind::Manifest,
        digest: &digest,
        repository: &repository,
        environment: &environment,
        level: None,
        max_age: None,
        at,
    };
    let checked = summary::check(&envelope, &trust, &expected).unwrap();
    assert_eq!(checked.key_id, trust.in_force(keys::KeyRole::Summary).unwrap().key_id);
    let keyid = serde_json::from_slice::<Value>(&envelope).unwrap()["signatures"][0]["keyid"].clone();
    assert_eq!(keyid, json!(checked.key_id), "verifiers that select by keyid find the key");

    let directory = registry.directory();
    std::fs::write(directory.join("trust.json"), trust_text).unwrap();
    assert!(openssl(directory, &envelope), "the documented commands say yes");
    let mut forged: Value = serde_json::from_slice(&envelope).unwrap();
    forged["payload"] = json!(forged["payload"].as_str().unwrap().replacen('A', "B", 1));
    assert!(!openssl(directory, forged.to_string().as_bytes()), "and no to another payload");
    registry.check().await;
}

/// The commands of `attestation::summary`'s documentation, as they stand there.
fn openssl(directory: &std::path::Path, envelope: &[u8]) -> bool {
    let documented = include_str!("../../src/attestation/summary.rs");
    let script: String = documented
        .lines()
        .skip_while(|line| *line != "//! ```sh")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//! "))
        .filter(|line| !line.starts_with("curl"))
        .fold(String::from("set -e\n"), |script, line| script + line + "\n");
    assert!(script.contains("openssl pkeyutl -verify"), "{script}");
    std::fs::write(directory.join("summary.json"), envelope).unwrap();
    let ran = Command::new("sh").arg("-c").arg(script).current_dir(directory).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(!said.contains("not found"), "openssl and jq are needed: {said}");
    ran.status.success()
}
