//! Where bytes lie: the same promises on files and on an object store.

use crate::harness::{Registry, fresh_database, header, noise, on_every_storage, sha256, sha512};
use bytes::Bytes;
use futures::TryStreamExt;
use proofmark::access::Role;
use proofmark::app::App;
use proofmark::config::{Config, Database};
use proofmark::names::{Algorithm, Digest};
use proofmark::postgres::{Db, Options};
use proofmark::storage::{FinishRefused, Found, Location, Place, Staged, Store, WriteRefused};
use proptest::prelude::*;
use std::convert::Infallible;
use std::time::Duration;
use uuid::Uuid;

on_every_storage!(
    bodies_around_every_bound_come_back_whole_and_in_parts,
    chunks_of_any_size_at_changing_replicas_make_one_blob,
    a_finish_that_was_cut_off_is_repeated,
    the_same_bytes_are_stored_once,
    what_was_given_up_leaves_no_bytes,
    the_sweep_takes_what_nobody_needs_and_nothing_else,
    the_sweep_takes_nothing_that_is_older_than_the_registry,
    a_store_is_one_registrys_and_no_other_takes_it_for_its_own,
    an_algorithm_named_late_is_checked_by_reading_again,
    the_store_says_that_it_answers,
);

const MIB: usize = 1 << 20;

async fn listed(store: &Store) -> Vec<Found> {
    store.list().try_collect().await.unwrap()
}

fn one(bytes: &[u8]) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Unpin {
    futures::stream::iter([Ok(Bytes::copy_from_slice(bytes))])
}

async fn staged(store: &Store, bytes: &[u8]) -> Staged {
    let mut staged = Staged::new(Uuid::new_v4(), Algorithm::Sha256);
    store.append(&mut staged, Uuid::new_v4(), one(bytes), u64::MAX).await.unwrap();
    staged
}

async fn read(store: &Store, location: &Location, size: u64) -> Vec<u8> {
    let chunks: Vec<Bytes> = store.read(location, 0..size).await.unwrap().try_collect().await.unwrap();
    chunks.concat()
}

async fn bodies_around_every_bound_come_back_whole_and_in_parts(registry: Registry) {
    let ci = registry.client(Role::Pusher, "**").await;
    for length in [0, 65_536, 65_537, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 6 * MIB, 13 * MIB + 7] {
        let bytes = noise(length as u64, length);
        let digest = ci.push_blob("app", &bytes).await;
        assert!(ci.pull_blob("app", &digest).await == bytes, "{length} bytes");
        if length > 100 {
            let range = format!("bytes=50-{}", length - 20);
            let part =
                ci.get(&format!("/v2/app/blobs/{digest}")).header("range", range).send().await.unwrap();
            assert!(part.bytes().await.unwrap() == bytes[50..length - 19], "a range of {length} bytes");
        }
    }
    registry.check().await;
}

async fn chunks_of_any_size_at_changing_replicas_make_one_blob(registry: Registry) {
    let replica = registry.replica().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(1, 14 * MIB + 3);
    let location = ci.open_session("app").await;
    let mut offset = 0;
    for (index, length) in [1, 40_000, 70_000, 5 * MIB, 3, 6 * MIB + 1, MIB].into_iter().enumerate() {
        let client = if index % 2 == 0 { ci.clone() } else { ci.at(&replica.url) };
        let answer = client.send_chunk(&location, offset, &bytes[offset..offset + length]).await;
        offset += length;
        assert_eq!(header(&answer, "range"), format!("0-{}", offset - 1));
    }
    let last = ci.at(&replica.url).finish_session(&location, &sha256(&bytes), bytes[offset..].to_vec()).await;
    assert_eq!(last.status(), 201, "{}", last.text().await.unwrap());
    assert!(ci.pull_blob("app", &sha256(&bytes)).await == bytes);
    let names: Vec<String> = listed(&registry.app.store).await.into_iter().map(|found| found.name).collect();
    assert_eq!(names.len(), 1, "nothing staged is left: {names:?}");
    replica.check().await;
    registry.check().await;
}

async fn a_finish_that_was_cut_off_is_repeated(registry: Registry) {
    let ci = registry.client(Role::Pusher, "**").await;
    for length in [200_000, 12 * MIB + 5] {
        let bytes = noise(length as u64, length);
        for digest in [sha256(&bytes), sha512(&bytes)] {
            let location = ci.open_session("app").await;
            let half = length / 2;
            assert_eq!(ci.send_chunk(&location, 0, &bytes[..half]).await.status(), 202);
            assert_eq!(ci.send_chunk(&location, half, &bytes[half..]).await.status(), 202);
            // As if the service had died after the bytes were in their place and before their row.
            let id: Uuid = location.rsplit('/').next().unwrap().parse().unwrap();
            let (state, tail): (serde_json::Value, Vec<u8>) =
                sqlx::query_as("select staged, tail from uploads where id = $1")
                    .bind(id)
                    .fetch_one(&mut *registry.sql().await)
                    .await
                    .unwrap();
            let cut_off = Staged::restore(id, state, tail).unwrap();
            registry.app.store.finish_as(&cut_off, &digest).await.unwrap();
            assert_eq!(ci.head_blob("app", &digest).await, 404);
            let again = ci.finish_session(&location, &digest, "").await;
            assert_eq!(again.status(), 201, "{}", again.text().await.unwrap());
            assert!(ci.pull_blob("app", &digest).await == bytes);
        }
    }
    registry.check().await;
}

async fn the_same_bytes_are_stored_once(registry: Registry) {
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(2, 6 * MIB + 1);
    let pushes = (0..6).map(|n| {
        let (ci, bytes) = (ci.clone(), bytes.clone());
        async move { ci.push_blob(&format!("app-{}", n % 3), &bytes).await }
    });
    futures::future::join_all(pushes).await;
    assert_eq!(listed(&registry.app.store).await.len(), 1);
    for n in 0..3 {
        assert!(ci.pull_blob(&format!("app-{n}"), &sha256(&bytes)).await == bytes);
    }
    registry.check().await;
}

async fn what_was_given_up_leaves_no_bytes(registry: Registry) {
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(3, 11 * MIB);
    let cancelled = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&cancelled, 0, &bytes).await.status(), 202);
    assert_eq!(ci.delete(&cancelled).send().await.unwrap().status(), 204);
    let wrong = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&wrong, 0, &bytes).await.status(), 202);
    assert_eq!(ci.finish_session(&wrong, &sha256(b"other"), "").await.status(), 400);
    let path = format!("/v2/app/blobs/uploads/?digest={}", sha256(b"other"));
    assert_eq!(ci.post(&path).body(bytes.clone()).send().await.unwrap().status(), 400);
    let store = &registry.app.store;
    let refused = store.write(one(&bytes), Algorithm::Sha256, 10 * MIB as u64, None).await;
    assert!(matches!(refused, Err(WriteRefused::TooLarge { .. })), "{refused:?}");
    let names: Vec<String> = listed(store).await.into_iter().map(|found| found.name).collect();
    assert!(names.is_empty(), "{names:?}");
    registry.check().await;
}

async fn the_sweep_takes_nothing_that_is_older_than_the_registry(registry: Registry) {
    let (db, config) = (registry.app.db.clone(), registry.app.config.clone());
    registry.client(Role::Pusher, "**").await.push_blob("app", &noise(8, 7 * MIB)).await;
    // As before a backup is loaded: the registry is a new one, beside the objects of the old.
    let bytes = noise(9, 7 * MIB);
    registry.app.store.write(one(&bytes), Algorithm::Sha256, u64::MAX, None).await.unwrap();
    registry.tamper("update registry_identity set created_at = clock_timestamp() + interval '1 hour'").await;
    let later = App::assemble(config, db).await.unwrap();
    assert_eq!(later.uploads.sweep_store(Duration::ZERO).await.unwrap(), 0);
    registry.tamper("update registry_identity set created_at = clock_timestamp() - interval '1 hour'").await;
    assert_eq!(registry.app.uploads.sweep_store(Duration::ZERO).await.unwrap(), 1);
    registry.check().await;
}

async fn a_store_is_one_registrys_and_no_other_takes_it_for_its_own(registry: Registry) {
    let with = async |change: &dyn Fn(&mut Config)| {
        let mut config = registry.app.config.clone();
        change(&mut config);
        let database = match &config.database {
            Database::Given(url) => url.clone(),
            Database::Private(_) => unreachable!("tests give a database"),
        };
        let db = Db::connect(&Options::new(database, 2, Duration::from_secs(10))).await.unwrap();
        App::assemble(config, db).await.map(|_| ()).map_err(|failure| failure.chain())
    };
    with(&|_| {}).await.unwrap();
    // The place where it is not mounted, or that a variable was forgotten for.
    let elsewhere = format!("file://{}/elsewhere", registry.directory().display());
    let refused = with(&|config| config.storage.clone_from(&elsewhere)).await.unwrap_err();
    assert!(refused.contains("is not this registry's store"), "{refused}");
    // Another registry, given this one's store.
    let other = fresh_database().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let made = crate::harness::make_keys(elsewhere.path());
    let refused = with(&|config| {
        config.database = Database::Given(other.clone());
        config.keys = Some(made.keys.clone());
        config.trust_file = Some(made.trust.clone());
    })
    .await
    .unwrap_err();
    assert!(refused.contains("another registry's store"), "{refused}");
    // A new database with the same keys: a backup is about to be loaded into it.
    let again = fresh_database().await;
    with(&|config| config.database = Database::Given(again.clone())).await.unwrap();
    registry.check().await;
}

async fn the_sweep_takes_what_nobody_needs_and_nothing_else(registry: Registry) {
    let (store, uploads) = (&registry.app.store, &registry.app.uploads);
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(4, 7 * MIB);
    let kept = ci.push_blob("app", &bytes).await;
    let open = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&open, 0, &bytes).await.status(), 202);
    // Left by services that died: an object without a row, and staged bytes that no state names.
    let orphan = store.write(one(&noise(5, 7 * MIB)), Algorithm::Sha256, u64::MAX, None).await.unwrap();
    staged(store, &noise(6, 7 * MIB)).await;
    let before = listed(store).await.len();
    assert_eq!(
        uploads.sweep_store(Duration::from_hours(1)).await.unwrap(),
        0,
        "young bytes may be needed yet"
    );
    assert_eq!(uploads.sweep_store(Duration::ZERO).await.unwrap(), 2);
    let after = listed(store).await;
    assert_eq!(after.len(), before - 2);
    let Location::Object(key) = orphan.location() else { panic!("7 MiB are not inline") };
    assert!(!after.iter().any(|found| found.name == *key));
    assert!(store.read(orphan.location(), 0..1).await.is_err());

    assert_eq!(uploads.sweep_sessions(Duration::from_hours(1)).await.unwrap(), 0, "a young session goes on");
    assert_eq!(ci.finish_session(&open, &sha512(&bytes), "").await.status(), 201);
    let expired = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&expired, 0, &bytes).await.status(), 202);
    let swept = futures::future::join_all((0..4).map(|_| uploads.sweep_sessions(Duration::ZERO))).await;
    assert_eq!(swept.into_iter().map(Result::unwrap).sum::<u64>(), 1, "one of several sweepers takes it");
    assert_eq!(ci.get(&expired).send().await.unwrap().status(), 404);
    assert!(listed(store).await.iter().all(|found| found.place == Place::Blobs));
    for digest in [&kept, &sha512(&bytes)] {
        assert!(ci.pull_blob("app", digest).await == bytes);
    }
    registry.check().await;
}

async fn an_algorithm_named_late_is_checked_by_reading_again(registry: Registry) {
    let store = &registry.app.store;
    let bytes = noise(7, 11 * MIB + 1);
    let right = staged(store, &bytes).await;
    let blob = store.finish_as(&right, &sha512(&bytes)).await.unwrap();
    assert_eq!(blob.digest(), &sha512(&bytes));
    assert!(read(store, blob.location(), blob.size_bytes()).await == bytes);
    store.discard(blob).await;
    let wrong = staged(store, &bytes).await;
    let refused = store.finish_as(&wrong, &sha512(b"other")).await;
    assert!(matches!(&refused, Err(FinishRefused::WrongDigest { actual }) if *actual == sha512(&bytes)));
    store.abandon(&wrong).await;
    let names: Vec<String> = listed(store).await.into_iter().map(|found| found.name).collect();
    assert!(names.is_empty(), "{names:?}");
    registry.check().await;
}

async fn the_store_says_that_it_answers(registry: Registry) {
    registry.app.store.check().await.unwrap();
    assert_eq!(registry.anyone().get("/readyz").send().await.unwrap().status(), 200);
    registry.check().await;
}

#[tokio::test]
async fn a_store_that_fails_leaves_the_session_where_it_was() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(8, 300_000);
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes[..100_000]).await.status(), 202);
    let directory = registry.app.config.storage.strip_prefix("file://").unwrap();
    let (staging, away) = (format!("{directory}/staging"), format!("{directory}/away"));
    std::fs::rename(&staging, &away).unwrap();
    let failed = ci.send_chunk(&location, 100_000, &bytes[100_000..]).await;
    assert_eq!(failed.status(), 500);
    let shown = failed.text().await.unwrap();
    assert!(shown.contains("internal error") && !shown.contains(directory), "{shown}");
    assert_eq!(registry.anyone().get("/readyz").send().await.unwrap().status(), 503);
    std::fs::rename(&away, &staging).unwrap();
    assert_eq!(ci.send_chunk(&location, 100_000, &bytes[100_000..]).await.status(), 202);
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 201);
    assert_eq!(ci.pull_blob("app", &sha256(&bytes)).await, bytes);
    registry.check().await;
}

#[tokio::test]
async fn a_storage_url_that_cannot_be_used_is_told_what_could() {
    for (url, expected) in [
        ("nothing", "file:///directory"),
        ("ftp://host/x", "s3://bucket/prefix"),
        ("file://relative", "whole path"),
        ("s3://", "s3://bucket/prefix"),
    ] {
        let failure = Store::open(url).await.unwrap_err();
        assert!(failure.chain().contains(expected), "{url}: {}", failure.chain());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However a body is cut into requests and frames, and whichever replica takes the next one.
    #[test]
    fn any_chunking_gives_the_same_digest(
        seed: u64,
        requests in prop::collection::vec(prop::collection::vec(0..90_000usize, 0..6), 1..6),
        long: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let length = requests.iter().flatten().sum();
        let bytes = noise(seed, length);
        let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let (digest, stored) = runtime.block_on(async {
            let store = Store::open(&format!("file://{}", directory.path().display())).await.unwrap();
            let mut state = Staged::new(Uuid::new_v4(), algorithm);
            let mut rest = &bytes[..];
            for frames in &requests {
                let frames: Vec<Result<Bytes, Infallible>> = frames.iter().map(|length| {
                    let (frame, after) = rest.split_at(*length);
                    rest = after;
                    Ok(Bytes::copy_from_slice(frame))
                }).collect();
                let body = futures::stream::iter(frames);
                store.append(&mut state, Uuid::new_v4(), body, u64::MAX).await.unwrap();
                let (document, tail) = state.save().unwrap();
                state = Staged::restore(state.upload(), document, tail.to_vec()).unwrap();
            }
            let blob = store.finish(&state).await.unwrap();
            (blob.digest().clone(), read(&store, blob.location(), blob.size_bytes()).await)
        });
        prop_assert_eq!(digest, Digest::of(algorithm, &bytes));
        prop_assert!(stored == bytes);
    }
}
