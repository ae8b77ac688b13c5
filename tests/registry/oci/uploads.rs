//! Pushing a blob in a session: end-4a, end-4c, end-5, end-6, end-13, end-14.

use super::{code, refused, send};
use crate::harness::{Client, Registry, header, noise, sha256, sha512};
use proofmark::access::Role;
use reqwest::Body;
use uuid::Uuid;

async fn pusher() -> (Registry, Client) {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    (registry, ci)
}

fn nobodys() -> String {
    format!("/v2/app/blobs/uploads/{}", Uuid::new_v4())
}

#[tokio::test]
async fn end_4a_a_post_opens_a_session() {
    let (registry, ci) = pusher().await;
    for path in ["/v2/app/blobs/uploads/", "/v2/app/blobs/uploads"] {
        let opened = send(ci.post(path)).await;
        assert_eq!(opened.status(), 202);
        assert_eq!(header(&opened, "range"), "0-0");
        assert_eq!(header(&opened, "content-length"), "0");
        let location = header(&opened, "location");
        let session: Uuid = location.rsplit('/').next().unwrap().parse().unwrap();
        assert_eq!(header(&opened, "docker-upload-uuid"), session.to_string());
    }
    assert_eq!(refused(ci.post("/v2/-app/blobs/uploads/")).await, code(400, "NAME_INVALID"));
    registry.check().await;
}

#[tokio::test]
async fn end_4c_a_session_is_told_its_algorithm() {
    let (registry, ci) = pusher().await;
    let bytes = noise(1, 100_000);
    for (algorithm, digest) in [("sha256", sha256(&bytes)), ("sha512", sha512(&bytes))] {
        let opened = send(ci.post(&format!("/v2/app/blobs/uploads/?digest-algorithm={algorithm}"))).await;
        assert_eq!(opened.status(), 202);
        let location = header(&opened, "location");
        assert_eq!(ci.send_chunk(&location, 0, &bytes).await.status(), 202);
        let finished = ci.finish_session(&location, &digest, "").await;
        assert_eq!(finished.status(), 201);
        assert_eq!(header(&finished, "docker-content-digest"), digest.to_string());
        assert_eq!(ci.pull_blob("app", &digest).await, bytes);
    }
    let unknown = ci.post("/v2/app/blobs/uploads/?digest-algorithm=blake3");
    assert_eq!(refused(unknown).await, code(400, "UNSUPPORTED"));
    registry.check().await;
}

#[tokio::test]
async fn end_5_chunks_come_in_order_and_each_answer_says_how_far() {
    let (registry, ci) = pusher().await;
    let bytes = noise(2, 250_000);
    let mut location = ci.open_session("app").await;
    for (from, to) in [(0, 1), (1, 100_000), (100_000, 250_000)] {
        let answer = ci.send_chunk(&location, from, &bytes[from..to]).await;
        assert_eq!(answer.status(), 202);
        assert_eq!(header(&answer, "range"), format!("0-{}", to - 1));
        location = header(&answer, "location");
    }
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 201);
    assert_eq!(ci.pull_blob("app", &sha256(&bytes)).await, bytes);
    registry.check().await;
}

#[tokio::test]
async fn end_5_a_stream_needs_neither_a_range_nor_a_length() {
    let (registry, ci) = pusher().await;
    let bytes = noise(3, 250_000);
    let location = ci.open_session("app").await;
    for part in bytes.chunks(125_000) {
        let frames: Vec<_> = part.chunks(10_000).map(|f| Ok::<_, std::io::Error>(f.to_vec())).collect();
        let body = Body::wrap_stream(futures::stream::iter(frames));
        assert_eq!(send(ci.patch(&location).body(body)).await.status(), 202);
    }
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 201);
    registry.check().await;
}

#[tokio::test]
async fn end_5_a_chunk_elsewhere_is_416_and_the_session_survives_it() {
    let (registry, ci) = pusher().await;
    let bytes = noise(4, 30_000);
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes[..10_000]).await.status(), 202);
    // Behind a gap, overlapping, and the same one again.
    for (from, to) in [(10_001, 20_000), (5_000, 15_000), (0, 10_000), (20_000, 30_000)] {
        let answer = ci.send_chunk(&location, from, &bytes[from..to]).await;
        assert_eq!(answer.status(), 416);
        assert_eq!(header(&answer, "range"), "0-9999", "it says where to go on");
        assert_eq!(header(&answer, "location"), location);
    }
    assert_eq!(ci.send_chunk(&location, 10_000, &bytes[10_000..]).await.status(), 202);
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 201);
    assert_eq!(refused(ci.patch(&nobodys()).body("x")).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    registry.check().await;
}

#[tokio::test]
async fn end_6_a_put_ends_a_session_with_nothing_with_the_last_chunk_or_with_everything() {
    let (registry, ci) = pusher().await;
    let bytes = noise(5, 40_000);
    for before in [40_000, 15_000, 0] {
        let location = ci.open_session("app").await;
        if before > 0 {
            assert_eq!(ci.send_chunk(&location, 0, &bytes[..before]).await.status(), 202);
        }
        let digest = if before == 0 { sha512(&bytes) } else { sha256(&bytes) };
        let path = format!("{location}?digest={digest}");
        let last = ci.put(&path).header("content-type", "application/octet-stream");
        let finished = send(last.body(bytes[before..].to_vec())).await;
        assert_eq!(finished.status(), 201, "the algorithm may be known only now");
        let blob = send(ci.get(&header(&finished, "location"))).await;
        assert_eq!(blob.bytes().await.unwrap(), bytes);
    }
    registry.check().await;
}

#[tokio::test]
async fn end_6_a_put_that_cannot_end_a_session_says_why() {
    let (registry, ci) = pusher().await;
    let (bytes, digest) = (noise(6, 20_000), sha256(&noise(6, 20_000)));
    let open = async || {
        let location = ci.open_session("app").await;
        assert_eq!(ci.send_chunk(&location, 0, &bytes[..10_000]).await.status(), 202);
        location
    };
    let location = open().await;
    let path = format!("{location}?digest={digest}");
    let elsewhere = ci.put(&path).header("content-range", "5000-14999").body(bytes[5_000..15_000].to_vec());
    assert_eq!(refused(elsewhere).await, code(416, "BLOB_UPLOAD_INVALID"));
    assert_eq!(refused(ci.put(&location)).await, code(400, "DIGEST_INVALID"), "a digest is needed");
    assert_eq!(refused(ci.put(&format!("{location}?digest=sha256:1"))).await, code(400, "DIGEST_INVALID"));
    let last = ci.put(&path).header("content-range", "10000-19999").body(bytes[10_000..].to_vec());
    assert_eq!(send(last).await.status(), 201, "none of it ended the session");

    let wrong = format!("{}?digest={}", open().await, sha256(b"other"));
    assert_eq!(refused(ci.put(&wrong)).await, code(400, "DIGEST_INVALID"));
    let absent = sha256(b"absent");
    assert_eq!(
        refused(ci.put(&format!("{}?digest={absent}", nobodys()))).await,
        code(404, "BLOB_UPLOAD_UNKNOWN")
    );
    registry.check().await;
}

#[tokio::test]
async fn end_13_a_session_says_how_far_it_has_come() {
    let (registry, ci) = pusher().await;
    let location = ci.open_session("app").await;
    for (taken, range) in [(0, "0-0"), (7, "0-6")] {
        if taken > 0 {
            ci.send_chunk(&location, 0, &vec![1; taken]).await;
        }
        let status = send(ci.get(&location)).await;
        assert_eq!((status.status().as_u16(), header(&status, "range")), (204, range.to_owned()));
        assert_eq!(header(&status, "location"), location);
    }
    assert_eq!(refused(ci.get(&nobodys())).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    assert_eq!(refused(ci.get("/v2/app/blobs/uploads/not-a-uuid")).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    let of_other = location.replace("/v2/app/", "/v2/other/");
    assert_eq!(refused(ci.get(&of_other)).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    registry.check().await;
}

#[tokio::test]
async fn end_14_a_session_that_is_cancelled_is_gone() {
    let (registry, ci) = pusher().await;
    let bytes = noise(7, 90_000);
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes).await.status(), 202);
    assert_eq!(send(ci.delete(&location)).await.status(), 204);
    let unknown = code(404, "BLOB_UPLOAD_UNKNOWN");
    let finish = format!("{location}?digest={}", sha256(&bytes));
    for request in [ci.get(&location), ci.patch(&location).body("x"), ci.put(&finish), ci.delete(&location)] {
        assert_eq!(refused(request).await, unknown);
    }
    assert_eq!(ci.head_blob("app", &sha256(&bytes)).await, 404);
    assert_eq!(registry.app.uploads.sweep_store(std::time::Duration::ZERO).await.unwrap(), 0);
    registry.check().await;
}
