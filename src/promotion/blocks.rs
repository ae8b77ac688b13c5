//! Blocks: bytes that must not run, in one environment or in all, under whatever digest and in
//! whatever repository they are.

use super::lane::{environment_id, repository_id};
use super::store::blocks as store;
use super::{BlockRow, Reason, Refused};
use crate::access::{Block, EveryLane, Grant, Lane, Principal, Pull};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::postgres::{Db, Scopes, Tx, database_time};
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
async fn lock(tx: &mut Tx, scope: &BlockScope) -> Result<(i64, Option<(i64, EnvironmentName)>), Refused> {
    let repository_id = repository_id(tx, scope.repository()).await?;
    let environment = match scope.environment() {
        Some(name) => Some((environment_id(tx, name).await?, name.clone())),
        None => None,
    };
    Scopes::everything().lock(tx).await?;
    Ok((repository_id, environment))
}

/// Blocks the bytes of a manifest.
pub async fn block(db: &Db, scope: &BlockScope, new: &NewBlock) -> Result<BlockRow, Refused> {
    let mut tx = db.begin().await?;
    let (repository_id, environment) = lock(&mut tx, scope).await?;
    let at = database_time(&mut tx).await?;
    if new.until.is_some_and(|until| until <= at) {
        return Err(Refused::UntilIsPast);
    }
    let environment_id = environment.as_ref().map(|(id, _)| *id);
    store::end_expired(&mut tx, repository_id, &new.digest, at).await?;
    let by = scope.principal();
    let id = store::insert(&mut tx, repository_id, environment_id, new, at, by.id).await?;
    let id = id.ok_or_else(|| Refused::UnknownArtifact(new.digest.to_string()))?;
    let event = Event {
        kind: Kind::BlockPlaced,
        at,
        principal: by,
        repository: Some((repository_id, scope.repository())),
        environment: environment.as_ref().map(|(id, name)| (*id, name)),
        digest: Some(&new.digest),
        facts: json!({"block": id, "reason": new.reason.as_str(), "until": new.until}),
    };
    ledger::append(&mut tx, event).await?;
    let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
    tx.commit().await?;
    Ok(row)
}

/// Lifts a block that was placed in this scope.
pub async fn end_block(db: &Db, scope: &BlockScope, id: i64, reason: &Reason) -> Result<BlockRow, Refused> {
    let mut tx = db.begin().await?;
    let (repository_id, environment) = lock(&mut tx, scope).await?;
    let at = database_time(&mut tx).await?;
    let by = scope.principal();
    let environment_id = environment.as_ref().map(|(id, _)| *id);
    let ended = store::end(&mut tx, repository_id, environment_id, id, at, by.id).await?;
    let digest = ended.ok_or(Refused::Unknown)?;
    let event = Event {
        kind: Kind::BlockEnded,
        at,
        principal: by,
        repository: Some((repository_id, scope.repository())),
        environment: environment.as_ref().map(|(id, name)| (*id, name)),
        digest: Some(&digest),
        facts: json!({"block": id, "reason": reason.as_str()}),
    };
    ledger::append(&mut tx, event).await?;
    let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
    tx.commit().await?;
    Ok(row)
}

/// Blocks that were placed in the repository, the newest first; only open ones unless `ended`.
pub async fn blocks(
    db: &Db,
    grant: &Grant<Pull>,
    ended: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<BlockRow>, Failure> {
    store::list(&mut *db.pool().acquire().await?, grant.repository(), ended, before, limit).await
}

/// A block by its id, for the door to find out which right its lifting needs.
pub async fn find_block(db: &Db, id: i64) -> Result<Option<BlockRow>, Failure> {
    store::find(&mut *db.pool().acquire().await?, id).await
}
