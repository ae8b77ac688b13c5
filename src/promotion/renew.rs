//! Renewal of verification summaries: of every version that may go on running, in the last third of the
//! validity of its summary. A question never writes; this does.

use super::Refused;
use super::evaluate::{self, Part};
use super::lane::Place;
use super::store::{promotions, summaries as store};
use super::summary::{self, Summarized};
use crate::access::{Lane, Principal};
use crate::failure::Failure;
use crate::keys::Keys;
use crate::ledger::{self, Kind};
use crate::names::Digest;
use crate::policy::{EvidenceKind, Recorded, Status};
use crate::postgres::{Db, Scopes, act, database_time};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use std::time::Duration;

/// Release channels whose summary ends before this time, the earliest first.
pub async fn due(db: &Db, before: DateTime<Utc>, limit: i64) -> Result<Vec<Lane>, Failure> {
    store::ending(&mut *db.acquire().await?, before, limit).await
}

/// Until when a summary is left alone: it is renewed in the last third of its validity.
pub fn renewed_before(now: DateTime<Utc>, validity: Duration) -> DateTime<Utc> {
    now + TimeDelta::from_std(validity / 3).unwrap_or(TimeDelta::days(2))
}

/// Renews the summary of the channel's current version while it is allowed; whether it did. Locks the channel
/// as a promotion does, so that a block that was acknowledged before is seen; then the time is read and the
/// version evaluated, and the summary, its event and the channel's row are written. A crash before the commit
/// leaves the old summary, which the next run renews.
pub async fn renew(
    db: &Db,
    keys: &Keys,
    by: &Principal,
    lane: &Lane,
    validity: Duration,
) -> Result<bool, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let place = Place::find(&mut tx, lane).await?;
        Scopes::promote(place.repository_id, place.environment_id).lock(&mut tx).await?;
        Scopes::lanes(place.repository_id, place.environment_id, &[]).lock(&mut tx).await?;
        let walk = evaluate::walk(&mut tx, lane, Part::Whole, false).await?;
        let Some(found) = walk.answer else {
            // What does not run is looked at again: it may come back.
            let at = database_time(&mut tx).await?;
            store::put_off(&mut tx, &place, at + RETRY).await?;
            tx.commit().await?;
            return Ok(false);
        };
        let at = found.case.at;
        if found.promotion.valid_until >= renewed_before(at, validity) {
            store::put_off(&mut tx, &place, found.promotion.valid_until).await?;
            tx.commit().await?;
            return Ok(false);
        }
        let digest = &found.promotion.manifest;
        let file = promotions::file_of(&mut tx, place.repository_id, digest).await?;
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
        let event = place.event(Kind::SummaryRenewed, at, by, digest, facts);
        let event_id = ledger::append(&mut tx, event).await?.id;
        store::insert(&mut tx, &place, found.promotion.id, &envelope, valid_until, at, event_id).await?;
        tx.commit().await?;
        Ok(true)
    })
    .await
}

/// How long a version that is not allowed is left alone.
const RETRY: TimeDelta = TimeDelta::hours(1);

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
