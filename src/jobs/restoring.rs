//! Damaged blobs as a job: each is read again, and is given out again where its bytes are right by now, as after the
//! object store was restored.

use super::lease::{Due, LEASE, Lease, Taken};
use super::pace::Pace;
use crate::audit::{self, Repair};
use crate::failure::Failure;
use crate::identity;
use crate::names::Digest;
use crate::postgres::Db;
use crate::storage::Store;
use serde::{Deserialize, Serialize};
use std::pin::Pin;
use std::time::Instant;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Its name among the leases.
const NAME: &str = "restored-blobs";

/// How far a run has come, saved with every blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The last blob that was read.
    after: Option<Digest>,
    /// Blobs that are given out again.
    pub restored: u64,
    /// Blobs that are damaged still.
    pub damaged: u64,
    /// Blobs that could not be read.
    pub unread: u64,
}

/// Reads every damaged blob once, if it is due and no other replica does; `None` when another one does, or when the run
/// was stopped or lost its lease before the end.
pub async fn restore_blobs(
    db: &Db,
    store: &Store,
    pace: Pace,
    due: Due,
    stop: &CancellationToken,
) -> Result<Option<Restored>, Failure> {
    let Taken::Ours(lease, state) = Lease::take::<Restored>(db, NAME, due).await? else {
        return Ok(None);
    };
    let mut restored = state.unwrap_or_default();
    match stop.run_until_cancelled(all(db, store, &lease, pace, &mut restored)).await {
        Some(Ok(true)) => {}
        Some(Ok(false)) => return Ok(None),
        Some(Err(failure)) => {
            lease.release(&mut *db.acquire().await?).await?;
            return Err(failure);
        }
        None => {
            lease.release(&mut *db.acquire().await?).await?;
            return Ok(None);
        }
    }
    lease.finish(&mut *db.acquire().await?, &restored).await?;
    Ok(Some(restored))
}

/// Blob after blob; `false` when the lease is lost. One that cannot be read is left to the next run, so that it keeps
/// no other from being restored.
async fn all(
    db: &Db,
    store: &Store,
    lease: &Lease,
    pace: Pace,
    restored: &mut Restored,
) -> Result<bool, Failure> {
    loop {
        let next = audit::next_damaged(&mut *db.acquire().await?, restored.after.as_ref()).await?;
        let Some(digest) = next else { return Ok(true) };
        let began = Instant::now();
        let repair = Repair::RestoredBlob { digest: digest.clone() };
        let by = identity::service();
        let reading = Box::pin(audit::repair(db, store, &repair, &by));
        let Some(read) = while_kept(db, lease, reading).await? else { return Ok(false) };
        restored.after = Some(digest.clone());
        let failed = match read {
            Ok(true) => {
                restored.restored += 1;
                None
            }
            Ok(false) => {
                restored.damaged += 1;
                None
            }
            Err(failure) => {
                tracing::warn!(error = failure.chain(), %digest, "a damaged blob cannot be read again");
                restored.unread += 1;
                Some(failure).filter(Failure::is_overloaded)
            }
        };
        lease.save(&mut *db.acquire().await?, restored).await?;
        // What fails for all of them is tried again by the next run, which goes on behind this one.
        if let Some(failure) = failed {
            return Err(failure);
        }
        sleep(pace.rest_after(began.elapsed())).await;
    }
}

/// Runs the work, and keeps the lease meanwhile: a large blob takes longer to read than a lease lasts. `None` when the
/// lease is lost.
async fn while_kept<T>(
    db: &Db,
    lease: &Lease,
    mut work: Pin<Box<impl Future<Output = T>>>,
) -> Result<Option<T>, Failure> {
    loop {
        if !lease.keep(&mut *db.acquire().await?).await? {
            return Ok(None);
        }
        tokio::select! {
            done = &mut work => return Ok(Some(done)),
            () = sleep(LEASE / 3) => {}
        }
    }
}
