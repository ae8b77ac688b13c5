//! Pushing, mounting and deleting a blob in one request: end-4b, end-10, end-11; and its ranges.

use super::{code, refused, send};
use crate::harness::oci::{Document, IMAGE, descriptor};
use crate::harness::{Registry, header, noise, sha256, sha512};
use proofmark::access::Role;
use serde_json::json;

#[tokio::test]
async fn end_4b_a_post_with_a_digest_takes_the_whole_blob() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for length in [0, 1, 100_000] {
        let bytes = noise(1, length);
        for digest in [sha256(&bytes), sha512(&bytes)] {
            let path = format!("/v2/app/blobs/uploads/?digest={digest}");
            let pushed = send(ci.post(&path).body(bytes.clone())).await;
            assert_eq!(pushed.status(), 201);
            assert_eq!(header(&pushed, "docker-content-digest"), digest.to_string());
            let location = header(&pushed, "location");
            assert_eq!(send(ci.get(&location)).await.bytes().await.unwrap(), bytes);
            assert_eq!(send(ci.post(&path).body(bytes.clone())).await.status(), 201, "again is no mistake");
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn end_4b_bytes_of_another_digest_are_refused() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(2, 100_000);
    for digest in
        [sha256(b"other").to_string(), sha512(b"other").to_string(), "sha256:zz".into(), "no".into()]
    {
        let request = ci.post(&format!("/v2/app/blobs/uploads/?digest={digest}")).body(bytes.clone());
        assert_eq!(refused(request).await, code(400, "DIGEST_INVALID"), "{digest}");
    }
    assert_eq!(ci.head_blob("app", &sha256(&bytes)).await, 404);
    registry.check().await;
}

#[tokio::test]
async fn end_2_a_range_is_given_clamped_or_416() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for length in [1_000, 200_000] {
        let bytes = noise(3, length);
        let path = format!("/v2/app/blobs/{}", ci.push_blob("app", &bytes).await);
        for (range, from, to) in [
            ("bytes=0-499", 0, 500),
            ("bytes=500-", 500, length),
            ("bytes=-1", length - 1, length),
            ("bytes=900-999999999", 900, length),
        ] {
            let part = send(ci.get(&path).header("range", range)).await;
            assert_eq!(part.status(), 206, "{range}");
            assert_eq!(header(&part, "content-range"), format!("bytes {from}-{}/{length}", to - 1));
            assert_eq!(part.bytes().await.unwrap(), bytes[from..to]);
        }
        for range in ["bytes=500-0".to_owned(), format!("bytes={length}-"), "bytes=-0".to_owned()] {
            let request = ci.get(&path).header("range", &range);
            assert_eq!(refused(request).await, code(416, "SIZE_INVALID"), "{range}");
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn end_10_a_deleted_blob_is_gone_for_the_next_request_and_for_that_repository_only() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let digest = ci.push_blob("app", b"bytes").await;
    ci.push_blob("other", b"bytes").await;
    let path = format!("/v2/app/blobs/{digest}");
    assert_eq!(refused(ci.delete(&path)).await, code(401, "UNAUTHORIZED"), "a right of its own");
    assert_eq!(send(admin.delete(&path)).await.status(), 202);
    assert_eq!(ci.head_blob("app", &digest).await, 404);
    assert_eq!(refused(ci.get(&path)).await, code(404, "BLOB_UNKNOWN"));
    assert_eq!(refused(admin.delete(&path)).await, code(404, "BLOB_UNKNOWN"));
    assert_eq!(ci.pull_blob("other", &digest).await, b"bytes");

    ci.push_blob("app", b"{}").await;
    let used = ci.push_blob("app", b"used").await;
    let image = Document::new(&json!({"schemaVersion": 2, "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", b"used")]}));
    ci.pushes("app", "1.0", &image).await;
    assert_eq!(refused(admin.delete(&format!("/v2/app/blobs/{used}"))).await, code(405, "DENIED"));
    registry.check().await;
}

#[tokio::test]
async fn end_11_a_mount_is_201_only_where_the_caller_may_read_the_source() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let narrow = registry.client(Role::Pusher, "mine/**").await;
    let bytes = noise(4, 90_000);
    let digest = ci.push_blob("theirs/app", &bytes).await;
    let mount = format!("/v2/mine/app/blobs/uploads/?mount={digest}");

    let session = send(narrow.post(&format!("{mount}&from=theirs/app"))).await;
    assert_eq!(session.status(), 202, "as if the blob were not there");
    assert_eq!(ci.head_blob("mine/app", &digest).await, 404);
    // Some clients cancel the session, others go on with it.
    let location = header(&session, "location");
    assert_eq!(narrow.finish_session(&location, &sha256(b"own"), "own").await.status(), 201);
    for without in [mount.clone(), format!("{mount}&from=none/app"), format!("{mount}&from=-bad-")] {
        let session = send(ci.post(&without)).await;
        assert_eq!(session.status(), 202, "{without}");
        assert_eq!(send(ci.delete(&header(&session, "location"))).await.status(), 204);
    }
    let mounted = send(ci.post(&format!("{mount}&from=theirs/app"))).await;
    assert_eq!(mounted.status(), 201);
    assert_eq!(header(&mounted, "docker-content-digest"), digest.to_string());
    let blob = send(narrow.get(&header(&mounted, "location"))).await;
    assert_eq!(blob.bytes().await.unwrap(), bytes);
    let malformed = ci.post("/v2/mine/app/blobs/uploads/?mount=sha256:1&from=theirs/app");
    assert_eq!(refused(malformed).await, code(400, "DIGEST_INVALID"));
    registry.check().await;
}
