//! The registry against a model: random pushes, mounts, deletes, collections and crashes over two
//! replicas, and no blob is lost.
//!
//! Each worker owns a repository and knows exactly what it was promised there. All of them draw their
//! blobs from one small pool, and mount from each other, so the same rows are linked, let go of and
//! collected by everybody at once. `PROOFMARK_SEED` chooses the operations; how they interleave is the
//! scheduler's. What crashes here is a collection or a client in the middle of what it does; whole services
//! are killed in `crashing` and `crashing_amid_collections`.

use crate::harness::{Client, Registry, noise, sha256};
use proofmark::access::Role;
use proofmark::content::{Collection, CollectionRules, Next};
use proofmark::identity;
use proofmark::jobs::Due;
use proofmark::names::Digest;
use proofmark::postgres::Db;
use proofmark::storage::Store;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const WORKERS: u64 = 4;
const POOL: u64 = 40;
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A number after the other, the same for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.next()).unwrap() % length
    }
}

/// What everybody shares: contents, and the time.
struct World {
    contents: Vec<(Digest, Vec<u8>)>,
    /// Operations hold it shared; time passes when nobody is in the middle of one.
    gate: RwLock<()>,
    /// How often all graces were over.
    epoch: AtomicU64,
}

/// A manifest that a repository has.
#[derive(Clone)]
struct Kept {
    digest: Digest,
    body: Vec<u8>,
    media_type: &'static str,
    blobs: Vec<usize>,
    children: Vec<Digest>,
}

struct Worker {
    world: Arc<World>,
    dice: Dice,
    registry: Arc<Registry>,
    number: u64,
    replicas: [Client; 2],
    /// By content: the epoch in which it was last answered for.
    promised: HashMap<usize, u64>,
    manifests: Vec<Kept>,
    /// Pushes that were cut off: perhaps they are there.
    perhaps: Vec<Kept>,
    operations: u64,
}

/// What a request that may be cut off came to.
enum Outcome {
    Answered(StatusCode),
    CutOff,
}

impl Worker {
    fn client(&mut self) -> Client {
        let which = self.dice.index(2);
        self.replicas[which].clone()
    }

    fn repository(&self) -> String {
        format!("team/app-{}", self.number)
    }

    /// Whether the registry has promised that the blob is there now.
    fn is_promised(&self, content: usize) -> bool {
        self.promised.get(&content) == Some(&self.world.epoch.load(Ordering::SeqCst))
            || self.manifests.iter().any(|kept| kept.blobs.contains(&content))
    }

    fn promise(&mut self, content: usize) {
        self.promised.insert(content, self.world.epoch.load(Ordering::SeqCst));
    }

    /// Sends, and now and then goes away before the answer, as a client or replica that dies.
    async fn send(&mut self, request: RequestBuilder) -> Outcome {
        let patience = match self.dice.below(12) {
            0 => Duration::from_micros(self.dice.below(4_000)),
            _ => Duration::from_mins(1),
        };
        match tokio::time::timeout(patience, request.send()).await {
            Ok(answer) => Outcome::Answered(answer.unwrap().status()),
            Err(elapsed) => {
                assert!(patience < Duration::from_secs(1), "no answer within a minute: {elapsed}");
                Outcome::CutOff
            }
        }
    }

    async fn run(mut self, operations: u64) -> Self {
        for _ in 0..operations {
            let world = self.world.clone();
            let act = self.dice.below(100);
            self.operations += 1;
            if act == 99 {
                let _nobody = world.gate.write().await;
                self.registry.time_passes().await;
                world.epoch.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let _here = world.gate.read().await;
            match act {
                0..25 => self.push_blob().await,
                25..35 => self.mount().await,
                35..42 => self.look().await,
                42..65 => self.push_image().await,
                65..72 => self.push_index().await,
                72..80 => self.delete_manifest().await,
                80..86 => self.delete_blob().await,
                _ => self.pull().await,
            }
        }
        self
    }

    fn any_content(&mut self) -> usize {
        self.dice.index(self.world.contents.len())
    }

    async fn push_blob(&mut self) {
        let content = self.any_content();
        let (digest, bytes) = self.world.contents[content].clone();
        let path = format!("/v2/{}/blobs/uploads/?digest={digest}", self.repository());
        let request = self.client().post(&path).body(bytes);
        if let Outcome::Answered(status) = self.send(request).await {
            assert_eq!(status, StatusCode::CREATED, "a push of {digest}");
            self.promise(content);
        }
    }

    async fn mount(&mut self) {
        let content = self.any_content();
        let digest = self.world.contents[content].0.clone();
        let from = self.dice.below(WORKERS);
        let path = format!("/v2/{}/blobs/uploads/?mount={digest}&from=team/app-{from}", self.repository());
        let request = self.client().post(&path);
        if let Outcome::Answered(status) = self.send(request).await {
            assert!([StatusCode::CREATED, StatusCode::ACCEPTED].contains(&status), "a mount: {status}");
            if status == StatusCode::CREATED {
                self.promise(content);
            }
        }
    }

    async fn look(&mut self) {
        let content = self.any_content();
        let digest = self.world.contents[content].0.clone();
        let status = self.client().head_blob(&self.repository(), &digest).await;
        assert!(status == 200 || !self.is_promised(content), "{digest} was promised and is {status}");
        if status == 200 {
            self.promise(content);
        } else {
            self.promised.remove(&content);
        }
    }

    async fn push(&mut self, kept: Kept, must: bool) {
        let path = format!("/v2/{}/manifests/{}", self.repository(), kept.digest);
        let request =
            self.client().put(&path).header("content-type", kept.media_type).body(kept.body.clone());
        match self.send(request).await {
            Outcome::Answered(StatusCode::CREATED) => {
                if !self.manifests.iter().any(|other| other.digest == kept.digest) {
                    self.manifests.push(kept);
                }
            }
            Outcome::Answered(status) => {
                assert!(!must, "all that {} needs was promised, and its push is {status}", kept.digest);
                assert_eq!(status, StatusCode::NOT_FOUND);
            }
            Outcome::CutOff => self.perhaps.push(kept),
        }
    }

    async fn push_image(&mut self) {
        let count = 1 + self.dice.index(3);
        let mut blobs: Vec<usize> = (0..count).map(|_| self.any_content()).collect();
        // Mostly of what is there; otherwise of what may have been collected.
        if self.dice.below(4) > 0 {
            blobs.retain(|content| self.is_promised(*content));
        }
        if blobs.is_empty() {
            return self.push_blob().await;
        }
        let must = blobs.iter().all(|content| self.is_promised(*content));
        let parts: Vec<Value> = blobs
            .iter()
            .map(|content| {
                let (digest, bytes) = &self.world.contents[*content];
                json!({"mediaType": "application/octet-stream", "digest": digest, "size": bytes.len()})
            })
            .collect();
        let mark = self.dice.below(50);
        let mut document = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": parts[0], "layers": parts,
                                  "annotations": {"mark": mark.to_string()}});
        if !self.manifests.is_empty() && self.dice.below(4) == 0 {
            let subject = &self.manifests[self.dice.index(self.manifests.len())];
            document["subject"] = json!({"mediaType": subject.media_type, "digest": subject.digest, "size": subject.body.len()});
        }
        let body = document.to_string().into_bytes();
        let digest = sha256(&body);
        self.push(Kept { digest, body, media_type: IMAGE, blobs, children: Vec::new() }, must).await;
    }

    async fn push_index(&mut self) {
        if self.manifests.is_empty() {
            return;
        }
        let images: Vec<&Kept> = self.manifests.iter().filter(|kept| kept.media_type == IMAGE).collect();
        if images.is_empty() {
            return;
        }
        let child = images[self.dice.index(images.len())].clone();
        let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {"mediaType": child.media_type, "digest": child.digest, "size": child.body.len()}],
            "annotations": {"mark": self.dice.below(3).to_string()}});
        let body = document.to_string().into_bytes();
        let digest = sha256(&body);
        let children = vec![child.digest];
        self.push(Kept { digest, body, media_type: INDEX, blobs: Vec::new(), children }, true).await;
    }

    async fn delete_manifest(&mut self) {
        if self.manifests.is_empty() {
            return;
        }
        let at = self.dice.index(self.manifests.len());
        let digest = self.manifests[at].digest.clone();
        let listed = self.manifests.iter().any(|kept| kept.children.contains(&digest));
        let perhaps = self.perhaps.iter().any(|kept| kept.children.contains(&digest));
        // A push of the same manifest that was cut off may still arrive.
        if self.perhaps.iter().any(|kept| kept.digest == digest) {
            return;
        }
        let status = self.client().deletes(&self.repository(), digest.as_str()).await;
        match status {
            StatusCode::METHOD_NOT_ALLOWED => assert!(listed || perhaps, "nothing lists {digest}"),
            StatusCode::ACCEPTED => {
                assert!(!listed, "{digest} is listed by an index and was deleted");
                self.manifests.remove(at);
            }
            other => panic!("a delete of {digest} is {other}"),
        }
    }

    async fn delete_blob(&mut self) {
        let content = self.any_content();
        let digest = self.world.contents[content].0.clone();
        let used = self.manifests.iter().any(|kept| kept.blobs.contains(&content));
        let perhaps = self.perhaps.iter().any(|kept| kept.blobs.contains(&content));
        let path = format!("/v2/{}/blobs/{digest}", self.repository());
        let answer = self.client().delete(&path).send().await.unwrap();
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED => assert!(used || perhaps, "nothing needs {digest}"),
            StatusCode::ACCEPTED => {
                assert!(!used, "{digest} is needed and was deleted");
                self.promised.remove(&content);
            }
            StatusCode::NOT_FOUND => {
                assert!(!self.is_promised(content), "{digest} was promised and is gone");
            }
            other => panic!("a delete of {digest} is {other}"),
        }
    }

    async fn pull(&mut self) {
        if self.manifests.is_empty() {
            return;
        }
        let kept = self.manifests[self.dice.index(self.manifests.len())].clone();
        let client = self.client();
        self.holds(&client, &kept).await;
    }

    /// The manifest and all its blobs are there, byte for byte.
    async fn holds(&self, client: &Client, kept: &Kept) {
        let path = format!("/v2/{}/manifests/{}", self.repository(), kept.digest);
        let answer: Response = client.get(&path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "the manifest {} is lost", kept.digest);
        assert!(answer.bytes().await.unwrap() == kept.body);
        for content in &kept.blobs {
            let (digest, bytes) = &self.world.contents[*content];
            assert!(client.pull_blob(&self.repository(), digest).await == *bytes);
        }
    }
}

/// Collects again and again with a lease, and dies in the middle of it as often as not.
async fn collect_and_crash(registry: Arc<Registry>, mut dice: Dice, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let (app, never) = (registry.app.clone(), CancellationToken::new());
        let run = tokio::spawn(async move { app.collect(Due::Now, &never).await });
        if dice.below(2) == 0 {
            tokio::time::sleep(Duration::from_micros(dice.below(20_000))).await;
            run.abort();
        }
        match run.await {
            Ok(done) => drop(done.unwrap()),
            Err(error) => {
                assert!(error.is_cancelled(), "{error}");
                registry.leases_end().await;
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.below(20))).await;
    }
}

/// Collects without any lease, as a replica that lost its own without knowing.
async fn collect_without_lease(db: Db, store: Store, stop: CancellationToken) {
    let rules = CollectionRules { object_delay: Duration::ZERO };
    while !stop.is_cancelled() {
        let mut collection = Collection::default();
        while collection.next != Next::End {
            let deleted = collection.delete_objects(&db, &store, rules).await.unwrap();
            let mut tx = db.begin().await.unwrap();
            collection.batch(&mut tx, deleted, &identity::service()).await.unwrap();
            tx.commit().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own environment")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_pushed_mounted_deleted_collected_and_killed_no_blob_is_lost() {
    let seed = number("PROOFMARK_SEED").unwrap_or(20_261_123);
    let operations = if number("PROOFMARK_LONG").is_some() { 10_000 } else { 3_000 };
    println!("PROOFMARK_SEED={seed}");
    let began = std::time::Instant::now();
    let registry = Arc::new(Registry::collecting().await);
    let replica = Arc::new(registry.replica().await);
    let admin = registry.client(Role::Admin, "**").await;
    // Of eight contents one lies in the object store.
    let contents =
        (0..POOL).map(|n| noise(n + 1, if n % 8 == 0 { 66_000 } else { 20 + usize::try_from(n).unwrap() }));
    let contents = contents.map(|bytes| (sha256(&bytes), bytes)).collect();
    let world = Arc::new(World { contents, gate: RwLock::new(()), epoch: AtomicU64::new(0) });
    let stop = CancellationToken::new();
    let mut beside = JoinSet::new();
    for (nth, one) in [&registry, &replica].into_iter().enumerate() {
        beside.spawn(collect_and_crash(one.clone(), Dice(seed ^ (nth as u64 + 1) << 32), stop.clone()));
    }
    beside.spawn(collect_without_lease(registry.app.db.clone(), registry.app.store.clone(), stop.clone()));
    let mut workers = JoinSet::new();
    for nth in 0..WORKERS {
        let worker = Worker {
            world: world.clone(),
            dice: Dice(seed.wrapping_mul(WORKERS).wrapping_add(nth)),
            registry: registry.clone(),
            number: nth,
            replicas: [admin.clone(), admin.at(&replica.url)],
            promised: HashMap::new(),
            manifests: Vec::new(),
            perhaps: Vec::new(),
            operations: 0,
        };
        workers.spawn(worker.run(operations));
    }
    let mut done = Vec::new();
    while let Some(worker) = workers.join_next().await {
        done.push(worker.unwrap_or_else(|error| panic!("PROOFMARK_SEED={seed}: {error}")));
    }
    stop.cancel();
    while let Some(ended) = beside.join_next().await {
        ended.unwrap();
    }
    println!("{:?} for the operations", began.elapsed());
    audit(&registry, &done).await;
    drop((replica, done));
    Arc::try_unwrap(registry).unwrap_or_else(|_| panic!("nobody holds it any more")).check().await;
}

/// At the end: what the models have is there, and after another collection or two nothing else is.
async fn audit(registry: &Registry, workers: &[Worker]) {
    let needed: HashSet<&Digest> = workers
        .iter()
        .flat_map(|worker| worker.manifests.iter().chain(&worker.perhaps).map(move |kept| (worker, kept)))
        .flat_map(|(worker, kept)| kept.blobs.iter().map(|content| &worker.world.contents[*content].0))
        .collect();
    registry.leases_end().await;
    for _ in 0..2 {
        registry.time_passes().await;
        registry.collect().await;
    }
    let mut manifests = 0;
    for worker in workers {
        for kept in &worker.manifests {
            worker.holds(&worker.replicas[0], kept).await;
            manifests += 1;
        }
    }
    let left: Vec<String> =
        sqlx::query_scalar("select digest from blobs").fetch_all(&mut *registry.sql().await).await.unwrap();
    for digest in left {
        assert!(needed.contains(&digest.parse::<Digest>().unwrap()), "{digest} is garbage and is there");
    }
    let operations: u64 = workers.iter().map(|worker| worker.operations).sum();
    let collected: i64 = sqlx::query_scalar("select count(*) from events where kind = 'blobs.collected'")
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap();
    println!("{operations} operations, {manifests} manifests hold, {collected} batches took something");
    assert!(manifests > 0 && collected > 0, "the model exercises what it is about");
}
