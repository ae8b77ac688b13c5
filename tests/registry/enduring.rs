//! Enduring: what goes wrong between the service and its object store loses nothing, and is said clearly.

use crate::harness::{
    Client, Fault, Registry, Relay, bucket_behind_a_relay, expect, header, noise, sha256, sha512,
};
use http::Method;
use proofmark::access::Role;
use proofmark::storage::{Staged, Store};
use std::time::Duration;
use uuid::Uuid;

const MIB: usize = 1 << 20;

/// A registry whose object store is reached through a relay.
async fn behind_a_relay(retry_seconds: u64, silence_seconds: u64) -> (Registry, Client, Relay) {
    let (storage, relay) = bucket_behind_a_relay(retry_seconds, silence_seconds).await;
    let registry = Registry::with(|settings| settings.storage = Some(storage)).await;
    let ci = registry.client(Role::Pusher, "**").await;
    (registry, ci, relay)
}

#[tokio::test]
async fn a_store_that_is_busy_or_drops_connections_is_asked_again_and_nothing_is_lost() {
    const FAULTS: [Fault; 6] = [
        Fault::Status(503),
        Fault::Cut,
        Fault::Status(429),
        Fault::Lost,
        Fault::Status(500),
        Fault::Truncated,
    ];
    let (registry, ci, relay) = behind_a_relay(60, 30).await;
    let replica = registry.replica().await;
    // Two of three requests fail, each time in another way.
    relay.plan(|_, before| (before % 3 != 2).then(|| FAULTS[before % 6]).filter(|_| before < 90));
    let mut pushed = Vec::new();
    for length in [70_000, 5 * MIB, 12 * MIB + 7] {
        let bytes = noise(length as u64, length);
        pushed.push((ci.push_blob("app", &bytes).await, bytes));
    }
    let bytes = noise(9, 14 * MIB);
    let location = ci.open_session("app").await;
    for (turn, chunk) in bytes.chunks(7 * MIB).enumerate() {
        let client = if turn % 2 == 0 { ci.clone() } else { ci.at(&replica.url) };
        assert_eq!(client.send_chunk(&location, turn * 7 * MIB, chunk).await.status(), 202);
    }
    // Another algorithm than the one that ran: the object is read again, through the faults.
    let finished = ci.finish_session(&location, &sha512(&bytes), "").await;
    assert_eq!(finished.status(), 201, "{}", finished.text().await.unwrap());
    pushed.push((sha512(&bytes), bytes));
    for (digest, bytes) in &pushed {
        assert!(ci.pull_blob("app", digest).await == *bytes, "{digest}");
    }
    assert!(relay.faults() >= 20, "only {} requests went wrong", relay.faults());
    relay.behave();
    replica.check().await;
    registry.check().await;
}

#[tokio::test]
async fn an_object_that_breaks_off_or_falls_silent_is_read_on_from_there() {
    let (registry, ci, relay) = behind_a_relay(60, 2).await;
    let bytes = noise(1, 6 * MIB);
    let digest = ci.push_blob("app", &bytes).await;
    for fault in [Fault::Truncated, Fault::Stalled(Duration::from_mins(1))] {
        relay.plan(move |request, before| (request.method == Method::GET && before < 2).then_some(fault));
        assert!(ci.pull_blob("app", &digest).await == bytes, "{fault:?}");
        assert_eq!(relay.faults(), 2, "{fault:?}");
        relay.plan(move |_, before| (before == 0).then_some(fault));
        let part = ci.get(&format!("/v2/app/blobs/{digest}")).header("range", "bytes=1000-4999999");
        let part = part.send().await.unwrap();
        assert_eq!(header(&part, "content-range"), format!("bytes 1000-4999999/{}", bytes.len()));
        assert!(part.bytes().await.unwrap() == bytes[1000..5_000_000], "{fault:?}");
        assert_eq!(relay.faults(), 1, "{fault:?}");
    }
    relay.behave();
    registry.check().await;
}

#[tokio::test]
async fn a_store_that_is_away_is_said_so_and_the_upload_goes_on_from_where_it_was() {
    let (registry, ci, relay) = behind_a_relay(2, 30).await;
    let bytes = noise(2, 13 * MIB);
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes[..6 * MIB]).await.status(), 202);
    let kept = ci.push_blob("app", &noise(3, 200_000)).await;

    for fault in [Fault::Status(503), Fault::Cut] {
        relay.plan(move |_, _| Some(fault));
        let told = [
            ci.send_chunk(&location, 6 * MIB, &bytes[6 * MIB..]).await,
            ci.get(&format!("/v2/app/blobs/{kept}")).send().await.unwrap(),
        ];
        for answer in told {
            assert_ne!(header(&answer, "retry-after"), "", "{fault:?}");
            let refused = expect(answer, 503).await;
            assert_eq!(refused["errors"][0]["code"], "TOOMANYREQUESTS");
            assert!(!refused.to_string().contains("127.0.0.1"), "nothing of ours is shown: {refused}");
        }
        assert_eq!(registry.anyone().get("/readyz").send().await.unwrap().status(), 503);
        assert_eq!(ci.head_blob("app", &kept).await, 200, "what Postgres knows is answered");
        assert_eq!(header(&ci.get(&location).send().await.unwrap(), "range"), format!("0-{}", 6 * MIB - 1));
    }
    relay.behave();
    assert_eq!(ci.send_chunk(&location, 6 * MIB, &bytes[6 * MIB..]).await.status(), 202);

    relay.plan(|_, _| Some(Fault::Status(503)));
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 503);
    relay.behave();
    let finished = ci.finish_session(&location, &sha256(&bytes), "").await;
    assert_eq!(finished.status(), 201, "{}", finished.text().await.unwrap());
    assert!(ci.pull_blob("app", &sha256(&bytes)).await == bytes);
    registry.check().await;
}

#[tokio::test]
async fn an_upload_that_was_completed_without_our_hearing_of_it_is_found_complete() {
    let (registry, ci, relay) = behind_a_relay(60, 30).await;
    let bytes = noise(4, 11 * MIB);
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes).await.status(), 202);
    let completing = |request: &http::request::Parts| {
        request.method == Method::POST && request.uri.query().is_some_and(|query| query.contains("uploadId="))
    };
    relay.plan(move |request, _| completing(request).then_some(Fault::Lost));
    let finishing = tokio::spawn({
        let (ci, location, digest) = (ci.clone(), location.clone(), sha256(&bytes));
        async move { ci.finish_session(&location, &digest, "").await }
    });
    let lost = async {
        while relay.faults() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), lost).await.expect("the upload is completed");
    relay.behave();
    assert_eq!(finishing.await.unwrap().status(), 201);
    assert!(ci.pull_blob("app", &sha256(&bytes)).await == bytes);
    registry.check().await;
}

/// The state of a session as any replica would read it now.
async fn state_of(registry: &Registry, location: &str) -> Staged {
    let id: Uuid = location.rsplit('/').next().unwrap().parse().unwrap();
    let (state, tail): (serde_json::Value, Vec<u8>) =
        sqlx::query_as("select staged, tail from uploads where id = $1")
            .bind(id)
            .fetch_one(&mut *registry.sql().await)
            .await
            .unwrap();
    Staged::restore(id, state, tail).unwrap()
}

#[tokio::test]
async fn an_upload_whose_parts_are_lost_is_over_and_one_that_was_written_over_makes_no_other_blob() {
    let (registry, ci, _relay) = behind_a_relay(60, 30).await;
    let store = &registry.app.store;
    let bytes = noise(7, 12 * MIB);
    for written_over in [false, true] {
        let location = ci.open_session("app").await;
        assert_eq!(ci.send_chunk(&location, 0, &bytes[..6 * MIB]).await.status(), 202);
        let mut stale = state_of(&registry, &location).await;
        assert_eq!(ci.send_chunk(&location, 6 * MIB, &bytes[6 * MIB..]).await.status(), 202);
        if written_over {
            // By a writer that lost its lease without knowing, before the last chunk.
            let late = futures::stream::iter([Ok::<_, std::io::Error>(noise(8, 6 * MIB).into())]);
            store.append(&mut stale, Uuid::new_v4(), late, u64::MAX).await.unwrap();
        } else {
            store.abandon(&state_of(&registry, &location).await).await;
        }
        let finished = ci.finish_session(&location, &sha256(&bytes), "").await;
        if written_over && finished.status() == 201 {
            // Some stores keep every part that was ever named: then nothing is lost.
            assert!(ci.pull_blob("app", &sha256(&bytes)).await == bytes);
            continue;
        }
        let refused = expect(finished, 404).await;
        assert_eq!(refused["errors"][0]["code"], "BLOB_UPLOAD_UNKNOWN", "{written_over}");
        assert_eq!(ci.get(&location).send().await.unwrap().status(), 404, "it is over");
        assert_eq!(ci.head_blob("app", &sha256(&bytes)).await, 404);
    }
    let gone = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&gone, 0, &bytes[..6 * MIB]).await.status(), 202);
    store.abandon(&state_of(&registry, &gone).await).await;
    assert_eq!(ci.send_chunk(&gone, 6 * MIB, &bytes[6 * MIB..]).await.status(), 404);
    assert_eq!(ci.push_blob("app", &bytes).await, sha256(&bytes), "begun again");
    registry.check().await;
}

#[tokio::test]
async fn a_store_that_would_not_keep_blobs_safe_is_refused_at_start() {
    let (storage, relay) = bucket_behind_a_relay(2, 30).await;
    let refused = async |said: &str| {
        let why = Store::open(&storage).await.unwrap_err().chain();
        assert!(why.contains(said), "{why}");
    };
    let is_delete = |request: &http::request::Parts| {
        request.method == Method::POST && request.uri.query().is_some_and(|query| query.contains("delete"))
    };
    let done = "<DeleteResult><Deleted><Key>it</Key></Deleted></DeleteResult>";
    relay.plan(move |request, _| is_delete(request).then_some(Fault::Pretended(done)));
    refused("still there").await;
    let is_part = |request: &http::request::Parts| {
        request.method == Method::PUT
            && request.uri.query().is_some_and(|query| query.contains("partNumber="))
    };
    relay.plan(move |request, _| is_part(request).then_some(Fault::Status(501)));
    refused("501").await;
    relay.plan(|_, _| Some(Fault::Status(403)));
    refused("may we write").await;
    relay.behave();
    Store::open(&storage).await.unwrap();
}

#[tokio::test]
async fn large_blobs_are_redirected_to_the_store_where_that_is_wanted_and_a_head_never() {
    let storage = crate::harness::bucket();
    let registry = Registry::with(|settings| {
        settings.storage = Some(storage);
        settings.blob_redirect_seconds = Some(60);
    })
    .await;
    let ci = registry.client(Role::Pusher, "**").await;
    let (small, large) = (noise(5, 1000), noise(6, 6 * MIB));
    let (of_small, of_large) = (ci.push_blob("app", &small).await, ci.push_blob("app", &large).await);
    let path = format!("/v2/app/blobs/{of_large}");
    let not_following =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let ask = |method: Method| {
        let request = not_following.request(method, format!("{}{path}", registry.url));
        request.bearer_auth(ci.token().unwrap()).send()
    };
    let answer = ask(Method::GET).await.unwrap();
    assert_eq!(answer.status(), 307);
    assert_eq!(header(&answer, "cache-control"), "private, no-store");
    let url = header(&answer, "location");
    let whole = not_following.get(&url).send().await.unwrap();
    assert!(whole.bytes().await.unwrap() == large, "the URL alone opens the object");
    let tampered = url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000");
    assert_ne!(tampered, url);
    assert_eq!(not_following.get(&tampered).send().await.unwrap().status(), 403);
    assert_eq!(not_following.delete(&url).send().await.unwrap().status(), 403, "it is for reading");

    let head = ask(Method::HEAD).await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, large.len().to_string()));
    let part = ci.get(&path).header("range", "bytes=10-19").send().await.unwrap();
    assert_eq!(part.bytes().await.unwrap(), large[10..20], "a client that follows gets its range");
    assert_eq!(ci.pull_blob("app", &of_small).await, small, "what lies in Postgres is answered here");
    assert_eq!(registry.anyone().get(&path).send().await.unwrap().status(), 401);
    registry.check().await;
}
