//! Bounds: whatever a client sends or fails to send, the service holds only so much for so long.

use crate::harness::oci::{Document, IMAGE, INDEX};
use crate::harness::{Client, Registry, Signing, eventually, expect, noise};
use crate::reloading::make_certificate;
use bytes::Bytes;
use h2::{Ping, Reason, RecvStream};
use proofmark::access::Role;
use proofmark::failure::Failure;
use proofmark::storage::PIECE;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A client that says exactly what it is told to.
pub struct Wire(TcpStream);

impl Wire {
    async fn open(registry: &Registry) -> Self {
        Self(TcpStream::connect(registry.url.strip_prefix("http://").unwrap()).await.unwrap())
    }

    pub async fn begin(registry: &Registry, line: &str, token: Option<&str>, headers: &str) -> Self {
        let mut wire = Self::open(registry).await;
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        wire.say(format!("{line} HTTP/1.1\r\nHost: x\r\n{token}{headers}\r\n").as_bytes()).await;
        wire
    }

    pub async fn say(&mut self, bytes: &[u8]) {
        // Whether it was heard is told by the answer.
        let _ = self.0.write_all(bytes).await;
    }

    /// The whole answer up to the end of the connection, or of what came within the time of a test.
    pub async fn answer(&mut self) -> String {
        let mut heard = Vec::new();
        let reading = async {
            let mut buffer = [0; 4096];
            while !ended(&heard) {
                match self.0.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => heard.extend_from_slice(&buffer[..count]),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reading).await.expect("an answer, or an end");
        String::from_utf8(heard).unwrap()
    }
}

/// Whether an answer with a length is complete.
fn ended(heard: &[u8]) -> bool {
    let text = String::from_utf8_lossy(heard);
    let Some((top, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = top.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() >= length.parse().unwrap())
}

const LARGE: &str = "Content-Type: application/json\r\nContent-Length: 1000000\r\n";

#[tokio::test]
async fn who_may_not_do_it_is_told_so_before_any_byte_of_the_body() {
    let registry = Registry::start().await;
    let digest = registry.admin().push_release("team/app", "1.0", "one").await;
    let reader = registry.client(Role::Reader, "team/*").await;
    let scans = format!("POST /api/v1/scans?repository=team/app&digest={digest}");
    for (line, status) in [
        (scans.as_str(), "403"),
        ("POST /api/v1/attestations?repository=team/app", "403"),
        ("POST /api/v1/attestations?repository=other/app", "404"),
        ("PUT /api/v1/artifacts?repository=team/app", "403"),
        ("POST /api/v1/tokens", "404"),
        ("POST /api/v1/grants", "404"),
        ("POST /api/v1/signers", "404"),
        ("PUT /v2/team/app/manifests/2.0", "401"),
    ] {
        let answer = Wire::begin(&registry, line, reader.token(), LARGE).await.answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
    registry.check().await;
}

#[tokio::test]
async fn bodies_hold_no_more_memory_than_there_is_for_all_of_them() {
    let registry = Registry::with(|settings| {
        settings.document_memory_bytes = Some(12 * PIECE);
        settings.max_document_bytes = Some(4 * PIECE);
        settings.max_manifest_bytes = Some(2 * PIECE);
        settings.max_request_bytes = Some(PIECE);
    })
    .await;
    let attester = async || registry.client(Role::Attester, "**").await;
    let (one, other, third, admin) = (attester().await, attester().await, attester().await, registry.admin());
    let line = "POST /api/v1/attestations?repository=team/app";
    let body = |pieces| vec![b' '; usize::try_from(pieces * PIECE).unwrap()];
    let post = |who: &Client| who.post("/api/v1/attestations?repository=team/app").body(body(3)).send();
    let hold = async |who: &Client, free| {
        let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", 4 * PIECE);
        let mut wire = Wire::begin(&registry, line, who.token(), &length).await;
        wire.say(&body(4)[1..]).await;
        eventually("it is held", async || registry.app.document_room.free_pieces() <= free).await;
        wire
    };
    let first = hold(&one, 8).await;
    // Nobody has more than half, so that there is room for the others.
    assert_eq!(expect(post(&one).await.unwrap(), 503).await["code"], "overloaded");
    assert_eq!(expect(post(&other).await.unwrap(), 422).await["code"], "malformed-envelope");
    let others = (hold(&other, 4).await, hold(&third, 0).await);
    let refused = post(&admin).await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(expect(refused, 503).await["code"], "overloaded");
    let refused = admin.put("/v2/team/app/manifests/1.0").body(body(2)).send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(expect(refused, 503).await["errors"][0]["code"], "TOOMANYREQUESTS");
    // The bytes of whoever goes away are free for the next.
    drop((first, others));
    assert_eq!(expect(post(&admin).await.unwrap(), 422).await["code"], "malformed-envelope");
    eventually("all of it is free", async || registry.app.document_room.free_pieces() == 12).await;
    registry.check().await;
}

#[tokio::test]
async fn manifests_that_slow_clients_do_not_read_hold_no_more_memory_than_there_is() {
    const LONG: usize = 12 << 20;
    let registry = Registry::with(|settings| {
        settings.document_memory_bytes = Some(4 * (LONG as u64 + PIECE));
        settings.max_document_bytes = Some(PIECE);
        settings.manifest_cache_bytes = Some(0);
    })
    .await;
    let (slow, other) = (registry.admin(), registry.client(Role::Reader, "**").await);
    let long = Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        "annotations": {"long": "x".repeat(LONG)}}));
    slow.pushes("app", "1.0", &long).await;
    let all = registry.app.answer_room.free_pieces();
    let each = LONG / usize::try_from(PIECE).unwrap();
    let mut asked = Vec::new();
    for wires in 1..=2 {
        let line = "GET /v2/app/manifests/1.0";
        asked.push(Wire::begin(&registry, line, slow.token(), "").await);
        let left = all - wires * each;
        eventually("it is held", async || registry.app.answer_room.free_pieces() <= left).await;
    }
    let refused = slow.get("/v2/app/manifests/1.0").send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(expect(refused, 503).await["errors"][0]["code"], "TOOMANYREQUESTS");
    assert_eq!(slow.digest_of("app", "1.0").await, Some(long.digest.clone()), "a HEAD takes none");
    let got = other.get("/v2/app/manifests/1.0").send().await.unwrap().bytes().await.unwrap();
    assert_eq!(got, long.body);
    drop(asked);
    eventually("all of it is free", async || registry.app.answer_room.free_pieces() == all).await;
    registry.check().await;
}

#[tokio::test]
async fn answers_of_the_api_that_slow_clients_do_not_read_hold_no_more_memory_than_there_is() {
    let registry = Registry::with(|settings| {
        settings.document_memory_bytes = Some(60 << 20);
        settings.max_document_bytes = Some(14 << 20);
    })
    .await;
    let (slow, other) = (registry.admin(), registry.client(Role::Reader, "**").await);
    let stranger = registry.client(Role::Reader, "elsewhere/*").await;
    let subject = slow.push_subject("app", "one").await;
    let key = Signing::new(7);
    slow.register_signer("ci", &key.pem(), &["**"]).await;
    let long = key.statement(&subject, "https://example.org/long", &json!({"long": "x".repeat(9 << 20)}));
    slow.attest("app", &long, 201).await;
    let id = slow.attestations("app", &subject).await[0]["id"].clone();
    let path = format!("/api/v1/attestations/{id}");
    let all = usize::try_from((60 << 20) / PIECE).unwrap();
    let each = long.len() / usize::try_from(PIECE).unwrap();
    let free = || registry.app.answer_room.free_pieces();
    let mut asked = Vec::new();
    for wires in 1..=2 {
        asked.push(Wire::begin(&registry, &format!("GET {path}"), slow.token(), "").await);
        eventually("it is held", async || free() <= all - wires * each).await;
    }
    let refused = slow.get(&path).send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(expect(refused, 503).await["code"], "overloaded");
    assert_eq!(stranger.get(&path).send().await.unwrap().status(), 404, "nothing is read for it");
    assert_eq!(other.get(&path).send().await.unwrap().bytes().await.unwrap(), long);
    drop(asked);
    eventually("all of it is free", async || free() == all).await;
    registry.check().await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let registry = Registry::with(|settings| {
        settings.document_seconds = Some(1);
        settings.manifest_cache_bytes = Some(0);
    })
    .await;
    let admin = registry.admin();
    let long = Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        "annotations": {"long": "x".repeat(12 << 20)}}));
    admin.pushes("app", "1.0", &long).await;
    let free = || registry.app.answer_room.free_pieces();
    let all = free();
    let mut deaf = Wire::begin(&registry, "GET /v2/app/manifests/1.0", admin.token(), "").await;
    eventually("it is answered", async || free() < all).await;
    eventually("it is given up", async || free() == all).await;
    assert!(deaf.answer().await.len() < long.body.len());
    registry.check().await;
}

/// The answer over HTTP/2 to a GET of a manifest, of which the client holds so many bytes, and the connection.
async fn answer_over_http2(
    registry: &Registry,
    path: &str,
    window: u32,
) -> (RecvStream, h2::client::Connection<TcpStream>) {
    let mut client = h2::client::Builder::new();
    let handshake = client.initial_window_size(window).handshake::<_, Bytes>(Wire::open(registry).await.0);
    let (mut client, mut connection) = handshake.await.unwrap();
    let token = format!("Bearer {}", registry.admin().token().unwrap());
    let request = http::Request::get(format!("{}{path}", registry.url)).header("authorization", token);
    let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    let answer = tokio::select! {
        answer = answer => answer.unwrap(),
        ended = &mut connection => panic!("the connection ended: {ended:?}"),
    };
    assert_eq!(answer.status(), 200);
    (answer.into_body(), connection)
}

#[tokio::test]
async fn an_answer_over_http2_that_is_not_read_is_given_up_while_pings_are_answered() {
    let registry = Registry::with(|settings| {
        settings.document_seconds = Some(1);
        settings.manifest_cache_bytes = Some(0);
    })
    .await;
    let free = || registry.app.answer_room.free_pieces();
    let all = free();
    // A short answer is whole in the buffers of HTTP/2, a long one is not.
    for (version, bytes) in [("1.0", 20_000), ("2.0", 1 << 20)] {
        let long = Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
            "annotations": {"long": "x".repeat(bytes)}}));
        registry.admin().pushes("app", version, &long).await;
        let path = format!("/v2/app/manifests/{version}");
        let (unread, mut connection) = answer_over_http2(&registry, &path, 1000).await;
        assert!(free() < all);
        let mut pings = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        let pinging = async { while pings.ping(Ping::opaque()).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(30), pinging).await.expect("the connection ends");
        eventually("its memory is free", async || free() == all).await;
        drop(unread);
    }
    registry.check().await;
}

#[tokio::test]
async fn an_answer_over_http2_that_is_read_slowly_is_complete() {
    let registry = Registry::with(|settings| settings.document_seconds = Some(1)).await;
    let long = Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        "annotations": {"long": "x".repeat(2 << 20)}}));
    registry.admin().pushes("app", "1.0", &long).await;
    let (mut body, connection) = answer_over_http2(&registry, "/v2/app/manifests/1.0", 16 << 10).await;
    tokio::spawn(connection);
    let mut read = Vec::new();
    while let Some(bytes) = body.data().await {
        let bytes = bytes.unwrap();
        read.extend_from_slice(&bytes);
        // The whole takes longer than the timeout, and each piece of it less.
        tokio::time::sleep(Duration::from_millis(20)).await;
        body.flow_control().release_capacity(bytes.len()).unwrap();
    }
    assert_eq!(read, long.body);
    registry.check().await;
}

#[tokio::test]
async fn a_body_that_falls_silent_is_given_up_with_a_word() {
    let registry = Registry::with(|settings| settings.body_idle_seconds = Some(1)).await;
    let admin = registry.admin();
    for (line, part) in [
        ("POST /api/v1/attestations?repository=team/app", "body-too-slow"),
        ("POST /api/v1/promotions", "body-too-slow"),
        ("POST /api/v1/tokens", "body-too-slow"),
        ("PUT /v2/team/app/manifests/1.0", "SIZE_INVALID"),
    ] {
        for length in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
            let headers = format!("Content-Type: application/json\r\n{length}\r\n");
            let mut wire = Wire::begin(&registry, line, admin.token(), &headers).await;
            wire.say(b"4\r\n    \r\n").await;
            let answer = wire.answer().await;
            assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(part), "{line}: {answer}");
            assert!(answer.contains("no byte came for 1 seconds"), "{answer}");
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn a_body_that_drips_or_never_ends_is_given_up_with_a_word() {
    let registry = Registry::with(|settings| {
        settings.document_seconds = Some(1);
        settings.max_request_bytes = Some(4096);
    })
    .await;
    let admin = registry.admin();
    let headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let line = "POST /api/v1/attestations?repository=team/app";
    let (mut answers, mut drops) = Wire::begin(&registry, line, admin.token(), headers).await.0.into_split();
    let dripping = tokio::spawn(async move {
        while drops.write_all(b"1\r\n \r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut heard = [0; 4096];
    let count = answers.read(&mut heard).await.unwrap();
    let answer = String::from_utf8_lossy(&heard[..count]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("within 1 seconds"), "{answer}");
    drop(answers);
    dripping.await.unwrap();
    for line in ["POST /api/v1/promotions", "PUT /api/v1/policies"] {
        let mut wire = Wire::begin(&registry, line, admin.token(), headers).await;
        wire.say(format!("2000\r\n{}\r\n", " ".repeat(0x2000)).as_bytes()).await;
        let answer = wire.answer().await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("document-too-large"), "{answer}");
    }
    registry.check().await;
}

#[tokio::test]
async fn headers_without_end_are_refused_over_both_versions_of_http() {
    let registry = Registry::with(|settings| settings.max_header_bytes = Some(8192)).await;
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    let answer = Wire::begin(&registry, "GET /livez", None, &long).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let (mut client, connection) = h2::client::handshake(Wire::open(&registry).await.0).await.unwrap();
    tokio::spawn(connection);
    let ask = |length: usize| {
        let request = http::Request::get(format!("{}/livez", registry.url));
        request.header("x-long", "x".repeat(length)).body(()).unwrap()
    };
    let answer = client.send_request(ask(10), true).unwrap().0.await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = client.send_request(ask(40_000), true).unwrap().0.await.unwrap();
    assert_eq!(answer.status(), 431);
    registry.check().await;
}

#[tokio::test]
async fn a_connection_of_http2_has_few_requests_open_and_takes_back_fewer() {
    let registry = Registry::with(|settings| settings.http2_streams = Some(7)).await;
    let (mut client, connection) = h2::client::handshake(Wire::open(&registry).await.0).await.unwrap();
    let connection = tokio::spawn(async move {
        let mut connection = connection;
        let ended = (&mut connection).await;
        (connection.max_concurrent_send_streams(), ended)
    });
    let ask = || http::Request::get(format!("{}/livez", registry.url)).body(()).unwrap();
    assert_eq!(client.send_request(ask(), true).unwrap().0.await.unwrap().status(), 200);
    // Opened and taken back at once, again and again: what makes a server work for nothing.
    for _ in 0..200 {
        let Ok(mut ready) = client.clone().ready().await else { break };
        let Ok((_, mut stream)) = ready.send_request(ask(), true) else { break };
        stream.send_reset(Reason::CANCEL);
    }
    let (streams, ended) = tokio::time::timeout(Duration::from_secs(30), connection).await.unwrap().unwrap();
    assert_eq!(streams, 7);
    assert_eq!(ended.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
    registry.check().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let registry = Registry::with(|settings| {
        settings.header_timeout_seconds = Some(1);
        settings.connection_idle_seconds = Some(2);
    })
    .await;
    let mut silent = Wire::open(&registry).await;
    let mut begun = Wire::open(&registry).await;
    begun.say(b"PRI * HTTP").await;
    let mut half = Wire::open(&registry).await;
    half.say(b"GET /livez HTTP/1.1\r\nHost: x\r\n").await;
    for wire in [&mut silent, &mut begun, &mut half] {
        let answer = wire.answer().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    let (mut client, connection) = h2::client::handshake(Wire::open(&registry).await.0).await.unwrap();
    let connection = tokio::spawn(connection);
    let ask = http::Request::get(format!("{}/livez", registry.url)).body(()).unwrap();
    client.send_request(ask, true).unwrap().0.await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), connection).await;
    assert!(ended.is_ok(), "an idle connection of HTTP/2 ends too");
    registry.check().await;
}

#[tokio::test]
async fn when_all_connections_are_open_an_idle_one_is_evicted_and_a_busy_one_is_not() {
    let registry = Registry::with(|settings| settings.max_connections = Some(2)).await;
    let admin = registry.admin();
    let live = async || Wire::begin(&registry, "GET /livez", None, "").await;
    let busy = async || {
        let headers = "Content-Length: 9\r\nExpect: 100-continue\r\n";
        let mut wire = Wire::begin(&registry, "PUT /v2/app/manifests/1.0", admin.token(), headers).await;
        let mut heard = [0; 12];
        wire.0.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 100");
        wire
    };
    let first = busy().await;
    let mut idle = live().await;
    assert!(idle.answer().await.starts_with("HTTP/1.1 200 "));
    let mut next = live().await;
    assert!(next.answer().await.starts_with("HTTP/1.1 200 "), "the idle one is evicted");
    assert_eq!(idle.answer().await, "");
    let _second = busy().await;
    assert_eq!(next.answer().await, "");
    assert_eq!(live().await.answer().await, "", "both are busy");
    drop(first);
    eventually("the first has closed", async || !live().await.answer().await.is_empty()).await;
    registry.check().await;
}

#[tokio::test]
async fn a_connection_in_its_tls_handshake_is_evicted() {
    let directory = tempfile::tempdir().unwrap();
    let (key, certificate) = (directory.path().join("tls.key"), directory.path().join("tls.pem"));
    make_certificate(&key, &certificate);
    let registry = Registry::with(|settings| {
        settings.max_connections = Some(1);
        settings.header_timeout_seconds = Some(600);
        (settings.tls_key, settings.tls_cert) = (Some(key), Some(certificate));
    })
    .await;
    let mut silent = Wire::open(&registry).await;
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
    let url = registry.url.replace("http://", "https://");
    assert_eq!(client.get(format!("{url}/livez")).send().await.unwrap().status(), 200);
    assert_eq!(silent.answer().await, "");
}

#[tokio::test]
async fn endless_requests_of_an_anonymous_client_are_evicted_and_others_are_not() {
    // No other timeout ends them before.
    let registry = Registry::with(|settings| {
        settings.max_connections = Some(2);
        (settings.answer_seconds, settings.body_idle_seconds) = (Some(600), Some(600));
    })
    .await;
    let admin = registry.admin();
    let begin = async |line, token, headers| {
        let headers = format!("{headers}Content-Length: 9\r\nExpect: 100-continue\r\n");
        let mut wire = Wire::begin(&registry, line, token, &headers).await;
        let mut heard = [0; 25];
        wire.0.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HTTP/1.1 100 Continue\r\n\r\n");
        wire
    };
    let mut known = begin("PUT /v2/app/manifests/1.0", admin.token(), "").await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let _anonymous = begin("POST /auth/token", None, form).await;
    let live = async || Wire::begin(&registry, "GET /livez", None, "").await.answer().await;
    assert_eq!(live().await, "", "an anonymous client has some time");
    eventually("the anonymous client is evicted", async || !live().await.is_empty()).await;
    known.say(b"{\"a\": 10}").await;
    assert!(known.answer().await.contains("MANIFEST_INVALID"), "a client with a credential goes on");
    registry.check().await;
}

#[tokio::test]
async fn a_client_that_still_reads_its_answer_is_not_evicted() {
    const LONG: usize = 12 << 20;
    let registry = Registry::with(|settings| {
        settings.max_connections = Some(2);
        settings.manifest_cache_bytes = Some(0);
    })
    .await;
    let admin = registry.admin();
    let long = Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        "annotations": {"long": "x".repeat(LONG)}}));
    admin.pushes("app", "1.0", &long).await;
    let all = registry.app.answer_room.free_pieces();
    let mut slow = Wire::begin(&registry, "GET /v2/app/manifests/1.0", admin.token(), "").await;
    eventually("it is answered", async || registry.app.answer_room.free_pieces() < all).await;
    slow.0.read_exact(&mut [0; 1]).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut next = Wire::begin(&registry, "GET /livez", None, "").await;
        assert!(next.answer().await.starts_with("HTTP/1.1 200 "), "an idle one is evicted");
        idle.push(next);
    }
    let answer = slow.answer().await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.as_bytes(), long.body);
    registry.check().await;
}

#[tokio::test]
async fn blobs_that_slow_clients_do_not_read_are_so_many_and_no_more() {
    let registry = Registry::with(|settings| settings.max_concurrent_downloads = Some(4)).await;
    let (slow, other) = (registry.admin(), registry.client(Role::Reader, "**").await);
    let digest = slow.push_blob("app", &noise(1, 64 << 20)).await;
    let path = format!("/v2/app/blobs/{digest}");
    let mut asked = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::begin(&registry, &format!("GET {path}"), slow.token(), "").await;
        wire.0.read_exact(&mut [0; 1000]).await.unwrap();
        asked.push(wire);
    }
    let refused = slow.get(&path).send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(expect(refused, 429).await["errors"][0]["code"], "TOOMANYREQUESTS");
    assert_eq!(other.get(&path).send().await.unwrap().bytes().await.unwrap().len(), 64 << 20);
    drop(asked);
    let some = async || slow.get(&path).header("range", "bytes=0-9").send().await.unwrap().status();
    eventually("their places are free", async || some().await == 206).await;
    registry.check().await;
}

#[tokio::test]
async fn whoever_finds_no_room_in_memory_is_told_to_come_back() {
    let registry = Registry::start().await;
    let (ci, other) = (registry.admin(), registry.client(Role::Reader, "**").await);
    let digest = ci.push_release("app", "1.0", "one").await;
    let id: i64 = sqlx::query_scalar("select id from principals where name = 'admin'")
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap();
    let (answers, documents) = (&registry.app.answer_room, &registry.app.document_room);
    let half = answers.free_pieces() as u64 / 2 * PIECE;
    let (mut own, mut others) = (answers.own(Some(id)).take(), answers.own(Some(0)).take());
    let mut strangers = documents.own(None).take();
    own.grow(half).await.unwrap();
    let record = format!("/api/v1/artifacts/{digest}");
    for path in [
        "/v2/app/tags/list".to_owned(),
        "/v2/_catalog".to_owned(),
        format!("{record}?repository=app"),
        format!("{record}/content?repository=app"),
    ] {
        let refused = ci.get(&path).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()),
            (503, &b"1"[..]),
            "{path}"
        );
        assert_ne!(other.get(&path).send().await.unwrap().status(), 503, "{path}");
    }
    // Whoever only reads keeps nobody from what stops something, or from a push.
    others.grow(half).await.unwrap();
    ci.block("app", &digest, None).await;
    ci.push_release("app", "1.1", "two").await;
    // What is small takes none.
    assert_eq!(ci.get("/v2/app/tags/list?n=2").send().await.unwrap().status(), 200);
    drop((own, others));
    strangers.grow(half).await.unwrap();
    let form = "grant_type=password&service=x&client_id=x&username=x&password=x";
    let asked = registry.anyone().post("/auth/token").body(form);
    let refused = asked.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    drop(strangers);
    registry.check().await;
}

#[tokio::test]
async fn a_token_of_nobody_counts_as_anonymous() {
    let registry = Registry::start().await;
    registry.admin().push_release("public/app", "1.0", "one").await;
    let public = json!({"principal": "anonymous", "role": "reader", "repositories": "public/**"});
    registry.admin().post_document("/api/v1/grants", &public, 201).await;
    let scope = "/auth/token?service=x&scope=repository:public/app:pull";
    let issued = registry.anyone().document(scope).await["token"].as_str().unwrap().to_owned();
    let nobody = Client::new(&registry.url, Some(issued));
    let list = "/v2/public/app/tags/list";
    assert_eq!(nobody.get(list).send().await.unwrap().status(), 200);
    let mut public = registry.app.answer_room.own(None).take();
    public.grow(public.most_bytes()).await.unwrap();
    for asked in [&nobody, &registry.anyone()] {
        assert_eq!(asked.get(list).send().await.unwrap().status(), 503);
    }
    assert_eq!(registry.admin().get(list).send().await.unwrap().status(), 200);
    drop(public);
    registry.check().await;
}

#[tokio::test]
async fn whoever_does_not_come_by_a_lock_in_time_is_told_to_come_back() {
    let registry = Registry::start().await;
    let (mut holder, mut waiter) = (registry.sql().await, registry.sql().await);
    let set: String = sqlx::query_scalar("show lock_timeout").fetch_one(&mut *waiter).await.unwrap();
    assert_eq!(set, "20s", "every session has a limit");
    sqlx::raw_sql("begin; lock table tags").execute(&mut *holder).await.unwrap();
    let waiting = "set lock_timeout = '10ms'; lock table tags";
    let refused = sqlx::raw_sql(waiting).execute(&mut *waiter).await.unwrap_err();
    assert!(Failure::from(refused).is_overloaded());
    sqlx::raw_sql("rollback").execute(&mut *holder).await.unwrap();
    sqlx::raw_sql("set lock_timeout = '20s'").execute(&mut *waiter).await.unwrap();
    drop((holder, waiter));
    registry.check().await;
}

#[tokio::test]
async fn a_large_manifest_does_not_wait_for_itself_to_read_what_it_carries() {
    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let registry = Registry::with(|settings| {
        settings.document_memory_bytes = Some(4 << 20);
        settings.max_manifest_bytes = Some(1 << 20);
        settings.max_document_bytes = Some(1 << 20);
    })
    .await;
    let admin = registry.admin();
    let subject = admin.push_release("app", "1.0", "one").await;
    let (long, config) = ("x".repeat(600_000), admin.push_blob("app", b"{}").await);
    let bundle = json!({"mediaType": BUNDLE, "dsseEnvelope": {"payload": long}}).to_string();
    let layer = admin.push_blob("app", bundle.as_bytes()).await;
    let empty = "application/vnd.oci.empty.v1+json";
    let carrier = Document::new(&json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": BUNDLE,
        "config": {"mediaType": empty, "digest": config, "size": 2},
        "layers": [{"mediaType": BUNDLE, "digest": layer, "size": bundle.len()}],
        "subject": {"mediaType": IMAGE, "digest": subject, "size": 1}, "annotations": {"long": long}}));
    admin.pushes("app", "2.0", &carrier).await;
    let all = usize::try_from((4 << 20) / PIECE).unwrap();
    eventually("all of it is free", async || registry.app.document_room.free_pieces() == all).await;
    registry.check().await;
}

#[tokio::test]
async fn a_manifest_says_no_more_than_its_references_could_need() {
    let registry = Registry::with(|settings| settings.max_manifest_references = Some(10)).await;
    let admin = registry.admin();
    let annotated = |count: usize| {
        let annotations: serde_json::Map<_, _> = (0..count).map(|n| (n.to_string(), json!("x"))).collect();
        Document::new(
            &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": annotations}),
        )
    };
    admin.pushes("app", "1.0", &annotated(300)).await;
    let refused = expect(admin.push("app", "1.1", &annotated(320)).await, 400).await;
    assert!(refused.to_string().contains("more than 320 values"), "{refused}");
    registry.check().await;
}
