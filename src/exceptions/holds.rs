//! Holds: promotions are stopped, of a repository, of an environment, or of one in the other.
//! Neither rollbacks nor answers to deployers are.

use super::store::holds as store;
use super::target::Target;
use super::{HoldRow, Origin, Reason, Refused};
use crate::access::{Action, EveryLane, Grant, Hold, Lane, Principal, Rank};
use crate::failure::Failure;
use crate::ledger::{self, Kind};
use crate::names::{EnvironmentName, RepositoryName};
use crate::postgres::{Db, Tx, act, database_time};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;

/// What a hold is to stop.
#[derive(Debug)]
pub enum HoldScope {
    /// A repository in an environment.
    Lane(Grant<Hold, Lane>),
    /// A repository everywhere.
    Repository(Grant<Hold, EveryLane>),
    /// An environment.
    Environment(Grant<Hold, EnvironmentName>),
}

/// A hold to place.
#[derive(Debug)]
pub struct NewHold {
    /// Why.
    pub reason: Reason,
    /// Until when; until it is lifted when there is none.
    pub until: Option<DateTime<Utc>>,
    /// Whether somebody asks for it, or a rollback leaves it.
    pub origin: Origin,
}

impl HoldScope {
    fn principal(&self) -> &Principal {
        match self {
            Self::Lane(grant) => grant.principal(),
            Self::Repository(grant) => grant.principal(),
            Self::Environment(grant) => grant.principal(),
        }
    }

    fn rank(&self) -> Rank {
        match self {
            Self::Lane(grant) => grant.rank(),
            Self::Repository(grant) => grant.rank(),
            Self::Environment(grant) => grant.rank(),
        }
    }

    fn names(&self) -> (Option<&RepositoryName>, Option<&EnvironmentName>) {
        match self {
            Self::Lane(grant) => (Some(&grant.scope().repository), Some(&grant.scope().environment)),
            Self::Repository(grant) => (Some(&grant.scope().0), None),
            Self::Environment(grant) => (None, Some(grant.scope())),
        }
    }
}

/// Takes every decision that the hold can change, alone.
async fn lock(tx: &mut Tx, scope: &HoldScope) -> Result<Target, Refused> {
    let (repository, environment) = scope.names();
    let target = Target::find(tx, repository, environment).await?;
    target.decisions().lock(tx).await?;
    Ok(target)
}

/// Stops promotions.
pub async fn hold(db: &Db, scope: &HoldScope, new: &NewHold) -> Result<HoldRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let target = lock(&mut tx, scope).await?;
        let at = database_time(&mut tx).await?;
        Refused::until_is_past(new.until, at)?;
        let id = place(&mut tx, &target, (scope.principal(), scope.rank()), new, at).await?;
        let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// Writes a hold and its event, under locks that the caller holds.
async fn place(
    tx: &mut Tx,
    target: &Target,
    (by, rank): (&Principal, Rank),
    new: &NewHold,
    at: DateTime<Utc>,
) -> Result<i64, Failure> {
    store::end_expired(tx, target, at).await?;
    let id = store::insert(tx, target, new, rank, at, by.id).await?;
    let facts = json!({"hold": id, "reason": new.reason.as_str(), "until": new.until, "origin": new.origin,
        "rank": rank});
    ledger::append(tx, target.event(Kind::HoldPlaced, at, by, None, facts)).await?;
    Ok(id)
}

/// Holds after a rollback, under the locks of its transaction. One such hold is enough, however many
/// rollbacks follow each other.
pub async fn hold_after_rollback(
    tx: &mut Tx,
    target: &Target,
    by: &Principal,
    reason: Reason,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    if !store::is_kept_back(tx, target).await? {
        let new = NewHold { reason, until: None, origin: Origin::Rollback };
        place(tx, target, (by, Rank::Promoter), &new, at).await?;
    }
    Ok(())
}

/// Lifts a hold of this scope, with no higher rank.
pub async fn end_hold(db: &Db, scope: &HoldScope, id: i64, reason: &Reason) -> Result<HoldRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let target = lock(&mut tx, scope).await?;
        let at = database_time(&mut tx).await?;
        let by = scope.principal();
        let found = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        Refused::rank_is_too_low(Action::Hold, found.rank, scope.rank())?;
        if !store::end(&mut tx, &target, id, at, by.id).await? {
            return Err(Refused::Unknown);
        }
        let facts = json!({"hold": id, "reason": reason.as_str()});
        ledger::append(&mut tx, target.event(Kind::HoldEnded, at, by, None, facts)).await?;
        let row = store::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// Holds that stop the repository, or the environment, or both; the newest first.
pub async fn holds(
    db: &Db,
    repository: Option<&RepositoryName>,
    environment: Option<&EnvironmentName>,
    ended: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<HoldRow>, Failure> {
    store::list(&mut *db.acquire().await?, repository, environment, ended, before, limit).await
}

/// Open holds that stop promotions in the release channel, the newest first.
pub async fn holds_in(
    connection: &mut PgConnection,
    lane: &Lane,
    limit: i64,
) -> Result<Vec<HoldRow>, Failure> {
    let (repository, environment) = (Some(&lane.repository), Some(&lane.environment));
    store::list(connection, repository, environment, false, None, limit).await
}

/// A hold by its id, for the door to find out which right its lifting needs.
pub async fn find_hold(db: &Db, id: i64) -> Result<Option<HoldRow>, Failure> {
    store::find(&mut *db.acquire().await?, id).await
}
