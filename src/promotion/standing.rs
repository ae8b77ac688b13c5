//! The standing of a promotion now: a pure fold over its own row and today's facts.

use super::facts::Promotion;
use crate::policy::{
    Case, Evidence, GateResult, Mode, Outcome, Policies, Verdict, in_words, judge, warnings,
};

/// How a promotion stands now.
pub(super) struct Standing {
    pub verdict: Verdict,
    pub gates: Vec<GateResult>,
    pub warnings: Vec<String>,
}

/// Today's verdict about a promotion: what the policies say now, and whether what the registry
/// signed then may still be relied on. It is not recorded, so it needs no name.
pub(super) fn standing(promotion: &Promotion, policies: &Policies, case: &Case) -> Standing {
    let (verdict, mut gates) = judge(policies, case);
    let warnings = warnings(&gates);
    let expired = case.at >= promotion.valid_until;
    let until = in_words(promotion.valid_until);
    gates.push(GateResult {
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
    });
    Standing { verdict: if expired { Verdict::Deny } else { verdict }, gates, warnings }
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
