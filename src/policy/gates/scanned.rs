//! Scans: recent, with a fresh database, and nothing found that is denied.

use super::{Finding, list};
use crate::names::Digest;
use crate::policy::gate::Scanned;
use crate::policy::{Action, Case, Scan, in_words};
use std::collections::BTreeSet;

/// How many findings a message names.
const NAMED: usize = 10;

pub(in crate::policy) fn scanned(gate: &Scanned, case: &Case) -> Finding {
    let mut found = Finding::pass("scanned, and nothing found that is denied");
    for (digest, sha256) in case.facts.runnable() {
        let runs: Vec<&Scan> = case.facts.scans.iter().filter(|scan| counts(gate, scan, sha256)).collect();
        found = recent(gate, case, digest, &runs, found);
        for run in runs {
            found = denied(gate, case, run, found).saw("scan", &run.report);
        }
    }
    found
}

fn counts(gate: &Scanned, scan: &Scan, sha256: &Digest) -> bool {
    scan.sha256 == *sha256 && gate.scanners.as_ref().is_none_or(|some| some.0.contains(&scan.scanner))
}

/// Unscanned, scanned too long ago, and scanned with old knowledge are different answers.
fn recent(gate: &Scanned, case: &Case, digest: &Digest, runs: &[&Scan], found: Finding) -> Finding {
    let Some(newest) = runs.iter().max_by_key(|run| run.scanned_at) else {
        let by =
            gate.scanners.as_ref().map(|some| format!(" by {}", list(some.0.iter().map(String::as_str))));
        return found.and_fail(format!("{digest} is not scanned{}", by.unwrap_or_default()));
    };
    let in_time = |run: &&&Scan| case.at < run.scanned_at + gate.max_age.delta();
    let fresh = |run: &&Scan| match (gate.database_max_age, run.database_updated_at) {
        (None, _) => true,
        (Some(age), Some(updated)) => case.at < updated + age.delta(),
        (Some(_), None) => false,
    };
    let timely: Vec<&&Scan> = runs.iter().filter(in_time).collect();
    if timely.is_empty() {
        return found.and_fail(format!(
            "{digest} was scanned at {} by {}, and a scan counts for {}",
            in_words(newest.scanned_at),
            newest.scanner,
            gate.max_age
        ));
    }
    if timely.iter().any(|run| fresh(run)) {
        return found;
    }
    match newest.database_updated_at {
        Some(updated) => found.and_fail(format!(
            "{digest} was scanned with a database of {} by {}, and one counts for {}",
            in_words(updated),
            newest.scanner,
            gate.database_max_age.unwrap_or(crate::policy::Span::ZERO)
        )),
        None => found.and_fail(format!("{} does not say how old its database is", newest.scanner)),
    }
}

fn denied(gate: &Scanned, case: &Case, run: &Scan, mut found: Finding) -> Finding {
    let Some(deny) = gate.deny else { return found };
    let mut bad = BTreeSet::new();
    for finding in &run.findings {
        if finding.severity < deny.severity || (gate.fixable_only && !finding.fixable) {
            continue;
        }
        let name = format!(
            "{} ({}) in {} {}",
            finding.vulnerability, finding.severity, finding.package, finding.installed
        );
        let running = case.action == Action::Serve { running: true };
        let grace = gate.grace.get(&finding.severity);
        let known = run.known_since.get(&finding.vulnerability);
        let ends = grace.zip(known).map(|(grace, known)| *known + grace.delta());
        match ends.filter(|ends| running && case.at < *ends) {
            Some(ends) => found.warn(format!("{name} is tolerated until {}", in_words(ends))),
            None => {
                bad.insert(name);
            }
        }
    }
    if bad.is_empty() {
        return found;
    }
    let rest = bad.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let named = list(bad.iter().map(String::as_str).take(NAMED));
    found.and_fail(format!("{} found {named}{more}", run.scanner))
}
