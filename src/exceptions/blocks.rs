//! Blocks: bytes that must not run, in one environment or in all, under whatever digest they are. A block counts in
//! its repository, and in every other where its author had the right to block when it was placed.

use super::store::blocks as store;
use super::target::Target;
use super::{BlockRow, Reason, Refused};
use crate::access::{Action, Block, EveryLane, Grant, Lane, Principal, Pull, Rank, SomeLane};
use crate::failure::Failure;
use crate::ledger::{self, Kind};
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Decisions, Scopes, Tx, act, database_time};
use chrono::{DateTime, Utc};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a block counts in a repository that has its bytes: in its own, and where its author had the right to block
/// when it was placed. Every reader of blocks decides by this function.
pub fn block_counts(is_own: bool, reach: &[Pattern], repository: &RepositoryName) -> bool {
    is_own || reach.iter().any(|pattern| pattern.matches(repository.as_str()))
}

/// Where a block is to count.
#[derive(Debug)]
pub enum BlockScope {
    /// In one environment.
    Lane(Grant<Block, Lane>),
    /// In every environment.
    EveryLane(Grant<Block, EveryLane>),
}

/// Blocks to place.
#[derive(Debug)]
pub struct NewBlock {
    /// Manifests of the repository; their bytes are blocked.
    pub digests: BlockedDigests,
    /// Why.
    pub reason: Reason,
    /// Until when; until it is lifted when there is none.
    pub until: Option<DateTime<Utc>>,
}

/// The digests that one request blocks: at least one, at most [`MAX_BLOCKED_DIGESTS`], each once.
#[derive(Clone, Debug)]
pub struct BlockedDigests(BTreeSet<Digest>);

/// Digests of one request to block.
pub const MAX_BLOCKED_DIGESTS: usize = 100;

/// Not so many digests as one request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one request blocks 1 to {MAX_BLOCKED_DIGESTS} digests, not {0}; send the rest in more requests")]
pub struct InvalidCount(usize);

impl BlockedDigests {
    /// The digests, each once.
    pub fn new(digests: impl IntoIterator<Item = Digest>) -> Result<Self, InvalidCount> {
        let digests: BTreeSet<Digest> = digests.into_iter().collect();
        let count = digests.len();
        if (1..=MAX_BLOCKED_DIGESTS).contains(&count) { Ok(Self(digests)) } else { Err(InvalidCount(count)) }
    }

    fn iter(&self) -> impl Iterator<Item = &Digest> {
        self.0.iter()
    }
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

    fn rank(&self) -> Rank {
        match self {
            Self::Lane(grant) => grant.rank(),
            Self::EveryLane(grant) => grant.rank(),
        }
    }

    /// The repositories where the block counts beside its own.
    fn reach(&self) -> Vec<Pattern> {
        let reach = match self {
            Self::Lane(grant) => grant.reach(),
            Self::EveryLane(grant) => grant.reach(),
        };
        reach.into_iter().collect()
    }

    fn environment(&self) -> Option<&EnvironmentName> {
        match self {
            Self::Lane(grant) => Some(&grant.scope().environment),
            Self::EveryLane(_) => None,
        }
    }
}

/// Takes every decision, alone: the same bytes may be in any repository, and a block in one
/// environment also counts in those whose policies ask that they stand there first (`promoted_in`).
/// Once it is acknowledged, no promotion was decided without it.
async fn lock(tx: &mut Tx, scope: &BlockScope) -> Result<Target, Refused> {
    let target = Target::find(tx, Some(scope.repository()), scope.environment()).await?;
    Scopes::decisions(Decisions::All).lock(tx).await?;
    Ok(target)
}

/// Blocks the bytes of the manifests, all of them or none; the blocks in the order of their digests. Where the same
/// principal has placed just this block already and it is open, that is the one, and nothing is written. However many
/// they are, it is a few statements: every decision waits for them.
pub async fn block(db: &Db, scope: &BlockScope, new: &NewBlock) -> Result<Vec<BlockRow>, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let target = lock(&mut tx, scope).await?;
        let at = database_time(&mut tx).await?;
        Refused::until_is_past(new.until, at)?;
        let (by, rank, reach) = (scope.principal(), scope.rank(), scope.reach());
        let placing = store::Placing { by: by.id, rank, reach: &reach };
        let digests: Vec<Digest> = new.digests.iter().cloned().collect();
        store::end_expired(&mut tx, &target, &digests, at).await?;
        let added = store::insert_missing(&mut tx, &target, (&digests, new), &placing, at).await?;
        let mut placed = BTreeMap::new();
        for row in store::placed(&mut tx, &target, (&digests, new), &placing).await? {
            placed.entry(row.digest.clone()).or_insert(row);
        }
        if let Some(unknown) = digests.iter().find(|digest| !placed.contains_key(digest)) {
            return Err(Refused::UnknownArtifact(unknown.to_string()));
        }
        let placed: Vec<BlockRow> = placed.into_values().collect();
        let added: Vec<&BlockRow> = placed.iter().filter(|row| added.contains(&row.id)).collect();
        let changed: Vec<Changed> = added.iter().map(|row| Changed::Bytes(row.digest.clone())).collect();
        queue::reevaluate_all(&mut tx, &changed).await?;
        let events = added.iter().map(|row| {
            let facts = json!({"block": row.id, "reason": new.reason.as_str(), "until": new.until,
                "rank": rank, "repositories": reach});
            target.event(Kind::BlockPlaced, at, by, Some(&row.digest), facts)
        });
        ledger::append_all(&mut tx, events.collect()).await?;
        tx.commit().await?;
        Ok(placed)
    })
    .await
}

/// Lifts a block that was placed in this scope, with no higher rank.
pub async fn end_block(db: &Db, scope: &BlockScope, id: i64, reason: &Reason) -> Result<BlockRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let target = lock(&mut tx, scope).await?;
        let at = database_time(&mut tx).await?;
        let by = scope.principal();
        let found = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        Refused::rank_is_too_low(Action::Block, found.rank, scope.rank())?;
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
/// `ended`. Those that do not count there ([`BlockRow::counts_in`]) are among them. Who may not see where one was placed is shown it [`BlockRow::from_elsewhere`].
pub async fn blocks(
    db: &Db,
    grant: &Grant<Pull, SomeLane>,
    ended: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<BlockRow>, Failure> {
    store::list(&mut *db.acquire().await?, &grant.scope().0, ended, before, limit).await
}

/// A block by its id, for the door to find out which right its lifting needs.
pub async fn find_block(db: &Db, id: i64) -> Result<Option<BlockRow>, Failure> {
    store::find(&mut *db.acquire().await?, id).await
}
