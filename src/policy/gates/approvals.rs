//! People said yes.

use super::{Finding, list};
use crate::policy::Case;
use crate::policy::gate::Approvals;
use std::collections::BTreeMap;

pub(in crate::policy) fn approvals(gate: &Approvals, case: &Case) -> Finding {
    let mut counted = BTreeMap::new();
    let mut passed_over = Vec::new();
    for approval in &case.facts.approvals {
        let name = approval.by.as_str();
        if approval.until.is_some_and(|until| case.at >= until) {
            passed_over.push(format!("{name}'s has ended"));
        } else if gate.not_author && case.facts.subject.authors.contains(name) {
            passed_over.push(format!("{name} is its author"));
        } else if gate.from.as_ref().is_some_and(|from| !from.0.iter().any(|pattern| pattern.matches(name))) {
            passed_over.push(format!("{name} is not among the approvers"));
        } else {
            counted.insert(name, approval.id);
        }
    }
    let enough = counted.len() >= gate.count as usize;
    let mut message = match counted.len() {
        0 => format!("not approved, {} needed", gate.count),
        n => format!("approved by {} ({n} of {} needed)", list(counted.keys().copied()), gate.count),
    };
    if !enough && !passed_over.is_empty() {
        message.push_str("; not counted: ");
        message.push_str(&passed_over.join(", "));
    }
    let found = if enough { Finding::pass(message) } else { Finding::fail(message) };
    counted.values().fold(found, |found, id| found.saw("approval", id))
}
