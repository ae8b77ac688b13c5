//! A repository holds no more than its quota, whatever comes at once.

use crate::harness::oci::refusal;
use crate::harness::{Registry, expect, noise, sha256, sha512};
use bytes::Bytes;
use futures::StreamExt;
use proofmark::access::Role;
use reqwest::Body;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

impl Registry {
    async fn quota(&self, repository: &str, bytes: Value) -> Value {
        let body = json!({"name": repository, "quota_bytes": bytes});
        let put = self.admin().put("/api/v1/repositories").json(&body).send().await.unwrap();
        assert!(put.status().is_success());
        put.json().await.unwrap()
    }

    async fn used(&self, repository: &str) -> i64 {
        let path = format!("/api/v1/repositories?name={repository}");
        self.admin().document(&path).await["items"][0]["used_bytes"].as_i64().unwrap()
    }
}

#[tokio::test]
async fn a_push_over_the_quota_is_denied_and_leaves_nothing() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    registry.quota("app", json!(100_000)).await;
    let first = ci.push_blob("app", &noise(1, 60_000)).await;
    assert_eq!(registry.used("app").await, 60_000);
    for length in [40_001, 70_000] {
        let bytes = noise(2, length);
        let path = format!("/v2/app/blobs/uploads/?digest={}", sha256(&bytes));
        let (status, error) = refusal(ci.post(&path).body(bytes).send().await.unwrap()).await;
        assert_eq!((status, error["code"].as_str()), (403, Some("DENIED")));
        assert_eq!(error["detail"], json!({"quota_bytes": 100_000, "used_bytes": 60_000}));
    }
    assert_eq!(ci.push_blob("app", &noise(1, 60_000)).await, first, "what is there takes no more room");
    // Mounts, chunks and files stand under the same bound.
    let large = ci.push_blob("other", &noise(3, 50_000)).await;
    let path = format!("/v2/app/blobs/uploads/?mount={large}&from=other");
    assert_eq!(refusal(ci.post(&path).send().await.unwrap()).await.0, 403);
    let location = ci.open_session("app").await;
    let sent = ci.send_chunk(&location, 0, &noise(4, 30_000)).await;
    assert_eq!(sent.status(), 202);
    assert_eq!(refusal(ci.send_chunk(&location, 30_000, &noise(5, 90_000)).await).await.0, 403);
    let put = ci.put("/api/v1/artifacts?repository=app&version=1&filename=f").body(noise(6, 80_000));
    let refused = expect(put.send().await.unwrap(), 409).await;
    assert_eq!(refused["code"], "quota-exceeded");
    assert_eq!(registry.used("app").await, 60_000);

    assert_eq!(admin.delete(&format!("/v2/app/blobs/{first}")).send().await.unwrap().status(), 202);
    assert_eq!(registry.used("app").await, 0);
    ci.push_blob("app", &noise(2, 70_000)).await;
    assert_eq!(registry.quota("app", Value::Null).await["quota_bytes"], Value::Null);
    ci.push_blob("app", &noise(7, 90_000)).await;
    registry.check().await;
}

#[tokio::test]
async fn an_upload_that_others_left_no_room_for_is_finished_when_there_is_or_begins_again() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    registry.quota("app", json!(600_000)).await;
    // There is room when the bytes come, and too little when they are to become a blob.
    let (bytes, more) = (noise(1, 150_000), noise(2, 20_000));
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let location = ci.open_session("app").await;
        assert_eq!(ci.send_chunk(&location, 0, &bytes).await.status(), 202);
        sessions.push(location);
    }
    ci.push_blob("app", &noise(3, 100_000)).await;
    registry.quota("app", json!(200_000)).await;
    for location in &sessions {
        let refused = ci.put(&format!("{location}?digest={}", sha256(&bytes))).send().await.unwrap();
        assert_eq!(refusal(refused).await.0, 403);
    }
    let [waits, goes_on, is_told_otherwise] = &sessions[..] else { panic!("three sessions") };
    registry.quota("app", json!(600_000)).await;
    // The bytes lie under the digest that they had: what has another one begins again.
    assert_eq!(ci.send_chunk(goes_on, 150_000, &more).await.status(), 202);
    let whole = [&bytes[..], &more].concat();
    for (location, digest) in [(goes_on, sha256(&whole)), (is_told_otherwise, sha512(&bytes))] {
        let (status, error) =
            refusal(ci.put(&format!("{location}?digest={digest}")).send().await.unwrap()).await;
        assert_eq!((status, error["code"].as_str()), (404, Some("BLOB_UPLOAD_UNKNOWN")), "{location}");
    }
    assert_eq!(ci.put(&format!("{waits}?digest={}", sha256(&bytes))).send().await.unwrap().status(), 201);
    registry.check().await;
}

#[tokio::test]
async fn a_body_without_a_length_is_stopped_when_the_quota_is_reached() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    registry.quota("app", json!(1_000_000)).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = sent.clone();
    let chunk = Bytes::from(noise(1, 1 << 16));
    let body = futures::stream::iter(0..16_384).map(move |_| {
        counting.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::io::Error>(chunk.clone())
    });
    let location = ci.open_session("app").await;
    let answer = ci.patch(&location).body(Body::wrap_stream(body)).send().await;
    // The refusal may arrive, or the connection end under a client that goes on sending.
    if let Ok(answer) = answer {
        assert_eq!(refusal(answer).await.0, 403);
    }
    assert!(sent.load(Ordering::SeqCst) < 2_000, "a gibibyte is not taken to be refused");
    assert_eq!(registry.used("app").await, 0);
    registry.check().await;
}

#[tokio::test]
async fn pushes_that_fit_alone_and_not_together_never_pass_the_quota() {
    let registry = Registry::start().await;
    let replica = registry.replica().await;
    let ci = registry.client(Role::Pusher, "**").await;
    registry.quota("app", json!(105_000)).await;
    let pushes = (0..40_u64).map(|n| {
        let ci = if n % 2 == 0 { ci.clone() } else { ci.at(&replica.url) };
        tokio::spawn(async move {
            let bytes = noise(n, 10_000);
            let path = format!("/v2/app/blobs/uploads/?digest={}", sha256(&bytes));
            ci.post(&path).body(bytes).send().await.unwrap().status().as_u16()
        })
    });
    let mut taken = 0;
    for push in pushes.collect::<Vec<_>>() {
        match push.await.unwrap() {
            201 => taken += 1,
            status => assert_eq!(status, 403),
        }
    }
    assert_eq!(taken, 10);
    assert_eq!(registry.used("app").await, 100_000);
    drop(replica);
    registry.check().await;
}
