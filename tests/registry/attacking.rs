//! Attacking: what an ill-willed client tries, and the words that it gets.

use crate::harness::oci::{Document, IMAGE, refusal};
use crate::harness::{Client, PROVENANCE, Registry, Signing, expect, header, noise};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DSSE: &str = "application/vnd.dsse.envelope.v1+json";

/// The status of a request whose target goes over the wire as it is written.
async fn status(registry: &Registry, method: &str, target: &str) -> u16 {
    let mut wire = TcpStream::connect(registry.url.strip_prefix("http://").unwrap()).await.unwrap();
    let token = registry.admin_token();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    wire.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    wire.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn no_name_climbs_out_of_its_repository() {
    let registry = Registry::start().await;
    registry.admin().push_release("team/app", "1.0", "one").await;
    let digest = Digest::sha256(b"x");
    for name in
        ["..", "team%2f..", "..%2f..%2fetc", "team/%2e%2e/app", "%2e", "team%5capp", "a%00b", "%ff", "TEAM"]
    {
        for rest in ["manifests/1.0", "tags/list", &format!("blobs/{digest}"), &format!("referrers/{digest}")]
        {
            let got = status(&registry, "GET", &format!("/v2/{name}/{rest}")).await;
            assert!((400..500).contains(&got), "{name}/{rest}: {got}");
        }
        let got = status(&registry, "POST", &format!("/v2/{name}/blobs/uploads/")).await;
        assert!((400..500).contains(&got), "{name}: {got}");
        for path in ["artifacts", "attestations", "scans", "known-good"] {
            let target = format!("/api/v1/{path}?repository={name}&environment=prod&digest={digest}");
            let got = status(&registry, "GET", &target).await;
            assert!((400..500).contains(&got), "{target}: {got}");
        }
    }
    // An encoded slash is a slash: the same name by another spelling, with the same rights.
    assert_eq!(status(&registry, "GET", "/v2/team%2fapp/manifests/1.0").await, 200);
    for target in
        ["//v2/", "/v2/%", "/v2/?n=%zz", "/api/v1/artifacts/%2e%2e?repository=team/app", "/../../etc/passwd"]
    {
        let got = status(&registry, "GET", target).await;
        assert!((200..500).contains(&got), "{target}: {got}");
    }
    registry.check().await;
}

/// An envelope with as many signatures as it may have, none of them anybody's.
fn many_signatures(mark: usize) -> Vec<u8> {
    let payload = json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": PROVENANCE,
        "subject": [{"digest": {"sha256": Digest::sha256(b"x").hex()}}], "predicate": {"mark": mark}});
    let signatures: Vec<Value> = (0..32).map(|_| json!({"sig": STANDARD.encode([7; 64])})).collect();
    json!({"payload": STANDARD.encode(payload.to_string()), "payloadType": "application/vnd.in-toto+json",
           "signatures": signatures})
    .to_string()
    .into_bytes()
}

async fn push_layers(client: &Client, subject: &Digest, layers: &[Vec<u8>]) -> reqwest::Response {
    let config = client.push_blob("app", b"{}").await;
    let mut described = Vec::new();
    for layer in layers {
        let digest = client.push_blob("app", layer).await;
        described.push(json!({"mediaType": DSSE, "digest": digest, "size": layer.len()}));
    }
    let manifest = Document::new(&json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": DSSE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": described, "subject": {"mediaType": IMAGE, "digest": subject, "size": 1}}));
    client.push("app", &manifest.digest.clone(), &manifest).await
}

#[tokio::test]
async fn signatures_without_number_do_not_keep_the_service_busy() {
    let registry = Registry::start().await;
    registry.admin().register_signer("ci", &Signing::new(1).pem(), &["**"]).await;
    let builder = registry.client(Role::Pusher, "**").await;
    let attester = registry.client(Role::Attester, "**").await;
    let subject = builder.push_subject("app", "one").await;
    let envelopes: Vec<Vec<u8>> = (0..40).map(many_signatures).collect();
    let refused = attester.attest("app", &envelopes.join(&b'\n'), 422).await;
    assert_eq!(refused["code"], "malformed-envelope");
    assert!(refused["detail"].as_str().unwrap().contains("1000 signatures"), "{refused}");
    // What comes as a referrer is an ordinary one; what is too much of it is said.
    assert_eq!(push_layers(&builder, &subject, &envelopes).await.status(), 201);
    let listed = builder.attestations("app", &subject).await;
    let opaque: Vec<&Value> = listed.iter().filter(|one| one["verdict"] == "opaque").collect();
    assert!(opaque[0]["reason"].as_str().unwrap().contains("1000 signatures"), "{opaque:?}");
    assert_eq!(listed.len(), 1 + 31);
    registry.check().await;
}

#[tokio::test]
async fn attestations_that_are_pushed_take_room_in_memory_too() {
    let registry = Registry::with(|settings| {
        settings.document_memory_bytes = Some(128 << 10);
        settings.max_document_bytes = Some(48 << 10);
        settings.max_manifest_bytes = Some(16 << 10);
        settings.max_request_bytes = Some(16 << 10);
    })
    .await;
    let builder = registry.client(Role::Pusher, "**").await;
    let subject = builder.push_subject("app", "one").await;
    let statement = |log: &str| Signing::new(1).statement(&subject, PROVENANCE, &json!({"log": log}));
    let mut strangers = registry.app.document_room.own(None).take();
    let mut others = registry.app.document_room.own(Some(0)).take();
    strangers.grow(64 << 10).await.unwrap();
    others.grow(32 << 10).await.unwrap();
    let refused = push_layers(&builder, &subject, &[statement(&"x".repeat(24_000))]).await;
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_eq!(refusal(refused).await.0, 503);
    drop(others);
    assert_eq!(push_layers(&builder, &subject, &[statement(&"x".repeat(24_000))]).await.status(), 201);
    registry.check().await;
}

#[tokio::test]
async fn documents_that_grow_when_they_are_read_are_refused_soon() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let began = Instant::now();
    let lines = ('b'..='z').zip('a'..='y').map(|(name, of)| {
        let nine = vec![format!("*{of}"); 9].join(", ");
        format!("{name}: &{name} [{nine}]\n")
    });
    let bomb = format!("a: &a [x, x, x, x, x, x, x, x, x]\n{}", lines.collect::<String>());
    for policy in
        [&bomb, &"[".repeat(500_000), &"- ".repeat(400_000), &format!("a: {}", "{b: ".repeat(100_000))]
    {
        let refused = admin.put("/api/v1/policies").body(policy.clone()).send().await.unwrap();
        assert_eq!(expect(refused, 422).await["code"], "invalid-policy");
    }
    for path in ["promotions", "tokens", "verify", "holds"] {
        let deep = admin.post(&format!("/api/v1/{path}")).header("content-type", "application/json");
        let refused = deep.body("[".repeat(1_000_000)).send().await.unwrap();
        assert!([400, 413, 422].contains(&refused.status().as_u16()), "{path}: {}", refused.status());
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    registry.check().await;
}

#[tokio::test]
async fn ranges_that_play_games_get_what_the_rfc_gives() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for size in [1000, 200_000] {
        let bytes = noise(size as u64, size);
        let digest = ci.push_blob("app", &bytes).await;
        let ask = async |range: &str| {
            ci.get(&format!("/v2/app/blobs/{digest}")).header("range", range).send().await.unwrap()
        };
        let overlapping = format!("bytes=0-0{}", ",0-".repeat(1000));
        for whole in ["bytes=0-5,5-6", "bytes=5-6,0-1", "lines=1-2", "bytes=-1,-2", &overlapping] {
            let answer = ask(whole).await;
            assert_eq!(answer.status(), 200, "{whole}");
            assert_eq!(answer.bytes().await.unwrap(), bytes, "{whole}");
        }
        for (range, part) in [
            ("bytes=-18446744073709551615", &bytes[..]),
            (&format!("bytes=0-{}", u64::MAX), &bytes[..]),
            (&format!("bytes={}-{}", size - 1, size + 10), &bytes[size - 1..]),
            ("bytes=5-5", &bytes[5..6]),
        ] {
            let answer = ask(range).await;
            assert_eq!(answer.status(), 206, "{range}");
            assert_eq!(answer.bytes().await.unwrap(), part, "{range}");
        }
        for none in
            [format!("bytes={size}-"), "bytes=-0".into(), "bytes=5-4".into(), format!("bytes={}0-", u64::MAX)]
        {
            let answer = ask(&none).await;
            assert_eq!(answer.status(), 416, "{none}");
            assert_eq!(header(&answer, "content-range"), format!("bytes */{size}"));
        }
    }
    registry.check().await;
}
