//! Renewal of verification summaries: of every version that may go on running, in the last third of the
//! validity of its summary. A question never writes; this does.

use super::Refused;
use super::evaluate::{self, Evaluated, Part};
use super::lane::Place;
use super::store::{promotions, summaries as store};
use super::summary::{self, Summarized};
use crate::access::{Lane, Principal};
use crate::failure::Failure;
use crate::keys::Keys;
use crate::ledger::{self, Kind};
use crate::names::Digest;
use crate::policy::{EvidenceKind, Gate, Position, Recorded, Status};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Scopes, Tx, act, agreed_time};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgConnection;
use std::time::Duration;

/// Enqueues the renewal of summaries that are due; for how many release channels.
pub async fn enqueue_due(db: &Db, before: DateTime<Utc>, limit: i64) -> Result<usize, Failure> {
    let mut connection = db.acquire().await?;
    let channels = store::ending(&mut connection, before, limit).await?;
    enqueue(&mut connection, &channels, DEAD_FOR).await?;
    Ok(channels.len())
}

/// Enqueues the renewal of the summaries of every release channel whose answer a fact may have changed. What
/// known-good answers instead has an older summary, which may have ended.
pub async fn reevaluate(db: &Db, key: &str) -> Result<(), Failure> {
    let mut connection = db.acquire().await?;
    let changed: Changed = key.parse().map_err(|error| Failure::new("reading the key of a job", error))?;
    let channels = match changed {
        Changed::Bytes(digest) => store::carrying(&mut connection, &[digest]).await?,
        Changed::Attestation(id) => {
            let subjects = store::subjects(&mut connection, id).await?;
            store::carrying(&mut connection, &subjects).await?
        }
        Changed::Signer(name) => store::resting_on(&mut connection, &name).await?,
        Changed::Waiver(id) => store::waived(&mut connection, id).await?,
        Changed::Environment(name) => store::of_environment(&mut connection, &name).await?,
    };
    enqueue(&mut connection, &channels, Duration::ZERO).await
}

/// Has the summaries of every release channel looked at, because a key that may have signed them was revoked.
pub async fn renew_all(connection: &mut PgConnection, at: DateTime<Utc>) -> Result<(), Failure> {
    store::all_end(connection, at).await
}

/// How long a renewal that failed too often is left alone by the job that looks for summaries that end.
const DEAD_FOR: Duration = Duration::from_hours(1);

async fn enqueue(
    connection: &mut PgConnection,
    channels: &[Lane],
    again_after: Duration,
) -> Result<(), Failure> {
    let keys: Vec<String> = channels.iter().map(ToString::to_string).collect();
    queue::enqueue_missing(connection, queue::RENEW_SUMMARY, &keys, again_after).await
}

/// Until when a summary is left alone: it is renewed in the last third of its validity.
pub fn renewed_before(now: DateTime<Utc>, validity: Duration) -> DateTime<Utc> {
    now + TimeDelta::from_std(validity / 3).unwrap_or(TimeDelta::days(2))
}

/// Renews the summaries of what runs in the channel; how many. Locks the channel as a promotion does, so that a
/// block that was acknowledged before is seen; then the time is read and the versions evaluated, and the
/// summaries, their events and the channel's row are written. A crash before the commit leaves the old
/// summaries, which the next run renews.
///
/// What runs is the version that known-good answers, and the newest one where only a platform of it is blocked:
/// the new summary leaves the blocked child out.
pub async fn renew(
    db: &Db,
    keys: &Keys,
    by: &Principal,
    lane: &Lane,
    validity: Duration,
) -> Result<u64, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let place = Place::find(&mut tx, lane).await?;
        Scopes::promote(place.repository_id, place.environment_id).lock(&mut tx).await?;
        Scopes::lanes(place.repository_id, place.environment_id, &[]).lock(&mut tx).await?;
        Scopes::deciding(place.repository_id, place.environment_id).lock(&mut tx).await?;
        // A newer trust file waits for these locks: a key that it revoked signs nothing more.
        keys.follow(&mut tx).await?;
        let now = agreed_time(&mut tx).await?;
        let newest = evaluate::promoted(&mut tx, lane, None, Part::Whole, Some(Position::Current)).await?;
        let walk = evaluate::walk(&mut tx, lane, Part::Whole, false).await?;
        let falls_back = !walk.skipped.is_empty();
        // The newest version may come back when a block on it ends.
        let blocks = newest.iter().flatten().flat_map(|newest| &newest.case.facts.blocks);
        let returns =
            blocks.filter_map(|block| block.until).map(|until| renewed_before(until, validity)).min();
        let partly = newest.and_then(Result::ok).filter(Evaluated::is_partly_blocked);
        let (mut renewed, mut until) = (0, None::<DateTime<Utc>>);
        for found in walk.answer.into_iter().chain(partly) {
            // Where it may end by then, it is looked at again, for the version that is the answer then.
            let ends = next_end(&found).map(|end| renewed_before(end, validity));
            let before = renewed_before(found.case.at, validity);
            let revoked = found.release.summary.as_deref().is_some_and(|one| keys.is_by_a_revoked_key(one));
            let valid_until = if revoked || found.promotion.valid_until < before {
                renewed += 1;
                renew_one(&mut tx, keys, by, &place, found, validity).await?
            } else {
                found.promotion.valid_until
            };
            until = until.into_iter().chain(ends).chain([valid_until]).min();
        }
        // What does not run, or stands in for another version, is looked at again: the other may come back.
        let retry = renewed_before(now, validity) + RETRY;
        let next = until.into_iter().chain(returns).chain(falls_back.then_some(retry)).min().unwrap_or(retry);
        store::look_again(&mut tx, &place, next).await?;
        tx.commit().await?;
        Ok(renewed)
    })
    .await
}

/// When time alone may next change the answer: the end of a grace or of a waiver, or a gate that begins to count
/// for what runs.
fn next_end(found: &Evaluated) -> Option<DateTime<Utc>> {
    let risks = found.status.at_risk.iter().filter_map(|risk| risk.ends_at);
    let waivers = found.case.facts.waivers.iter().filter_map(|waiver| waiver.expires_at);
    let gates = found.policies.in_force.values().flat_map(|policy| &policy.gates);
    let gates = gates.filter_map(Gate::enforced_on_running_from);
    risks.chain(waivers).chain(gates).filter(|end| *end > found.case.at).min()
}

/// How long a channel is left alone in which nothing runs, or another version than the newest.
const RETRY: TimeDelta = TimeDelta::hours(1);

async fn renew_one(
    tx: &mut Tx,
    keys: &Keys,
    by: &Principal,
    place: &Place,
    found: Evaluated,
    validity: Duration,
) -> Result<DateTime<Utc>, Failure> {
    let digest = &found.promotion.manifest;
    let file = promotions::file_of(tx, place.repository_id, digest).await?;
    let recorded = still_counting(&found.promotion.recorded, &found.status);
    let of = Summarized {
        case: &found.case,
        release: &found.release,
        recorded: &recorded,
        policies: &found.policies.recorded,
        version: found.promotion.version.as_ref(),
        file: file.as_ref(),
        renewed: true,
    };
    let (envelope, valid_until) = summary::sign(keys, &of, validity)?;
    let facts = json!({
        "promotion": found.promotion.id,
        "decision": found.promotion.decision,
        "summary": Digest::sha256(&envelope),
        "valid_until": valid_until,
    });
    let at = found.case.at;
    let event = place.event(Kind::SummaryRenewed, at, by, digest, facts);
    let event_id = ledger::append(tx, event).await?.id;
    store::insert(tx, found.promotion.id, &envelope, valid_until, at, event_id).await?;
    Ok(valid_until)
}

/// The recorded gates that still hold, with the evidence that still counts for them.
fn still_counting(recorded: &Recorded, status: &Status) -> Recorded {
    let mut gates = recorded.gates.clone();
    for gate in &mut gates {
        let shown = status
            .gates
            .iter()
            .find(|one| one.gate == gate.gate && one.policy.as_deref() == Some(gate.policy.as_str()));
        if let Some(shown) = shown {
            let attests = |kind| matches!(kind, EvidenceKind::Attestation);
            gate.evidence
                .retain(|one| !attests(one.kind) || shown.evidence.iter().any(|other| other.id == one.id));
        }
        // Of a finding that is denied the summary must not say that the scan holds.
        let at_risk = status.at_risk.iter().any(|risk| {
            risk.gate == gate.gate && risk.policy.as_deref().is_none_or(|policy| policy == gate.policy)
        });
        gate.passed &= !at_risk;
    }
    Recorded { gates, ..recorded.clone() }
}
