//! Collection takes what nobody needs, beside a registry that works, and nothing else.

use crate::harness::{Registry, noise};
use futures::TryStreamExt;
use proofmark::access::Role;
use proofmark::content::Collected;
use proofmark::jobs::{self, Due, Lease, Taken};
use proofmark::names::Digest;
use proofmark::storage::{Found, Place};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

impl Registry {
    /// A registry that collects only when it is asked, and then without resting.
    pub async fn collecting() -> Self {
        Self::with(|settings| {
            settings.collection_seconds = Some(0);
            settings.background_percent = Some(100);
        })
        .await
    }

    /// Collects now, as soon as nobody else does.
    pub async fn collect(&self) -> Collected {
        let stop = CancellationToken::new();
        let ours = async {
            loop {
                if let Some(done) = self.app.collect(Due::Now, &stop).await.unwrap() {
                    return done;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), ours).await.expect("the lease becomes free")
    }

    /// What a minute does: the lease of a replica that died ends.
    pub async fn leases_end(&self) {
        let end = "update job_leases set lease_until = clock_timestamp() where holder is not null";
        sqlx::query(end).execute(&mut *self.sql().await).await.unwrap();
    }

    /// Every grace and every delay is over.
    pub async fn time_passes(&self) {
        for statement in [
            "update blob_links set protected_until = clock_timestamp() - interval '1 second'
             where protected_until >= clock_timestamp()",
            "update doomed_objects set doomed_at = doomed_at - interval '2 days'",
        ] {
            sqlx::query(statement).execute(&mut *self.sql().await).await.unwrap();
        }
    }

    async fn objects(&self) -> usize {
        let found: Vec<Found> = self.app.store.list().try_collect().await.unwrap();
        found.iter().filter(|found| found.place == Place::Blobs).count()
    }

    /// What the dry run says of each blob: repository, digest or object, why.
    async fn garbage(&self) -> BTreeMap<(String, String), String> {
        let (mut items, mut next) = (BTreeMap::new(), Value::Null);
        loop {
            let mut request = self.admin().get("/api/v1/garbage?limit=1");
            if let Some(cursor) = next.as_str() {
                request = request.query(&[("cursor", cursor)]);
            }
            let page: Value = request.send().await.unwrap().json().await.unwrap();
            for item in page["items"].as_array().unwrap() {
                let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
                let what = if item["digest"].is_null() { text("object") } else { text("digest") };
                items.insert((text("repository"), what), text("why"));
            }
            next = page["next"].clone();
            if next.is_null() {
                return items;
            }
        }
    }
}

fn image(config: &Digest, layer: &Digest, size: usize) -> Value {
    json!({"schemaVersion": 2, "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size}]})
}

#[tokio::test]
async fn what_nobody_needs_is_listed_with_its_reason_and_goes_and_the_rest_stays() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let config = ci.push_blob("app", b"{}").await;
    let needed = noise(1, 70_000);
    let layer = ci.push_blob("app", &needed).await;
    let manifest = ci.push_manifest("app", "v1", IMAGE, &image(&config, &layer, needed.len())).await;
    let small = ci.push_blob("app", b"nobody needs this").await;
    let large = ci.push_blob("app", &noise(2, 80_000)).await;
    let elsewhere = ci.push_blob("other", &needed).await;
    assert_eq!(registry.garbage().await, BTreeMap::new(), "the grace period holds everything");
    assert_eq!(registry.collect().await.links, 0);

    registry.time_passes().await;
    let app = |digest: &Digest| ("app".to_owned(), digest.to_string());
    let unreferenced = "unreferenced".to_owned();
    let everywhere = "unreferenced_everywhere".to_owned();
    let expected = BTreeMap::from([
        (app(&small), everywhere.clone()),
        (app(&large), everywhere),
        (("other".to_owned(), elsewhere.to_string()), unreferenced),
    ]);
    assert_eq!(registry.garbage().await, expected);
    assert_eq!(ci.head_blob("app", &large).await, 200, "a dry run takes nothing");

    // The HEAD protects it anew.
    let first = registry.collect().await;
    assert_eq!((first.links, first.blobs, first.objects), (2, 1, 0));
    registry.time_passes().await;
    let second = registry.collect().await;
    assert_eq!((second.links, second.blobs, second.objects), (1, 1, 0), "bytes wait for their delay");
    assert_eq!(registry.objects().await, 2);
    let whys: Vec<String> = registry.garbage().await.into_values().collect();
    assert_eq!(whys, ["blob_collected"]);
    registry.app.uploads.sweep_store(Duration::ZERO).await.unwrap();
    assert_eq!(registry.objects().await, 2, "the sweep keeps to the delay too");

    registry.time_passes().await;
    let third = registry.collect().await;
    assert_eq!((third.objects, third.object_bytes), (1, 80_000));
    assert_eq!(registry.objects().await, 1);
    for gone in [&small, &large] {
        assert_eq!(ci.head_blob("app", gone).await, 404);
    }
    assert_eq!(ci.head_blob("other", &elsewhere).await, 404);
    assert!(ci.pull_blob("app", &layer).await == needed);
    assert_eq!(ci.digest_of("app", "v1").await, Some(manifest.to_string()));
    registry.check().await;
}

#[tokio::test]
async fn a_push_a_mount_and_a_head_each_protect_for_the_grace_period() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let digest = ci.push_blob("source", b"mounted").await;
    registry.time_passes().await;
    let path = format!("/v2/target/blobs/uploads/?mount={digest}&from=source");
    assert_eq!(ci.post(&path).send().await.unwrap().status(), 201);
    assert_eq!(registry.collect().await.links, 1, "the source's own link goes");
    assert_eq!(ci.head_blob("target", &digest).await, 200);
    registry.time_passes().await;
    assert_eq!(ci.head_blob("target", &digest).await, 200);
    assert_eq!(registry.collect().await.links, 0);
    assert!(ci.pull_blob("target", &digest).await == b"mounted");
    registry.check().await;
}

#[tokio::test]
async fn a_blob_that_a_push_under_way_has_locked_is_left_and_then_needed() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let config = ci.push_blob("app", b"{}").await;
    let layer = ci.push_blob("app", b"a layer").await;
    registry.time_passes().await;
    // As a push does: it keeps its links, and commits its manifest later.
    let mut push = registry.app.db.begin().await.unwrap();
    sqlx::query("select from blob_links where digest = any($1) order by digest for key share")
        .bind([config.as_str(), layer.as_str()].as_slice())
        .execute(&mut *push)
        .await
        .unwrap();
    assert_eq!(registry.collect().await.links, 0);
    drop(push);
    ci.push_manifest("app", "v1", IMAGE, &image(&config, &layer, 7)).await;
    registry.time_passes().await;
    assert_eq!(registry.collect().await.links, 0);
    assert!(ci.pull_blob("app", &layer).await == b"a layer");
    registry.check().await;
}

#[tokio::test]
async fn bytes_pushed_again_are_not_the_bytes_that_wait_to_be_deleted() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(3, 90_000);
    let digest = ci.push_blob("app", &bytes).await;
    registry.time_passes().await;
    assert_eq!(registry.collect().await.blobs, 1);
    assert_eq!(ci.push_blob("app", &bytes).await, digest);
    assert_eq!(registry.objects().await, 2);
    sqlx::query("update doomed_objects set doomed_at = doomed_at - interval '2 days'")
        .execute(&mut *registry.sql().await)
        .await
        .unwrap();
    assert_eq!(registry.collect().await.objects, 1);
    assert!(ci.pull_blob("app", &digest).await == bytes);
    registry.check().await;
}

#[tokio::test]
async fn a_collection_that_was_cut_off_goes_on_where_it_was() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    ci.push_blob("app", b"one").await;
    sqlx::query(
        "with b as (insert into blobs(digest, size_bytes, bytes)
                    select 'sha256:' || encode(sha256(('n' || n)::bytea), 'hex'), length('n' || n), ('n' || n)::bytea
                    from generate_series(1, 1200) n returning digest)
         insert into blob_links(repository_id, digest, protected_until)
         select 1, digest, clock_timestamp() - interval '1 second' from b",
    )
    .execute(&mut *registry.sql().await)
    .await
    .unwrap();
    // Two batches of a run whose replica then dies: its lease ends by itself.
    let Taken::Ours(lease, None) =
        Lease::take::<proofmark::content::Collection>(&registry.app.db, jobs::COLLECTION, Due::Now)
            .await
            .unwrap()
    else {
        panic!("nobody else collects")
    };
    let mut collection = proofmark::content::Collection::default();
    for _ in 0..2 {
        let mut tx = registry.app.db.begin().await.unwrap();
        assert!(lease.keep(&mut tx).await.unwrap());
        let by = proofmark::identity::service();
        let none = proofmark::content::DeletedObjects::default();
        collection.batch(&mut tx, none, &by).await.unwrap();
        lease.save(&mut tx, &collection).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(collection.collected.looked_at, 1000);
    let stop = CancellationToken::new();
    let other = registry.app.collect(Due::Now, &stop).await.unwrap();
    assert_eq!(other, None, "one replica collects at a time");
    registry.leases_end().await;
    // Not due by itself, but begun: whoever looks next goes on.
    let done = registry.app.collect(Due::Every(Duration::ZERO), &stop).await.unwrap().unwrap();
    // 1201 links and, once, as many blobs: what was done is not looked at again.
    assert_eq!((done.looked_at, done.links, done.blobs), (2402, 1200, 1200));
    assert!(!lease.keep(&mut *registry.sql().await).await.unwrap(), "who lost the lease learns it");
    registry.check().await;
}

#[tokio::test]
async fn an_administrator_asks_for_a_collection_and_sees_its_end() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    ci.push_blob("app", b"nobody needs this").await;
    registry.time_passes().await;
    for refused in [ci.get("/api/v1/garbage"), ci.post("/api/v1/collections"), ci.get("/api/v1/collections")]
    {
        assert_eq!(refused.send().await.unwrap().status(), 403);
    }
    let admin = registry.admin();
    let asked = admin.post_document("/api/v1/collections", &json!({}), 202).await;
    assert!(asked["wanted_at"].is_string());
    let report = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            let standing = admin.document("/api/v1/collections").await;
            if !standing["report"].is_null() {
                return standing["report"].clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("a replica collects");
    assert_eq!(report["links"], 1);
    let collected =
        "select count(*) from events where kind = 'blobs.collected' and repository_id is not null";
    let collected: i64 = sqlx::query_scalar(collected).fetch_one(&mut *registry.sql().await).await.unwrap();
    assert_eq!(collected, 1, "what the service does by itself is in the ledger");
    registry.check().await;
}
