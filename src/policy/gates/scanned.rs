//! Scans: recent, with a fresh database, and nothing found that is denied.

use super::{Finding, list};
use crate::names::Digest;
use crate::policy::gate::{Deny, Scanned};
use crate::policy::{self, Case, EvidenceKind, Scan, Span, WaivedFinding, Waiver, in_words};
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

/// How many findings a message names.
const NAMED: usize = 10;

/// The gate at a promotion: a denied finding denies, unless a waiver accepts it.
pub(in crate::policy) fn scanned(gate: &Scanned, case: &Case) -> Finding {
    let mut found = Finding::pass("scanned, and no finding is denied");
    for (digest, sha256) in case.images() {
        let runs = runs(gate, case, sha256);
        if let Some(outdated) = outdated(gate, case.at, digest, &runs) {
            found = found.and_fail(outdated.message);
        }
        for run in runs {
            let mut bad = BTreeSet::new();
            for finding in run.findings.iter().filter(|finding| denies(gate, finding)) {
                match case.waiver(finding, sha256) {
                    Some(waiver) => found.waive(waived(finding, waiver)),
                    None => {
                        bad.insert(name(finding));
                    }
                }
            }
            if !bad.is_empty() {
                found = found.and_fail(format!("{} found {}", run.scanner, named(&bad)));
            }
            found = found.saw(EvidenceKind::Scan, &run.report);
        }
    }
    found
}

/// The runs that the gate counts for an image.
pub(in crate::policy) fn runs<'a>(gate: &Scanned, case: &'a Case, sha256: &Digest) -> Vec<&'a Scan> {
    let by = |scan: &Scan| gate.scanners.as_ref().is_none_or(|some| some.0.contains(&scan.scanner));
    case.facts.scans.iter().filter(|scan| scan.sha256 == *sha256 && by(scan)).collect()
}

/// Whether the gate denies the finding, waivers aside.
pub(in crate::policy) fn denies(gate: &Scanned, finding: &policy::Finding) -> bool {
    let Some(Deny { severity }) = gate.deny else { return false };
    finding.severity >= severity && (finding.fixable || !gate.fixable_only)
}

/// The finding in a message.
pub(in crate::policy) fn name(finding: &policy::Finding) -> String {
    let policy::Finding { vulnerability, severity, package, installed, .. } = finding;
    format!("{vulnerability} ({severity}) in {package} {installed}")
}

/// The first of these names, and how many more there are.
pub(in crate::policy) fn named(names: &BTreeSet<String>) -> String {
    let rest = names.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", list(names.iter().map(String::as_str).take(NAMED)))
}

pub(in crate::policy) fn waived(finding: &policy::Finding, waiver: &Waiver) -> WaivedFinding {
    WaivedFinding {
        vulnerability: finding.vulnerability.clone(),
        package: format!("{} {}", finding.package, finding.installed),
        waiver: waiver.id,
        expires_at: waiver.counts_until(),
    }
}

/// No run is recent enough, or none has a recent database.
pub(in crate::policy) struct Outdated {
    pub message: String,
    /// Since when, where it was recent once.
    pub since: Option<DateTime<Utc>>,
}

/// Unscanned, scanned too long ago, and scanned with old knowledge are different answers.
pub(in crate::policy) fn outdated(
    gate: &Scanned,
    at: DateTime<Utc>,
    digest: &Digest,
    runs: &[&Scan],
) -> Option<Outdated> {
    let Some(newest) = runs.iter().max_by_key(|run| run.scanned_at) else {
        let by =
            gate.scanners.as_ref().map(|some| format!(" by {}", list(some.0.iter().map(String::as_str))));
        let message = format!("{digest} is not scanned{}", by.unwrap_or_default());
        return Some(Outdated { message, since: None });
    };
    let until = |run: &Scan| run.scanned_at + gate.max_age.delta();
    let fresh_until = |run: &Scan| match (gate.database_max_age, run.database_updated_at) {
        (None, _) => Some(until(run)),
        (Some(age), Some(updated)) => Some(until(run).min(updated + age.delta())),
        (Some(_), None) => None,
    };
    if runs.iter().any(|run| fresh_until(run).is_some_and(|until| at < until)) {
        return None;
    }
    let since = runs.iter().filter_map(|run| fresh_until(run)).max();
    let message = if runs.iter().all(|run| at >= until(run)) {
        format!(
            "{digest} was scanned at {} by {}, and a scan counts for {}",
            in_words(newest.scanned_at),
            newest.scanner,
            gate.max_age
        )
    } else {
        match newest.database_updated_at {
            Some(updated) => format!(
                "{digest} was scanned with a database of {} by {}, and one counts for {}",
                in_words(updated),
                newest.scanner,
                gate.database_max_age.unwrap_or(Span::ZERO)
            ),
            None => format!("{} does not say how old its database is", newest.scanner),
        }
    };
    Some(Outdated { message, since })
}
