//! What a registry answers counts only as far as the trust file goes that its users pinned: who has the database or
//! the URL makes nobody run anything else.

use crate::harness::{Ended, Registry, Shell, eventually, expect, fresh_database, make_keys, sha256};
use axum::Router;
use axum::extract::{Path as InPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chrono::TimeDelta;
use proofmark::app::App;
use proofmark::attestation::IN_TOTO;
use proofmark::attestation::summary::{self, SubjectKind, SummarySubject, Verification};
use proofmark::config::{Config, Database};
use proofmark::keys::{Next, RootKey, Trust, TrustFile, TrustedKey};
use proofmark::names::Digest;
use proofmark::postgres::{Db, Options};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn root_of(registry: &Registry) -> RootKey {
    RootKey::read(&registry.directory().join("root.json")).unwrap()
}

fn newest(registry: &Registry) -> TrustFile {
    TrustFile::clone(registry.app.keys.published().newest())
}

/// Nothing changes but the version.
fn no_change() -> Next<'static> {
    Next {
        keys: None,
        overlap: TimeDelta::hours(1),
        revoked: &[],
        added: Vec::new(),
        removed: &[],
        threshold: None,
        at: proofmark::clock::now(),
    }
}

/// The next trust file, whose root is a new key, with that key.
fn with_new_root(old: &TrustFile, signs: &RootKey, directory: &Path) -> (TrustFile, RootKey) {
    let key = RootKey::init(&directory.join(format!("root-{}.json", old.version() + 1))).unwrap();
    let removed = [signs.public().id().to_owned()];
    let next = Next { added: vec![key.public()], removed: &removed, ..no_change() };
    let mut draft = next.draft(old).unwrap();
    draft.sign(signs);
    draft.sign(&key);
    (draft.complete().unwrap(), key)
}

async fn start_with(registry: &Registry, change: impl FnOnce(&mut Config)) -> Result<App, String> {
    let mut config = registry.app.config.clone();
    change(&mut config);
    let Database::Given(url) = config.database.clone() else { unreachable!("tests give a database") };
    let db = Db::connect(&Options::new(url, 4, Duration::from_secs(30))).await.unwrap();
    App::assemble(config, db).await.map_err(|failure| failure.chain())
}

/// A signed summary about a digest, by a key of the registry.
fn summary_of(
    registry: &Registry,
    (repository, environment): (&str, &str),
    digest: &Digest,
    age: TimeDelta,
    validity: TimeDelta,
) -> Value {
    let payload = statement(registry.app.keys.trust(), (repository, environment), digest, age, validity);
    serde_json::from_slice(&registry.app.keys.sign_summary(IN_TOTO, &payload).unwrap()).unwrap()
}

fn statement(
    trust: &Trust,
    (repository, environment): (&str, &str),
    digest: &Digest,
    age: TimeDelta,
    validity: TimeDelta,
) -> Vec<u8> {
    let now = proofmark::clock::now();
    let verification = Verification {
        repository: &repository.parse().unwrap(),
        environment: &environment.parse().unwrap(),
        subjects: &[SummarySubject { kind: SubjectKind::Manifest, name: "1.0", digests: &[digest] }],
        policy_uri: "https://registry.example/policy",
        policy_digest: &sha256(b"policy"),
        inputs: &[],
        levels: &["PROOFMARK_PROMOTED".into()],
        time_verified: now - age,
        valid_until: now - age + validity,
        running: false,
    };
    summary::build(trust, &verification).unwrap()
}

/// A server that answers what a test tells it to.
#[derive(Clone, Default)]
struct Liar(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    trust: Vec<Vec<u8>>,
    answer: Value,
    manifest: String,
    blob: String,
}

impl Liar {
    async fn start(&self) -> String {
        async fn version(State(liar): State<Liar>, InPath(version): InPath<usize>) -> Response {
            let told = liar.0.lock().unwrap();
            if let Some(bytes) = version.checked_sub(1).and_then(|place| told.trust.get(place)) {
                return bytes.clone().into_response();
            }
            let problem = json!({"code": "no-such-version", "detail": "none"}).to_string();
            (StatusCode::NOT_FOUND, problem).into_response()
        }
        let answer = async |State(liar): State<Liar>| axum::Json(liar.0.lock().unwrap().answer.clone());
        let newest = async |State(liar): State<Liar>| liar.0.lock().unwrap().trust.last().unwrap().clone();
        let manifest = async |State(liar): State<Liar>| liar.0.lock().unwrap().manifest.clone();
        let blob = async |State(liar): State<Liar>| liar.0.lock().unwrap().blob.clone();
        let router = Router::new()
            .route("/v2/app/manifests/{reference}", get(manifest))
            .route("/v2/app/blobs/{digest}", get(blob))
            .route("/.well-known/proofmark", get(newest))
            .route("/.well-known/proofmark/{version}", get(version))
            .route("/api/v1/known-good", get(answer))
            .route("/api/v1/verify", post(answer))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = axum_server::Server::<std::net::SocketAddr>::from_listener(listener);
        tokio::spawn(server.serve(router.into_make_service()));
        url
    }

    fn serves(&self, files: &[&TrustFile]) {
        self.0.lock().unwrap().trust = files.iter().map(|file| file.bytes()).collect();
    }

    fn pulls(&self, manifest: &str, blob: &str) {
        let mut told = self.0.lock().unwrap();
        (told.manifest, told.blob) = (manifest.to_owned(), blob.to_owned());
    }

    fn answers(&self, answer: Value) {
        self.0.lock().unwrap().answer = answer;
    }
}

fn good(repository: &str, digest: &Digest, summary: &Value) -> Value {
    json!({"reference": format!("registry.example/{repository}@{digest}"), "digest": digest, "version": "1.0",
           "repository": repository, "verdict": "allow", "gates": [], "summary": summary})
}

/// What a server may answer to a question about app@digest in prod, with the exit codes of known-good and of verify,
/// and what they say.
fn answers(registry: &Registry, digest: &Digest) -> Vec<(&'static str, Value, [i32; 2], &'static str)> {
    let (other, hour, day) = (sha256(b"evil"), TimeDelta::hours(1), TimeDelta::days(1));
    let signed = |place, digest| summary_of(registry, place, digest, TimeDelta::minutes(5), hour);
    let right = signed(("app", "prod"), digest);
    let of_another = signed(("app2", "prod"), digest);
    let mut edited = right.clone();
    edited["payload"] = json!(edited["payload"].as_str().unwrap().replacen('A', "B", 1));
    let mut moved = good("app", digest, &right);
    moved["reference"] = json!(format!("evil.example/other/app@{digest}"));
    let mut swapped = good("app", digest, &right);
    swapped["reference"] = json!(format!("registry.example/app@{other}"));
    let old = summary_of(registry, ("app", "prod"), digest, day, hour);
    let coming = summary_of(registry, ("app", "prod"), digest, -day, hour);
    vec![
        ("it is right", good("app", digest, &right), [0, 0], ""),
        ("another repository's summary", good("app", digest, &of_another), [1, 1], "not for"),
        ("staging's summary", good("app", digest, &signed(("app", "staging"), digest)), [1, 1], "not for"),
        ("other bytes", good("app", &other, &right), [1, 1], ""),
        (
            "other bytes, signed",
            good("app", &other, &signed(("app", "prod"), &other)),
            [0, 1],
            "was asked for",
        ),
        ("another repository, signed", good("app2", digest, &of_another), [1, 1], "answered"),
        ("an edited summary", good("app", digest, &edited), [1, 1], "summary"),
        ("no summary", good("app", digest, &Value::Null), [1, 1], "no signed summary"),
        ("another reference", moved, [1, 0], "evil.example"),
        ("another digest in the reference", swapped, [1, 0], "which is not"),
        ("an old summary", good("app", digest, &old), [3, 3], "--allow-expired-summary"),
        ("one of tomorrow", good("app", digest, &coming), [1, 1], "still to come"),
    ]
}

/// A server that gives the answers it is told to, and a command line that has pinned the registry's trust file for it.
async fn lied_to(registry: &Registry) -> (Liar, Shell) {
    let liar = Liar::default();
    let shell = Shell::at(&liar.start().await, None);
    let file = newest(registry);
    liar.serves(&[&file]);
    let trust = shell.file("trust.json", &file.bytes());
    shell.yes(&["trust", "pin", text(&trust), "--fingerprint", &registry.fingerprint()]).await;
    (liar, shell)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_anything_but_what_was_asked_is_refused_and_writes_nothing() {
    let registry = Registry::start().await;
    let (liar, shell) = lied_to(&registry).await;
    let digest = sha256(b"manifest");
    let known_good = ["known-good", "app", "-e", "prod", "--format", "text", "--summary", "kept.json"];
    let by_digest = format!("app@{digest}");
    let verify = ["verify", by_digest.as_str(), "-e", "prod"];
    for (what, answer, codes, says) in answers(&registry, &digest) {
        liar.answers(answer);
        for (command, code) in [&known_good[..], &verify].into_iter().zip(codes) {
            let ended = shell.run(command).await;
            assert_eq!(ended.code, code, "{what}: {}{}", ended.out, ended.err);
            let silent = ended.out.is_empty() && ended.err.contains(says);
            assert!(code == 0 || silent, "{what}: {}{}", ended.out, ended.err);
        }
        let kept = shell.home.path().join("kept.json");
        assert_eq!(std::fs::remove_file(&kept).is_ok(), codes[0] == 0, "{what}");
        if codes[0] != 0 {
            let ended = shell.run(&["pull", "app", "-e", "prod", "-o", "pulled"]).await;
            assert_eq!((ended.code, shell.home.path().join("pulled").exists()), (codes[0], false), "{what}");
        }
    }
    let old = summary_of(&registry, ("app", "prod"), &digest, TimeDelta::days(1), TimeDelta::hours(1));
    liar.answers(good("app", &digest, &old));
    let allowed = shell.json(&[&verify[..], &["--allow-expired-summary"]].concat()).await;
    assert_eq!(allowed["verification"]["expired"], true);
    let problem = shell.run(&[&verify[..], &["--json"]].concat()).await;
    let problem: Value = serde_json::from_str(&problem.out).unwrap();
    assert_eq!(problem["code"], "summary-expired");
    liar.answers(answers(&registry, &digest).swap_remove(0).1);
    for version in ["app:1.0", "app:1.1", "env/prod/app:1.1", "env/prod/app:current"] {
        let ended = shell.run(&["verify", version, "-e", "prod"]).await;
        let is_signed = !version.ends_with("1.1");
        assert_eq!(ended.code, i32::from(!is_signed), "{version}: {}", ended.err);
        assert!(is_signed || ended.err.contains("version 1.1 was asked for"), "{}", ended.err);
    }
    let contradiction = shell.run(&["verify", "env/prod/app:current", "-e", "staging"]).await;
    assert!(contradiction.code == 2 && contradiction.err.contains("staging"), "{}", contradiction.err);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_signed_is_not_shown_beside_what_was_verified() {
    let registry = Registry::start().await;
    let (liar, shell) = lied_to(&registry).await;
    let digest = sha256(b"manifest");
    let known_good = ["known-good", "app", "-e", "prod", "--format", "text"];
    let by_digest = format!("app@{digest}");
    let verify = ["verify", by_digest.as_str(), "-e", "prod"];
    let mut boasting = answers(&registry, &digest).swap_remove(0).1;
    boasting["version"] = json!("9.9");
    boasting["environment"] = json!("staging");
    liar.answers(boasting.clone());
    for command in [&known_good[..4], &verify] {
        let said = shell.json(command).await;
        assert_eq!((&said["version"], &said["environment"]), (&json!("1.0"), &json!("prod")));
    }
    for host in ["", "evil;id ", "$(id)", "`id`", "a\nb", "-x", "a b", "a\tb", "é", ":1", "a/b"] {
        boasting["reference"] = json!(format!("{host}/app@{digest}"));
        liar.answers(boasting.clone());
        let refused = shell.run(&known_good).await;
        assert!(refused.code == 1 && refused.out.is_empty(), "{host:?}: {}", refused.out);
    }
    for none in [json!([]), json!("x"), json!(3), json!(true), Value::Null] {
        liar.answers(none.clone());
        for command in [&known_good[..4], &verify, &["pull", "app", "-e", "prod", "-o", "pulled"]] {
            let ended = shell.run(command).await;
            assert!(
                ended.code == 3 && ended.err.contains("not an answer of Proofmark"),
                "{none}: {}",
                ended.err
            );
        }
    }
    liar.answers(answers(&registry, &digest).swap_remove(0).1);
    let strict = shell.run(&[&verify[..], &["--level", "SLSA_BUILD_LEVEL_3"]].concat()).await;
    assert!(strict.code == 1 && strict.err.contains("SLSA_BUILD_LEVEL_3"), "{}", strict.err);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_to_standard_output_only_after_its_digest_was_checked() {
    let liar = Liar::default();
    let shell = Shell::at(&liar.start().await, None);
    let layer = |size| json!({"layers": [{"digest": sha256(b"right"), "size": size}]}).to_string();
    for (size, blob, code) in [(5, "right", 0), (5, "wrong", 1), (4, "right", 1), (5, "right and more", 1)] {
        let manifest = layer(size);
        let name = format!("app@{}", sha256(manifest.as_bytes()));
        liar.pulls(&manifest, blob);
        let ended = shell.run(&["pull", &name, "-o", "-"]).await;
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (code, if code == 0 { blob } else { "" }),
            "{}",
            ended.err
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pin_nothing_is_believed_and_what_is_not_verified_says_so() {
    let registry = Registry::start().await;
    registry.environment("prod", "min_age: 0s").await;
    let digest = registry.admin().push_release("app", "1.0", "content").await;
    expect(registry.admin().promote("app", &digest, "prod").await, 201).await;
    let shell = Shell::at(&registry.url, Some(registry.admin_token()));
    let known_good = ["known-good", "app", "-e", "prod"];
    for command in [&known_good[..], &["verify", "app:1.0", "-e", "prod"], &["pull", "app", "-e", "prod"]] {
        let refused = shell.run(command).await;
        assert!(refused.code == 3 && refused.err.contains("proofmark trust pin --server"), "{}", refused.err);
    }
    let taken = shell.json(&[&known_good[..], &["--no-verify"]].concat()).await;
    assert_eq!((&taken["verified"], &taken["digest"]), (&json!(false), &json!(digest)));
    let pulled = shell.run(&["pull", "app", "-e", "prod", "--no-verify", "-o", "-"]).await;
    assert!(pulled.code == 0 && pulled.err.contains("NOT VERIFIED"), "{}", pulled.err);
    let words = shell.yes(&["verify", "app:1.0", "-e", "prod", "--no-verify"]).await;
    assert!(words.contains("NOT VERIFIED"), "{words}");
    let text_only = shell.run(&[&known_good[..], &["--no-verify", "--format", "text"]].concat()).await;
    assert!(
        text_only.out.lines().count() == 1 && text_only.err.contains("NOT VERIFIED"),
        "{}",
        text_only.err
    );

    let wrong = shell.run(&["trust", "pin", "--fingerprint", &format!("sha256:{}", "0".repeat(64))]).await;
    assert!(wrong.code == 1 && wrong.err.contains(&registry.fingerprint()), "{}", wrong.err);
    assert_eq!(shell.run(&["trust", "pin"]).await.code, 3, "nobody is there to compare the fingerprint");
    assert_eq!(shell.run(&["trust", "show"]).await.code, 1);
    let pinned = shell.json(&["trust", "pin", "--fingerprint", &registry.fingerprint()]).await;
    assert_eq!((&pinned["version"], &pinned["fingerprint"]), (&json!(1), &json!(registry.fingerprint())));
    let verified = shell.json(&known_good).await;
    assert_eq!(
        (&verified["verified"], &verified["verification"]["trust"]["source"]),
        (&json!(true), &json!("pin"))
    );
    let checks = verified["verification"]["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["check"] == "digest" && check["detail"] == json!(digest)));
    let verified = shell.json(&["verify", &format!("app@{digest}"), "-e", "prod"]).await;
    assert_eq!(verified["verified"], true);
    // The file in place of the pin, from the option and from the environment; offline too.
    let other = Shell::at(&registry.url, Some(registry.admin_token()));
    let trust = other.file("trust.json", &newest(&registry).bytes());
    let by_file = other.json(&[&known_good[..], &["--trust", text(&trust)]].concat()).await;
    assert_eq!(by_file["verification"]["trust"]["source"], "file");
    let mut command =
        other.command(&[&known_good[..], &["--format", "text", "--summary", "summary.json"]].concat());
    assert!(command.env("PROOFMARK_TRUST", &trust).output().await.unwrap().status.success());
    let offline = ["verify", "summary.json", "--digest", digest.as_ref(), "-r", "app", "-e", "prod"];
    assert_eq!(other.run(&offline).await.code, 3, "nothing is pinned");
    other.yes(&["trust", "pin", text(&trust)]).await;
    other.yes(&offline).await;
    // What was pinned in the older form.
    let unsigned = other
        .file("old.json", br#"{"version":1,"verifier_id":"https://registry.example/proofmark","keys":{}}"#);
    let refused = other.run(&[&known_good[..], &["--trust", text(&unsigned)]].concat()).await;
    assert!(refused.code == 2 && refused.err.contains("proofmark trust pin"), "{}", refused.err);
    // A damaged pin is not nothing, and is named with what forgets it.
    let shown = shell.json(&["trust", "show"]).await;
    std::fs::write(shown["file"].as_str().unwrap(), "{}").unwrap();
    for command in
        [&known_good[..], &["trust", "show"], &["trust", "pin", "--fingerprint", &registry.fingerprint()]]
    {
        let damaged = shell.run(command).await;
        assert!(damaged.code == 3 && damaged.err.contains("proofmark trust remove"), "{}", damaged.err);
    }
    shell.yes(&["trust", "remove"]).await;
    assert_eq!(shell.run(&["trust", "remove"]).await.code, 1);
    registry.check().await;
}

/// Writes what the operator of the database can, without a trigger in the way.
async fn plant(registry: &Registry, sql: &'static str, text: &str, bytes: &[u8]) {
    let mut connection = registry.sql().await;
    sqlx::raw_sql("set session_replication_role = replica").execute(&mut *connection).await.unwrap();
    let planted = sqlx::query(sql).bind(text).bind(bytes).execute(&mut *connection).await.unwrap();
    sqlx::raw_sql("set session_replication_role = origin").execute(&mut *connection).await.unwrap();
    assert!(planted.rows_affected() > 0, "{sql}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_summary_that_were_planted_in_the_database_make_nobody_run_anything() {
    let registry = Registry::start().await;
    registry.environment("prod", "min_age: 0s").await;
    let digest = registry.admin().push_release("app", "1.0", "content").await;
    expect(registry.admin().promote("app", &digest, "prod").await, 201).await;
    let shell = registry.shell(Some(registry.admin_token())).await;
    shell.yes(&["known-good", "app", "-e", "prod"]).await;

    // The operator of another registry has the same means to sign, and no key of this one.
    let thief = Registry::start().await;
    let key: &TrustedKey = &thief.app.keys.trust().keys[&proofmark::keys::KeyRole::Summary][0];
    let insert = "insert into registry_keys(key_id, role, public_key_pem, valid_from)
        select $1, 'summary', convert_from($2, 'UTF8'), '2020-01-01'";
    plant(&registry, insert, &key.key_id, key.public_key.as_bytes()).await;
    let forged = statement(
        registry.app.keys.trust(),
        ("app", "prod"),
        &digest,
        TimeDelta::zero(),
        TimeDelta::days(900),
    );
    let forged = thief.app.keys.sign_summary(IN_TOTO, &forged).unwrap();
    let insert = "insert into summaries(promotion_id, envelope, valid_until, created_at, event_id)
        select id, $2, '2029-01-01', now(), event_id from promotions where $1 = $1";
    plant(&registry, insert, "", &forged).await;

    let replica = start_with(&registry, |_| {}).await.unwrap();
    let published = replica.keys.published();
    assert!(
        !String::from_utf8(published.newest().bytes()).unwrap().contains(&key.key_id),
        "a row is not a key"
    );
    let verify = ["verify", &format!("app@{digest}"), "-e", "prod"];
    for command in
        [&["known-good", "app", "-e", "prod"][..], &verify, &["pull", "app", "-e", "prod", "-o", "pulled"]]
    {
        let refused = shell.run(command).await;
        assert!(
            refused.code == 1 && refused.err.contains("no summary key"),
            "{}{}",
            refused.out,
            refused.err
        );
    }
    let report = proofmark::audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
    let named = report.violations.iter().any(|violation| violation.what.contains(&key.key_id));
    assert!(named, "{:?}", report.violations);
    registry.tamper("delete from summaries").await;
    registry.tamper("delete from registry_keys").await;
    thief.check().await;
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_file_that_was_planted_in_the_database_is_published_by_no_replica_and_seen_by_fsck() {
    let registry = Registry::start().await;
    let shell = registry.shell(None).await;
    let file = newest(&registry);
    let thief = RootKey::init(&registry.directory().join("thief.json")).unwrap();
    // The thief takes over the registry's own public keys, so that the key file fits.
    let removed = [root_of(&registry).public().id().to_owned()];
    let next = Next { added: vec![thief.public()], removed: &removed, ..no_change() };
    let mut two = next.draft(&file).unwrap();
    two.sign(&thief);
    let two = two.complete().unwrap();
    let insert = "insert into trust_files(version, document) select 2, $2 where $1 = $1";
    plant(&registry, insert, "", &two.bytes()).await;
    let mut connection = registry.sql().await;
    let refused = registry.app.keys.follow(&mut connection).await.unwrap_err().chain();
    assert!(refused.contains("signed by 0 of the root keys of version 1"), "{refused}");
    assert_eq!(newest(&registry).version(), 1);
    let refused = start_with(&registry, |_| {}).await.err().unwrap();
    assert!(refused.contains("root keys of version 1"), "{refused}");
    let report = proofmark::audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
    assert!(
        report.violations.iter().any(|one| one.what.contains("the trust file of version 2")),
        "{report:?}"
    );
    registry.tamper("delete from trust_files where version = 2").await;

    // In place of the first: a service that was given its trust file does not start, and clients see a fork.
    let mut one = file.trust().clone();
    one.root.keys = vec![thief.public()];
    let (keys, at) =
        (proofmark::keys::public(registry.app.config.keys.as_ref().unwrap()).unwrap(), one.issued_at);
    let first = proofmark::keys::First {
        public_name: "registry.example",
        root: one.root,
        keys: &keys,
        valid_from: at,
        at,
    };
    let mut one = first.draft().unwrap();
    one.sign(&thief);
    let one = one.complete().unwrap();
    plant(&registry, "update trust_files set document = $2 where $1 = $1", "", &one.bytes()).await;
    let refused = start_with(&registry, |_| {}).await.err().unwrap();
    assert!(refused.contains("two trust files of version 1"), "{refused}");
    let unaware = start_with(&registry, |config| config.trust_file = None).await.err().unwrap();
    assert!(unaware.contains("PROOFMARK_TRUST_FILE"), "{unaware}");
    let liar = Liar::default();
    liar.serves(&[&one]);
    let at_liar = Shell::at(&liar.start().await, None);
    let trust = at_liar.file("trust.json", &file.bytes());
    at_liar.yes(&["trust", "pin", text(&trust)]).await;
    let fork = at_liar.run(&["trust", "update"]).await;
    assert!(fork.code == 1 && fork.err.contains("two trust files of version 1"), "{}", fork.err);
    let report = proofmark::audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
    assert!(
        report.violations.iter().any(|one| one.what.contains("was taken over by no event")),
        "{report:?}"
    );
    plant(&registry, "update trust_files set document = $2 where $1 = $1", "", &file.bytes()).await;
    shell.yes(&["trust", "update"]).await;
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_rotated_twice_and_a_client_follows_both_at_once_and_never_back() {
    let registry = Registry::start().await;
    registry.environment("prod", "min_age: 0s").await;
    let digest = registry.admin().push_release("app", "1.0", "content").await;
    expect(registry.admin().promote("app", &digest, "prod").await, 201).await;
    let shell = registry.shell(Some(registry.admin_token())).await;
    let one = newest(&registry);
    let (two, second) = with_new_root(&one, &root_of(&registry), registry.directory());
    let (three, _) = with_new_root(&two, &second, registry.directory());
    let path = |file: &TrustFile| {
        let path = registry.directory().join(format!("trust-{}.json", file.version()));
        std::fs::write(&path, file.bytes()).unwrap();
        path
    };
    let early = start_with(&registry, |config| config.trust_file = Some(path(&three))).await.err().unwrap();
    assert!(early.contains("version 2 comes first"), "{early}");
    // Of replicas that are given it at once one writes it.
    let starts = (0..3).map(|_| start_with(&registry, |config| config.trust_file = Some(path(&two))));
    for started in futures::future::join_all(starts).await {
        assert_eq!(started.unwrap().keys.published().newest().version(), 2);
    }
    let replica = start_with(&registry, |config| config.trust_file = Some(path(&three))).await.unwrap();
    assert_eq!(replica.keys.published().newest().version(), 3);
    let told = "select count(*) from events where kind = 'registry.trust-updated'";
    assert_eq!(sqlx::query_scalar::<_, i64>(told).fetch_one(&mut *registry.sql().await).await.unwrap(), 3);
    registry.app.keys.follow(&mut *registry.sql().await).await.unwrap();
    let served = registry.anyone().document("/.well-known/proofmark").await;
    assert_eq!(served["signed"]["version"], 3);
    assert_eq!(registry.anyone().document("/.well-known/proofmark/2").await["signed"]["version"], 2);
    assert_eq!(
        expect(registry.anyone().get("/.well-known/proofmark/4").send().await.unwrap(), 404).await["code"],
        "no-such-version"
    );
    let tag = registry.anyone().get("/.well-known/proofmark").send().await.unwrap();
    let tag = tag.headers()["etag"].clone();
    let same =
        registry.anyone().get("/.well-known/proofmark").header("if-none-match", tag).send().await.unwrap();
    assert_eq!(same.status(), 304);

    assert_eq!(shell.json(&["trust", "show"]).await["version"], 1);
    shell.yes(&["known-good", "app", "-e", "prod"]).await;
    assert_eq!(shell.json(&["trust", "show"]).await["version"], 3, "the pin was taken along");
    // A fingerprint that was written down before the root changed.
    let late = Shell::at(&registry.url, None);
    late.yes(&["trust", "pin", "--fingerprint", &one.trust().fingerprint().unwrap()]).await;
    assert_eq!(late.json(&["trust", "show"]).await["version"], 3);

    let liar = Liar::default();
    let back = Shell::at(&liar.start().await, None);
    let trust = back.file("trust.json", &three.bytes());
    back.yes(&["trust", "pin", text(&trust)]).await;
    liar.serves(&[&one]);
    liar.answers(good(
        "app",
        &digest,
        &summary_of(&registry, ("app", "prod"), &digest, TimeDelta::zero(), TimeDelta::hours(1)),
    ));
    // A replica that is behind: what is pinned decides, and stays.
    let behind = back.yes(&["known-good", "app", "-e", "prod"]).await;
    assert!(behind.contains("still serves version 1"), "{behind}");
    let refused = back.run(&["trust", "update"]).await;
    assert!(refused.code == 1 && refused.err.contains("went back to an older one"), "{}", refused.err);
    let earlier = back.file("one.json", &one.bytes());
    let refused = back.run(&["trust", "pin", text(&earlier)]).await;
    assert!(refused.code == 1 && refused.err.contains("proofmark trust remove"), "{}", refused.err);
    let root = one.trust().fingerprint().unwrap();
    let refused = back.run(&["trust", "pin", "--fingerprint", &root]).await;
    assert!(refused.code == 1 && refused.err.contains("nothing was pinned"), "{}", refused.err);
    assert_eq!(back.json(&["trust", "show"]).await["version"], 3);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_of_a_key_that_ended_or_was_revoked_is_refused_by_who_follows() {
    let registry = Registry::start().await;
    let one = newest(&registry);
    let elsewhere = tempfile::tempdir().unwrap();
    let new = make_keys(elsewhere.path());
    let new = proofmark::keys::public(&new.keys).unwrap();
    let old = [one.trust().keys[&proofmark::keys::KeyRole::Summary][0].key_id.clone()];
    for (revoked, says) in [(&[][..], "was not in force"), (&old[..], "was revoked")] {
        let at = proofmark::clock::now() - TimeDelta::hours(2);
        let next = Next { keys: Some(&new), overlap: TimeDelta::hours(1), revoked, at, ..no_change() };
        let mut two = next.draft(&one).unwrap();
        two.sign(&root_of(&registry));
        let two = two.complete().unwrap();
        let liar = Liar::default();
        liar.serves(&[&one, &two]);
        let shell = Shell::at(&liar.start().await, None);
        let trust = shell.file("trust.json", &one.bytes());
        let digest = sha256(b"manifest");
        let summary =
            summary_of(&registry, ("app", "prod"), &digest, TimeDelta::minutes(1), TimeDelta::hours(1));
        liar.answers(good("app", &digest, &summary));
        for pinned in [true, false] {
            if pinned {
                shell.yes(&["trust", "pin", text(&trust)]).await;
            }
            let by_file = ["known-good", "app", "-e", "prod", "--trust", text(&trust)];
            let refused = shell.run(&by_file[..if pinned { 4 } else { 6 }]).await;
            assert!(refused.code == 1 && refused.err.contains(says), "{}{}", refused.out, refused.err);
        }
    }
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_summary_key_is_revoked_and_what_runs_gets_a_summary_of_the_new_one() {
    let registry = Registry::start().await;
    registry.environment("prod", "min_age: 0s").await;
    let digest = registry.admin().push_release("app", "1.0", "content").await;
    expect(registry.admin().promote("app", &digest, "prod").await, 201).await;
    let shell = registry.shell(Some(registry.admin_token())).await;
    let known_good = ["known-good", "app", "-e", "prod"];
    shell.yes(&known_good).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let new = make_keys(elsewhere.path()).keys;
    let one = newest(&registry);
    let stolen = [one.trust().keys[&proofmark::keys::KeyRole::Summary][0].key_id.clone()];
    let public = proofmark::keys::public(&new).unwrap();
    let mut two = Next { keys: Some(&public), revoked: &stolen, ..no_change() }.draft(&one).unwrap();
    two.sign(&root_of(&registry));
    let path = registry.directory().join("trust-2.json");
    std::fs::write(&path, two.bytes()).unwrap();
    let replica = start_with(&registry, |config| {
        config.trust_file = Some(path);
        config.keys = Some(new);
    })
    .await
    .unwrap();
    // The replica that still has the stolen key signs nothing with it, also where it did not look for a newer file yet.
    let channel =
        proofmark::access::Lane { repository: "app".parse().unwrap(), environment: "prod".parse().unwrap() };
    assert_eq!(registry.app.keys.published().newest().version(), 1);
    let refused = registry.app.renew_summaries(&channel).await.err().unwrap();
    assert!(format!("{refused:?}").contains("not in force"), "{refused:?}");
    assert_eq!(registry.app.keys.published().newest().version(), 2);
    let refused = shell.run(&known_good).await;
    assert!(refused.code == 1 && refused.err.contains("was revoked"), "{}", refused.err);
    let next = registry.admin().push_release("app", "1.1", "more").await;
    assert_eq!(registry.admin().promote("app", &next, "prod").await.status(), 500);
    assert_eq!(replica.enqueue_renewals().await.unwrap(), 1, "every channel is due");
    assert_eq!(replica.renew_summaries(&channel).await.unwrap(), 1);
    assert_eq!(replica.renew_summaries(&channel).await.unwrap(), 0, "once is enough");
    assert_eq!(shell.json(&known_good).await["digest"], json!(digest));
    registry.check().await;
}

/// Runs a command at a terminal where somebody types this.
fn at_a_terminal(shell: &Shell, arguments: &[&str], typed: &[u8]) -> (Option<i32>, String) {
    use std::io::{Read, Write};
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut command = shell.command(arguments).into_std();
    command.stdin(pty.slave.try_clone().unwrap()).stderr(pty.slave).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut terminal = std::fs::File::from(pty.master);
    terminal.write_all(typed).unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let code = child.wait().unwrap().code();
    // The other end is gone once the child is, which reads as an error.
    let mut shown = Vec::new();
    let _ = terminal.read_to_end(&mut shown);
    (code, out + &String::from_utf8_lossy(&shown))
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_at_a_terminal_is_shown_the_fingerprint_and_asked() {
    let registry = Registry::start().await;
    registry.environment("prod", "min_age: 0s").await;
    let digest = registry.admin().push_release("app", "1.0", "content").await;
    expect(registry.admin().promote("app", &digest, "prod").await, 201).await;
    let shell = Shell::at(&registry.url, Some(registry.admin_token()));
    let known_good = ["known-good", "app", "-e", "prod"];
    for (typed, code) in [(&b"\n"[..], 3), (b"n\n", 3), (b"y\n", 0)] {
        assert_eq!(shell.run(&["trust", "show"]).await.code, 1, "nothing is pinned yet");
        let (ended, said) = at_a_terminal(&shell, &known_good, typed);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(&registry.fingerprint()), "{said}");
    }
    assert_eq!(shell.json(&["trust", "show"]).await["fingerprint"], json!(registry.fingerprint()));
    assert_eq!(shell.json(&known_good).await["digest"], json!(digest));
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_follow_at_once_take_a_pin_up_and_never_back() {
    let registry = Registry::start().await;
    let one = newest(&registry);
    let (two, second) = with_new_root(&one, &root_of(&registry), registry.directory());
    let (three, _) = with_new_root(&two, &second, registry.directory());
    let liar = Liar::default();
    liar.serves(&[&one]);
    let shell = Shell::at(&liar.start().await, None);
    let trust = shell.file("trust.json", &one.bytes());
    shell.yes(&["trust", "pin", text(&trust)]).await;
    // Some are answered with version 2, others with 3; one that comes later may find a newer pin.
    let update = ["trust", "update"];
    let swaps = async {
        for _ in 0..20 {
            liar.serves(&[&one, &two]);
            tokio::task::yield_now().await;
            liar.serves(&[&one, &two, &three]);
            tokio::task::yield_now().await;
        }
    };
    let updates = futures::future::join_all((0..6).map(|_| shell.run(&update)));
    let (ended, ()) = tokio::join!(updates, swaps);
    let fine = |ended: &Ended| ended.code == 0 || ended.err.contains("went back to an older one");
    assert!(ended.iter().all(fine));
    liar.serves(&[&one, &two, &three]);
    eventually("the newest is pinned", async || {
        shell.run(&update).await.code == 0 && shell.json(&["trust", "show"]).await["version"] == 3
    })
    .await;
    liar.serves(&[&one, &two]);
    assert_eq!(shell.run(&update).await.code, 1);
    assert_eq!(shell.json(&["trust", "show"]).await["version"], 3);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_of_two_of_three_roots_on_three_machines_starts_a_registry() {
    let shell = Shell::at("http://127.0.0.1:9", None);
    for root in ["a", "b", "c"] {
        shell.yes(&["key", "root", "init", &format!("{root}.json")]).await;
        let public = shell.yes(&["key", "root", "show", &format!("{root}.json")]).await;
        shell.file(&format!("{root}.pem"), public.as_bytes());
    }
    shell.yes(&["key", "init", "keys.json"]).await;
    let public = shell.yes(&["key", "public", "keys.json"]).await;
    assert!(!public.contains("PRIVATE"), "{public}");
    shell.file("public.json", public.as_bytes());
    let init =
        ["key", "trust", "init", "trust.json", "--public-name", "registry.example", "--keys", "public.json"];
    let roots = ["--root", "a.json", "--root-public", "b.pem", "--root-public", "c.pem", "--threshold", "2"];
    let made = shell.yes(&[&init[..], &roots].concat()).await;
    assert!(made.contains("1 more must sign it"), "{made}");
    assert_eq!(shell.run(&[&init[..], &roots].concat()).await.code, 3, "a trust file is never overwritten");
    let unfinished = shell.run(&["key", "trust", "show", "trust.json"]).await;
    assert!(unfinished.code == 2 && unfinished.err.contains("signed by 1"), "{}", unfinished.err);
    let again = shell.yes(&["key", "trust", "sign", "trust.json", "--root", "a.json"]).await;
    assert!(again.contains("1 more must sign it"), "one key signs once: {again}");
    shell.yes(&["key", "trust", "sign", "trust.json", "--root", "c.json"]).await;
    let shown = shell.json(&["key", "trust", "show", "trust.json"]).await;
    assert_eq!((&shown["root"]["threshold"], shown["signed_by"].as_array().unwrap().len()), (&json!(2), 2));

    let home = shell.home.path();
    let registry = Registry::with(|settings| {
        settings.keys = Some(home.join("keys.json"));
        settings.trust_file = Some(home.join("trust.json"));
    })
    .await;
    assert_eq!(json!(registry.fingerprint()), shown["fingerprint"]);
    let client = registry.shell(None).await;
    // New keys with the next version; the present ones go on for a while.
    shell.yes(&["key", "init", "new.json"]).await;
    let next = [
        "key",
        "trust",
        "next",
        "trust.json",
        "-o",
        "trust-2.json",
        "--keys",
        "new.json",
        "--root",
        "b.json",
    ];
    shell.yes(&next).await;
    let few = start_with(&registry, |config| config.trust_file = Some(home.join("trust-2.json"))).await;
    assert!(few.err().unwrap().contains("signed by 1"));
    shell.yes(&["key", "trust", "sign", "trust-2.json", "--root", "a.json"]).await;
    for keys in ["new.json", "keys.json"] {
        let started = start_with(&registry, |config| {
            config.trust_file = Some(home.join("trust-2.json"));
            config.keys = Some(home.join(keys));
        });
        assert_eq!(started.await.unwrap().keys.trust().version, 2, "{keys}");
    }
    registry.app.keys.follow(&mut *registry.sql().await).await.unwrap();
    assert!(client.yes(&["trust", "update"]).await.contains("version 2"));
    let stranger = fresh_database().await;
    let refused = start_with(&registry, |config| {
        config.database = Database::Given(stranger);
        config.public_name = Some("elsewhere.example".into());
    });
    assert!(refused.await.err().unwrap().contains("this registry is elsewhere.example"));
    registry.check().await;
}
