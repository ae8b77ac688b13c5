//! Whatever is killed, what was acknowledged is there afterwards, and nothing contradicts it.

use crate::harness::{Client, Service, noise, sha256};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proofmark::access::Role;
use proofmark::names::Digest;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

const PUSHERS: u64 = 200;
const REPOSITORIES: u64 = 10;
const CONFIG: &[u8] = b"{}";

/// Something that the service said is done.
pub enum Acknowledged {
    /// A blob of a repository.
    Blob { repository: String, digest: Digest },
    /// A manifest under a write-once tag.
    Release { repository: String, tag: String, digest: Digest },
    /// So many bytes of an upload that will be this blob.
    Chunk { repository: String, location: String, bytes: usize, digest: Digest },
}

/// A pipeline that pushes one release after the other, each with blobs in one request or in chunks,
/// stored in Postgres or as objects, until the service is gone.
pub struct Pusher {
    pub client: Client,
    pub repository: String,
    pub number: u64,
    pub done: UnboundedSender<Acknowledged>,
}

/// The service is gone: the answer did not come.
pub struct Gone;

impl From<reqwest::Error> for Gone {
    fn from(_: reqwest::Error) -> Self {
        Self
    }
}

impl Pusher {
    pub async fn run(self, round: u64) {
        for release in 0.. {
            let seed = round << 40 | self.number << 20 | release;
            if self.push(seed).await.is_err() {
                return;
            }
        }
    }

    pub async fn push(&self, seed: u64) -> Result<(), Gone> {
        let length = [700, 5_000, 70_000, 200_000][usize::try_from(seed % 4).unwrap()];
        let layer = noise(seed, length);
        let digest =
            if seed.is_multiple_of(3) { self.in_chunks(&layer).await? } else { self.blob(&layer).await? };
        let config = self.blob(CONFIG).await?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": CONFIG.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": length }],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let (repository, tag) = (self.repository.clone(), format!("v{seed}"));
        let digest = sha256(&manifest);
        let answer = self
            .client
            .put(&format!("/v2/{repository}/manifests/{tag}"))
            .header("content-type", "application/vnd.oci.image.manifest.v1+json")
            .body(manifest)
            .send()
            .await?;
        acknowledged(answer, StatusCode::CREATED).await?;
        self.tell(Acknowledged::Release { repository, tag, digest });
        Ok(())
    }

    /// Pushes a blob in one request.
    pub async fn blob(&self, bytes: &[u8]) -> Result<Digest, Gone> {
        let digest = sha256(bytes);
        let path = format!("/v2/{}/blobs/uploads/?digest={digest}", self.repository);
        let answer = self.client.post(&path).body(bytes.to_vec()).send().await?;
        acknowledged(answer, StatusCode::CREATED).await?;
        self.tell(Acknowledged::Blob { repository: self.repository.clone(), digest: digest.clone() });
        Ok(digest)
    }

    async fn in_chunks(&self, bytes: &[u8]) -> Result<Digest, Gone> {
        let (repository, digest) = (&self.repository, sha256(bytes));
        let answer = self.client.post(&format!("/v2/{repository}/blobs/uploads/")).send().await?;
        let answer = acknowledged(answer, StatusCode::ACCEPTED).await?;
        let mut location = path_of(&answer);
        let mut sent = 0;
        for chunk in bytes.chunks(bytes.len() / 2 + 1) {
            let range = format!("{sent}-{}", sent + chunk.len() - 1);
            let patch = self.client.patch(&location).header("content-range", range).body(chunk.to_vec());
            let answer = acknowledged(patch.send().await?, StatusCode::ACCEPTED).await?;
            location = path_of(&answer);
            sent += chunk.len();
            self.tell(Acknowledged::Chunk {
                repository: repository.clone(),
                location: location.clone(),
                bytes: sent,
                digest: digest.clone(),
            });
        }
        let answer = self.client.put(&format!("{location}?digest={digest}")).send().await?;
        acknowledged(answer, StatusCode::CREATED).await?;
        self.tell(Acknowledged::Blob { repository: repository.clone(), digest: digest.clone() });
        Ok(digest)
    }

    pub fn tell(&self, done: Acknowledged) {
        self.done.send(done).unwrap();
    }
}

/// The answer that was hoped for. A service that is killed gives none, but never another one.
async fn acknowledged(answer: Response, status: StatusCode) -> Result<Response, Gone> {
    if answer.status() == status {
        return Ok(answer);
    }
    let other = answer.status();
    panic!("{other} instead of {status}: {}", answer.text().await.unwrap_or_default());
}

/// Where an upload goes on, at whatever address the service listens by then.
fn path_of(answer: &Response) -> String {
    let location = answer.headers()["location"].to_str().unwrap();
    answer.url().join(location).unwrap().path().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_of_the_service_amid_200_pushes() {
    let home = tempfile::tempdir().unwrap();
    let mut service = Service::start(home.path()).await;
    for round in 1..=3 {
        let client = service.client(Role::Pusher).await;
        let (done, mut told) = unbounded_channel();
        let mut pushers = JoinSet::new();
        for number in 0..PUSHERS {
            let repository = format!("crash/r{}", number % REPOSITORIES);
            let pusher = Pusher { client: client.clone(), repository, number, done: done.clone() };
            pushers.spawn(pusher.run(round));
        }
        drop(done);
        let mut kept = Vec::new();
        receive(&mut told, &mut kept, 1000).await;
        service.kill();
        // Answers that were under way still arrive; then every pusher finds the service gone.
        receive(&mut told, &mut kept, usize::MAX).await;
        pushers.join_all().await;
        service = Service::start(home.path()).await;
        let again = client.at(service.url());
        everything_is_there(&again, &kept).await;
        service.check().await;
    }
    assert!(service.stop().success());
}

/// Waits for so many acts, or until nobody does any more.
pub async fn receive(told: &mut UnboundedReceiver<Acknowledged>, kept: &mut Vec<Acknowledged>, count: usize) {
    while kept.len() < count {
        match told.recv().await {
            Some(acknowledged) => kept.push(acknowledged),
            None => return,
        }
    }
}

/// What was acknowledged is there, byte for byte.
pub async fn everything_is_there(client: &Client, kept: &[Acknowledged]) {
    let mut read = BTreeSet::new();
    let mut open = 0;
    for one in kept {
        match one {
            Acknowledged::Blob { repository, digest } => {
                if read.insert((repository, digest)) {
                    assert_eq!(sha256(&client.pull_blob(repository, digest).await), *digest);
                }
            }
            Acknowledged::Release { repository, tag, digest } => {
                let answer = client.get(&format!("/v2/{repository}/manifests/{tag}")).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{repository}:{tag}");
                assert_eq!(sha256(&answer.bytes().await.unwrap()), *digest, "{repository}:{tag}");
            }
            Acknowledged::Chunk { repository, location, bytes, digest } => {
                let answer = client.get(location).send().await.unwrap();
                if answer.status() == 204 {
                    let range = answer.headers()["range"].to_str().unwrap();
                    let last: usize = range.strip_prefix("0-").unwrap().parse().unwrap();
                    assert!(last + 1 >= *bytes, "{range} after {bytes} bytes were acknowledged");
                    open += 1;
                } else {
                    assert_eq!(client.head_blob(repository, digest).await, 200, "{location} is finished");
                }
            }
        }
    }
    println!("{} acts were acknowledged, {open} chunks of them in uploads that can go on", kept.len());
}

const LANES: usize = 6;
const VERSIONS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_of_postgres_amid_promotions() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path()).await;
    let admin = service.admin();
    admin.put_document("/api/v1/environments", &json!({ "name": "prod" }), 201).await;
    let policy = json!({ "environment": "prod", "repositories": ["crash/*"], "gates": [] });
    admin.put_document("/api/v1/policies", &policy, 201).await;
    let pushing = service.client(Role::Pusher).await;
    let promoter = Arc::new(service.client(Role::Promoter).await);
    let (tell, mut told) = unbounded_channel();
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let repository = format!("crash/lane{lane}");
        let digests = releases(&pushing, &repository).await;
        lanes.spawn(promote_all(promoter.clone(), repository, digests, tell.clone()));
    }
    drop(tell);
    let mut killed_after = [LANES * 5, LANES * 15, LANES * 25].into_iter().peekable();
    let mut count = 0;
    while told.recv().await.is_some() {
        count += 1;
        if killed_after.next_if_eq(&count).is_some() {
            kill(Pid::from_raw(service.postmaster()), Signal::SIGKILL).unwrap();
        }
    }
    assert_eq!(count, LANES * VERSIONS);
    for (repository, digests, made) in lanes.join_all().await {
        let path = format!("/api/v1/promotions?repository={repository}&environment=prod&limit=1000");
        let listed = promoter.document(&path).await;
        let listed: BTreeSet<i64> =
            listed["items"].as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
        for promotion in &made {
            assert!(listed.contains(&promotion["id"].as_i64().unwrap()), "{promotion}");
            let decision = promotion["decision"]["id"].as_str().unwrap();
            promoter.document(&format!("/api/v1/decisions/{decision}")).await;
        }
        let path = format!("/api/v1/known-good?repository={repository}&environment=prod");
        let now = promoter.document(&path).await;
        assert_eq!(now["digest"], json!(digests.last()), "{repository}");
    }
    service.check().await;
    assert!(service.stop().success());
}

/// Pushes a repository's releases and gives their digests, in the order of their versions.
async fn releases(client: &Client, repository: &str) -> Vec<Digest> {
    let config = client.push_blob(repository, CONFIG).await;
    let mut digests = Vec::new();
    for version in 0..VERSIONS {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": CONFIG.len() },
            "layers": [],
            "annotations": { "version": version.to_string() },
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        digests.push(sha256(&manifest));
        let put = client
            .put(&format!("/v2/{repository}/manifests/v{version}"))
            .header("content-type", "application/vnd.oci.image.manifest.v1+json")
            .body(manifest);
        assert_eq!(put.send().await.unwrap().status(), 201);
    }
    digests
}

/// Promotes one version after the other, each until it is acknowledged: while Postgres is away the
/// service says that it cannot (500), and goes on by itself.
async fn promote_all(
    client: Arc<Client>,
    repository: String,
    digests: Vec<Digest>,
    tell: UnboundedSender<()>,
) -> (String, Vec<Digest>, Vec<Value>) {
    let mut made = Vec::new();
    for digest in &digests {
        let body = json!({ "repository": repository, "digest": digest, "environment": "prod" });
        let mut failed = 0;
        let promotion = loop {
            let answer = client.post("/api/v1/promotions").json(&body).send().await.unwrap();
            match answer.status() {
                StatusCode::CREATED => break answer.json().await.unwrap(),
                StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE if failed < 20 => {
                    failed += 1;
                }
                other => panic!("{other}: {}", answer.text().await.unwrap()),
            }
        };
        made.push(promotion);
        tell.send(()).unwrap();
    }
    (repository, digests, made)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_after_its_service_was_killed_in_the_middle_of_a_chunk() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path()).await;
    let ci = service.client(Role::Pusher).await;
    let bytes = noise(1, 900_000);
    let location = ci.open_session("crash/one").await;
    assert_eq!(ci.send_chunk(&location, 0, &bytes[..300_000]).await.status(), 202);
    let (feed, receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
    let frames = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (Ok::<_, std::io::Error>(bytes), receiver))
    });
    let writing = tokio::spawn(ci.patch(&location).body(reqwest::Body::wrap_stream(frames)).send());
    for frame in bytes[300_000..700_000].chunks(100_000) {
        feed.send(frame.to_vec()).await.unwrap();
    }
    let db = service.db().await;
    let mut connection = db.acquire().await.unwrap();
    let leased = async {
        let leased = "select exists (select from uploads where lease is not null)";
        while !sqlx::query_scalar::<_, bool>(leased).fetch_one(&mut *connection).await.unwrap() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), leased).await.expect("the body is taken");
    service.kill();
    assert!(writing.await.unwrap().is_err());
    drop((connection, feed));

    // Its client comes back at once, to where it is told that the session is.
    let service = Service::start(home.path()).await;
    let ci = ci.at(service.url());
    let status = ci.get(&location).send().await.unwrap();
    assert_eq!(status.headers()["range"], "0-299999");
    let next = ci.send_chunk(&location, 300_000, &bytes[300_000..]).await;
    assert_eq!(next.status(), 202, "{}", next.text().await.unwrap());
    assert_eq!(ci.finish_session(&location, &sha256(&bytes), "").await.status(), 201);
    assert!(ci.pull_blob("crash/one", &sha256(&bytes)).await == bytes);
    service.check().await;
    assert!(service.stop().success());
}
