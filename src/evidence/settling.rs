//! Which signed scans count after a revocation: settled by a job, in batches. Until then evaluations look at the signatures
//! themselves, so no answer changes by it.

use super::store::runs as store;
use crate::failure::Failure;
use crate::postgres::queue;
use crate::postgres::{Db, Scopes, act};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Runs that one transaction looks at.
const BATCH: i32 = 200;
/// After this time a job is enqueued anew, so that no other job comes late because of it.
const LONGEST_RUN: Duration = Duration::from_secs(5);

/// The handler of the job. What began before a revocation has ended when the signers are locked; what begins after it
/// sees it. So the revocations that are there under the first lock are settled once every run was looked at.
pub async fn settle_scans(db: &Db, key: &str, payload: &Value) -> Result<(), Failure> {
    let signer_id: i64 = key.parse().map_err(|error| Failure::new("reading the signer of a job", error))?;
    let begun = Instant::now();
    let mut behind = payload["behind"].as_i64().unwrap_or(0);
    let mut revocations: Option<Vec<i64>> =
        payload["revocations"].as_array().map(|ids| ids.iter().filter_map(Value::as_i64).collect());
    loop {
        let (last, found) = act(|| settle(db, signer_id, behind, revocations.clone())).await?;
        let Some(last) = last else { break };
        behind = last;
        if begun.elapsed() > LONGEST_RUN {
            let payload = json!({"behind": behind, "revocations": found});
            let mut connection = db.acquire().await?;
            return queue::enqueue(&mut connection, queue::SETTLE_SCANS, key, &payload, None).await;
        }
        revocations = Some(found);
    }
    // The job of a revocation that was made meanwhile may have been taken for this one.
    let mut connection = db.acquire().await?;
    if !store::revocations(&mut connection, signer_id).await?.is_empty() {
        queue::enqueue(&mut connection, queue::SETTLE_SCANS, key, &Value::Null, None).await?;
    }
    Ok(())
}

/// One batch: the last run that it looked at, nothing at the end, and the revocations that are being settled.
async fn settle(
    db: &Db,
    signer_id: i64,
    behind: i64,
    revocations: Option<Vec<i64>>,
) -> Result<(Option<i64>, Vec<i64>), Failure> {
    let mut tx = db.begin().await?;
    Scopes::signers().lock(&mut tx).await?;
    let revocations = match revocations {
        Some(revocations) => revocations,
        None => store::revocations(&mut tx, signer_id).await?,
    };
    let last =
        if revocations.is_empty() { None } else { store::settle(&mut tx, signer_id, behind, BATCH).await? };
    if last.is_none() {
        store::settled(&mut tx, &revocations).await?;
    }
    tx.commit().await.map_err(|error| Failure::new("settling which signed scans count", error))?;
    Ok((last, revocations))
}

/// Enqueues a job for each signer with a revocation that is not settled and that has none.
pub async fn enqueue_settling(db: &Db, again_after: Duration) -> Result<(), Failure> {
    let mut connection = db.acquire().await?;
    let signers = store::unsettled(&mut connection).await?;
    let signers: Vec<String> = signers.iter().map(ToString::to_string).collect();
    queue::enqueue_missing(&mut connection, queue::SETTLE_SCANS, &signers, again_after).await
}
