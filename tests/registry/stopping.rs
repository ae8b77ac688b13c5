//! Blocks, holds and revocations wait for nothing that others do: not for a push, a scan or an attestation, not for a
//! promotion that waits for one of these, and not for a database connection.

use crate::harness::{Client, Registry, Signing, debian_report, eventually, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use proofmark::postgres::{Db, Options, Scopes, with_reserve};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";

fn failed(digest: &Digest) -> Vec<u8> {
    Signing::new(1).statement(digest, TEST_RESULT, &json!({"result": "FAILED", "configuration": []}))
}

/// A request that runs beside the test.
fn beside<F: Future<Output = reqwest::Response> + Send + 'static>(request: F) -> JoinHandle<(u16, Value)> {
    tokio::spawn(async move {
        let answer = request.await;
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    })
}

/// Evidence of every kind that is being recorded and does not come to an end, and promotions that wait for it.
async fn evidence_that_does_not_end(registry: &Registry, digest: &Digest) -> Vec<JoinHandle<(u16, Value)>> {
    let admin = registry.admin();
    let (scanned, pushed) =
        (admin.push_subject("scanned", "s").await, admin.push_subject("pushed", "p").await);
    let envelope = failed(digest);
    let client = admin.clone();
    let attest = async move {
        client.post("/api/v1/attestations?repository=app").body(envelope).send().await.unwrap()
    };
    let client = admin.clone();
    let path = format!("/api/v1/scans?repository=scanned&digest={scanned}");
    let scan = async move { client.post(&path).body(debian_report()).send().await.unwrap() };
    let body = failed(&pushed);
    let (config, layer) = (admin.push_blob("pushed", b"{}").await, admin.push_blob("pushed", &body).await);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let referrer = json!({"schemaVersion": 2, "mediaType": media_type, "artifactType": DSSE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": DSSE, "digest": layer, "size": body.len()}],
        "subject": {"mediaType": media_type, "digest": pushed, "size": 1}});
    let client = admin.clone();
    let push = async move {
        let request = client.put("/v2/pushed/manifests/evidence").header("content-type", media_type);
        request.body(referrer.to_string()).send().await.unwrap()
    };
    vec![beside(attest), beside(scan), beside(push)]
}

async fn waiting_for_locks(registry: &Registry) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    )
    .fetch_one(&mut *registry.sql().await)
    .await
    .unwrap()
}

/// An artifact, a signer and a grant that can be stopped, in an environment.
async fn set_up(registry: &Registry) -> (Client, Digest, String) {
    let admin = registry.admin();
    registry.environment("prod", "min_age: 0s").await;
    admin.register_signer("tests", &Signing::new(1).pem(), &["**"]).await;
    let digest = admin.push_subject("app", "one").await;
    let grant = json!({"principal": "somebody", "role": "approver", "repositories": "**"});
    let grant = admin.post_document("/api/v1/grants", &grant, 201).await["id"].to_string();
    (admin, digest, grant)
}

/// Everything that stops something, once.
async fn stop_everything(admin: &Client, digest: &Digest, signer: &str, grant: &str) {
    let post = async |path: &str, body: Value| {
        let answer = admin.post(path).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(matches!(status, 200 | 201), "{path}: {status} {}", answer.text().await.unwrap());
    };
    for environment in [Some("prod"), None] {
        let body =
            json!({"repository": "app", "digest": digest, "environment": environment, "reason": "bad"});
        post("/api/v1/blocks", body).await;
    }
    for place in [
        json!({"repository": "app"}),
        json!({"environment": "prod"}),
        json!({"repository": "app", "environment": "prod"}),
    ] {
        let mut body = place;
        body["reason"] = json!("stop");
        post("/api/v1/holds", body).await;
    }
    let revocation = json!({"reason": "stolen", "compromised": true});
    post(&format!("/api/v1/signers/{signer}/revocation"), revocation).await;
    let ended = admin.delete(&format!("/api/v1/grants/{grant}")).send().await.unwrap();
    assert!(ended.status().is_success(), "{}", ended.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stops_something_waits_for_no_evidence_and_no_promotion_that_waits_for_it() {
    let registry = Registry::start().await;
    let (admin, digest, grant) = set_up(&registry).await;
    // Every transaction that records evidence waits for this one, with all the locks that it holds.
    let mut stalled = registry.sql().await;
    sqlx::raw_sql("begin; lock table attestations, scan_runs in share row exclusive mode")
        .execute(&mut *stalled)
        .await
        .unwrap();
    let mut running = evidence_that_does_not_end(&registry, &digest).await;
    eventually("evidence is being recorded", async || waiting_for_locks(&registry).await >= 3).await;
    let (client, promoted) = (admin.clone(), digest.clone());
    running.push(beside(async move { client.promote("app", &promoted, "prod").await }));
    eventually("a promotion waits for it", async || waiting_for_locks(&registry).await >= 4).await;
    stop_everything(&admin, &digest, "tests", &grant).await;
    assert!(running.iter().all(|request| !request.is_finished()), "all of it is still waiting");
    sqlx::raw_sql("rollback").execute(&mut *stalled).await.unwrap();
    drop(stalled);
    let promotion = running.pop().unwrap().await.unwrap();
    assert_eq!(promotion.0, 409, "decided after the block: {}", promotion.1);
    for evidence in running {
        let (status, answer) = evidence.await.unwrap();
        assert!(status < 300 || answer["code"] == "not-trusted", "{status} {answer}");
    }
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stops_something_waits_for_no_key_that_begins_to_count_and_a_promotion_does() {
    let registry = Registry::start().await;
    let (admin, digest, grant) = set_up(&registry).await;
    // What an activation holds while it writes.
    let mut activation = registry.app.db.begin().await.unwrap();
    Scopes::signers().lock(&mut activation).await.unwrap();
    sqlx::raw_sql("update signer_identities set verified_to = verified_to")
        .execute(&mut *activation)
        .await
        .unwrap();
    let (client, promoted) = (admin.clone(), digest.clone());
    let promotion = beside(async move { client.promote("app", &promoted, "prod").await });
    eventually("a promotion waits for it", async || waiting_for_locks(&registry).await >= 1).await;
    stop_everything(&admin, &digest, "tests", &grant).await;
    assert!(!promotion.is_finished(), "it is still waiting");
    activation.commit().await.unwrap();
    let (status, answer) = promotion.await.unwrap();
    assert_eq!(status, 409, "decided after the block: {answer}");
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stops_something_has_connections_that_nothing_else_takes() {
    let mut registry = Registry::start().await;
    let admin = registry.admin();
    registry.environment("prod", "min_age: 0s").await;
    registry.know_signer("ci").await;
    let digest = admin.push_subject("app", "one").await;
    // What runs beside the requests gives connections back.
    registry.stop_jobs().await;
    let mut taken = Vec::new();
    while let Some(connection) = registry.app.db.pool().try_acquire() {
        taken.push(connection);
    }
    while registry.app.db.pool().size() < registry.app.db.pool().options().get_max_connections() {
        taken.push(registry.sql().await);
    }
    assert!(registry.app.db.pool().try_acquire().is_none(), "nothing is left");
    admin.block("app", &digest, None).await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "again"});
    let once =
        admin.post("/api/v1/blocks").header("idempotency-key", "one").json(&body).send().await.unwrap();
    expect(once, 201).await;
    // What a revocation would change is a question like others.
    let asked = admin.post("/api/v1/signers/ci/revocation?dry_run=true").json(&json!({"reason": "r"}));
    let asked = asked.timeout(Duration::from_secs(2)).send().await;
    assert!(asked.is_err() || asked.unwrap().status() == 503, "a dry run has none of them");
    let revocation = json!({"reason": "stolen", "compromised": true});
    admin.post_document("/api/v1/signers/ci/revocation", &revocation, 201).await;
    drop(taken);
    let denied = admin.verdict("app", &digest, "prod").await;
    assert_eq!(denied["verdict"], "deny");
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_principal_keeps_no_other_from_stopping_something() {
    let registry = Registry::with(|settings| {
        settings.database_connections = Some(8);
        settings.reserved_connections = Some(2);
    })
    .await;
    let (admin, promoter) = (registry.admin(), registry.client(Role::Promoter, "other/*").await);
    registry.environment("prod", "min_age: 0s").await;
    let digest = admin.push_subject("other/app", "one").await;
    // A block waits, and holds a connection of the reserve.
    let mut stalled = registry.sql().await;
    sqlx::raw_sql("begin; lock table blocks in share row exclusive mode")
        .execute(&mut *stalled)
        .await
        .unwrap();
    let flood: Vec<_> = (0..40)
        .map(|_| {
            let (client, digest) = (promoter.clone(), digest.clone());
            beside(async move {
                let body = json!({"repository": "other/app", "digest": digest, "reason": "flood"});
                client.post("/api/v1/blocks").json(&body).send().await.unwrap()
            })
        })
        .collect();
    eventually("one of them waits", async || waiting_for_locks(&registry).await == 1).await;
    for reason in 0..20 {
        let hold = json!({"environment": "prod", "reason": format!("reason {reason}")});
        admin.post_document("/api/v1/holds", &hold, 201).await;
    }
    assert_eq!((waiting_for_locks(&registry).await, registry.app.stop_turns.free()), (1, 1));
    sqlx::raw_sql("rollback").execute(&mut *stalled).await.unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for request in flood {
        let (status, placed) = request.await.unwrap();
        assert_eq!(status, 201, "{placed}");
        ids.insert(placed["id"].as_i64());
    }
    assert_eq!(ids.len(), 1, "the same block is placed once");
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_client_stops_nothing_and_takes_no_connection_for_it() {
    let registry = Registry::start().await;
    let mut taken = Vec::new();
    let reserve = with_reserve(async { registry.app.db.pool().clone() }).await;
    while reserve.size() < reserve.options().get_max_connections() || reserve.num_idle() > 0 {
        taken.push(reserve.acquire().await.unwrap());
    }
    let paths = [
        "approvals/1/revocation",
        "blocks",
        "blocks/1/revocation",
        "holds",
        "holds/1/revocation",
        "overrides/1/revocation",
        "principals/1/revocation",
        "signers/some/revocation",
        "waivers/1/revocation",
    ];
    for path in paths {
        let asked = registry.anyone().post(&format!("/api/v1/{path}")).json(&json!({"reason": "r"}));
        let answer = asked.timeout(Duration::from_secs(2)).send().await.unwrap();
        assert_eq!(expect(answer, 401).await["code"], "unauthenticated", "{path}");
    }
    drop(taken);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stops_something_needs_no_memory_that_others_hold() {
    let registry = Registry::with(|settings| {
        settings.max_manifest_bytes = Some(1 << 20);
        settings.max_document_bytes = Some(1 << 20);
        settings.document_memory_bytes = Some(4 << 20);
    })
    .await;
    let admin = registry.admin();
    registry.environment("prod", "min_age: 0s").await;
    let digest = admin.push_subject("app", "one").await;
    // Two attesters send documents that never end, until nobody else has memory for one.
    let address = registry.url.trim_start_matches("http://").to_owned();
    let (one, other) =
        (registry.client(Role::Attester, "**").await, registry.client(Role::Attester, "**").await);
    let mut held = Vec::new();
    for attester in [&one, &one, &other, &other] {
        let mut connection = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "POST /api/v1/attestations?repository=app HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: 1048576\r\n\r\n",
            attester.token().unwrap()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        connection.write_all(&vec![b' '; (1 << 20) - 1]).await.unwrap();
        held.push(connection);
    }
    let all_is_held = async || registry.app.document_room.free_pieces() == 0;
    eventually("nobody else has memory for a document", all_is_held).await;
    let evidence = admin.post("/api/v1/attestations?repository=app").body(vec![b'x'; 1 << 19]);
    assert_eq!(evidence.send().await.unwrap().status(), 503);
    admin.block("app", &digest, None).await;
    let large = json!({"repository": "app", "digest": digest, "reason": "x".repeat(70_000)});
    expect(admin.post("/api/v1/blocks").json(&large).send().await.unwrap(), 413).await;
    drop(held);
    registry.check().await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended() {
    let registry = Registry::start().await;
    let options = Options {
        statement_time: Some(Duration::from_millis(50)),
        ..Options::new(registry.database_url(), 1, Duration::from_secs(30))
    };
    let db = Db::connect(&options).await.unwrap();
    let sleeping = sqlx::query("select pg_sleep(3600)").execute(db.pool()).await;
    let failure = proofmark::failure::Failure::from(sleeping.unwrap_err());
    assert!(failure.is_overloaded(), "the caller may try again: {}", failure.chain());
    db.close().await;
}

#[tokio::test]
async fn up_to_a_hundred_digests_are_blocked_at_once_or_none() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    registry.environment("prod", "min_age: 0s").await;
    let mut digests = Vec::new();
    for number in 0..100 {
        digests.push(admin.push_subject("app", &number.to_string()).await);
    }
    let ask = async |digests: &[Digest], status: u16| {
        let body = json!({"repository": "app", "digests": digests, "reason": "a bad base image"});
        expect(admin.post("/api/v1/blocks").json(&body).send().await.unwrap(), status).await
    };
    let open = async || admin.document("/api/v1/blocks?repository=app&limit=1000").await["items"].clone();
    let unknown = proofmark::names::Digest::sha256(b"unknown");
    ask(&[digests[0].clone(), unknown.clone()], 404).await;
    ask(&[], 400).await;
    ask(&[digests.clone(), vec![unknown]].concat(), 400).await;
    let both = json!({"repository": "app", "digest": digests[0], "digests": [digests[1]], "reason": "r"});
    expect(admin.post("/api/v1/blocks").json(&both).send().await.unwrap(), 400).await;
    assert_eq!(open().await, json!([]), "what was refused blocks nothing");
    let twice = [digests.clone(), digests.clone()].concat();
    let promoter = registry.client(Role::Promoter, "app").await;
    let body = json!({"repository": "app", "digests": twice, "reason": "r"});
    let placed = expect(promoter.post("/api/v1/blocks").json(&body).send().await.unwrap(), 201).await;
    assert_eq!(placed["items"].as_array().unwrap().len(), 100, "each once");
    assert_eq!(open().await.as_array().unwrap().len(), 100);
    let again = expect(promoter.post("/api/v1/blocks").json(&body).send().await.unwrap(), 201).await;
    assert_eq!(again, placed, "the same again is what there is");
    ask(&[digests[0].clone()], 201).await;
    assert_eq!(open().await.as_array().unwrap().len(), 101, "another principal's is another");
    for digest in [&digests[0], &digests[99]] {
        assert_eq!(admin.promote("app", digest, "prod").await.status(), 409);
    }
    registry.check().await;
}
