//! Retention as a job: repository after repository, each version in its own transaction, resting in
//! between.

use super::lease::{Due, Lease, Taken};
use super::pace::Pace;
use crate::content::{self, Expiry};
use crate::failure::Failure;
use crate::identity;
use crate::names::Digest;
use crate::postgres::Db;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Its name among the leases.
pub const NAME: &str = "retention";

/// How far retention has come, saved with every version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    /// The repository that is done, by its row id.
    after: i64,
    /// Manifests that went.
    pub manifests: u64,
    /// Versions that no rule keeps and that something holds, or that changed meanwhile.
    pub left: u64,
}

/// Lets go of what enforced rules do not keep, if it is due and no other replica does; `None` when it is
/// not this replica's turn, or when it was stopped or lost its lease before the end.
pub async fn retain(
    db: &Db,
    pace: Pace,
    due: Due,
    stop: &CancellationToken,
) -> Result<Option<Retained>, Failure> {
    let Taken::Ours(lease, state) = Lease::take::<Retained>(db, NAME, due).await? else {
        return Ok(None);
    };
    let mut retained = state.unwrap_or_default();
    // What is dropped is what a crash would have cut off: a transaction, or nothing at all.
    match stop.run_until_cancelled(all(db, &lease, pace, &mut retained)).await {
        Some(Ok(true)) => {}
        Some(Ok(false)) => return Ok(None),
        Some(Err(failure)) => return Err(failure),
        None => {
            lease.release(&mut *db.acquire().await?).await?;
            return Ok(None);
        }
    }
    lease.finish(&mut *db.acquire().await?, &retained).await?;
    Ok(Some(retained))
}

/// Repository after repository; `false` when the lease is lost. One in which something changed that was
/// judged is judged anew, behind the version at which that was seen: so every run has an end.
async fn all(db: &Db, lease: &Lease, pace: Pace, retained: &mut Retained) -> Result<bool, Failure> {
    let mut behind: Option<(i64, Digest)> = None;
    loop {
        let mut connection = db.acquire().await?;
        let Some(enforced) = content::next_enforced(&mut connection, retained.after).await? else {
            return Ok(true);
        };
        let repository_id = enforced.repository_id;
        let expired = content::expired(&mut connection, repository_id, &enforced.retention).await?;
        drop(connection);
        let last = behind.take().filter(|(repository, _)| *repository == repository_id);
        let left = |digest: &Digest| last.as_ref().is_none_or(|(_, last)| digest > last);
        for (digest, expired) in expired.iter().filter(|(digest, _)| left(digest)) {
            let began = Instant::now();
            let expiry = match one(db, lease, retained, &enforced, digest, expired).await {
                Ok(Some(expiry)) => expiry,
                Ok(None) => return Ok(false),
                Err(failure) if failure.is_overloaded() => return Err(failure),
                // Whatever is wrong with it stands in no other's way; the next run tries again.
                Err(failure) => {
                    tracing::warn!(error = failure.chain(), %digest, "a version is left by retention");
                    retained.left += 1;
                    Expiry::Held
                }
            };
            tokio::time::sleep(pace.rest_after(began.elapsed())).await;
            if expiry == Expiry::Changed {
                behind = Some((repository_id, digest.clone()));
                break;
            }
        }
        if behind.is_none() {
            retained.after = repository_id;
        }
    }
}

/// One version; `None` when the lease is lost. A version that cannot go is left, and the run goes on.
async fn one(
    db: &Db,
    lease: &Lease,
    retained: &mut Retained,
    enforced: &content::Enforced,
    digest: &Digest,
    expired: &content::Expired,
) -> Result<Option<Expiry>, Failure> {
    let mut tx = db.begin().await?;
    if !lease.keep(&mut tx).await? {
        return Ok(None);
    }
    let expiry = content::expire(&mut tx, enforced, digest, expired, &identity::service()).await?;
    let went = match expiry {
        Expiry::Gone(manifests) => u64::try_from(manifests).unwrap_or_default(),
        Expiry::Held | Expiry::Changed => 0,
    };
    let before = retained.clone();
    retained.manifests += went;
    retained.left += u64::from(went == 0);
    lease.save(&mut tx, retained).await?;
    if let Err(error) = tx.commit().await {
        *retained = before;
        return Err(Failure::new("letting go of a version", error));
    }
    metrics::counter!("proofmark_collected_total", "what" => "manifests").increment(went);
    Ok(Some(expiry))
}
