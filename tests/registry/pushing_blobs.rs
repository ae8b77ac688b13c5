//! Pushing blobs over /v2: whole, in one stream, in chunks, by mount; and pulling them back.

use crate::harness::{Client, Registry, expect, header, noise, sha256, sha512};
use bytes::Bytes;
use futures::StreamExt;
use proofmark::access::Role;
use reqwest::Body;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

async fn code(answer: reqwest::Response, status: u16) -> String {
    let document: Value = expect(answer, status).await;
    document["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}

/// A body that the test feeds frame by frame; dropping the sender ends it.
fn fed() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (Ok::<_, std::io::Error>(bytes), receiver))
    });
    (sender, Body::wrap_stream(frames))
}

/// Waits until somebody writes to the one session.
async fn until_leased(registry: &Registry) {
    until_leases(registry, 1).await;
}

async fn until_leases(registry: &Registry, sessions: i64) {
    let asking = async {
        let mut connection = registry.sql().await;
        let leased = "select count(*) from uploads where lease is not null";
        while sqlx::query_scalar::<_, i64>(leased).fetch_one(&mut *connection).await.unwrap() != sessions {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("the server takes the body");
}

/// Waits until somebody has looked at a session whose lease another has.
async fn until_waited_for(registry: &Registry) {
    let asking = async {
        let mut connection = registry.sql().await;
        let looked = "select exists (select from pg_stat_activity where datname = current_database()
                        and query like 'select offset_bytes, lease, lease_until from uploads%')";
        while !sqlx::query_scalar::<_, bool>(looked).fetch_one(&mut *connection).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("somebody waits");
}

/// Asks again until the session has taken so many bytes.
async fn until_offset(client: &Client, location: &str, offset: usize) {
    let wanted = format!("0-{}", offset - 1);
    let asking = async {
        while header(&client.get(location).send().await.unwrap(), "range") != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("the session reaches the offset");
}

#[tokio::test]
async fn a_blob_of_any_size_comes_back_as_it_was_pushed() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for length in [0, 1, 65_536, 65_537, 1 << 20, 3_000_001] {
        let bytes = noise(length as u64, length);
        let digest = sha256(&bytes);
        let path = format!("/v2/team/app/blobs/uploads/?digest={digest}");
        let answer = ci.post(&path).body(bytes.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        assert_eq!(header(&answer, "location"), format!("/v2/team/app/blobs/{digest}"));
        assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
        assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
        assert_eq!(ci.pull_blob("team/app", &digest).await, bytes, "{length} bytes");
        let head = ci.head(&header(&answer, "location")).send().await.unwrap();
        assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, length.to_string()));
    }
    registry.check().await;
}

#[tokio::test]
async fn one_stream_without_a_length_and_an_empty_put_make_a_blob() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(1, 2_500_000);
    let location = ci.open_session("app").await;
    let frames = bytes.chunks(70_001).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect::<Vec<_>>();
    let body = Body::wrap_stream(futures::stream::iter(frames));
    let answer = ci.patch(&location).body(body).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "range")), (202, "0-2499999".into()));
    let answer = ci.finish_session(&header(&answer, "location"), &sha256(&bytes), "").await;
    assert_eq!(answer.status(), 201);
    assert_eq!(ci.pull_blob("app", &sha256(&bytes)).await, bytes);
    assert_eq!(ci.get(&location).send().await.unwrap().status(), 404, "a finished session is over");
    registry.check().await;
}

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_and_the_session_goes_on_at_any_replica() {
    let registry = Registry::start().await;
    let replica = registry.replica().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let there = ci.at(&replica.url);
    let bytes = noise(2, 300_000);
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes[..100_000]).await.status(), 202);
    for wrong in [0, 99_999, 100_001, 200_000] {
        let answer = there.send_chunk(&location, wrong, &bytes[wrong..wrong + 10]).await;
        assert_eq!(header(&answer, "range"), "0-99999");
        assert_eq!(header(&answer, "location"), location);
        assert_eq!(code(answer, 416).await, "BLOB_UPLOAD_INVALID");
    }
    let status = there.get(&location).send().await.unwrap();
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-99999".into()));
    assert_eq!(there.send_chunk(&location, 100_000, &bytes[100_000..100_010]).await.status(), 202);
    assert_eq!(ci.send_chunk(&location, 100_010, &bytes[100_010..250_000]).await.status(), 202);
    let path = format!("{location}?digest={}", sha256(&bytes));
    let late = there.put(&path).header("content-range", "0-49999").body(bytes[250_000..].to_vec());
    assert_eq!(code(late.send().await.unwrap(), 416).await, "BLOB_UPLOAD_INVALID");
    let last = there.put(&path).header("content-range", "250000-299999").body(bytes[250_000..].to_vec());
    assert_eq!(last.send().await.unwrap().status(), 201);
    assert_eq!(ci.pull_blob("app", &sha256(&bytes)).await, bytes);
    replica.check().await;
    registry.check().await;
}

#[tokio::test]
async fn a_put_may_carry_everything() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for length in [0, 5, 200_000] {
        let bytes = noise(3, length);
        let location = ci.open_session("app").await;
        assert_eq!(ci.finish_session(&location, &sha256(&bytes), bytes.clone()).await.status(), 201);
        assert_eq!(ci.pull_blob("app", &sha256(&bytes)).await, bytes);
    }
    registry.check().await;
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused_and_leave_nothing() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let (bytes, other) = (noise(4, 400_000), sha256(b"other"));
    let whole = ci.post(&format!("/v2/app/blobs/uploads/?digest={other}")).body(bytes.clone());
    assert_eq!(code(whole.send().await.unwrap(), 400).await, "DIGEST_INVALID");
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes).await.status(), 202);
    let refused = expect(ci.finish_session(&location, &other, "").await, 400).await;
    assert_eq!(refused["errors"][0]["detail"]["actual"], sha256(&bytes).to_string());
    assert_eq!(ci.get(&location).send().await.unwrap().status(), 404, "the session is over");
    for digest in [&other, &sha256(&bytes)] {
        assert_eq!(ci.head_blob("app", digest).await, 404);
    }
    assert_eq!(code(ci.put(&location).send().await.unwrap(), 400).await, "DIGEST_INVALID");
    let malformed = ci.post("/v2/app/blobs/uploads/?digest=sha256:xyz").body("x").send().await.unwrap();
    assert_eq!(code(malformed, 400).await, "DIGEST_INVALID");
    assert_eq!(registry.app.uploads.sweep_store(Duration::ZERO).await.unwrap(), 0, "no bytes are left");
    registry.check().await;
}

#[tokio::test]
async fn sha512_may_be_named_first_or_only_at_the_end() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for (seed, length) in [(5, 100), (6, 700_000)] {
        let bytes = noise(seed, length);
        let opened = ci.post("/v2/app/blobs/uploads/?digest-algorithm=sha512").send().await.unwrap();
        let first = header(&opened, "location");
        let late = ci.open_session("app").await;
        for location in [first, late] {
            let (one, two) = bytes.split_at(length / 2);
            assert_eq!(ci.send_chunk(&location, 0, one).await.status(), 202);
            let answer = ci.finish_session(&location, &sha512(&bytes), two.to_vec()).await;
            assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        }
        assert_eq!(ci.pull_blob("app", &sha512(&bytes)).await, bytes);
        let location = ci.open_session("app").await;
        assert_eq!(ci.send_chunk(&location, 0, &bytes).await.status(), 202);
        assert_eq!(ci.finish_session(&location, &sha512(b"other"), "").await.status(), 400);
    }
    let unknown = ci.post("/v2/app/blobs/uploads/?digest-algorithm=md5").send().await.unwrap();
    assert_eq!(code(unknown, 400).await, "UNSUPPORTED");
    registry.check().await;
}

#[tokio::test]
async fn two_writers_at_one_offset_leave_one() {
    let registry = Registry::start().await;
    let replica = registry.replica().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(7, 200_000);
    let location = ci.open_session("app").await;
    let (feed, body) = fed();
    let first = tokio::spawn(ci.patch(&location).body(body).send());
    feed.send(Bytes::copy_from_slice(&bytes[..100_000])).await.unwrap();
    until_leased(&registry).await;
    feed.send(Bytes::copy_from_slice(&bytes[100_000..])).await.unwrap();
    let second = ci.at(&replica.url).send_chunk(&location, 0, b"another writer's bytes").await;
    assert_eq!(code(second, 416).await, "BLOB_UPLOAD_INVALID");
    drop(feed);
    assert_eq!(first.await.unwrap().unwrap().status(), 202);
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 201);

    let racing = ci.open_session("app").await;
    let chunk = noise(8, 50_000);
    let sent = futures::future::join_all((0..8).map(|_| ci.send_chunk(&racing, 0, &chunk))).await;
    let statuses: Vec<u16> = sent.iter().map(|answer| answer.status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1, "{statuses:?}");
    assert_eq!(ci.finish_session(&racing, &sha256(&chunk), "").await.status(), 201);
    replica.check().await;
    registry.check().await;
}

/// Gives the lease of the one session to somebody, until some seconds from now.
async fn give_lease(registry: &Registry, seconds: i32) {
    let statement = "update uploads set lease = gen_random_uuid(),
                       lease_until = clock_timestamp() + make_interval(secs => $1)";
    let done = sqlx::query(statement).bind(seconds).execute(&mut *registry.sql().await).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

#[tokio::test]
async fn a_client_that_comes_back_after_its_service_died_waits_for_the_lease_and_goes_on() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let location = ci.open_session("app").await;
    for (offset, bytes) in [(0, b"some".as_slice()), (4, b" bytes")] {
        give_lease(&registry, 1).await;
        let elsewhere = ci.send_chunk(&location, offset + 1, bytes).await;
        assert_eq!(code(elsewhere, 416).await, "BLOB_UPLOAD_INVALID", "nothing is waited for");
        assert_eq!(ci.send_chunk(&location, offset, bytes).await.status(), 202);
    }
    give_lease(&registry, 1).await;
    assert_eq!(ci.finish_session(&location, &sha256(b"some bytes"), "").await.status(), 201);

    let streamed = ci.open_session("app").await;
    give_lease(&registry, 1).await;
    assert_eq!(ci.patch(&streamed).body("some bytes").send().await.unwrap().status(), 202);
    give_lease(&registry, 1).await;
    assert_eq!(ci.delete(&streamed).send().await.unwrap().status(), 204);
    registry.check().await;
}

#[tokio::test]
async fn a_body_that_does_not_say_where_it_begins_never_lands_behind_anothers() {
    let registry = Registry::start().await;
    let replica = registry.replica().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let location = ci.open_session("app").await;
    let (feed, body) = fed();
    let first = tokio::spawn(ci.patch(&location).body(body).send());
    feed.send(Bytes::from_static(b"the first")).await.unwrap();
    until_leased(&registry).await;
    let second = tokio::spawn(ci.at(&replica.url).patch(&location).body("the same again").send());
    until_waited_for(&registry).await;
    drop(feed);
    assert_eq!(first.await.unwrap().unwrap().status(), 202);
    let second = second.await.unwrap().unwrap();
    assert_eq!(header(&second, "range"), "0-8", "it is told what is there");
    assert_eq!(code(second, 416).await, "BLOB_UPLOAD_INVALID");
    assert_eq!(ci.finish_session(&location, &sha256(b"the first"), "").await.status(), 201);
    replica.check().await;
    registry.check().await;
}

#[tokio::test]
async fn a_session_is_its_principals_alone_whoever_else_may_push() {
    let registry = Registry::start().await;
    let ci = registry.named("ci/app", Role::Pusher, "**", None).await;
    let other = registry.client(Role::Pusher, "**").await;
    let bytes = noise(22, 90_000);
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes[..70_000]).await.status(), 202);
    let finish = format!("{location}?digest={}", sha256(&bytes));
    let range = "70000-89999";
    for request in [
        other.get(&location),
        other.patch(&location).header("content-range", range).body(bytes[70_000..].to_vec()),
        other.put(&finish).header("content-range", range).body(bytes[70_000..].to_vec()),
        other.delete(&location),
        registry.admin().delete(&location),
    ] {
        assert_eq!(code(request.send().await.unwrap(), 404).await, "BLOB_UPLOAD_UNKNOWN");
    }
    // Another token of the same principal is the same pipeline.
    let renewed = registry.named("ci/app", Role::Pusher, "**", None).await;
    assert_eq!(renewed.send_chunk(&location, 70_000, &bytes[70_000..]).await.status(), 202);
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 201);
    registry.check().await;
}

#[tokio::test]
async fn a_late_writer_whose_lease_is_lost_changes_nothing() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let (late, next) = (noise(20, 200_000), noise(21, 150_000));
    let location = ci.open_session("app").await;
    let (feed, body) = fed();
    let writing = tokio::spawn(ci.patch(&location).body(body).send());
    feed.send(Bytes::from(late)).await.unwrap();
    until_leased(&registry).await;
    give_lease(&registry, -1).await;
    assert_eq!(ci.send_chunk(&location, 0, &next).await.status(), 202);
    feed.send(Bytes::from_static(b"and more")).await.unwrap();
    drop(feed);
    assert_eq!(code(writing.await.unwrap().unwrap(), 416).await, "BLOB_UPLOAD_INVALID");
    assert_eq!(ci.finish_session(&location, &sha256(&next), "").await.status(), 201);
    assert_eq!(ci.pull_blob("app", &sha256(&next)).await, next);
    registry.check().await;
}

/// The head of a request by hand, for clients that do not end it well.
fn by_hand(client: &Client, method: &str, path: &str, length: usize) -> String {
    let token = client.token().unwrap();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: registry\r\nauthorization: Bearer {token}\r\n\
         content-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_what_came_and_nothing_that_can_be_seen() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(9, 500_000);
    let address = registry.url.strip_prefix("http://").unwrap();

    let location = ci.open_session("app").await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(by_hand(&ci, "PATCH", &location, bytes.len()).as_bytes()).await.unwrap();
    connection.write_all(&bytes[..200_000]).await.unwrap();
    connection.shutdown().await.unwrap();
    drop(connection);
    until_offset(&ci, &location, 200_000).await;
    assert_eq!(ci.head_blob("app", &sha256(&bytes)).await, 404);
    assert_eq!(ci.head_blob("app", &sha256(&bytes[..200_000])).await, 404);
    let rest = ci.send_chunk(&location, 200_000, &bytes[200_000..]).await;
    assert_eq!(rest.status(), 202, "the lease was given back and the session goes on");
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 201);

    let other = noise(10, 500_000);
    let path = format!("/v2/app/blobs/uploads/?digest={}", sha256(&other));
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(by_hand(&ci, "POST", &path, other.len()).as_bytes()).await.unwrap();
    connection.write_all(&other[..300_000]).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(ci.head_blob("app", &sha256(&other)).await, 404);
    registry.check().await;
}

#[tokio::test]
async fn a_body_that_falls_silent_is_given_up_and_kept_as_far_as_it_came() {
    let registry = Registry::with(|settings| settings.body_idle_seconds = Some(1)).await;
    let ci = registry.client(Role::Pusher, "**").await;
    let location = ci.open_session("app").await;
    let mut connection = TcpStream::connect(registry.url.strip_prefix("http://").unwrap()).await.unwrap();
    connection.write_all(by_hand(&ci, "PATCH", &location, 10_000).as_bytes()).await.unwrap();
    connection.write_all(&[7; 4_000]).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = connection.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    until_offset(&ci, &location, 4_000).await;
    registry.check().await;
}

#[tokio::test]
async fn more_bytes_than_a_blob_may_have_are_refused() {
    let registry = Registry::with(|settings| settings.max_blob_bytes = Some(100_000)).await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(11, 100_001);
    let path = format!("/v2/app/blobs/uploads/?digest={}", sha256(&bytes));
    assert_eq!(code(ci.post(&path).body(bytes.clone()).send().await.unwrap(), 413).await, "SIZE_INVALID");
    let endless = |bytes: &[u8]| {
        let frames: Vec<_> = bytes.chunks(9_000).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
        Body::wrap_stream(futures::stream::iter(frames).chain(futures::stream::pending()))
    };
    assert_eq!(code(ci.post(&path).body(endless(&bytes)).send().await.unwrap(), 413).await, "SIZE_INVALID");
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes[..80_000]).await.status(), 202);
    let over = ci.patch(&location).body(endless(&bytes)).send().await.unwrap();
    assert_eq!(code(over, 413).await, "SIZE_INVALID");
    assert_eq!(ci.send_chunk(&location, 80_000, &bytes[80_000..100_000]).await.status(), 202);
    let exact = ci.finish_session(&location, &sha256(&bytes[..100_000]), "").await;
    assert_eq!(exact.status(), 201, "a refused body leaves the session where it was");
    assert_eq!(registry.app.uploads.sweep_store(Duration::ZERO).await.unwrap(), 0, "no bytes are left");
    registry.check().await;
}

#[tokio::test]
async fn a_chunk_must_be_as_long_as_it_says() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let location = ci.open_session("app").await;
    let chunk = |range: &'static str, body: &'static str| {
        let body = Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(body)]));
        ci.patch(&location).header("content-range", range).body(body).send()
    };
    assert_eq!(code(chunk("0-3", "too long").await.unwrap(), 400).await, "SIZE_INVALID");
    assert_eq!(code(chunk("0-9", "short").await.unwrap(), 400).await, "SIZE_INVALID");
    until_offset(&ci, &location, 5).await;
    let lying = ci.patch(&location).header("content-range", "5-6").body("three").send().await.unwrap();
    assert_eq!(code(lying, 400).await, "SIZE_INVALID");
    for malformed in ["", "5", "9-5", "-5", "5-", "a-b", "0-18446744073709551615"] {
        let answer = ci.patch(&location).header("content-range", malformed).body("x").send().await.unwrap();
        assert_eq!(code(answer, 400).await, "BLOB_UPLOAD_INVALID", "{malformed}");
    }
    registry.check().await;
}

#[tokio::test]
async fn sessions_and_bodies_are_bounded_and_a_client_is_told_when_to_come_back() {
    let registry = Registry::with(|settings| {
        settings.max_sessions_per_principal = Some(2);
        settings.max_concurrent_uploads = Some(1);
    })
    .await;
    let ci = registry.client(Role::Pusher, "**").await;
    let other = registry.client(Role::Pusher, "**").await;
    let (one, two) = (ci.open_session("app").await, ci.open_session("app").await);
    let third = ci.post("/v2/app/blobs/uploads/").send().await.unwrap();
    assert_ne!(header(&third, "retry-after"), "");
    assert_eq!(code(third, 429).await, "TOOMANYREQUESTS");
    other.open_session("app").await;
    assert_eq!(ci.delete(&two).send().await.unwrap().status(), 204);
    assert_eq!(code(ci.delete(&two).send().await.unwrap(), 404).await, "BLOB_UPLOAD_UNKNOWN");
    ci.open_session("app").await;

    let (feed, body) = fed();
    let sending = tokio::spawn(ci.patch(&one).body(body).send());
    feed.send(Bytes::from_static(b"a")).await.unwrap();
    until_leased(&registry).await;
    let path = format!("/v2/app/blobs/uploads/?digest={}", sha256(b"x"));
    let busy = other.post(&path).body("x").send().await.unwrap();
    assert_ne!(header(&busy, "retry-after"), "");
    assert_eq!(code(busy, 429).await, "TOOMANYREQUESTS");
    drop(feed);
    assert_eq!(sending.await.unwrap().unwrap().status(), 202);
    assert_eq!(other.post(&path).body("x").send().await.unwrap().status(), 201);
    registry.check().await;
}

#[tokio::test]
async fn bodies_that_never_end_take_at_most_half_of_the_places() {
    let registry = Registry::with(|settings| settings.max_concurrent_uploads = Some(4)).await;
    let ci = registry.client(Role::Pusher, "**").await;
    let other = registry.client(Role::Pusher, "**").await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let session = ci.open_session("app").await;
        let (feed, body) = fed();
        let sending = tokio::spawn(ci.patch(&session).body(body).send());
        feed.send(Bytes::from_static(b"a")).await.unwrap();
        slow.push((feed, sending));
    }
    until_leases(&registry, 2).await;
    let path = format!("/v2/app/blobs/uploads/?digest={}", sha256(b"x"));
    let file = "/api/v1/artifacts?repository=app&version=1.0&filename=f";
    let busy = ci.post(&path).body("x").send().await.unwrap();
    assert_ne!(header(&busy, "retry-after"), "");
    assert_eq!(code(busy, 429).await, "TOOMANYREQUESTS");
    assert_eq!(ci.put(file).body("x").send().await.unwrap().status(), 429);
    assert_eq!(other.post(&path).body("x").send().await.unwrap().status(), 201);
    assert_eq!(other.put(file).body("x").send().await.unwrap().status(), 201);
    for (feed, sending) in slow {
        drop(feed);
        assert_eq!(sending.await.unwrap().unwrap().status(), 202);
    }
    assert_eq!(ci.post(&path).body("x").send().await.unwrap().status(), 201);
    registry.check().await;
}

#[tokio::test]
async fn a_mount_needs_the_right_to_read_its_source() {
    let registry = Registry::start().await;
    let bytes = noise(12, 90_000);
    let digest = registry.client(Role::Pusher, "a/**").await.push_blob("a/app", &bytes).await;
    let mount = |from: &str| format!("/v2/b/app/blobs/uploads/?mount={digest}{from}");

    let stranger = registry.client(Role::Pusher, "b/**").await;
    let refused = stranger.post(&mount("&from=a/app")).send().await.unwrap();
    assert_eq!(refused.status(), 202);
    let session = header(&refused, "location");
    assert_eq!(stranger.head_blob("b/app", &digest).await, 404);
    assert_eq!(stranger.delete(&session).send().await.unwrap().status(), 204);

    let both = registry.client(Role::Pusher, "**").await;
    for nothing in ["", "&from=c/app", "&from=../x"] {
        assert_eq!(both.post(&mount(nothing)).send().await.unwrap().status(), 202, "{nothing}");
    }
    let unknown = format!("/v2/b/app/blobs/uploads/?mount={}&from=a/app", sha256(b"unknown"));
    assert_eq!(both.post(&unknown).send().await.unwrap().status(), 202);
    for _ in 0..2 {
        let mounted = both.post(&mount("&from=a/app")).send().await.unwrap();
        assert_eq!(mounted.status(), 201);
        assert_eq!(header(&mounted, "location"), format!("/v2/b/app/blobs/{digest}"));
    }
    assert_eq!(both.pull_blob("b/app", &digest).await, bytes);
    registry.check().await;
}

#[tokio::test]
async fn ranges_of_a_blob_are_given_clamped_and_refused() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for length in [1_000, 1_500_000] {
        let bytes = noise(13, length);
        let digest = ci.push_blob("app", &bytes).await;
        let path = format!("/v2/app/blobs/{digest}");
        let ask = |range: &str| ci.get(&path).header("range", range).send();
        for (range, from, to) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=10-19".to_owned(), 10, 20),
            (format!("bytes={}-", length - 7), length - 7, length),
            ("bytes=-5".to_owned(), length - 5, length),
            (format!("bytes=900-{}", length * 2), 900, length),
        ] {
            let answer = ask(&range).await.unwrap();
            assert_eq!(answer.status(), 206, "{range}");
            assert_eq!(header(&answer, "content-range"), format!("bytes {from}-{}/{length}", to - 1));
            assert_eq!(answer.bytes().await.unwrap(), bytes[from..to], "{range}");
        }
        for range in [format!("bytes={length}-"), "bytes=500-0".to_owned()] {
            let answer = ask(&range).await.unwrap();
            assert_eq!(header(&answer, "content-range"), format!("bytes */{length}"));
            assert_eq!(answer.status(), 416, "{range}");
        }
        let known = ci.get(&path).header("if-none-match", format!("\"{digest}\"")).send().await.unwrap();
        assert_eq!(known.status(), 304);
    }
    registry.check().await;
}

#[tokio::test]
async fn several_ranges_of_a_blob_come_in_parts_and_each_part_is_checked() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    // One blob that lies in the database, one in an object with pieces of 4 MiB.
    for length in [1_000, 9_500_000] {
        let bytes = noise(13, length);
        let digest = ci.push_blob("app", &bytes).await;
        let path = format!("/v2/app/blobs/{digest}");
        let ask = |range: &str| ci.get(&path).header("range", range).send();
        let ranges = [0..100, 100..101, 300..400, length - 500..length - 100, length - 7..length];
        let spec: Vec<_> = ranges.iter().map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
        let answer = ask(&format!("bytes={}", spec.join(", "))).await.unwrap();
        assert_eq!(answer.status(), 206);
        let media_type = header(&answer, "content-type");
        let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let announced: usize = header(&answer, "content-length").parse().unwrap();
        let body = answer.bytes().await.unwrap();
        assert_eq!(body.len(), announced);
        let mut wanted = Vec::new();
        for range in ranges {
            let (first, last) = (range.start, range.end - 1);
            wanted.extend_from_slice(
                format!("\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n").as_bytes(),
            );
            wanted.extend_from_slice(
                format!("Content-Range: bytes {first}-{last}/{length}\r\n\r\n").as_bytes(),
            );
            wanted.extend_from_slice(&bytes[range]);
        }
        wanted.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(body == wanted, "{length}");
        let one = ask(&format!("bytes=3-4,{length}-")).await.unwrap();
        assert_eq!(header(&one, "content-range"), format!("bytes 3-4/{length}"));
        assert_eq!(one.bytes().await.unwrap(), bytes[3..5]);
    }
    registry.check().await;
}

#[tokio::test]
async fn a_repository_lets_go_of_a_blob_that_no_manifest_needs() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let admin = registry.admin();
    let (bytes, needed) = (noise(14, 5_000), b"{}");
    for repository in ["app", "other"] {
        ci.push_blob(repository, &bytes).await;
    }
    let (digest, config) = (sha256(&bytes), ci.push_blob("app", needed).await);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": needed.len()},
        "layers": [],
        "artifactType": "application/vnd.example",
    });
    let pushed = ci
        .put("/v2/app/manifests/1.0")
        .header("content-type", "application/vnd.oci.image.manifest.v1+json")
        .body(manifest.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(pushed.status(), 201, "{}", pushed.text().await.unwrap());

    let path = |digest| format!("/v2/app/blobs/{digest}");
    assert_eq!(
        ci.delete(&path(&digest)).send().await.unwrap().status(),
        401,
        "deleting is a right of its own"
    );
    let refused = expect(admin.delete(&path(&config)).send().await.unwrap(), 405).await;
    assert_eq!(refused["errors"][0]["code"], "DENIED");
    assert_eq!(
        refused["errors"][0]["detail"]["manifests"][0],
        sha256(manifest.to_string().as_bytes()).to_string()
    );
    assert_eq!(admin.delete(&path(&digest)).send().await.unwrap().status(), 202);
    assert_eq!(code(admin.delete(&path(&digest)).send().await.unwrap(), 404).await, "BLOB_UNKNOWN");
    assert_eq!(ci.head_blob("app", &digest).await, 404);
    assert_eq!(ci.pull_blob("other", &digest).await, bytes, "for that repository only");
    ci.push_blob("app", &bytes).await;
    assert_eq!(ci.head_blob("app", &digest).await, 200);
    registry.check().await;
}

#[tokio::test]
async fn a_head_protects_a_blob_and_writes_hourly_at_the_most() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let digest = ci.push_blob("app", b"protected").await;
    let until = async || -> chrono::DateTime<chrono::Utc> {
        let mut connection = registry.sql().await;
        sqlx::query_scalar("select protected_until from blob_links")
            .fetch_one(&mut *connection)
            .await
            .unwrap()
    };
    let pushed = until().await;
    assert_eq!(ci.head_blob("app", &digest).await, 200);
    assert_eq!(until().await, pushed, "protected long enough already");
    sqlx::query("update blob_links set protected_until = protected_until - interval '61 minutes'")
        .execute(&mut *registry.sql().await)
        .await
        .unwrap();
    assert_eq!(ci.head_blob("app", &digest).await, 200);
    assert!(until().await >= pushed);
    registry.check().await;
}

#[tokio::test]
async fn outside_of_a_callers_authority_nothing_tells_what_exists() {
    let registry = Registry::start().await;
    let digest = registry.client(Role::Pusher, "**").await.push_blob("secret/app", b"secret").await;
    let stranger = registry.client(Role::Pusher, "team/**").await;
    for repository in ["secret/app", "secret/none"] {
        for client in [&stranger, &registry.anyone()] {
            let answers = [
                client.get(&format!("/v2/{repository}/blobs/{digest}")).send().await.unwrap(),
                client.post(&format!("/v2/{repository}/blobs/uploads/")).send().await.unwrap(),
                client
                    .patch(&format!("/v2/{repository}/blobs/uploads/{}", uuid::Uuid::nil()))
                    .send()
                    .await
                    .unwrap(),
            ];
            for answer in answers {
                assert!(header(&answer, "www-authenticate").contains("insufficient_scope"));
                assert_eq!(code(answer, 401).await, "UNAUTHORIZED");
            }
        }
    }
    let reader = registry.client(Role::Reader, "secret/**").await;
    assert_eq!(reader.pull_blob("secret/app", &digest).await, b"secret");
    assert_eq!(reader.post("/v2/secret/app/blobs/uploads/").send().await.unwrap().status(), 401);
    registry.check().await;
}
