//! Rollback: back to an earlier version that the policy still allows now.

use super::evaluate::MAX_CANDIDATES;
use super::lane::{EnteredLane, Judged, Place};
use super::promote::{What, Writing, find, write};
use super::refusals;
use super::store::promotions as store;
use super::{Promoted, Reason, Refused};
use crate::access::{Grant, Lane, Rollback};
use crate::exceptions;
use crate::keys::Keys;
use crate::ledger::Kind;
use crate::names::{Digest, Tag};
use crate::policy::{Accepted, Position, Recorded, evaluate_running};
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
    let mut lane = EnteredLane::enter(&mut tx, place.clone()).await?;
    let candidates = candidates(&mut lane, asked.to.as_ref()).await?;
    let mut lane = lane.lock(candidates.iter().map(|target| &target.digest)).await?;
    let mut refused = Vec::new();
    let named = asked.to.is_some();
    for Target { promotion, digest, version } in candidates {
        lane.keep(&digest).await?;
        let judged = lane.judge_rollback(promotion, named).await?;
        match lane.allow(judged) {
            Ok(allowance) => {
                let recorded = recorded(allowance.judged(), named, &by.name);
                let (reason, validity, kind) = (&asked.reason, asked.validity, Kind::RolledBack);
                let target = Some(promotion);
                let writing = Writing { kind, version, reason, validity, recorded, target };
                let done = write(allowance, keys, by, writing).await?;
                let reason: String = format!("rolled back: {}", asked.reason).chars().take(1000).collect();
                let Place { repository_id, repository, environment_id, environment } = place;
                let channel =
                    exceptions::Target::one((repository_id, repository), (environment_id, environment));
                exceptions::hold_after_rollback(&mut tx, &channel, by, reason.parse()?, done.at).await?;
                tx.commit().await?;
                return Ok(done);
            }
            Err(no) => {
                let (back, mut judged) = *no;
                lane = back;
                refusals::record(&mut lane, by, &digest, &mut judged).await?;
                refused.push(format!("{digest}: {}", judged.decision.reasons().join(", ")));
            }
        }
    }
    drop(lane);
    tx.commit().await?;
    Err(Refused::NothingToGoBackTo(refused))
}

/// What the version stands on from now on. Whoever names it accepts the findings that are known of it.
fn recorded(judged: &Judged, named: bool, by: &str) -> Recorded {
    let mut recorded = judged.recorded();
    if named && let Some(before) = &judged.case.recorded {
        let position = Position::Candidate { named };
        let known = evaluate_running(&judged.policies, &judged.case, before, position).known_findings;
        let (by, at) = (by.to_owned(), judged.case.at);
        recorded.accepted = (!known.is_empty()).then_some(Accepted { by, at, vulnerabilities: known });
    }
    recorded
}

/// A version to go back to.
struct Target {
    promotion: i64,
    digest: Digest,
    version: Option<Tag>,
}

/// Versions to go back to, the newest first. A version that was rolled back from is none: what leads
/// forward is a promotion, after the hold was revoked.
async fn candidates(lane: &mut EnteredLane<'_>, to: Option<&What>) -> Result<Vec<Target>, Refused> {
    let place = lane.place().clone();
    let Some(what) = to else {
        let Place { repository, environment, .. } = &place;
        let earlier =
            store::earlier(lane.connection(), repository, environment, None, MAX_CANDIDATES).await?;
        return Ok(earlier
            .into_iter()
            .map(|version| Target {
                promotion: version.promotion,
                digest: version.digest,
                version: version.version,
            })
            .collect());
    };
    let (digest, version) = find(lane, what).await?;
    if let Some(promotion) = store::lies_behind(lane.connection(), &place, &digest).await? {
        return Ok(vec![Target { promotion, digest, version }]);
    }
    let name = version.map_or_else(|| digest.to_string(), |version| format!("{version} ({digest})"));
    let why = "is no version to go back to: it is the present one, or was never promoted here, or a rollback went \
               away from it or over it; promote it";
    Err(Refused::NothingToGoBackTo(vec![format!("{name} {why}")]))
}
