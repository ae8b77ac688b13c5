//! Blocks: bytes that must not run, in one environment or in all, under whatever digest and in
//! whatever repository they are.

use super::store::blocks as store;
use super::target::Target;
use super::{BlockRow, Reason, Refused};
use crate::access::{Block, EveryLane, Grant, Lane, Principal, Pull};
use crate::failure::Failure;
use crate::ledger::{self, Kind};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Scopes, Tx, act, database_time};
use chrono::{DateTime, Utc};
use serde_json::json;

/// Where a block is to count.
#[derive(Debug)]
pub enum BlockScope {
    /// In one environment.
    Lane(Grant<Block, Lane>),
    /// In every environment.
    EveryLane(Grant<Block, EveryLane>),
}

/// A block to place.
#[derive(Debug)]
pub struct NewBlock {
    /// A manifest of the repository; its bytes are blocked.
    pub digest: Digest,
    /// Why.
    pub reason: Reason,
    /// Until when; until it is lifted when there is none.
    pub until: Option<DateTime<Utc>>,
}

impl BlockScope {
    fn principal(&self) -> &Principal {
        match self {
            Self::Lane(grant) => grant.principal(),
            Self::EveryLane(grant) => grant.principal(),
        }
    }

    fn repository(&self) -> &RepositoryName {
        match self {
            Self::Lane(grant) => &grant.scope().repository,
            Self::EveryLane(grant) => &grant.scope().0,
        }
    }

    fn environment(&self) -> Option<&EnvironmentName> {
        match self {
            Self::Lane(grant) => Some(&grant.scope().environment),
            Self::EveryLane(_) => None,
        }
    }
}

/// Takes the whole registry, alone: the same bytes may be in any repository, and a block in one
/// environment also counts in those whose policies ask that they stand there first (`promoted_in`).
/// Once it is acknowledged, no promotion was decided without it.
async fn lock(tx: &mut Tx, scope: &BlockScope) -> Result<Target, Refused> {
    let target = Target::find(tx, Some(scope.repository()), scope.environment()).await?;
    Scopes::everything().lock(tx).await?;
    Ok(target)
}

/// Blocks the bytes of a manifest.
pub async fn block(db: &Db, scope: &BlockScope, new: &NewBlock) -> Result<BlockRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let target = lock(&mut tx, scope).await?;
        let at = database_time(&mut tx).await?;
        Refused::until_is_past(new.until, at)?;
        let by = scope.principal();
        store::end_expired(&mut tx, &target, &new.digest, at).await?;
        let id = store::insert(&mut tx, &target, new, at, by.id).await?;
        let id = id.ok_or_else(|| Refused::UnknownArtifact(new.digest.to_string()))?;
        let facts = json!({"block": id, "reason": new.reason.as_str(), "until": new.until});
        let event = target.event(Kind::BlockPlaced, at, by, Some(&new.digest), facts);
        queue::reevaluate(&mut tx, &Changed::Bytes(new.digest.clone())).await?;
        ledger::append(&mut tx, event).await?;
        let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// Lifts a block that was placed in this scope.
pub async fn end_block(db: &Db, scope: &BlockScope, id: i64, reason: &Reason) -> Result<BlockRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let target = lock(&mut tx, scope).await?;
        let at = database_time(&mut tx).await?;
        let by = scope.principal();
        let digest = store::end(&mut tx, &target, id, at, by.id).await?.ok_or(Refused::Unknown)?;
        let facts = json!({"block": id, "reason": reason.as_str()});
        queue::reevaluate(&mut tx, &Changed::Bytes(digest.clone())).await?;
        ledger::append(&mut tx, target.event(Kind::BlockEnded, at, by, Some(&digest), facts)).await?;
        let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// Blocks on bytes of the repository, wherever they were placed, the newest first; only open ones unless
/// `ended`. Who may not see where one was placed is shown it [`BlockRow::from_elsewhere`].
pub async fn blocks(
    db: &Db,
    grant: &Grant<Pull>,
    ended: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<BlockRow>, Failure> {
    store::list(&mut *db.acquire().await?, grant.repository(), ended, before, limit).await
}

/// A block by its id, for the door to find out which right its lifting needs.
pub async fn find_block(db: &Db, id: i64) -> Result<Option<BlockRow>, Failure> {
    store::find(&mut *db.acquire().await?, id).await
}
