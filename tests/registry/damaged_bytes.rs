//! The object store is not believed: wrong bytes never come as a whole answer, and are seen.

use crate::harness::{Client, Registry, eventually, header, noise};
use futures::TryStreamExt;
use proofmark::access::Role;
use proofmark::content;
use proofmark::failure::Failure;
use proofmark::jobs::Due;
use proofmark::names::Digest;
use proofmark::storage::PIECE_BYTES;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The file that holds a blob.
async fn file(registry: &Registry, digest: &Digest) -> PathBuf {
    let key: String = sqlx::query_scalar("select object_key from blobs where digest = $1")
        .bind(digest.as_str())
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap();
    registry.directory().join("objects").join(key)
}

/// Changes one bit of a file.
fn flip(path: &PathBuf, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// What a reader gets: the status, and the bytes where the answer is whole and no error.
async fn read(client: &Client, path: &str, range: Option<&str>) -> (u16, Option<Vec<u8>>) {
    let request = client.get(path);
    let request = match range {
        Some(range) => request.header("range", format!("bytes={range}")),
        None => request,
    };
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let bytes = answer.bytes().await.ok().filter(|_| !status.is_server_error());
    (status.as_u16(), bytes.map(|bytes| bytes.to_vec()))
}

async fn codes(registry: &Registry) -> Vec<String> {
    let document = registry.anyone().document("/readyz").await;
    let reasons = document["reasons"].as_array().unwrap();
    let codes = reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned());
    codes.filter(|code| code == "damaged-blobs").collect()
}

#[tokio::test]
async fn an_object_store_that_changes_a_bit_never_makes_a_whole_answer_of_it() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    // Wrong at the beginning, in the middle and in the very last byte: nothing of the last piece may be out by then.
    for (seed, length, offset) in
        [(1, 300_000, 0), (2, 300_000, 299_999), (3, 9_000_000, 4_500_000), (4, 70_000, 69_999)]
    {
        let bytes = noise(seed, length);
        let digest = ci.push_blob("store/x", &bytes).await;
        let path = format!("/v2/store/x/blobs/{digest}");
        assert_eq!(read(&ci, &path, None).await, (200, Some(bytes.clone())));
        flip(&file(&registry, &digest).await, offset);
        let (status, got) = read(&ci, &path, None).await;
        // Of a large blob the first bytes are out by then, so the connection breaks off.
        let expected = if length > 4 << 20 { 200 } else { 500 };
        assert_eq!((status, got), (expected, None), "{length} bytes, wrong at {offset}");
        eventually("it is marked", async || ci.head_blob("store/x", &digest).await == 404).await;
        assert_eq!(codes(&registry).await, ["damaged-blobs"]);
        // Who has the right bytes sets it right.
        assert_eq!(ci.push_blob("store/x", &bytes).await, digest);
        assert_eq!(read(&ci, &path, None).await, (200, Some(bytes)));
        assert!(codes(&registry).await.is_empty());
    }
    let metrics = registry.anyone().get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("proofmark_damaged_reads_total"), "{metrics}");
    registry.check().await;
}

#[tokio::test]
async fn a_file_of_an_artifact_is_checked_too() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(5, 300_000);
    let put = ci.put("/api/v1/artifacts?repository=store/x&version=v1&filename=f.bin");
    let put =
        put.header("content-type", "application/octet-stream").body(bytes.clone()).send().await.unwrap();
    let manifest = crate::harness::expect(put, 201).await["digest"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/artifacts/{manifest}/content?repository=store/x");
    assert_eq!(read(&ci, &path, None).await, (200, Some(bytes.clone())));
    flip(&file(&registry, &Digest::sha256(&bytes)).await, 1000);
    assert_eq!(read(&ci, &path, None).await, (500, None));
    eventually("it is marked", async || read(&ci, &path, None).await.0 == 404).await;
    ci.push_blob("store/x", &bytes).await;
    assert_eq!(read(&ci, &path, Some("999-1001")).await, (206, Some(bytes[999..1002].to_vec())));
    registry.check().await;
}

#[tokio::test]
async fn a_range_is_checked_by_the_pieces_that_it_touches() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let piece = usize::try_from(PIECE_BYTES).unwrap();
    let bytes = noise(6, 2 * piece + 1000);
    let digest = ci.push_blob("store/x", &bytes).await;
    let path = format!("/v2/store/x/blobs/{digest}");
    let last = bytes.len() - 1;
    for (from, to) in [
        (0, 0),
        (0, last),
        (piece - 1, piece),
        (piece, piece),
        (piece, 2 * piece - 1),
        (2 * piece - 1, last),
        (last, last),
        (10, 20),
    ] {
        let (status, got) = read(&ci, &path, Some(&format!("{from}-{to}"))).await;
        assert_eq!((status, got.as_deref()), (206, Some(&bytes[from..=to])), "{from}-{to}");
    }
    flip(&file(&registry, &digest).await, piece + 5);
    // What is right goes out, what is wrong does not, and neither do right bytes beside wrong ones.
    assert_eq!(read(&ci, &path, Some("0-9")).await.1.as_deref(), Some(&bytes[..10]));
    assert_eq!(ci.head_blob("store/x", &digest).await, 200, "nobody has read what is wrong");
    let (beside, wrong) = (format!("0-9,{}-", 2 * piece), format!("0-9,{}-{}", piece + 100, piece + 200));
    assert!(read(&ci, &path, Some(&beside)).await.1.is_some_and(|body| body.ends_with(b"--\r\n")));
    assert_eq!(ci.head_blob("store/x", &digest).await, 200, "nobody has read what is wrong");
    assert_eq!(read(&ci, &path, Some(&wrong)).await, (206, None), "the answer breaks off");
    eventually("it is marked", async || ci.head_blob("store/x", &digest).await == 404).await;
    ci.push_blob("store/x", &bytes).await;
    registry.check().await;
}

#[tokio::test]
async fn a_range_of_a_blob_that_moves_after_it_was_found_is_checked_where_it_lies_now() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(11, 300_000);
    let digest = ci.push_blob("store/x", &bytes).await;
    let app = &registry.app;
    let mut connection = app.db.acquire().await.unwrap();
    let name = "store/x".parse().unwrap();
    let repository = content::repository(&mut connection, &name).await.unwrap().unwrap();
    let blob = content::blobs::find(&mut connection, repository.id, &digest).await.unwrap().unwrap();
    drop(connection);
    // Its bytes are damaged, and somebody pushes it again.
    let damaged = file(&registry, &digest).await;
    let moved = damaged.with_file_name("moved");
    fs::copy(&damaged, &moved).unwrap();
    flip(&damaged, 1000);
    registry
        .tamper(
            "update blobs set object_key = regexp_replace(object_key, '[^/]+$', 'moved')
             where object_key is not null",
        )
        .await;
    let range = async || {
        let stream = blob.read_range(&app.db, &app.store, 999..1002, |_| ()).await?;
        let chunks: Vec<_> = stream.try_collect().await.expect("the bytes are right");
        Ok::<_, Failure>(chunks.concat())
    };
    assert_eq!(range().await.unwrap(), bytes[999..1002]);
    // What has no pieces any more is not read unchecked.
    registry.tamper("update blobs set pieces = null where object_key is not null").await;
    range().await.unwrap_err();
    fs::remove_file(&damaged).unwrap();
    registry.check().await;
}

#[tokio::test]
async fn a_truncated_object_breaks_the_answer_off_and_is_marked() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(7, 300_000);
    let digest = ci.push_blob("store/x", &bytes).await;
    let path = format!("/v2/store/x/blobs/{digest}");
    let file = file(&registry, &digest).await;
    let cut = |length| std::fs::File::options().write(true).open(&file).unwrap().set_len(length).unwrap();
    cut(299_999);
    assert_eq!(read(&ci, &path, None).await.1, None);
    eventually("it is marked", async || ci.head_blob("store/x", &digest).await == 404).await;
    ci.push_blob("store/x", &bytes).await;
    // fsck looks at the size of what waits to be deleted too.
    cut(300_000);
    registry.check().await;
}

/// Reads all damaged blobs again: how many are given out again, are damaged still, and cannot be read.
async fn restored(registry: &Registry) -> (u64, u64, u64) {
    let run = registry.app.restore_blobs(Due::Now, &CancellationToken::new()).await.unwrap().unwrap();
    (run.restored, run.damaged, run.unread)
}

#[tokio::test]
async fn blobs_that_stay_damaged_or_cannot_be_read_keep_no_other_from_being_restored() {
    let mut registry = Registry::with(|settings| settings.background_percent = Some(100)).await;
    registry.stop_jobs().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let mut files = Vec::new();
    for seed in 20..32 {
        let digest = ci.push_blob("store/x", &noise(seed, 70_000)).await;
        files.push((file(&registry, &digest).await, digest));
    }
    registry.tamper("update blobs set damaged_at = clock_timestamp() where object_key is not null").await;
    files.sort_by(|(_, one), (_, other)| one.cmp(other));
    let ((unreadable, _), others) = files.split_first().unwrap();
    let ((_, whole), damaged) = others.split_last().unwrap();
    let aside = unreadable.with_file_name("aside");
    fs::rename(unreadable, &aside).unwrap();
    fs::create_dir(unreadable).unwrap();
    for (path, _) in damaged {
        flip(path, 7);
    }
    assert_eq!(restored(&registry).await, (1, 10, 1));
    assert_eq!(ci.head_blob("store/x", whole).await, 200);
    // No other replica reads them meanwhile, or again before it is due.
    let other = registry.replica().await;
    let due = Due::Every(Duration::from_hours(1));
    let run = other.app.restore_blobs(due, &CancellationToken::new()).await.unwrap();
    assert!(run.is_none(), "{run:?}");
    fs::remove_dir(unreadable).unwrap();
    fs::rename(&aside, unreadable).unwrap();
    for (path, _) in damaged {
        flip(path, 7);
    }
    assert_eq!(restored(&registry).await, (11, 0, 0));
    registry.check().await;
}

#[tokio::test]
async fn a_damaged_blob_whose_bytes_the_operator_restored_is_given_out_again() {
    let mut registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(10, 300_000);
    let digest = ci.push_blob("store/x", &bytes).await;
    let path = format!("/v2/store/x/blobs/{digest}");
    let file = file(&registry, &digest).await;
    flip(&file, 7);
    assert_eq!(read(&ci, &path, None).await.1, None);
    eventually("it is marked", async || ci.head_blob("store/x", &digest).await == 404).await;
    registry.stop_jobs().await;
    assert_eq!(restored(&registry).await, (0, 1, 0), "it is still wrong");
    flip(&file, 7);
    assert_eq!(restored(&registry).await, (1, 0, 0));
    assert_eq!(read(&ci, &path, None).await, (200, Some(bytes)));
    assert!(codes(&registry).await.is_empty());
    registry.check().await;
}

#[tokio::test]
async fn a_blob_of_an_earlier_version_gets_its_pieces_when_it_is_read_whole() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(8, 5_000_000);
    let digest = ci.push_blob("store/x", &bytes).await;
    let path = format!("/v2/store/x/blobs/{digest}");
    let pieces = async || {
        let pieces: Option<Vec<u8>> =
            sqlx::query_scalar("select pieces from blobs where object_key is not null")
                .fetch_one(&mut *registry.sql().await)
                .await
                .unwrap();
        pieces
    };
    let written = pieces().await.unwrap();
    assert_eq!(written.len(), 64);
    registry.tamper("update blobs set pieces = null where object_key is not null").await;
    assert_eq!(read(&ci, &path, Some("5-9")).await, (206, Some(bytes[5..10].to_vec())));
    assert_eq!(pieces().await, None);
    assert_eq!(read(&ci, &path, None).await, (200, Some(bytes)));
    eventually("the pieces are kept", async || pieces().await.as_ref() == Some(&written)).await;
    // fsck compares them.
    registry.tamper("update blobs set pieces = set_byte(pieces, 40, 0) where object_key is not null").await;
    let report = proofmark::audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
    let named = report
        .violations
        .iter()
        .any(|violation| violation.what.contains(&format!("the pieces of blob {digest}")));
    assert!(named, "{:#?}", report.violations);
    registry.tamper("update blobs set pieces = null where object_key is not null").await;
    registry.check().await;
}

#[tokio::test]
async fn pieces_are_the_same_however_an_upload_was_cut() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(9, 9_000_001);
    let location = ci.open_session("store/x").await;
    let mut location = location;
    let mut offset = 0;
    for cut in [10, 70_000, 4 << 20, (4 << 20) + 1, 9_000_000] {
        let answer = ci.send_chunk(&location, offset, &bytes[offset..cut]).await;
        assert_eq!(answer.status(), 202);
        location = header(&answer, "location");
        offset = cut;
    }
    let digest = Digest::sha256(&bytes);
    let done = ci.finish_session(&location, &digest, bytes[offset..].to_vec()).await;
    assert_eq!(done.status(), 201);
    let path = format!("/v2/store/x/blobs/{digest}");
    let (from, to) = (4_194_000, 8_400_000);
    let (status, got) = read(&ci, &path, Some(&format!("{from}-{to}"))).await;
    assert_eq!((status, got.as_deref()), (206, Some(&bytes[from..=to])));
    // fsck holds them against the bytes.
    registry.check().await;
}
