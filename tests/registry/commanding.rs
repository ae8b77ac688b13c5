//! The command line says yes, no and why, in words and in JSON, with exit codes that scripts can use.

use crate::harness::{Registry, Shell, eventually};
use proofmark::access::Role;
use proofmark::attestation::summary::{self, SubjectKind, SummarySubject, Verification};
use proofmark::names::Digest;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_no_from_usage_and_from_no_answer() {
    let registry = Registry::start().await;
    let admin = Shell::at(&registry.url, Some(registry.admin_token()));
    let usage = admin.run(&["promote"]).await;
    assert_eq!(usage.code, 2, "{}", usage.err);
    let refused = admin.run(&["grant", "give", "anonymous", "--role", "pusher"]).await;
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(
        refused.err.contains("reader and no other") && refused.err.contains("request "),
        "{}",
        refused.err
    );
    let stranger = Shell::at(&registry.url, Some("pmk_not-a-token-of-this-registry"));
    let unknown = stranger.run(&["whoami"]).await;
    assert_eq!(unknown.code, 3, "{}", unknown.err);
    assert!(unknown.err.contains("proofmark login"), "{}", unknown.err);
    let nowhere = Shell::at("http://127.0.0.1:9", None).run(&["whoami"]).await;
    assert_eq!(nowhere.code, 3, "{}", nowhere.err);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_printed_on_refusals_too() {
    let registry = Registry::start().await;
    let admin = Shell::at(&registry.url, Some(registry.admin_token()));
    let refused = admin.run(&["grant", "give", "anonymous", "--role", "pusher", "--json"]).await;
    let problem: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!((refused.code, problem["code"].as_str()), (1, Some("principal-refused")));
    assert!(problem["request_id"].is_string() && refused.err.is_empty(), "{problem} {}", refused.err);
    let nowhere = Shell::at("http://127.0.0.1:9", None).run(&["whoami", "--json"]).await;
    let document: Value = serde_json::from_str(&nowhere.out).unwrap();
    assert_eq!((nowhere.code, document["code"].as_str()), (3, Some("could-not-ask")));
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_tried_then_kept_for_its_owner_alone() {
    let registry = Registry::start().await;
    let shell = Shell::at(&registry.url, None);
    let refused = shell.feed(&["login"], b"pmk_wrong-wrong-wrong-wrong\n").await;
    assert_eq!(refused.code, 3, "{}", refused.err);
    let stored = shell.home.path().join(".config/proofmark/logins.json");
    assert!(!stored.exists(), "a token that does not hold is not kept");
    let login = shell.feed(&["login"], format!("{}\n", registry.admin_token()).as_bytes()).await;
    assert_eq!(login.code, 0, "{}", login.err);
    assert_eq!(stored.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(shell.yes(&["whoami"]).await.contains("admin"));
    shell.yes(&["logout"]).await;
    assert_eq!(shell.run(&["whoami"]).await.code, 3);
    assert_eq!(shell.run(&["logout"]).await.code, 1);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_stands_alone_on_standard_output_and_ends_when_it_is_revoked() {
    let registry = Registry::start().await;
    let admin = Shell::at(&registry.url, Some(registry.admin_token()));
    let created = admin
        .run(&["token", "create", "ci", "--role", "pusher", "--repositories", "a/*", "--expires-in", "1h"])
        .await;
    assert_eq!(created.code, 0, "{}", created.err);
    let ci = Shell::at(&registry.url, Some(created.out.trim()));
    let who = ci.json(&["whoami"]).await;
    assert_eq!((&who["principal"], &who["grants"][0]["role"]), (&"ci".into(), &"pusher".into()));
    let tokens = admin.json(&["token", "list"]).await;
    let tokens = tokens["items"].as_array().unwrap();
    let token = tokens.iter().find(|token| token["principal"] == "ci").unwrap();
    assert!(token["expires_at"].is_string(), "{token}");
    admin.yes(&["token", "revoke", token["id"].as_str().unwrap()]).await;
    assert_eq!(ci.run(&["whoami"]).await.code, 3);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_host_makes_the_first_administrator() {
    let registry = Registry::start().await;
    let shell = Shell::at(&registry.url, None);
    let url = registry.database_url();
    // Who asks for less than an administrator's token without an end is not given one.
    let mut ending =
        shell.command(&["token", "create", "brief", "--expires-in", "1h", "--database-url", &url]);
    let ended = ending.env_remove("PROOFMARK_SERVER").output().await.unwrap();
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(3), 0));
    let created = shell.yes(&["token", "create", "first", "--local", "--database-url", &url]).await;
    let first = Shell::at(&registry.url, Some(created.trim()));
    let who = first.json(&["whoami"]).await;
    assert_eq!((&who["principal"], &who["grants"][0]["role"]), (&"first".into(), &"admin".into()));
    registry.check().await;
}

/// A summary for a file, signed by the registry for payments/api in prod.
fn signed_summary(registry: &Registry, file: &Digest) -> Vec<u8> {
    let now = proofmark::clock::now();
    let verification = Verification {
        repository: &"payments/api".parse().unwrap(),
        environment: &"prod".parse().unwrap(),
        subjects: &[SummarySubject { kind: SubjectKind::File, name: "app", digests: &[file] }],
        policy_uri: "https://registry.example/policies/prod/default",
        policy_digest: &Digest::sha256(b"a policy"),
        inputs: &[],
        levels: &[],
        time_verified: now,
        valid_until: now + chrono::TimeDelta::hours(1),
        running: false,
    };
    let payload = summary::build(registry.app.keys.trust(), &verification).unwrap();
    registry.app.keys.sign_summary("application/vnd.in-toto+json", &payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_is_verified_without_any_server() {
    let registry = Registry::start().await;
    let shell = Shell::at("http://127.0.0.1:9", None);
    let app = shell.file("app", b"the application");
    let summary = shell.file("summary.json", &signed_summary(&registry, &Digest::sha256(b"the application")));
    let trust = shell.file("trust.json", &registry.app.keys.published().newest().bytes());
    let verify = |file: &Path, environment: &'static str, trust: &Path| {
        let words =
            ["verify", text(&summary), "--trust", text(trust), "--file", text(file), "-r", "payments/api"];
        let words = words.into_iter().chain(["-e", environment]).map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    let cases = [
        (&app, "prod", &trust, 0, "may run in prod"),
        (&app, "staging", &trust, 1, "not for"),
        (&trust, "prod", &trust, 1, "not among its subjects"),
    ];
    for (file, environment, trust, code, says) in cases {
        let words = verify(file, environment, trust);
        let ended = shell.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
        assert!(format!("{}{}", ended.out, ended.err).contains(says), "{}{}", ended.out, ended.err);
    }
    let other = Registry::start().await;
    let foreign = shell.file("foreign.json", &other.app.keys.published().newest().bytes());
    let words = verify(&app, "prod", &foreign);
    let ended = shell.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(ended.code, 1, "{}", ended.err);
    other.check().await;
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_file_comes_back_the_same_and_its_version_is_taken() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "web/*").await;
    let ci = Shell::at(&registry.url, ci.token());
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let file = ci.file("site.tar", &bytes);
    let push = ["push", text(&file), "--repository", "web/site", "--version", "7"];
    let pushed = ci.json(&push).await;
    let digest = pushed["digest"].as_str().unwrap().to_owned();
    assert_eq!(
        ci.json(&push).await["digest"].as_str(),
        Some(digest.as_str()),
        "the same push is one artifact"
    );

    let out = ci.home.path().join("out.tar");
    ci.yes(&["pull", "web/site:7", "-o", text(&out)]).await;
    assert_eq!(std::fs::read(&out).unwrap(), bytes);
    let named = ci.run(&["pull", &format!("web/site@{digest}")]).await;
    assert_eq!(named.code, 2, "site.tar is here already: {}", named.err);

    std::fs::write(&file, b"other bytes").unwrap();
    let taken = ci.run(&push).await;
    assert_eq!(taken.code, 1, "{}{}", taken.out, taken.err);
    assert!(taken.err.contains(&digest), "the refusal names the current digest: {}", taken.err);
    let piped = ci.feed(&["push", "-", "--filename", "x", "-r", "web/site", "-v", "8"], b"from a pipe").await;
    assert_eq!(piped.code, 0, "{}", piped.err);
    assert_eq!(ci.yes(&["pull", "web/site:8", "-o", "-"]).await, "from a pipe");
    assert_eq!(ci.run(&["pull", "web/site:9"]).await.code, 1);
    registry.check().await;
}

/// Keys that openssl and cosign made, of the fixtures.
fn key(name: &str) -> String {
    format!("{}/tests/fixtures/signing/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

const STAGING: &[u8] = b"environment: staging\nrepositories: ['payments/*']\ngates: []\n";
const PROD: &[u8] = b"environment: prod
repositories: ['payments/*']
gates:
  - signed_by: { any_of: [ci], predicate: https://example.com/reviewed/v1 }
  - promoted_in: { environments: [staging] }
";

/// An administrator's shell, with a signer, two environments and their policies set up through it.
async fn set_up(registry: &Registry) -> Shell {
    let admin = registry.shell(Some(registry.admin_token())).await;
    let public = key("ed25519.pub");
    admin
        .yes(&[
            "signer",
            "add",
            "ci",
            "--key",
            &public,
            "--scheme",
            "ed25519",
            "--repositories",
            "payments/*",
        ])
        .await;
    for (name, policy) in [("staging", STAGING), ("prod", PROD)] {
        admin.yes(&["environment", "create", name]).await;
        let file = admin.file(name, policy);
        admin.yes(&["policy", "apply", text(&file)]).await;
    }
    admin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_goes_from_push_to_known_good_by_commands_alone() {
    let registry = Registry::start().await;
    let admin = set_up(&registry).await;
    let app = admin.file("app", b"the application");
    admin.yes(&["push", text(&app), "-r", "payments/api", "-v", "1"]).await;
    let promote =
        |to: &'static str| ["promote", "payments/api:1", "--environment", to, "--reason", "a release"];

    let early = admin.run(&promote("prod")).await;
    assert_eq!(early.code, 1, "{}", early.err);
    for says in ["fail  signed_by", "fail  promoted_in", "to solve it", "request "] {
        assert!(early.err.contains(says), "{says} is not in {}", early.err);
    }
    let predicate = admin.file("predicate.json", br#"{"reviewer": "alice"}"#);
    let attest = ["attest", "payments/api:1", "--type", "https://example.com/reviewed/v1", "--predicate"];
    let with_key = |name: &str| {
        let rest = [text(&predicate).to_owned(), "--key".to_owned(), key(name)];
        attest.iter().map(|word| (*word).to_owned()).chain(rest).collect::<Vec<_>>()
    };
    let private = admin.run(&["signer", "add", "mine", "--key", &key("test-only-ed25519.key.pem")]).await;
    assert!(private.code == 2 && private.err.contains("private key"), "{}", private.err);
    admin.yes(&["environment", "create", "prod", "--description", "where customers are"]).await;
    admin.yes(&["environment", "create", "prod"]).await;
    assert!(admin.yes(&["environment", "list"]).await.contains("where customers are"));
    let run =
        async |words: Vec<String>| admin.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let stranger = run(with_key("test-only-stranger.key.pem")).await;
    assert_eq!(stranger.code, 1, "{}{}", stranger.out, stranger.err);
    let trusted = run(with_key("test-only-ed25519.key.pem")).await;
    assert_eq!(trusted.code, 0, "{}", trusted.err);
    assert!(admin.yes(&["attest", "list", "payments/api:1"]).await.contains("trusted"));
    admin.yes(&promote("staging")).await;
    admin.yes(&promote("prod")).await;

    let good = admin.json(&["known-good", "payments/api", "--environment", "prod"]).await;
    let reference = admin.yes(&["known-good", "payments/api", "-e", "prod", "--format", "text"]).await;
    assert_eq!(good["reference"].as_str(), Some(reference.trim()));
    let of_one = admin.run(&["known-good", "payments/api:9", "-e", "prod"]).await;
    assert!(of_one.code == 2 && of_one.err.contains("the repository alone"), "{}", of_one.err);
    let back = ["known-good", "payments/api", "-e", "prod", "--for", "rollback"];
    assert_eq!(admin.run(&back).await.code, 1, "there is nothing to go back to");
    let decision = good["decision"].as_str().unwrap();
    assert!(admin.yes(&["decision", "show", decision]).await.contains("pass  signed_by"));
    assert!(admin.yes(&["decision", "replay", decision]).await.contains("The same answer"));
    let pulled = admin.home.path().join("pulled");
    admin.yes(&["pull", "payments/api", "--environment", "prod", "-o", text(&pulled)]).await;
    assert_eq!(std::fs::read(&pulled).unwrap(), b"the application");

    let (summary, trust) = (admin.home.path().join("summary.json"), admin.yes(&["key", "show"]).await);
    admin.yes(&["known-good", "payments/api", "-e", "prod", "--summary", text(&summary)]).await;
    let trust = admin.file("trust.json", trust.as_bytes());
    let offline = Shell::at("http://127.0.0.1:9", None);
    let about = ["--file", text(&pulled), "--repository", "payments/api", "--environment", "prod"];
    offline.yes(&[&["verify", text(&summary), "--trust", text(&trust)], &about[..]].concat()).await;
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_promotion_ends_when_it_is_refused_meanwhile_or_would_last_too_long() {
    let registry = Registry::start().await;
    let admin = Shell::at(&registry.url, Some(registry.admin_token()));
    registry.environment("later", "min_age: 1h").await;
    let digest = registry.admin().push_release("app", "1.0", "young").await;
    let wait =
        |time: &'static str| ["promote", "app:1.0", "-e", "later", "--reason", "old enough", "--wait", time];
    let short = admin.run(&wait("5s")).await;
    assert!(short.code == 1 && short.err.contains("longer than --wait"), "{}", short.err);
    let long = wait("2h");
    let waiting = admin.run(&long);
    let refused = async {
        eventually("it waits", async || {
            // The same refusal is one record with a count.
            let put_off = "select coalesce(sum(times), 0)::bigint from promotion_refusals";
            let seen: i64 = sqlx::query_scalar(put_off).fetch_one(&mut *registry.sql().await).await.unwrap();
            seen > 1
        })
        .await;
        registry.admin().block("app", &digest, None).await;
    };
    let (ended, ()) = tokio::join!(waiting, refused);
    assert!(ended.code == 1 && ended.err.contains("blocked"), "{}", ended.err);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_a_hold_and_an_approval_are_made_listed_and_ended() {
    let registry = Registry::start().await;
    let admin = set_up(&registry).await;
    let app = admin.file("app", b"the application");
    admin.yes(&["push", text(&app), "-r", "payments/api", "-v", "1"]).await;
    admin.yes(&["promote", "payments/api:1", "-e", "staging"]).await;
    let verify = ["verify", "payments/api:1", "-e", "staging"];
    admin.yes(&verify).await;

    let block = admin.json(&["block", "payments/api:1", "--reason", "CVE-2026-0001", "--until", "7d"]).await;
    let refused = admin.run(&verify).await;
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert!(refused.err.contains("CVE-2026-0001"), "{}", refused.err);
    assert_eq!(admin.run(&["known-good", "payments/api", "-e", "staging"]).await.code, 1);
    assert!(admin.yes(&["block", "list", "payments/api"]).await.contains("CVE-2026-0001"));
    admin.yes(&["block", "lift", &block["id"].to_string(), "--reason", "mended"]).await;
    admin.yes(&verify).await;

    let hold = admin.json(&["hold", "-e", "staging", "--reason", "incident 42"]).await;
    let stopped = admin.run(&["promote", "payments/api:1", "-e", "staging"]).await;
    assert!(stopped.code == 1 && stopped.err.contains("incident 42"), "{}", stopped.err);
    assert!(admin.yes(&["hold", "list"]).await.contains("incident 42"));
    admin.yes(&["hold", "lift", &hold["id"].to_string(), "--reason", "over"]).await;
    // One of a repository in one environment is listed too, whatever is asked for that it stops.
    let lane = admin.json(&["hold", "-r", "payments/api", "-e", "staging", "--reason", "incident 43"]).await;
    for narrowed in
        [&["hold", "list"][..], &["hold", "list", "-e", "staging"], &["hold", "list", "-r", "payments/api"]]
    {
        assert!(admin.yes(narrowed).await.contains("incident 43"), "{narrowed:?}");
    }
    assert!(!admin.run(&["hold", "list", "-e", "prod"]).await.out.contains("incident 43"));
    admin.yes(&["hold", "lift", &lane["id"].to_string(), "--reason", "over"]).await;

    let approval = admin.json(&["approve", "payments/api:1", "-e", "prod", "--reason", "reviewed"]).await;
    assert!(admin.yes(&["approve", "list", "payments/api"]).await.contains("reviewed"));
    admin.yes(&["approve", "revoke", &approval["id"].to_string(), "--reason", "looked again"]).await;
    let kinds = ["block.placed", "block.ended", "hold.placed", "approval.given", "approval.ended"];
    while proofmark::ledger::sequence(&registry.app.db).await.unwrap() > 0 {}
    let first = admin.run(&["audit", "events", "--limit", "1"]).await;
    assert!(first.code == 0 && first.err.contains("there are more"), "{}", first.err);
    assert_eq!(admin.json(&["audit", "events", "--limit", "1"]).await["more"], true);
    let events = admin.yes(&["audit", "events", "--export", "ndjson"]).await;
    assert!(kinds.iter().all(|kind| events.contains(kind)), "{events}");
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiver_and_an_override_are_made_by_one_and_approved_by_another_on_the_command_line() {
    let registry = Registry::start().await;
    let admin = set_up(&registry).await;
    let second = registry.named("second", Role::Admin, "**", None).await;
    let second = Shell::at(&registry.url, second.token());
    let app = admin.file("app", b"the application");
    admin.yes(&["push", text(&app), "-r", "payments/api", "-v", "1"]).await;

    let accepted = ["--vulnerability", "CVE-1,CVE-2", "--status", "accepted-risk", "--reason", "no fix"];
    let pattern = [&["waiver", "create", "payments/*"][..], &accepted].concat();
    let usage = admin.run(&pattern).await;
    assert!(usage.code == 2 && usage.err.contains("--expires-at"), "{}", usage.err);
    let waiver = admin.json(&[&pattern[..], &["--expires-at", "30d"]].concat()).await;
    assert_eq!(waiver["vulnerabilities"], serde_json::json!(["CVE-1", "CVE-2"]));
    let bound = [
        "waiver",
        "create",
        "payments/api:1",
        "--vulnerability",
        "CVE-3",
        "--status",
        "not-affected",
        "--justification",
        "component-not-present",
        "--reason",
        "not there",
    ];
    assert!(admin.json(&bound).await["digest"].is_string());
    let id = waiver["id"].to_string();
    let refused = admin.run(&["waiver", "approve", &id]).await;
    assert!(refused.code == 1 && refused.err.contains("another person"), "{}", refused.err);
    second.yes(&["waiver", "approve", &id, "--reason", "agreed"]).await;
    let proposed = admin.yes(&["waiver", "list", "-r", "payments/api", "--state", "proposed"]).await;
    assert!(proposed.contains("CVE-3") && !proposed.contains("CVE-1"), "{proposed}");

    let given = admin
        .json(&[
            "override",
            "create",
            "payments/api:1",
            "-e",
            "staging",
            "--gate",
            "approvals,min_age",
            "--expires-at",
            "4h",
            "--reason",
            "incident 42",
        ])
        .await;
    let given = given["id"].to_string();
    assert!(admin.yes(&["override", "list", "--not-reviewed"]).await.contains("incident 42"));
    let list = admin.yes(&["exceptions", "-e", "staging"]).await;
    assert!(
        ["override", "waiver", "unreviewed", "proposed, matches_nothing"].iter().all(|it| list.contains(it)),
        "{list}"
    );
    let strict = "name: strict\nenvironment: staging\nrepositories: ['**']\noverride_review: 0s\ngates: []\n";
    admin.yes(&["policy", "apply", text(&admin.file("strict.yaml", strict.as_bytes()))]).await;
    assert!(admin.yes(&["exceptions", "-e", "staging"]).await.contains("review_overdue"));
    let list = admin.yes(&["override", "list", "--not-reviewed"]).await;
    assert!(list.contains("REVIEW DUE") && list.contains("true"), "{list}");
    second.yes(&["override", "review", &given]).await;
    assert!(!admin.run(&["override", "list", "--not-reviewed"]).await.out.contains("incident 42"));
    admin.yes(&["override", "revoke", &given, "--reason", "over"]).await;
    admin.yes(&["waiver", "revoke", &id, "--reason", "a fix is out"]).await;
    registry.check().await;
}

/// A certificate for 127.0.0.1 by an authority that only this test knows.
async fn certify(shell: &Shell) {
    let steps = [
        "req -x509 -newkey ed25519 -nodes -keyout ca.key -out ca.pem -days 1 -subj /CN=authority",
        "req -newkey ed25519 -nodes -keyout tls.key -out request.pem -subj /CN=registry",
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -days 1 -extfile names -out tls.pem",
    ];
    shell.file("names", b"subjectAltName=IP:127.0.0.1");
    for step in steps {
        let made =
            Command::new("openssl").args(step.split(' ')).current_dir(shell.home.path()).output().await;
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_by_its_file_alone() {
    let registry = Registry::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let shell = Shell::at(&format!("https://127.0.0.1:{port}"), Some(registry.admin_token()));
    certify(&shell).await;
    let mut serve = shell.command(&["serve", "--tls-cert", "tls.pem", "--tls-key", "tls.key"]);
    serve
        .env("PROOFMARK_MAX_CONNECTIONS", "2")
        .env("PROOFMARK_LISTEN", format!("127.0.0.1:{port}"))
        .env("DATABASE_URL", registry.database_url());
    serve.env("PROOFMARK_KEYS", registry.app.config.keys.as_ref().unwrap());
    serve.env("PROOFMARK_TRUST_FILE", registry.app.config.trust_file.as_ref().unwrap());
    serve.env("PROOFMARK_STORAGE", &registry.app.config.storage).kill_on_drop(true);
    let mut serving = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut ended = shell.run(&["whoami", "--ca", "ca.pem"]).await;
    for _ in 0..300 {
        if ended.code == 0 {
            break;
        }
        assert!(serving.try_wait().unwrap().is_none(), "the service ended");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        ended = shell.run(&["whoami", "--ca", "ca.pem"]).await;
    }
    assert!(ended.code == 0 && ended.out.contains("admin"), "{}", ended.err);
    // Whoever connects and says nothing, not even who it is, makes place.
    let silent = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let _silent = [silent().await, silent().await];
    shell.yes(&["whoami", "--ca", "ca.pem"]).await;
    let unknown = shell.run(&["whoami"]).await;
    assert!(unknown.code == 3 && unknown.err.contains("certificate"), "{}", unknown.err);
    serving.kill().await.unwrap();
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_with_another_store_is_refused_and_repairs_nothing() {
    let registry = Registry::start().await;
    let digest = registry.admin().push_blob("app", &crate::harness::noise(1, 200_000)).await;
    let shell = Shell::at(&registry.url, None);
    let fsck = async |storage: &str| {
        let mut fsck = shell.command(&["fsck", "--repair"]);
        fsck.env("DATABASE_URL", registry.database_url()).env("PROOFMARK_STORAGE", storage);
        let ended =
            fsck.env("PROOFMARK_KEYS", registry.app.config.keys.as_ref().unwrap()).output().await.unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, said) = fsck(&format!("file://{}/elsewhere", registry.directory().display())).await;
    assert!(code == Some(3) && said.contains("is not this registry's store"), "{said}");
    assert_eq!(registry.admin().head_blob("app", &digest).await, 200);
    let (code, said) = fsck(&registry.app.config.storage).await;
    assert_eq!(code, Some(0), "{said}");
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_printed_for_a_shell_is_what_it_asked_for() {
    let shell = Shell::at("http://127.0.0.1:9", None);
    let document: Value = serde_json::from_str(&shell.yes(&["openapi"]).await).unwrap();
    assert!(document["paths"]["/api/v1/whoami"].is_object());
    for name in ["bash", "zsh", "fish"] {
        assert!(shell.yes(&["completions", name]).await.contains("known-good"), "{name}");
    }
    let keys = shell.home.path().join("keys.json");
    shell.yes(&["key", "init", text(&keys)]).await;
    assert_eq!(keys.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(shell.run(&["key", "init", text(&keys)]).await.code, 3, "keys are never overwritten");
    assert!(shell.yes(&["key", "upgrade", text(&keys)]).await.contains("already"));
}
