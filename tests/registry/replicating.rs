//! Replicas: one upload at several of them, whatever dies in between, on files and on an object store.

use crate::harness::{Client, Fault, Registry, Relay, header, noise, on_every_storage, sha256};
use bytes::Bytes;
use proofmark::access::Role;
use proofmark::names::Digest;
use reqwest::{Body, Response};
use std::time::Duration;
use tokio::sync::mpsc;

on_every_storage!(
    two_replicas_behind_a_balancer_take_the_chunks_of_one_upload_by_turns,
    of_writers_at_one_offset_one_wins_and_the_others_are_told_where_to_go_on,
    a_finish_whose_answer_was_lost_is_asked_for_again,
    a_session_whose_writer_fell_idle_is_taken_over_at_another_replica,
);

const MIB: usize = 1 << 20;

/// Somebody who reaches two replicas by turns.
async fn balanced(registry: &Registry, replica: &Registry) -> (Client, Relay) {
    let relay = Relay::to(&[&registry.url, &replica.url]).await;
    let ci = registry.client(Role::Pusher, "**").await.at(&relay.url);
    (ci, relay)
}

async fn two_replicas_behind_a_balancer_take_the_chunks_of_one_upload_by_turns(registry: Registry) {
    let replica = registry.replica().await;
    let (ci, relay) = balanced(&registry, &replica).await;
    let bytes = noise(1, 23 * MIB + 11);
    let location = ci.open_session("app").await;
    let mut offset = 0;
    // Around every bound: what stays in Postgres, what is a part, what is more than one.
    for length in [10, 70_000, 5 * MIB - 1, MIB, 6 * MIB, 64 << 10, 1, 10 * MIB] {
        let answer = ci.send_chunk(&location, offset, &bytes[offset..offset + length]).await;
        offset += length;
        assert_eq!((answer.status().as_u16(), header(&answer, "range")), (202, format!("0-{}", offset - 1)));
    }
    let last = ci.finish_session(&location, &sha256(&bytes), bytes[offset..].to_vec()).await;
    assert_eq!(last.status(), 201, "{}", last.text().await.unwrap());
    assert_eq!(relay.passed(), [5, 5], "each replica took every other request");
    for _ in 0..2 {
        assert!(ci.pull_blob("app", &sha256(&bytes)).await == bytes);
    }
    replica.check().await;
    registry.check().await;
}

async fn of_writers_at_one_offset_one_wins_and_the_others_are_told_where_to_go_on(registry: Registry) {
    let replica = registry.replica().await;
    let (ci, _relay) = balanced(&registry, &replica).await;
    let bytes = noise(2, 13 * MIB);
    let location = ci.open_session("app").await;
    let mut offset = 0;
    while offset < bytes.len() {
        let chunk = &bytes[offset..bytes.len().min(offset + 6 * MIB)];
        let sent = futures::future::join_all((0..4).map(|_| ci.send_chunk(&location, offset, chunk))).await;
        let won: Vec<&Response> = sent.iter().filter(|answer| answer.status() == 202).collect();
        assert_eq!(won.len(), 1, "{:?}", sent.iter().map(Response::status).collect::<Vec<_>>());
        for lost in sent.iter().filter(|answer| answer.status() != 202) {
            assert_eq!(lost.status(), 416);
            let told = header(lost, "range");
            let there = [offset, offset + chunk.len()].map(|at| format!("0-{}", at.saturating_sub(1)));
            assert!(there.contains(&told), "{told}");
        }
        offset += chunk.len();
    }
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 201);
    assert!(ci.pull_blob("app", &sha256(&bytes)).await == bytes);
    replica.check().await;
    registry.check().await;
}

async fn a_finish_whose_answer_was_lost_is_asked_for_again(registry: Registry) {
    let replica = registry.replica().await;
    let (ci, relay) = balanced(&registry, &replica).await;
    for length in [100, 300_000, 7 * MIB] {
        let bytes = noise(length as u64, length);
        let digest = sha256(&bytes);
        let location = ci.open_session("app").await;
        assert_eq!(ci.send_chunk(&location, 0, &bytes).await.status(), 202);
        relay.plan(|_, before| (before == 0).then_some(Fault::Lost));
        let path = format!("{location}?digest={digest}");
        assert!(ci.put(&path).send().await.is_err(), "the connection ended before the answer");
        relay.behave();
        let again = ci.put(&path).send().await.unwrap();
        assert_eq!(again.status(), 201, "{}", again.text().await.unwrap());
        assert_eq!(header(&again, "location"), format!("/v2/app/blobs/{digest}"));
        assert!(ci.pull_blob("app", &digest).await == bytes);
        let other = ci.put(&format!("{location}?digest={}", sha256(b"never pushed"))).send().await.unwrap();
        assert_eq!(other.status(), 404, "a session that is over makes no other blob");
    }
    replica.check().await;
    registry.check().await;
}

async fn a_session_whose_writer_fell_idle_is_taken_over_at_another_replica(registry: Registry) {
    let replica = registry.replica().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let there = ci.at(&replica.url);
    let begin = noise(3, 6 * MIB);
    let (late, next) = (noise(4, 6 * MIB), noise(5, 7 * MIB));
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &begin).await.status(), 202);

    let (feed, receiver) = mpsc::channel::<Bytes>(1);
    let frames = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (Ok::<_, std::io::Error>(bytes), receiver))
    });
    let writing = tokio::spawn(ci.patch(&location).body(Body::wrap_stream(frames)).send());
    feed.send(Bytes::from(late)).await.unwrap();
    until_leased(&registry).await;
    // Its service stands still for so long that the lease ends.
    sqlx::query("update uploads set lease_until = clock_timestamp() - interval '1 second'")
        .execute(&mut *registry.sql().await)
        .await
        .unwrap();
    let taken_over = there.send_chunk(&location, begin.len(), &next).await;
    assert_eq!(taken_over.status(), 202, "{}", taken_over.text().await.unwrap());
    drop(feed);
    assert_eq!(writing.await.unwrap().unwrap().status(), 416, "the late writer is told, and changes nothing");

    let whole = [begin, next].concat();
    let digest: Digest = sha256(&whole);
    let finished = ci.finish_session(&location, &digest, "").await;
    assert_eq!(finished.status(), 201, "{}", finished.text().await.unwrap());
    assert!(there.pull_blob("app", &digest).await == whole);
    replica.check().await;
    registry.check().await;
}

/// Waits until somebody writes to the one session.
async fn until_leased(registry: &Registry) {
    let asking = async {
        let mut connection = registry.sql().await;
        let leased = "select count(*) = 1 from uploads where lease is not null";
        while !sqlx::query_scalar::<_, bool>(leased).fetch_one(&mut *connection).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("the server takes the body");
}
