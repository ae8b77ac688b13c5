//! The collection of garbage as a job: batch after batch, each with its lease and its state in one
//! transaction, resting in between.

use super::lease::{Due, Lease, Taken};
use super::pace::Pace;
use crate::content::{Collected, Collection, CollectionRules, Next};
use crate::failure::Failure;
use crate::identity;
use crate::postgres::Db;
use crate::storage::Store;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Its name among the leases.
pub const NAME: &str = "collection";

/// How collection runs.
#[derive(Clone, Copy, Debug)]
pub struct CollectionSettings {
    /// How much of the time it may work.
    pub pace: Pace,
    /// What it goes by.
    pub rules: CollectionRules,
}

/// Collects what is garbage, if it is due and no other replica does; `None` when it is not this
/// replica's turn, or when it was stopped or lost its lease before the end.
pub async fn collect(
    db: &Db,
    store: &Store,
    settings: CollectionSettings,
    due: Due,
    stop: &CancellationToken,
) -> Result<Option<Collected>, Failure> {
    let Taken::Ours(lease, state) = Lease::take::<Collection>(db, NAME, due).await? else {
        return Ok(None);
    };
    let mut collection = state.unwrap_or_default();
    let by = identity::service();
    while collection.next != Next::End {
        let began = Instant::now();
        let batch = async {
            // The store may be waited for: the lease begins anew before it.
            if !lease.keep(&mut *db.acquire().await?).await? {
                return Ok(false);
            }
            let deleted = collection.delete_objects(db, store, settings.rules).await?;
            let mut tx = db.begin().await?;
            if !lease.keep(&mut tx).await? {
                return Ok(false);
            }
            collection.batch(&mut tx, deleted, &by).await?;
            lease.save(&mut tx, &collection).await?;
            tx.commit().await.map_err(|error| Failure::new("collecting garbage", error))?;
            Ok::<_, Failure>(true)
        };
        // A batch that is dropped is one that a crash cut off: a slow store keeps nobody from stopping.
        match stop.run_until_cancelled(batch).await {
            Some(Ok(true)) => {}
            Some(Ok(false)) => return Ok(None),
            Some(Err(failure)) => return Err(failure),
            None => {
                lease.release(&mut *db.acquire().await?).await?;
                return Ok(None);
            }
        }
        let worked = began.elapsed();
        metrics::histogram!("proofmark_collection_batch_seconds").record(worked.as_secs_f64());
        tokio::select! {
            () = tokio::time::sleep(settings.pace.rest_after(worked)) => {}
            () = stop.cancelled() => {}
        }
    }
    let collected = collection.collected;
    lease.finish(&mut *db.acquire().await?, &collected).await?;
    metrics::counter!("proofmark_collections_total").increment(1);
    metrics::counter!("proofmark_collected_bytes_total").increment(collected.object_bytes);
    tracing::info!(
        links = collected.links,
        blobs = collected.blobs,
        objects = collected.objects,
        object_bytes = collected.object_bytes,
        "garbage was collected"
    );
    Ok(Some(collected))
}
