//! Rollback: back to an earlier version that the policy still allows now.

use super::holds;
use super::lane::{LockedLane, Place};
use super::promote::{What, find, refuse, write};
use super::resolve::MAX_CANDIDATES;
use super::store::{decisions, promotions as store};
use super::{NewHold, Promoted, Reason, Refused};
use crate::access::{Grant, Lane, Rollback};
use crate::keys::Keys;
use crate::ledger::Kind;
use crate::names::{Digest, Tag};
use crate::policy::Action;
use crate::postgres::{Db, act};
use std::time::Duration;

/// A rollback that is asked for.
#[derive(Debug)]
pub struct AskedBack {
    /// To what; the newest earlier version that is still allowed when there is none.
    pub to: Option<What>,
    /// Why.
    pub reason: Reason,
    /// For how long its summary will be valid.
    pub validity: Duration,
}

/// Goes back. The same transaction as a promotion, over each earlier version in turn; every
/// decision on the way is recorded. The lane is held afterwards: it stays where it is until
/// somebody lifts the hold.
pub async fn rollback(
    db: &Db,
    keys: &Keys,
    grant: &Grant<Rollback, Lane>,
    asked: &AskedBack,
) -> Result<Promoted, Refused> {
    act(|| attempt(db, keys, grant, asked)).await
}

async fn attempt(
    db: &Db,
    keys: &Keys,
    grant: &Grant<Rollback, Lane>,
    asked: &AskedBack,
) -> Result<Promoted, Refused> {
    let mut tx = db.begin().await?;
    let place = Place::find(&mut tx, grant.scope()).await?;
    let by = grant.principal();
    let mut lane = LockedLane::lock(&mut tx, place.clone()).await?;
    let candidates = candidates(&mut lane, asked.to.as_ref()).await?;
    let mut refusals = Vec::new();
    for (digest, version) in candidates {
        lane.keep(&digest).await?;
        let judged = lane.judge(&digest, Action::Rollback).await?;
        decisions::insert(lane.connection(), &judged, by.id).await?;
        match lane.allow(judged) {
            Ok(allowance) => {
                let (reason, validity) = (&asked.reason, asked.validity);
                let done = write(allowance, keys, by, Kind::RolledBack, version, reason, validity).await?;
                let reason = format!("rolled back: {}", asked.reason).chars().take(1000).collect::<String>();
                let new = NewHold { reason: reason.parse()?, until: None };
                holds::place(&mut tx, &place.into(), by, &new, done.at).await?;
                tx.commit().await?;
                return Ok(done);
            }
            Err(no) => {
                let (back, judged) = *no;
                lane = back;
                refuse(&mut lane, by, &digest, &judged.decision, judged.case.at).await?;
                refusals.push(format!("{digest}: {}", judged.decision.reasons().join(", ")));
            }
        }
    }
    drop(lane);
    tx.commit().await?;
    Err(Refused::NothingToGoBackTo(refusals))
}

/// Versions to go back to, the newest first.
async fn candidates(
    lane: &mut LockedLane<'_>,
    to: Option<&What>,
) -> Result<Vec<(Digest, Option<Tag>)>, Refused> {
    let Place { repository_id, environment_id, repository, environment } = lane.place().clone();
    let Some(what) = to else {
        let earlier =
            store::earlier(lane.connection(), &repository, &environment, None, MAX_CANDIDATES).await?;
        return Ok(earlier.into_iter().map(|version| (version.digest, version.version)).collect());
    };
    let (digest, version) = find(lane, what).await?;
    if store::was_promoted(lane.connection(), repository_id, environment_id, &digest).await? {
        Ok(vec![(digest, version)])
    } else {
        Err(Refused::NothingToGoBackTo(vec![format!("{digest} was never promoted here")]))
    }
}
