//! Enduring: what goes wrong between the service and its object store loses nothing, and is said clearly.

use crate::harness::{Client, Cloud, Fault, Registry, Relay, expect, header, noise, sha256, sha512};
use futures::TryStreamExt;
use http::Method;
use http::request::Parts;
use object_store::ObjectStoreExt;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use proofmark::access::Role;
use proofmark::audit::{self, Repair};
use proofmark::identity;
use proofmark::jobs::Due;
use proofmark::names::Algorithm;
use proofmark::storage::{Found, Staged, Store};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const MIB: usize = 1 << 20;

/// Each promise on every kind of object store.
macro_rules! on_every_cloud {
    ($($name:ident),* $(,)?) => {
        mod on_s3 {$(#[tokio::test] async fn $name() { super::$name(super::Cloud::S3).await; })*}
        mod on_google {$(#[tokio::test] async fn $name() { super::$name(super::Cloud::Google).await; })*}
        mod on_azure {$(#[tokio::test] async fn $name() { super::$name(super::Cloud::Azure).await; })*}
    };
}

on_every_cloud!(
    a_store_that_is_busy_or_drops_connections_is_asked_again_and_nothing_is_lost,
    an_answer_that_is_lost_is_asked_for_again_whatever_was_asked,
    an_object_that_breaks_off_or_falls_silent_is_read_on_from_there,
    a_store_that_is_away_is_said_so_and_the_upload_goes_on_from_where_it_was,
    an_upload_that_was_completed_without_our_hearing_of_it_is_found_complete,
    an_upload_whose_parts_are_lost_is_over_and_one_that_was_written_over_makes_no_other_blob,
    bytes_that_the_store_does_not_give_are_not_taken_for_damaged_ones,
    a_store_that_would_not_keep_blobs_safe_is_refused_at_start,
    large_blobs_are_redirected_to_the_store_where_that_is_wanted_and_a_head_never,
);

/// A registry whose object store is reached through a relay.
async fn behind_a_relay(cloud: Cloud, retry_seconds: u64, silence_seconds: u64) -> (Registry, Client, Relay) {
    let (storage, relay) = cloud.bucket_behind_a_relay(retry_seconds, silence_seconds).await;
    let registry = Registry::with(|settings| settings.storage = Some(storage)).await;
    let ci = registry.client(Role::Pusher, "**").await;
    (registry, ci, relay)
}

async fn a_store_that_is_busy_or_drops_connections_is_asked_again_and_nothing_is_lost(cloud: Cloud) {
    const FAULTS: [Fault; 6] = [
        Fault::Status(503),
        Fault::Cut,
        Fault::Status(429),
        Fault::Lost,
        Fault::Status(500),
        Fault::Truncated,
    ];
    let (registry, ci, relay) = behind_a_relay(cloud, 60, 30).await;
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

async fn an_answer_that_is_lost_is_asked_for_again_whatever_was_asked(cloud: Cloud) {
    let (registry, ci, relay) = behind_a_relay(cloud, 60, 30).await;
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let kinds = asked.clone();
    // The first of each kind of request: its method, and the names behind its `?`.
    relay.plan(move |request, _| {
        let query = request.uri.query().unwrap_or_default().split('&');
        let names: Vec<&str> =
            query.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name)).collect();
        let kind = format!("{} {}", request.method, names.join(" "));
        kinds.lock().unwrap().insert(kind).then_some(Fault::Lost)
    });
    let bytes = noise(10, 13 * MIB);
    let location = ci.open_session("app").await;
    for (nth, chunk) in bytes.chunks(7 * MIB).enumerate() {
        let sent = ci.send_chunk(&location, nth * 7 * MIB, chunk).await;
        assert_eq!(sent.status(), 202, "{}", sent.text().await.unwrap());
    }
    let finished = ci.finish_session(&location, &sha512(&bytes), "").await;
    assert_eq!(finished.status(), 201, "{}", finished.text().await.unwrap());
    assert!(ci.pull_blob("app", &sha512(&bytes)).await == bytes);
    let cancelled = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&cancelled, 0, &bytes).await.status(), 202);
    assert_eq!(ci.delete(&cancelled).send().await.unwrap().status(), 204);
    registry.app.uploads.sweep_store(Duration::ZERO).await.unwrap();
    relay.behave();
    let names: Vec<Found> = registry.app.store.list().try_collect().await.unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    let asked = asked.lock().unwrap().clone();
    assert!(asked.len() > 5 && asked.len() == relay.faults(), "{asked:?}");
    registry.check().await;
}

async fn an_object_that_breaks_off_or_falls_silent_is_read_on_from_there(cloud: Cloud) {
    let (registry, ci, relay) = behind_a_relay(cloud, 60, 2).await;
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

async fn a_store_that_is_away_is_said_so_and_the_upload_goes_on_from_where_it_was(cloud: Cloud) {
    let (registry, ci, relay) = behind_a_relay(cloud, 2, 30).await;
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

async fn an_upload_that_was_completed_without_our_hearing_of_it_is_found_complete(cloud: Cloud) {
    let (registry, ci, relay) = behind_a_relay(cloud, 60, 30).await;
    let bytes = noise(4, 11 * MIB);
    let location = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes).await.status(), 202);
    relay.plan(move |request, _| completes(cloud, request).then_some(Fault::Lost));
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

/// Whether the request asks for this, among what stands behind its `?`.
fn asks(request: &Parts, method: &Method, what: &str) -> bool {
    let asked = request.uri.query().unwrap_or_default().split('&').any(|pair| pair.starts_with(what));
    request.method == method && asked
}

fn completes(cloud: Cloud, request: &Parts) -> bool {
    match cloud {
        Cloud::S3 | Cloud::Google => asks(request, &Method::POST, "uploadId="),
        Cloud::Azure => asks(request, &Method::PUT, "comp=blocklist"),
    }
}

fn is_a_part(cloud: Cloud, request: &Parts) -> bool {
    match cloud {
        Cloud::S3 | Cloud::Google => asks(request, &Method::PUT, "partNumber="),
        Cloud::Azure => asks(request, &Method::PUT, "comp=block"),
    }
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

async fn an_upload_whose_parts_are_lost_is_over_and_one_that_was_written_over_makes_no_other_blob(
    cloud: Cloud,
) {
    let (registry, ci, _relay) = behind_a_relay(cloud, 60, 30).await;
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
            lose_parts(cloud, &registry, &location).await;
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
    lose_parts(cloud, &registry, &gone).await;
    let next = ci.send_chunk(&gone, 6 * MIB, &bytes[6 * MIB..]).await;
    // Azure has parts and nothing that they belong to: what is missing shows at the end.
    let told = if cloud == Cloud::Azure { ci.finish_session(&gone, &sha256(&bytes), "").await } else { next };
    assert_eq!(told.status(), 404);
    assert_eq!(ci.push_blob("app", &bytes).await, sha256(&bytes), "begun again");
    registry.check().await;
}

async fn bytes_that_the_store_does_not_give_are_not_taken_for_damaged_ones(cloud: Cloud) {
    let (registry, ci, relay) = behind_a_relay(cloud, 2, 30).await;
    let digest = ci.push_blob("app", &noise(9, 200_000)).await;
    let wrong = async || {
        let report = audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
        report.violations.into_iter().find(|violation| violation.what.contains(digest.as_str()))
    };
    let repair = Repair::Blob { digest: digest.clone() };
    let by = identity::service();
    let repairing = || audit::repair(&registry.app.db, &registry.app.store, &repair, &by);
    for fault in [Fault::Status(403), Fault::Status(400)] {
        relay.plan(move |request, _| is_a_read(request).then_some(fault));
        let seen = wrong().await.unwrap();
        assert!(seen.what.contains("cannot be read") && seen.repair.is_none(), "{seen:?}");
        repairing().await.unwrap_err();
        relay.behave();
        assert_eq!((ci.head_blob("app", &digest).await, wrong().await), (200, None));
    }
    // One that is away stops the audit, which goes on later.
    relay.plan(move |request, _| is_a_read(request).then_some(Fault::Status(503)));
    audit::fsck(&registry.app.db, &registry.app.store).await.unwrap_err();
    repairing().await.unwrap_err();
    relay.behave();
    assert_eq!((ci.head_blob("app", &digest).await, wrong().await), (200, None));
    for found in registry.app.store.list().try_collect::<Vec<_>>().await.unwrap() {
        registry.app.store.delete(&found.name).await.unwrap();
    }
    assert_eq!(wrong().await.unwrap().repair.as_ref(), Some(&repair));
    assert!(repairing().await.unwrap());
    assert_eq!(ci.head_blob("app", &digest).await, 404);
    ci.push_blob("app", &noise(9, 200_000)).await;
    registry.check().await;
}

fn is_a_read(request: &Parts) -> bool {
    request.method == Method::GET && request.uri.path().contains("blobs")
}

#[tokio::test]
async fn an_upload_in_more_chunks_than_the_store_takes_is_told_to_send_larger_ones() {
    let registry = Registry::on(Cloud::S3).await;
    let ci = registry.client(Role::Pusher, "**").await;
    let session = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&session, 0, &noise(10, 6 * MIB)).await.status(), 202);
    let many = "update uploads set staged = jsonb_set(staged, '{pieces,parts,parts}',
                  (select jsonb_agg('etag'::text) from generate_series(1, 9000)))";
    sqlx::query(many).execute(&mut *registry.sql().await).await.unwrap();
    let refused = expect(ci.send_chunk(&session, 6 * MIB, &noise(10, 6 * MIB)).await, 413).await;
    assert!(refused["errors"][0]["message"].as_str().unwrap().contains("larger chunks"), "{refused}");
    assert_eq!(ci.delete(&session).send().await.unwrap().status(), 204);
    registry.check().await;
}

/// As if the store had let go of an upload's parts, which it may do after a week.
async fn lose_parts(cloud: Cloud, registry: &Registry, location: &str) {
    let staged = state_of(registry, location).await;
    if cloud != Cloud::Azure {
        return registry.app.store.abandon(&staged).await;
    }
    // Parts cannot be taken back there: they go when the name is given to something of other parts.
    let (place, _) = registry.app.config.storage.split_once('?').unwrap();
    let (container, prefix) = place.strip_prefix("az://").unwrap().split_once('/').unwrap();
    let upload = staged.upload().to_string();
    let azure = MicrosoftAzureBuilder::from_env().with_allow_http(true).with_container_name(container);
    let azure = azure.build().unwrap();
    let name = Path::from(format!("{prefix}/blobs/{}/{upload}", &upload[..2]));
    let id = azure.create_multipart(&name).await.unwrap();
    let other = azure.put_part(&name, &id, 0, "something else".into()).await.unwrap();
    azure.complete_multipart(&name, &id, vec![other]).await.unwrap();
    azure.delete(&name).await.unwrap();
}

async fn a_store_that_would_not_keep_blobs_safe_is_refused_at_start(cloud: Cloud) {
    let (storage, relay) = cloud.bucket_behind_a_relay(2, 30).await;
    let refused = async |said: &str| {
        let why = Store::open(&storage).await.unwrap_err().chain();
        assert!(why.contains(said), "{why}");
    };
    let done = "<DeleteResult><Deleted><Key>it</Key></Deleted></DeleteResult>";
    let is_delete = move |request: &Parts| match cloud {
        Cloud::S3 => asks(request, &Method::POST, "delete"),
        Cloud::Google => request.method == Method::DELETE,
        // Says so in parts of its own, which are not as easily pretended.
        Cloud::Azure => false,
    };
    if cloud != Cloud::Azure {
        relay.plan(move |request, _| is_delete(request).then_some(Fault::Pretended(done)));
        refused("still there").await;
    }
    relay.plan(move |request, _| is_a_part(cloud, request).then_some(Fault::Status(501)));
    refused("501").await;
    relay.plan(|_, _| Some(Fault::Status(403)));
    refused("may we write").await;
    relay.behave();
    Store::open(&storage).await.unwrap();
}

async fn large_blobs_are_redirected_to_the_store_where_that_is_wanted_and_a_head_never(cloud: Cloud) {
    let storage = cloud.bucket().await;
    let endpoint = storage.split_once("endpoint=").unwrap().1.to_owned();
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
    let open = |method: Method, url: &str| {
        // Whatever the service's endpoint is, clients are sent to the host that Google's signature is for.
        let request = match url.strip_prefix("https://storage.googleapis.com") {
            Some(path) if cloud == Cloud::Google => {
                let request = not_following.request(method, format!("{endpoint}{path}"));
                request.header("host", "storage.googleapis.com")
            }
            Some(_) | None => not_following.request(method, url),
        };
        async { request.send().await.unwrap() }
    };
    let whole = open(Method::GET, &url).await;
    assert!(whole.bytes().await.unwrap() == large, "the URL alone opens the object");
    let longer = match cloud {
        Cloud::S3 => url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
        Cloud::Google => url.replace("X-Goog-Expires=60", "X-Goog-Expires=6000"),
        Cloud::Azure => url.replace("se=20", "se=21"),
    };
    assert_ne!(longer, url);
    assert_eq!(open(Method::GET, &longer).await.status(), 403);
    assert_eq!(open(Method::DELETE, &url).await.status(), 403, "it is for reading");

    let head = ask(Method::HEAD).await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, large.len().to_string()));
    if cloud != Cloud::Google {
        let part = ci.get(&path).header("range", "bytes=10-19").send().await.unwrap();
        assert_eq!(part.bytes().await.unwrap(), large[10..20], "a client that follows gets its range");
    }
    assert_eq!(ci.pull_blob("app", &of_small).await, small, "what lies in Postgres is answered here");
    assert_eq!(registry.anyone().get(&path).send().await.unwrap().status(), 401);
    registry.check().await;
}

/// What only the object store is missing for: a session that is over, bytes that nobody needs, and a blob
/// whose bytes are to go.
async fn left_behind(registry: &Registry, ci: &Client) {
    let expired = ci.open_session("app").await;
    assert_eq!(ci.send_chunk(&expired, 0, &noise(11, 6 * MIB)).await.status(), 202);
    let orphan = futures::stream::iter([Ok::<_, std::io::Error>(noise(12, 200_000).into())]);
    registry.app.store.write(orphan, Algorithm::Sha256, u64::MAX, None).await.unwrap();
    ci.push_blob("app", &noise(13, 200_000)).await;
    ci.push_blob("app", &noise(14, 200_000)).await;
    registry.time_passes().await;
    registry.collect().await;
    registry.time_passes().await;
}

#[tokio::test]
async fn whoever_stops_waits_for_no_store_that_is_away() {
    let (storage, relay) = Cloud::S3.bucket_behind_a_relay(600, 30).await;
    let mut registry = Registry::with(|settings| {
        settings.storage = Some(storage);
        settings.upload_expiry_seconds = Some(0);
        settings.collection_seconds = Some(0);
        settings.background_percent = Some(100);
    })
    .await;
    registry.stop_jobs().await;
    let ci = registry.client(Role::Pusher, "**").await;
    left_behind(&registry, &ci).await;
    let app = registry.app.clone();
    for run in 0..3 {
        let stop = CancellationToken::new();
        // Away as soon as something is deleted there; then everybody is told to stop.
        let told = stop.clone();
        relay.plan(move |request, _| {
            let deletes = request.method == Method::DELETE || asks(request, &Method::POST, "delete");
            deletes.then(|| {
                told.cancel();
                Fault::Status(503)
            })
        });
        let running = async {
            match run {
                0 => assert_eq!(app.sweep_sessions(&stop).await.unwrap(), None),
                1 => assert_eq!(app.sweep_store(Duration::ZERO, &stop).await.unwrap(), None),
                _ => assert_eq!(app.collect(Due::Now, &stop).await.unwrap(), None),
            }
        };
        tokio::time::timeout(Duration::from_mins(2), running)
            .await
            .expect("it ends before the store is back");
        assert!(relay.faults() > 0);
    }
    relay.behave();
    let never = CancellationToken::new();
    let collected = app.collect(Due::Now, &never).await.unwrap().expect("the lease was given back");
    assert_eq!(collected.objects, 2);
    app.sweep_store(Duration::ZERO, &never).await.unwrap();
    let left: Vec<Found> = app.store.list().try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    registry.check().await;
}

#[tokio::test]
async fn a_collection_waits_once_for_a_store_that_is_away_and_leaves_the_rest() {
    let (storage, relay) = Cloud::S3.bucket_behind_a_relay(1, 30).await;
    let mut registry = Registry::with(|settings| {
        settings.storage = Some(storage);
        settings.collection_seconds = Some(0);
        settings.background_percent = Some(100);
    })
    .await;
    registry.stop_jobs().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for seed in 20..40 {
        ci.push_blob("app", &noise(seed, 70_000)).await;
    }
    registry.time_passes().await;
    registry.collect().await;
    registry.time_passes().await;
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = asked.clone();
    relay.plan(move |request, _| {
        // Each object has a checksum of its own in the request that deletes it.
        let sum = request.headers.get("content-md5").map(|sum| sum.to_str().unwrap().to_owned());
        seen.lock().unwrap().extend(sum);
        Some(Fault::Status(503))
    });
    let collected = registry.collect().await;
    assert_eq!((collected.objects, collected.objects_left), (0, 20));
    assert_eq!(asked.lock().unwrap().len(), 1, "the others were not asked for");
    relay.behave();
    assert_eq!(registry.collect().await.objects, 20);
    registry.check().await;
}

#[tokio::test]
async fn whoever_asks_for_a_collection_waits_for_no_store_that_is_away() {
    let (storage, relay) = Cloud::S3.bucket_behind_a_relay(600, 30).await;
    let mut registry = Registry::with(|settings| {
        settings.storage = Some(storage);
        settings.collection_seconds = Some(0);
        settings.background_percent = Some(100);
    })
    .await;
    registry.stop_jobs().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for seed in 40..43 {
        ci.push_blob("app", &noise(seed, 70_000)).await;
    }
    registry.time_passes().await;
    registry.collect().await;
    registry.time_passes().await;
    let (deleting, mut deletes) = tokio::sync::mpsc::unbounded_channel();
    relay.plan(move |_, _| {
        deleting.send(()).ok();
        Some(Fault::Status(503))
    });
    let (app, stop) = (registry.app.clone(), CancellationToken::new());
    let stopped = stop.clone();
    let collecting = tokio::spawn(async move { app.collect(Due::Now, &stopped).await.unwrap() });
    deletes.recv().await.expect("it deletes an object");
    // Its row is free while the store is waited for, and nothing keeps a snapshot.
    sqlx::query("select from job_leases where name = 'collection' for update nowait")
        .execute(&mut *registry.sql().await)
        .await
        .expect("no transaction has it locked");
    let open: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and state = 'idle in transaction'",
    )
    .fetch_one(&mut *registry.sql().await)
    .await
    .unwrap();
    assert_eq!(open, 0);
    stop.cancel();
    assert_eq!(collecting.await.unwrap(), None);
    relay.behave();
    assert_eq!(registry.collect().await.objects, 3);
    registry.check().await;
}
