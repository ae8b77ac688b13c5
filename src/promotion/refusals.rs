//! Refused promotions, recorded so that asking again and again fills nothing: the same refusal of one principal within
//! an hour is one record with a count, and of others there are so many in a minute.

use super::Refused;
use super::lane::{Judged, LockedLane};
use super::store::decisions;
use super::store::refusals::{self as store, Refusal};
use crate::access::Principal;
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::Digest;
use chrono::TimeDelta;
use serde_json::json;
use std::collections::BTreeSet;

/// The same refusal counts as one for so long.
const SAME: TimeDelta = TimeDelta::hours(1);

/// Maximum number of refusals that are recorded of one principal in a minute.
pub const MAX_A_MINUTE: i64 = 60;

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// Records that a promotion was refused, with its decision and its event, or counts it with the record of the same
/// refusal, whose decision the answer names then.
pub(super) async fn record(
    lane: &mut LockedLane<'_>,
    by: &Principal,
    digest: &Digest,
    judged: &mut Judged,
) -> Result<(), Refused> {
    let (place, at) = (lane.place().clone(), judged.case.at);
    let grounds = grounds(judged)?;
    let sha256 = judged.case.facts.subject.sha256.clone();
    let refusal = Refusal { principal: by.id, place: &place, sha256: &sha256, grounds: &grounds };
    if let Some(earlier) = store::count_again(lane.connection(), &refusal, at - SAME, at).await? {
        judged.decision.id = earlier;
        return Ok(());
    }
    if store::recorded_since(lane.connection(), by.id, at - MINUTE).await? >= MAX_A_MINUTE {
        return Err(Refused::TooManyRefusals);
    }
    decisions::insert(lane.connection(), judged, by.id).await?;
    let decision = &judged.decision;
    store::insert(lane.connection(), &refusal, &decision.id, at).await?;
    let facts = json!({"decision": decision.id, "verdict": decision.verdict.as_str()});
    // Nothing was promoted.
    let event = Event { changes: vec![], ..place.event(Kind::PromotionRefused, at, by, digest, facts) };
    ledger::append(lane.tx(), event).await?;
    Ok(())
}

/// The outcome, the policies that were asked and the gates that refuse; not their messages, which tell of times.
fn grounds(judged: &Judged) -> Result<Digest, Failure> {
    let decision = &judged.decision;
    let refusing = decision.gates.iter().filter(|gate| gate.stands_in_the_way());
    let gates: BTreeSet<_> = refusing.map(|gate| (&gate.policy, gate.gate)).collect();
    let policies: Vec<_> = judged.policies.in_force.keys().collect();
    let grounds = json!({"outcome": decision.verdict.as_str(), "policies": policies, "gates": gates});
    let text = serde_json::to_vec(&grounds);
    Ok(Digest::sha256(&text.map_err(|error| Failure::new("recording a refusal", error))?))
}
