//! Collection of garbage, beside a service that works: links that nothing needs, then blobs that no
//! repository has, then their bytes; at last it adds up what repositories hold.
//!
//! Links and blobs are taken in two statements of one transaction. The first locks and skips what
//! others have locked: a push keeps its links `for key share`, and whoever links a blob keeps its
//! row. The second looks again, in a snapshot that is newer than the locks, and deletes what is still
//! unneeded. In one statement the look would be older than the lock: a push that committed in between
//! would lose its blob. Bytes go a delay after the commit that let go of them; an object's key is never
//! used again, so deleting it late or twice touches nobody else.
//!
//! Nothing stops for it: a push that comes while its link is being collected waits for a batch and is
//! told that the blob is unknown, or stores it again.

mod listing;

pub use listing::{Garbage, GarbageCursor, Why, garbage};

use super::store::{collection as store, quotas};
use crate::access::Principal;
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, RepositoryName};
use crate::postgres::{Db, Tx, database_time};
use crate::storage::Store;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use std::time::{Duration, Instant};

/// Rows that one batch looks at.
const WINDOW: i64 = 500;
/// Objects that one batch deletes.
const OBJECTS: i64 = 100;
/// How long one batch goes on deleting them: well within its lease, so that a slow store makes no other
/// replica begin it anew.
const DELETING: Duration = Duration::from_secs(20);
/// Repositories whose usage one batch adds up.
const FOLDED: i64 = 50;

/// A collection under way: where it goes on, and what it has done. Saved with every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// The next batch.
    pub next: Next,
    /// So far.
    pub collected: Collected,
}

/// Where a collection goes on, each phase in the order of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Next {
    /// Links that no manifest needs, behind this one.
    Links {
        /// The repository's row id.
        repository_id: i64,
        /// The blob.
        digest: String,
    },
    /// Blobs that no repository has, behind this one.
    Blobs {
        /// The blob.
        digest: String,
    },
    /// Bytes whose blob was collected, behind this one.
    Objects {
        /// Its key.
        key: String,
    },
    /// What repositories hold, behind this one: rows to be added up.
    Usage {
        /// The repository's row id.
        repository_id: i64,
    },
    /// Nowhere: it has come to its end.
    End,
}

impl Default for Next {
    fn default() -> Self {
        Self::Links { repository_id: 0, digest: String::new() }
    }
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Links and blobs that were looked at.
    pub looked_at: u64,
    /// Links that were let go of.
    pub links: u64,
    /// Blobs that were forgotten.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Objects that were deleted from the store.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Objects that the store did not delete; the next collection tries again.
    pub objects_left: u64,
}

/// What a collection goes by.
#[derive(Clone, Copy, Debug)]
pub struct CollectionRules {
    /// How long bytes stay after their blob was collected.
    pub object_delay: Duration,
}

/// What became of the objects that one batch asked the store to delete; nothing of it is written down.
#[derive(Debug, Default)]
pub struct DeletedObjects {
    keys: Vec<String>,
    bytes: u64,
    left: u64,
    /// Where the next batch goes on; `None` when there were no objects any more.
    next: Option<Next>,
}

impl Collection {
    /// Deletes the objects of the next batch from the store, if objects are what comes next. In no
    /// transaction, since the store may be slow: whoever asks for the job's row waits for none of it.
    /// What is dropped or lost before its batch is deleted again. Ends at the first failure.
    pub async fn delete_objects(
        &self,
        db: &Db,
        bytes: &Store,
        rules: CollectionRules,
    ) -> Result<DeletedObjects, Failure> {
        let Next::Objects { key } = &self.next else { return Ok(DeletedObjects::default()) };
        let page = {
            let mut connection = db.acquire().await?;
            store::doomed_page(&mut connection, key, rules.object_delay, OBJECTS).await?
        };
        let began = Instant::now();
        let (mut deleted, mut rest) = (DeletedObjects::default(), page.len() as u64);
        for doomed in page {
            if began.elapsed() > DELETING {
                break;
            }
            deleted.next = Some(Next::Objects { key: doomed.object_key.clone() });
            if let Err(failure) = bytes.delete(&doomed.object_key).await {
                tracing::warn!(error = failure.chain(), key = doomed.object_key, "an object is left");
                deleted.left = 1;
                if failure.is_overloaded() {
                    // The store is away, and was waited for once: the rest is left to the next collection.
                    deleted.left = rest;
                    deleted.next = Some(Next::Usage { repository_id: 0 });
                }
                break;
            }
            deleted.keys.push(doomed.object_key);
            deleted.bytes += doomed.size_bytes.unsigned_abs();
            rest -= 1;
        }
        Ok(deleted)
    }

    /// Does the next batch in the caller's transaction, with what [`Self::delete_objects`] did for it,
    /// and moves on. The caller saves the state in the same transaction: a crash repeats the batch or
    /// has done it.
    pub async fn batch(
        &mut self,
        tx: &mut Tx,
        deleted: DeletedObjects,
        by: &Principal,
    ) -> Result<(), Failure> {
        self.next = match &self.next {
            Next::Links { repository_id, digest } => {
                let page = store::links_page(tx, *repository_id, digest, WINDOW).await?;
                self.links(tx, page, by).await?
            }
            Next::Blobs { digest } => {
                let page = store::blobs_page(tx, digest, WINDOW).await?;
                self.blobs(tx, page).await?
            }
            Next::Objects { .. } => self.objects(tx, deleted).await?,
            Next::Usage { repository_id } => {
                let last = quotas::fold_page(tx, *repository_id, FOLDED).await?;
                last.map_or(Next::End, |repository_id| Next::Usage { repository_id })
            }
            Next::End => Next::End,
        };
        Ok(())
    }

    async fn links(
        &mut self,
        tx: &mut Tx,
        page: Vec<store::LinkSeen>,
        by: &Principal,
    ) -> Result<Next, Failure> {
        let Some(last) = page.last() else { return Ok(Next::Blobs { digest: String::new() }) };
        let next = Next::Links { repository_id: last.repository_id, digest: last.digest.to_string() };
        self.collected.looked_at += page.len() as u64;
        let (repositories, digests): (Vec<i64>, Vec<Digest>) = page
            .into_iter()
            .filter(|link| link.unneeded)
            .map(|link| (link.repository_id, link.digest))
            .unzip();
        if digests.is_empty() {
            return Ok(next);
        }
        let locked = store::lock_links(tx, &repositories, &digests).await?;
        let (repositories, digests): (Vec<i64>, Vec<Digest>) =
            locked.into_iter().map(|link| (link.repository_id, link.digest)).unzip();
        let gone = store::delete_links(tx, &repositories, &digests).await?;
        self.collected.links += gone.len() as u64;
        metrics::counter!("proofmark_collected_total", "what" => "links").increment(gone.len() as u64);
        record(tx, gone, by).await?;
        Ok(next)
    }

    async fn blobs(
        &mut self,
        connection: &mut PgConnection,
        page: Vec<store::BlobSeen>,
    ) -> Result<Next, Failure> {
        let Some(last) = page.last() else { return Ok(Next::Objects { key: String::new() }) };
        let next = Next::Blobs { digest: last.digest.to_string() };
        self.collected.looked_at += page.len() as u64;
        let unneeded: Vec<Digest> =
            page.into_iter().filter(|blob| blob.unneeded).map(|blob| blob.digest).collect();
        if unneeded.is_empty() {
            return Ok(next);
        }
        let locked = store::lock_blobs(connection, &unneeded).await?;
        // No event: nobody could reach a blob that no repository has, and the events of its links say
        // who let go of it.
        let (count, bytes) = store::delete_blobs(connection, &locked).await?;
        self.collected.blobs += count;
        self.collected.blob_bytes += bytes;
        metrics::counter!("proofmark_collected_total", "what" => "blobs").increment(count);
        Ok(next)
    }

    /// Forgets the objects that are gone.
    async fn objects(
        &mut self,
        connection: &mut PgConnection,
        deleted: DeletedObjects,
    ) -> Result<Next, Failure> {
        let count = deleted.keys.len() as u64;
        self.collected.objects += count;
        self.collected.object_bytes += deleted.bytes;
        self.collected.objects_left += deleted.left;
        store::forget_doomed(connection, &deleted.keys).await?;
        metrics::counter!("proofmark_collected_total", "what" => "objects").increment(count);
        Ok(deleted.next.unwrap_or(Next::Usage { repository_id: 0 }))
    }
}

/// One event for each repository: which blobs it does not have any more.
async fn record(tx: &mut Tx, gone: Vec<store::LinkGone>, by: &Principal) -> Result<(), Failure> {
    let at = database_time(tx).await?;
    for repository in gone.chunk_by(|a, b| a.repository_id == b.repository_id) {
        let Some(first) = repository.first() else { continue };
        let digests: Vec<&Digest> = repository.iter().map(|link| &link.digest).collect();
        let size_bytes: i64 = repository.iter().map(|link| link.size_bytes).sum();
        let name: &RepositoryName = &first.repository;
        let event = Event {
            kind: Kind::BlobsCollected,
            at,
            principal: by,
            repository: Some((first.repository_id, name)),
            environment: None,
            digest: None,
            facts: json!({"digests": digests, "size_bytes": size_bytes}),
            // No manifest needs them, and the time until which somebody may rely on them is over.
            changes: vec![],
        };
        ledger::append(tx, event).await?;
    }
    Ok(())
}
