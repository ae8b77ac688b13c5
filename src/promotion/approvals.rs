//! Approvals: people's word for some bytes in one environment.

use super::lane::Place;
use super::store::approvals as store;
use super::{ApprovalRow, Reason, Refused};
use crate::access::{Approve, Grant, Lane, Pull};
use crate::failure::Failure;
use crate::ledger::{self, Kind};
use crate::names::Digest;
use crate::postgres::{Db, Mode, Scopes, database_time};
use chrono::{DateTime, Utc};
use serde_json::json;

/// An approval to give.
#[derive(Debug)]
pub struct NewApproval {
    /// What is approved.
    pub digest: Digest,
    /// Why.
    pub reason: Reason,
    /// Until when; until it is taken back when there is none.
    pub until: Option<DateTime<Utc>>,
}

/// Approves. It can only help, so it waits for nobody.
pub async fn approve(
    db: &Db,
    grant: &Grant<Approve, Lane>,
    new: &NewApproval,
) -> Result<ApprovalRow, Refused> {
    let mut tx = db.begin().await?;
    let place = Place::find(&mut tx, grant.scope()).await?;
    let at = database_time(&mut tx).await?;
    if new.until.is_some_and(|until| until <= at) {
        return Err(Refused::UntilIsPast);
    }
    let by = grant.principal();
    store::end_expired(&mut tx, &place, &new.digest, at).await?;
    let id = store::insert(&mut tx, &place, new, at, by.id).await?;
    let id = id.ok_or_else(|| Refused::UnknownArtifact(new.digest.to_string()))?;
    let facts = json!({"approval": id, "reason": new.reason.as_str(), "until": new.until});
    let event = place.event(Kind::ApprovalGiven, at, by, &new.digest, facts);
    ledger::append(&mut tx, event).await?;
    let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
    tx.commit().await?;
    Ok(row)
}

/// Takes an approval back: no promotion of the lane is decided with it afterwards.
pub async fn end_approval(
    db: &Db,
    grant: &Grant<Approve, Lane>,
    id: i64,
    reason: &Reason,
) -> Result<ApprovalRow, Refused> {
    let mut tx = db.begin().await?;
    let place = Place::find(&mut tx, grant.scope()).await?;
    let lane = Some((place.repository_id, place.environment_id, Mode::Exclusive));
    Scopes { lane, ..Scopes::default() }.lock(&mut tx).await?;
    let at = database_time(&mut tx).await?;
    let by = grant.principal();
    let digest = store::end(&mut tx, &place, id, at, by.id).await?.ok_or(Refused::Unknown)?;
    let facts = json!({"approval": id, "reason": reason.as_str()});
    let event = place.event(Kind::ApprovalEnded, at, by, &digest, facts);
    ledger::append(&mut tx, event).await?;
    let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
    tx.commit().await?;
    Ok(row)
}

/// Approvals in the repository, the newest first; only open ones unless `ended`.
pub async fn approvals(
    db: &Db,
    grant: &Grant<Pull>,
    ended: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<ApprovalRow>, Failure> {
    store::list(&mut *db.pool().acquire().await?, grant.repository(), ended, before, limit).await
}

/// An approval by its id, for the door to find out which right its end needs.
pub async fn find_approval(db: &Db, id: i64) -> Result<Option<ApprovalRow>, Failure> {
    store::find(&mut *db.pool().acquire().await?, id).await
}
