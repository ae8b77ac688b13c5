//! Rollback: back to an earlier version that the policy still allows now.

use super::lane::{LockedLane, Place};
use super::promote::{What, find, refuse, write};
use super::resolve::MAX_CANDIDATES;
use super::store::{decisions, promotions as store};
use super::{Promoted, Reason, Refused};
use crate::access::{Grant, Lane, Rollback};
use crate::exceptions::{self, Target};
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
        if asked.to.is_none()
            && let Some(known) = known_criticals(&mut lane, &digest).await?
        {
            refusals.push(known);
            continue;
        }
        let judged = lane.judge(&digest, Action::Rollback).await?;
        decisions::insert(lane.connection(), &judged, by.id).await?;
        match lane.allow(judged) {
            Ok(allowance) => {
                let (reason, validity) = (&asked.reason, asked.validity);
                let done = write(allowance, keys, by, Kind::RolledBack, version, reason, validity).await?;
                let reason: String = format!("rolled back: {}", asked.reason).chars().take(1000).collect();
                let Place { repository_id, repository, environment_id, environment } = place;
                let target = Target::one((repository_id, repository), (environment_id, environment));
                exceptions::hold_after_rollback(&mut tx, &target, by, reason.parse()?, done.at).await?;
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

/// What is known to be critical is never brought back unasked, whether or not a policy looks at scans:
/// who wants it names it.
async fn known_criticals(lane: &mut LockedLane<'_>, digest: &Digest) -> Result<Option<String>, Refused> {
    let repository_id = lane.place().repository_id;
    let known = store::known_criticals(lane.connection(), repository_id, digest).await?;
    Ok((!known.is_empty()).then(|| {
        format!(
            "{digest}: it has known critical vulnerabilities ({}); only `to` brings it back",
            known.join(", ")
        )
    }))
}

/// Versions to go back to, the newest first. A version that was gone back from is none: what leads
/// forward is a promotion, after the hold was lifted.
async fn candidates(
    lane: &mut LockedLane<'_>,
    to: Option<&What>,
) -> Result<Vec<(Digest, Option<Tag>)>, Refused> {
    let place = lane.place().clone();
    let Some(what) = to else {
        let Place { repository, environment, .. } = &place;
        let earlier =
            store::earlier(lane.connection(), repository, environment, None, MAX_CANDIDATES).await?;
        return Ok(earlier.into_iter().map(|version| (version.digest, version.version)).collect());
    };
    let (digest, version) = find(lane, what).await?;
    if store::lies_behind(lane.connection(), &place, &digest).await? {
        return Ok(vec![(digest, version)]);
    }
    let why = "did not stand here before the present version; a promotion brings it";
    Err(Refused::NothingToGoBackTo(vec![format!("{digest} {why}")]))
}
