//! Approvals: people's word for some bytes in one environment.

use super::store::approvals as store;
use super::target::Target;
use super::{ApprovalRow, Reason, Refused};
use crate::access::{Approve, Grant, Lane, Pull, SomeLane};
use crate::failure::Failure;
use crate::ledger::{self, Kind};
use crate::names::Digest;
use crate::postgres::{Db, act, agreed_time, database_time};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;

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

async fn find(connection: &mut PgConnection, lane: &Lane) -> Result<Target, Refused> {
    Target::find(connection, Some(&lane.repository), Some(&lane.environment)).await
}

/// Approves. It can only help, so it waits for nobody.
pub async fn approve(
    db: &Db,
    grant: &Grant<Approve, Lane>,
    new: &NewApproval,
) -> Result<ApprovalRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let lane = find(&mut tx, grant.scope()).await?;
        let at = agreed_time(&mut tx).await?;
        Refused::until_is_past(new.until, at)?;
        let by = grant.principal();
        store::end_expired(&mut tx, &lane, &new.digest, at).await?;
        let id = store::insert(&mut tx, &lane, new, at, by.id).await?;
        let id = id.ok_or_else(|| Refused::UnknownArtifact(new.digest.to_string()))?;
        let facts = json!({"approval": id, "reason": new.reason.as_str(), "until": new.until});
        let event = lane.event(Kind::ApprovalGiven, at, by, Some(&new.digest), facts);
        ledger::append(&mut tx, event).await?;
        let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// Takes an approval back: no promotion of the lane is decided with it afterwards.
pub async fn end_approval(
    db: &Db,
    grant: &Grant<Approve, Lane>,
    id: i64,
    reason: &Reason,
) -> Result<ApprovalRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let lane = find(&mut tx, grant.scope()).await?;
        lane.decisions().lock(&mut tx).await?;
        let at = database_time(&mut tx).await?;
        let by = grant.principal();
        let digest = store::end(&mut tx, &lane, id, at, by.id).await?.ok_or(Refused::Unknown)?;
        let facts = json!({"approval": id, "reason": reason.as_str()});
        ledger::append(&mut tx, lane.event(Kind::ApprovalEnded, at, by, Some(&digest), facts)).await?;
        let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// Approvals in the repository, the newest first; only open ones unless `ended`.
pub async fn approvals(
    db: &Db,
    grant: &Grant<Pull, SomeLane>,
    ended: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<ApprovalRow>, Failure> {
    store::list(&mut *db.acquire().await?, &grant.scope().0, ended, before, limit).await
}

/// An approval by its id, for the door to find out which right its end needs.
pub async fn find_approval(db: &Db, id: i64) -> Result<Option<ApprovalRow>, Failure> {
    store::find(&mut *db.acquire().await?, id).await
}
