//! Whenever the service is killed while it collects, what is needed is there and all garbage goes.

use crate::crashing::{Acknowledged, Pusher, everything_is_there, receive};
use crate::harness::{Service, noise, sha256};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use proofmark::access::Role;
use proofmark::names::Digest;
use proofmark::postgres::Db;
use proofmark::storage::Found;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

/// Contents in rows and as objects that nobody needs, and how many of them somebody comes back to.
const ROWS: u64 = 2_000;
const OBJECTS: u64 = 250;
const CONTESTED: u64 = 60;
const PUSHERS: u64 = 12;
const REPOSITORY: &str = "crash/r0";

/// A service that collects only when it is asked, and rests between the batches for as long as it takes
/// to be killed there as well as in the middle of them.
async fn start(home: &Path) -> Service {
    let mut command = Command::new("env");
    command.args([
        "PROOFMARK_COLLECTION_SECONDS=0",
        "PROOFMARK_OBJECT_DELAY_SECONDS=0",
        "PROOFMARK_BACKGROUND_PERCENT=30",
        env!("CARGO_BIN_EXE_proofmark"),
    ]);
    Service::start_with(command, home).await
}

/// A content of a round: every fifth is an object's, the others lie in rows.
fn content(round: u64, number: u64) -> Vec<u8> {
    noise(round << 50 | number | 1 << 45, if number.is_multiple_of(5) { 66_000 } else { 40 })
}

/// What a round leaves behind for the collection: contents that nobody asks for any more, and those that
/// somebody comes back to in the middle of it.
struct Garbage {
    dead: BTreeSet<Digest>,
    contested: Vec<Vec<u8>>,
}

/// Pushes releases that stay, and garbage of all kinds; then every grace is over.
async fn leave(pusher: &Pusher, db: &Db, round: u64) -> Garbage {
    for release in 0..8 {
        assert!(pusher.push(round << 50 | release | 1 << 46).await.is_ok());
    }
    let client = &pusher.client;
    let digests: Vec<Digest> = stream::iter(0..OBJECTS + CONTESTED)
        .map(|number| async move {
            let number = if number < OBJECTS { number * 5 } else { number };
            client.push_blob(REPOSITORY, &content(round, number)).await
        })
        .buffered(16)
        .collect()
        .await;
    let (objects, contested) = digests.split_at(usize::try_from(OBJECTS).unwrap());
    let contested: Vec<Vec<u8>> =
        contested.iter().zip(OBJECTS..).map(|(_, number)| content(round, number)).collect();
    let mut connection = db.acquire().await.unwrap();
    let rows: Vec<String> = sqlx::query_scalar(
        "with made as (select ('row ' || $1::int8 || ' ' || n)::bytea as bytes from generate_series(1, $2::int8) n),
           b as (insert into blobs(digest, size_bytes, bytes)
                 select 'sha256:' || encode(sha256(bytes), 'hex'), length(bytes), bytes from made returning digest)
         insert into blob_links(repository_id, digest, protected_until)
         select r.id, b.digest, clock_timestamp() from b, repositories r where r.name = $3 returning digest",
    )
    .bind(i64::try_from(round).unwrap())
    .bind(i64::try_from(ROWS).unwrap())
    .bind(REPOSITORY)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    sqlx::query("update blob_links set protected_until = clock_timestamp() - interval '1 second'")
        .execute(&mut *connection)
        .await
        .unwrap();
    let mut dead: BTreeSet<Digest> = rows.iter().map(|digest| digest.parse().unwrap()).collect();
    dead.extend(objects.iter().cloned());
    for bytes in &contested {
        dead.remove(&sha256(bytes));
    }
    Garbage { dead, contested }
}

/// Waits until a collection is in the middle of this phase.
async fn until_in(db: &Db, phase: &str) {
    let mut connection = db.acquire().await.unwrap();
    let asking = async {
        loop {
            let now: Option<Option<String>> = sqlx::query_scalar(
                "select state -> 'next' ->> 'phase' from job_leases where name = 'collection' and holder is not null",
            )
            .fetch_optional(&mut *connection)
            .await
            .unwrap();
            if now.flatten().as_deref() == Some(phase) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), asking).await.expect("the collection comes to that phase");
}

/// The run that was cut off goes on and comes to its end, and then another; what the death of a replica
/// waits a minute for is over at once.
async fn collect_to_the_end(service: &Service, db: &Db) {
    let mut connection = db.acquire().await.unwrap();
    let cut_off: bool =
        sqlx::query_scalar("select state is not null from job_leases where name = 'collection'")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    assert!(cut_off, "the service was killed in the middle of a collection");
    sqlx::query("update job_leases set lease_until = clock_timestamp() where holder is not null")
        .execute(&mut *connection)
        .await
        .unwrap();
    for _ in 0..2 {
        let asked = service.admin().post_document("/api/v1/collections", &json!({}), 202).await;
        let asked: DateTime<Utc> = asked["wanted_at"].as_str().unwrap().parse().unwrap();
        let ended = async {
            let since = "select coalesce(finished_at > $1, false) from job_leases where name = 'collection'";
            while !sqlx::query_scalar::<_, bool>(since).bind(asked).fetch_one(&mut *connection).await.unwrap()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(3), ended).await.expect("the collection comes to its end");
    }
}

/// Neither a row nor an object is left of what nobody asked for.
async fn nothing_is_left(service: &Service, db: &Db, dead: &BTreeSet<Digest>) {
    let rows: Vec<String> = sqlx::query_scalar("select digest from blobs")
        .fetch_all(&mut *db.acquire().await.unwrap())
        .await
        .unwrap();
    let left: Vec<&String> = rows.iter().filter(|digest| dead.contains(&digest.parse().unwrap())).collect();
    assert!(left.is_empty(), "{left:?}");
    let dead: BTreeSet<&str> = dead.iter().map(Digest::hex).collect();
    let objects: Vec<Found> = service.store().await.list().try_collect().await.unwrap();
    let is_dead = |found: &Found| {
        let file = found.name.rsplit('/').next().unwrap();
        dead.contains(&file[..file.len().min(64)])
    };
    let left: Vec<&Found> = objects.iter().filter(|found| is_dead(found)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_service_is_killed_amid_a_collection_what_is_needed_stays_and_all_garbage_goes() {
    let home = tempfile::tempdir().unwrap();
    let mut service = start(home.path()).await;
    let mut kept = Vec::new();
    for (round, phase) in (1..).zip(["links", "blobs", "objects"]) {
        let client = service.client(Role::Pusher).await;
        let (done, mut told) = unbounded_channel();
        let pushing = client.clone();
        let pusher = move |number: u64| {
            let repository = format!("crash/r{}", number % 3);
            Pusher { client: pushing.clone(), repository, number, done: done.clone() }
        };
        let db = service.db().await;
        let garbage = leave(&pusher(0), &db, round).await;
        let mut pushers = JoinSet::new();
        for number in 1..=PUSHERS {
            pushers.spawn(pusher(number).run(round));
        }
        let returning = pusher(0);
        pushers.spawn(async move {
            for (nth, bytes) in garbage.contested.iter().enumerate() {
                let digest = sha256(bytes);
                // A push, or only a look: each protects what it found or brought.
                if nth % 2 == 0 {
                    if returning.blob(bytes).await.is_err() {
                        return;
                    }
                } else {
                    let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
                    let Ok(answer) = returning.client.head(&path).send().await else { return };
                    if answer.status() == 200 {
                        returning.tell(Acknowledged::Blob { repository: REPOSITORY.into(), digest });
                    }
                }
            }
        });
        drop(pusher);
        service.admin().post_document("/api/v1/collections", &json!({}), 202).await;
        until_in(&db, phase).await;
        // Anywhere between two batches of that phase.
        tokio::time::sleep(Duration::from_millis(round * 17 % 40)).await;
        service.kill();
        receive(&mut told, &mut kept, usize::MAX).await;
        pushers.join_all().await;
        db.close().await;

        service = start(home.path()).await;
        let again = client.at(service.url());
        everything_is_there(&again, &kept).await;
        service.check().await;
        let db = service.db().await;
        collect_to_the_end(&service, &db).await;
        nothing_is_left(&service, &db, &garbage.dead).await;
        db.close().await;
        everything_is_there(&again, &kept).await;
        service.check().await;
        // The next round ends every grace: then only what manifests need is promised.
        kept.retain(|one| matches!(one, Acknowledged::Release { .. }));
    }
    assert!(service.stop().success());
}
