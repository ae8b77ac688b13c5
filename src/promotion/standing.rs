//! The standing of a promotion now: a pure fold over its own row and today's decision.

use super::facts::Standing;
use crate::policy::{Decision, Evidence, GateResult, Mode, Outcome, Verdict};
use chrono::{DateTime, Utc};

/// Today's verdict about a promotion: what the policy says now, and whether what the registry
/// signed then may still be relied on.
pub(super) fn standing(
    promotion: &Standing,
    decision: &Decision,
    at: DateTime<Utc>,
) -> (Verdict, Vec<GateResult>) {
    let expired = at >= promotion.valid_until;
    let until = promotion.valid_until.to_rfc3339();
    let summary = GateResult {
        gate: "summary",
        policy: None,
        mode: Mode::Enforce,
        outcome: if expired { Outcome::Fail } else { Outcome::Pass },
        message: if expired {
            format!("its verification summary was valid until {until}")
        } else {
            format!("its verification summary is valid until {until}")
        },
        warnings: Vec::new(),
        evidence: vec![Evidence { kind: "promotion", id: promotion.id.to_string() }],
        solution: expired.then(|| "promote the same digest again for a new summary".to_owned()),
    };
    let verdict = if expired { Verdict::Deny } else { decision.verdict };
    let gates = decision.gates.iter().cloned().chain([summary]).collect();
    (verdict, gates)
}

/// What there is to say about something that was never promoted.
pub(super) fn never_promoted(message: String) -> GateResult {
    GateResult {
        gate: "promoted",
        policy: None,
        mode: Mode::Enforce,
        outcome: Outcome::Fail,
        message,
        warnings: Vec::new(),
        evidence: Vec::new(),
        solution: Some("promote it to the environment".to_owned()),
    }
}

/// The messages of the gates that stand in the way.
pub(super) fn reasons(gates: &[GateResult]) -> Vec<String> {
    let standing = gates.iter().filter(|gate| gate.stands_in_the_way());
    standing.map(|gate| format!("{}: {}", gate.gate, gate.message)).collect()
}
