//! The registry's own keys: made once, never changed, and enough for a stranger to check what it says.

use crate::harness::{MadeKeys, Registry, fresh_database, make_keys, sha256};
use proofmark::app::App;
use proofmark::attestation::IN_TOTO;
use proofmark::attestation::summary::{self, Expectations, Input, SubjectKind, SummarySubject, Verification};
use proofmark::config::{SecretFileMode, Settings};
use proofmark::keys::{self, Keys, ROOT_FILE, Source, Sources, TRUST_FILE, TrustFile};
use proofmark::postgres::{Db, Options};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

async fn empty_database() -> Db {
    let url = fresh_database().await;
    let acquire_timeout = Duration::from_secs(30);
    Db::connect(&Options::new(url, 4, acquire_timeout)).await.unwrap()
}

async fn open(db: &Db, sources: &Sources<'_>) -> Result<keys::Opened, String> {
    let mut tx = db.begin().await.unwrap();
    let opened = Keys::open(&mut tx, sources).await.map_err(|failure| failure.chain())?;
    for file in &opened.added {
        assert!(
            sources.home.is_none_or(|home| home.join(TRUST_FILE).exists()),
            "files are there before rows"
        );
        assert!(file.version() > 0);
    }
    tx.commit().await.unwrap();
    Ok(opened)
}

/// A start beside the private Postgres, which keeps everything in one directory.
async fn open_at_home(db: &Db, home: &Path, name: &str) -> Result<keys::Opened, String> {
    let source = Source::Made(home.join("keys.json"));
    let sources = Sources {
        secret_file_mode: SecretFileMode::Refuse,
        keys: &source,
        trust: None,
        home: Some(home),
        public_name: (None, name),
    };
    open(db, &sources).await
}

/// A start beside a Postgres that was given.
async fn open_given(db: &Db, made: &MadeKeys, trust: Option<&Path>) -> Result<keys::Opened, String> {
    let source = Source::Given(made.keys.clone());
    let sources = Sources {
        secret_file_mode: SecretFileMode::Refuse,
        keys: &source,
        trust,
        home: None,
        public_name: (None, "127.0.0.1:8470"),
    };
    open(db, &sources).await
}

async fn rows(db: &Db) -> i64 {
    sqlx::query_scalar("select count(*) from trust_files").fetch_one(db.pool()).await.unwrap()
}

#[tokio::test]
async fn the_identity_is_written_once_and_follows_no_later_name() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    let first = open_at_home(&db, directory.path(), "registry.example").await.unwrap();
    let later = open_at_home(&db, directory.path(), "127.0.0.1:9999").await.unwrap();
    assert!(first.first && !later.first && first.added.len() == 1 && later.added.is_empty());
    assert_eq!(first.keys.trust(), later.keys.trust());
    assert_eq!(later.keys.verifier_id(), "https://registry.example/proofmark");
    for change in ["update registry_identity set verifier_id = 'x'", "delete from trust_files"] {
        let change = sqlx::query(change).execute(db.pool()).await;
        assert!(change.unwrap_err().to_string().contains("never changed"));
    }
    db.close().await;
}

#[tokio::test]
async fn replicas_that_start_at_once_write_one_identity() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    let made = make_keys(directory.path());
    let source = Source::Given(made.keys.clone());
    let starts = (0..4).map(|n| {
        let (db, source, trust) = (db.clone(), source.clone(), made.trust.clone());
        tokio::spawn(async move {
            let name = format!("replica-{n}.example");
            let sources = Sources {
                secret_file_mode: SecretFileMode::Refuse,
                keys: &source,
                trust: Some(&trust),
                home: None,
                public_name: (None, &name),
            };
            open(&db, &sources).await.unwrap()
        })
    });
    let mut opened = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        opened.push(start.await.unwrap());
    }
    assert_eq!(opened.iter().filter(|opened| opened.first).count(), 1);
    assert!(opened.iter().all(|one| one.keys.trust() == opened[0].keys.trust()));
    assert_eq!((rows(&db).await, opened[0].keys.public_name()), (1, "registry.example"));
    db.close().await;
}

#[tokio::test]
async fn a_database_is_left_alone_until_the_keys_and_the_trust_file_are_given() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    sqlx::raw_sql("drop schema public cascade; create schema public").execute(db.pool()).await.unwrap();
    let keys = directory.path().join("keys.json");
    keys::init(&keys).unwrap();
    for (keys, says) in [
        (None, ["proofmark key init", "PROOFMARK_KEYS"]),
        (Some(keys), ["proofmark key trust init trust.json", "PROOFMARK_TRUST_FILE"]),
    ] {
        let settings = Settings {
            data: Some(directory.path().into()),
            database_url: Some("postgres://somebody@elsewhere/theirs".into()),
            keys,
            ..Settings::default()
        };
        let refused = App::assemble(settings.resolve().unwrap(), db.clone()).await.err().unwrap().chain();
        assert!(says.iter().all(|it| refused.contains(it)), "{refused}");
        let tables = "select count(*) from information_schema.tables where table_schema = 'public'";
        assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(db.pool()).await.unwrap(), 0);
    }
    db.close().await;
}

#[tokio::test]
async fn a_replica_with_other_keys_or_without_its_keys_does_not_start() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    let home = directory.path();
    let absent = open_given(
        &db,
        &MadeKeys { keys: home.join("absent.json"), root: home.join("root"), trust: home.join("trust") },
        None,
    )
    .await
    .unwrap_err();
    assert!(absent.contains("proofmark key init"), "{absent}");

    open_at_home(&db, home, "registry.example").await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let theirs = make_keys(elsewhere.path());
    let refused = open_given(&db, &theirs, None).await.unwrap_err();
    assert!(refused.contains("this is not the key file of this registry"), "{refused}");
    // Nor does another registry's trust file make it theirs.
    let refused = open_given(&db, &theirs, Some(&theirs.trust)).await.unwrap_err();
    assert!(refused.contains("two trust files of version 1"), "{refused}");

    // A lost key file is never replaced by new keys.
    let ours = home.join("keys.json");
    std::fs::remove_file(&ours).unwrap();
    let lost = open_at_home(&db, home, "registry.example").await.unwrap_err();
    assert!(lost.contains("backup") && !ours.exists(), "{lost}");
    db.close().await;
}

#[tokio::test]
async fn a_first_start_that_was_killed_goes_on_with_the_files_that_it_left() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    let read = |name: &str| std::fs::read(home.join(name)).ok();
    let mut left: Vec<Option<Vec<u8>>> = vec![None, None, None];
    let files = ["keys.json", ROOT_FILE, TRUST_FILE];
    // Killed before anything, after the key file, after the root, after the trust file; each time before the row.
    for killed_after in 0..=files.len() {
        let db = empty_database().await;
        for (file, bytes) in files.iter().zip(&left).skip(killed_after) {
            assert!(bytes.is_none() || std::fs::remove_file(home.join(file)).is_ok());
        }
        let before: Vec<_> = files[..killed_after].iter().map(|file| read(file)).collect();
        let opened = open_at_home(&db, home, "registry.example").await.unwrap();
        assert!(opened.first && rows(&db).await == 1);
        left = files.iter().map(|file| read(file)).collect();
        assert_eq!(&left[..killed_after], before, "what was there stays");
        let kept = TrustFile::parse(left[2].as_ref().unwrap()).unwrap();
        assert!(**opened.keys.published().newest() == kept);
        open_at_home(&db, home, "registry.example").await.unwrap();
        db.close().await;
    }
}

/// The rows and the key file as a build before trust files left them.
async fn make_it_old(db: &Db, keys: &Path) {
    let public = keys::public(keys).unwrap();
    let mut document: Value = serde_json::from_slice(&std::fs::read(keys).unwrap()).unwrap();
    document["version"] = json!(1);
    document.as_object_mut().unwrap().remove("attestation");
    std::fs::write(keys, document.to_string()).unwrap();
    let identity = "insert into registry_identity(verifier_id, log_origin, public_name, created_at)
        values ('https://registry.example/proofmark', 'registry.example/log', 'registry.example', '2026-01-01')";
    sqlx::query(identity).execute(db.pool()).await.unwrap();
    for (role, key) in public.iter().filter(|(role, _)| role.as_str() != "attestation") {
        let insert = "insert into registry_keys(key_id, role, public_key_pem, valid_from) values ($1, $2, $3, '2026-01-01')";
        let insert = sqlx::query(insert).bind(key.id()).bind(role.as_str()).bind(key.pem().unwrap());
        insert.execute(db.pool()).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_of_before_trust_files_gets_one_and_believes_no_row_beside_its_key_file() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    let home = directory.path();
    keys::init(&home.join("keys.json")).unwrap();
    make_it_old(&db, &home.join("keys.json")).await;
    let planted = keys::init(&home.join("planted.json")).unwrap();
    let planted = &planted[&keys::KeyRole::Summary];
    let insert = "insert into registry_keys(key_id, role, public_key_pem, valid_from) values ($1, 'summary', $2, '2020-01-01')";
    sqlx::query(insert).bind(planted.id()).bind(planted.pem().unwrap()).execute(db.pool()).await.unwrap();
    let opened = open_at_home(&db, home, "127.0.0.1:8470").await.unwrap();
    let trust = opened.keys.trust();
    assert!(!opened.first && opened.added.len() == 1 && trust.public_name == "registry.example");
    assert!(!trust.keys.values().flatten().any(|key| key.key_id == planted.id()));
    let summary = &trust.keys[&keys::KeyRole::Summary];
    assert_eq!(
        (summary.len(), summary[0].valid_from.to_rfc3339().as_str()),
        (1, "2026-01-01T00:00:00+00:00")
    );
    db.close().await;
}

#[tokio::test]
async fn a_given_database_of_before_trust_files_names_the_commands_and_takes_no_later_keys() {
    let (db, directory) = (empty_database().await, tempfile::tempdir().unwrap());
    let made = make_keys(directory.path());
    make_it_old(&db, &made.keys).await;
    let refused = open_given(&db, &made, None).await.unwrap_err();
    assert!(refused.contains("proofmark key upgrade"), "{refused}");
    assert!(keys::upgrade(&made.keys).unwrap());
    let refused = open_given(&db, &made, None).await.unwrap_err();
    assert!(refused.contains("--valid-from 2026-01-01T00:00:00"), "{refused}");
    assert!(refused.contains("--public-name registry.example"), "{refused}");
    let refused = open_given(&db, &made, Some(&made.trust)).await.unwrap_err();
    assert!(refused.contains("--valid-from 2026-01-01T00:00:00"), "{refused}");

    let keys = keys::public(&made.keys).unwrap();
    let root = keys::RootKey::read(&made.root).unwrap();
    let first = |public_name| keys::First {
        public_name,
        root: keys::Root { threshold: 1, keys: vec![root.public()] },
        keys: &keys,
        valid_from: "2026-01-01T00:00:00Z".parse().unwrap(),
        at: proofmark::clock::now(),
    };
    for (name, fits) in [("elsewhere.example", false), ("registry.example", true)] {
        let mut draft = first(name).draft().unwrap();
        draft.sign(&root);
        std::fs::write(&made.trust, draft.bytes()).unwrap();
        let opened = open_given(&db, &made, Some(&made.trust)).await;
        assert_eq!(opened.is_ok(), fits, "{name}");
    }
    db.close().await;
}

#[tokio::test]
async fn openssl_alone_checks_what_the_registry_signed() {
    let registry = Registry::start().await;
    let trust: Value = registry.anyone().document("/.well-known/proofmark").await;
    let trust_text = trust.to_string();
    let trust = TrustFile::parse(trust_text.as_bytes()).unwrap();
    let trust = trust.trust();
    let (repository, environment) = ("team/app".parse().unwrap(), "prod".parse().unwrap());
    let digest = sha256(b"manifest");
    let at = "2099-01-01T00:00:00Z".parse().unwrap();
    let statement = summary::build(
        trust,
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
    let envelope = registry.app.keys.sign_summary(IN_TOTO, &statement).unwrap();
    let expected = Expectations {
        part: summary::Part::Any,
        kind: SubjectKind::Manifest,
        digest: &digest,
        repository: &repository,
        environment: &environment,
        level: None,
        max_age: None,
        at,
    };
    let checked = summary::check(&envelope, trust, &expected).unwrap();
    let in_force = trust.in_force(keys::KeyRole::Summary, at).next().unwrap();
    assert_eq!(checked.key_id, in_force.key_id);
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
