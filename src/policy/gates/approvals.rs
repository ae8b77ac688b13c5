//! People said yes.

use super::{Finding, list};
use crate::policy::gate::Approvals;
use crate::policy::{Case, Evidence, EvidenceKind};
use std::collections::BTreeMap;

pub(in crate::policy) fn approvals(gate: &Approvals, case: &Case) -> Finding {
    let mut counted = BTreeMap::new();
    let mut ignored = Vec::new();
    for approval in &case.facts.approvals {
        let name = approval.by.as_str();
        if approval.until.is_some_and(|until| case.at >= until) {
            ignored.push(format!("{name}'s has ended"));
        } else if !approval.authorized {
            ignored.push(format!("{name} no longer has the right to approve here"));
        } else if gate.not_author && case.facts.subject.authors.contains(name) {
            ignored.push(format!("{name} is its author"));
        } else if gate.from.as_ref().is_some_and(|from| !from.0.iter().any(|pattern| pattern.matches(name))) {
            ignored.push(format!("{name} is not among the approvers"));
        } else {
            counted.insert(name, approval.id);
        }
    }
    let enough = counted.len() >= gate.count as usize;
    let mut message = match counted.len() {
        0 => format!("not approved, {} needed", gate.count),
        n => format!("approved by {} ({n} of {} needed)", list(counted.keys().copied()), gate.count),
    };
    if !enough && !ignored.is_empty() {
        message.push_str("; not counted: ");
        message.push_str(&ignored.join(", "));
    }
    let mut found = if enough { Finding::pass(message) } else { Finding::fail(message) };
    found.evidence.extend(counted.into_iter().map(|(name, id)| Evidence {
        kind: EvidenceKind::Approval,
        id: id.to_string(),
        by: [name.to_owned()].into(),
    }));
    found
}
