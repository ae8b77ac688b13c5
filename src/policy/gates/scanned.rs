//! Scans: recent, with a fresh database, and nothing found that is denied.

use super::{Finding, list};
use crate::names::{Digest, RepositoryName};
use crate::policy::gate::{Deny, Scanned, Several, Word};
use crate::policy::{
    self, Aspect, Attestation, Case, Class, EvidenceKind, Scan, Severity, Signature, SignedReport, Span,
    Target, Untrusted, WaivedFinding, Waiver, in_words,
};
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

/// How many findings a message names.
const NAMED: usize = 10;

/// The gate at a promotion: a denied finding denies, unless a waiver accepts it.
pub(in crate::policy) fn scanned(gate: &Scanned, case: &Case) -> Finding {
    let mut found = Finding::pass("scanned, and no finding is denied");
    for (digest, sha256) in case.images() {
        let runs = runs(gate, case, sha256);
        if let Some(outdated) = outdated(gate, case, digest, &runs) {
            found = found.and_fail(outdated.message);
        }
        for run in &runs {
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
        for doubt in doubts(gate, case, sha256, &runs) {
            doubt.waived.into_iter().for_each(|one| found.waive(one));
            found = match doubt.word {
                Word::Deny => found.and_fail(doubt.message),
                Word::Warn => found.and_warn(doubt.message),
                Word::Allow => found,
            };
        }
    }
    found
}

/// The runs that the gate counts for an image.
pub(in crate::policy) fn runs<'a>(gate: &Scanned, case: &'a Case, sha256: &Digest) -> Vec<&'a Scan> {
    let of = |scan: &&Scan| scan.sha256 == *sha256 && counts(gate, case, scan);
    case.facts.scans.iter().filter(of).collect()
}

/// Whether the gate counts what the run found: the scanner is one of the gate's, and a signed report is signed by a
/// signer that was trusted for it when it came, and that the gate names if it names any. A revocation takes back
/// no finding that came before it.
pub(in crate::policy) fn counts(gate: &Scanned, case: &Case, run: &Scan) -> bool {
    let by_scanner = gate.scanners.as_ref().is_none_or(|some| some.0.contains(&run.scanner));
    let by_signer = match (&gate.signed_by, &run.statement) {
        (None, None) => true,
        (Some(_), None) => false,
        (None, Some(statement)) => is_trusted(case, statement, Signature::was_trusted_for),
        (Some(signers), Some(statement)) => {
            signers.0.contains(&statement.signer) && is_trusted(case, statement, Signature::was_trusted_for)
        }
    };
    by_scanner && by_signer
}

fn is_trusted(
    case: &Case,
    statement: &SignedReport,
    trusted_for: fn(&Signature, &RepositoryName, &str, DateTime<Utc>) -> Result<(), Untrusted>,
) -> bool {
    let repository = &case.facts.subject.repository;
    let of = |a: &&Attestation| a.envelope == statement.envelope;
    case.facts.attestations.iter().filter(of).any(|attestation| {
        let (kind, at) = (&attestation.predicate_type, attestation.received_at);
        let mut by_signer = attestation.signatures.iter().filter(|one| one.signer == statement.signer);
        by_signer.any(|signature| trusted_for(signature, repository, kind, at).is_ok())
    })
}

/// What leaves a scan open to doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::policy) enum DoubtKind {
    /// Findings without a severity.
    Unrated,
    /// Findings that the scanner suppressed and that the gate would deny.
    Suppressed,
    /// A distribution without advisories.
    EndOfLife,
    /// A report that names nothing.
    Unbound,
    /// The scanner's own errors, and a database that it found not valid.
    Errors,
}

/// One doubt, with the gate's word about it.
pub(in crate::policy) struct Doubt {
    pub kind: DoubtKind,
    pub word: Word,
    pub message: String,
    /// Findings that would be doubted, and that a waiver accepts.
    pub waived: Vec<WaivedFinding>,
}

/// What leaves the runs of an image open to doubt, whatever the gate's word about it is.
pub(in crate::policy) fn doubts(gate: &Scanned, case: &Case, sha256: &Digest, runs: &[&Scan]) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let mut doubt = |kind, word, message| doubts.push(Doubt { kind, word, message, waived: Vec::new() });
    for run in runs {
        let scanner = &run.scanner;
        let of_vulnerabilities = run.covers.iter().any(|aspect| aspect.class() == Class::Vulnerability);
        if run.scope.end_of_life == Some(true) && of_vulnerabilities {
            let distribution = run.scope.distribution.as_deref().unwrap_or("the distribution");
            let message = format!(
                "{distribution} gets no more advisories, says {scanner}, so what is wrong in it is not found"
            );
            doubt(DoubtKind::EndOfLife, gate.end_of_life(), message);
        }
        if !run.is_bound && gate.unbound(run.is_image) == Word::Warn {
            let message = format!("the report of {scanner} names no digest of what was scanned");
            doubt(DoubtKind::Unbound, Word::Warn, message);
        }
        if run.scope.database_valid == Some(false) {
            doubt(DoubtKind::Errors, Word::Warn, format!("{scanner} found its database not valid"));
        }
        for error in &run.scope.errors {
            doubt(DoubtKind::Errors, Word::Warn, format!("{scanner} reports: {error}"));
        }
    }
    for run in runs {
        let unrated = (DoubtKind::Unrated, gate.unrated(), "found without a severity");
        doubts.extend(doubtful_findings(gate, case, sha256, run, unrated, is_unrated));
        let suppressed = (DoubtKind::Suppressed, gate.suppressed(), "suppressed");
        doubts.extend(doubtful_findings(gate, case, sha256, run, suppressed, would_be_denied));
    }
    doubts
}

fn doubtful_findings(
    gate: &Scanned,
    case: &Case,
    sha256: &Digest,
    run: &Scan,
    (kind, word, what): (DoubtKind, Word, &str),
    is_doubtful: impl Fn(&Scanned, &policy::Finding) -> bool,
) -> Option<Doubt> {
    let (mut names, mut accepted) = (BTreeSet::new(), Vec::new());
    for finding in run.findings.iter().filter(|finding| is_doubtful(gate, finding)) {
        if let Some(waiver) = case.waiver(finding, sha256) {
            accepted.push(waived(finding, waiver));
        } else {
            let reason = finding.suppressed.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            names.insert(format!("{}{reason}", name(finding)));
        }
    }
    // A waiver is evidence only of what would be denied otherwise.
    let waived = if word == Word::Deny { accepted } else { Vec::new() };
    let word = if names.is_empty() { Word::Allow } else { word };
    let message = format!("{} {what} {}", run.scanner, named(&names));
    (!names.is_empty() || !waived.is_empty()).then_some(Doubt { kind, word, message, waived })
}

/// An open finding that nobody rated, and that the threshold lets pass.
fn is_unrated(gate: &Scanned, finding: &policy::Finding) -> bool {
    let open = finding.suppressed.is_none() && finding.severity == Severity::Unknown;
    open && !denies(gate, finding) && is_asked(gate, finding)
}

/// A suppressed finding that the gate would deny if it were open.
fn would_be_denied(gate: &Scanned, finding: &policy::Finding) -> bool {
    let open = policy::Finding { suppressed: None, ..finding.clone() };
    finding.suppressed.is_some()
        && (denies(gate, &open) || gate.unrated() == Word::Deny && is_unrated(gate, &open))
}

/// Whether the gate denies the finding, waivers aside.
pub(in crate::policy) fn denies(gate: &Scanned, finding: &policy::Finding) -> bool {
    let Some(Deny { severity }) = gate.deny else { return false };
    let open = finding.suppressed.is_none();
    open && finding.severity >= severity && is_asked(gate, finding)
}

/// Whether the gate looks at the finding: one that has a fix, where only these count. A secret or a setting has no
/// version without it.
fn is_asked(gate: &Scanned, finding: &policy::Finding) -> bool {
    finding.fixable || !gate.fixable_only || finding.aspect.class() != Class::Vulnerability
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

/// Unscanned, scanned too long ago, and scanned with old knowledge are different answers. Each kind and target that
/// the gate wants is asked for.
pub(in crate::policy) fn outdated(
    gate: &Scanned,
    case: &Case,
    digest: &Digest,
    runs: &[&Scan],
) -> Option<Outdated> {
    let trusted =
        |run: &&&Scan| run.statement.as_ref().is_none_or(|one| is_trusted(case, one, Signature::trusted_for));
    let trusted: Vec<&Scan> = runs.iter().filter(trusted).copied().collect();
    let all = wanted(gate, runs)
        .into_iter()
        .filter_map(|aspect| outdated_for(gate, case.at, digest, &trusted, aspect));
    all.reduce(|one, other| Outdated {
        message: format!("{}; {}", one.message, other.message),
        since: one.since.min(other.since),
    })
}

/// The aspects that have to be scanned recently.
fn wanted(gate: &Scanned, runs: &[&Scan]) -> BTreeSet<Aspect> {
    let kinds = gate.kinds.as_ref().map(|kinds| kinds.0.iter().map(|kind| kind.aspect()).collect());
    let mut wanted: BTreeSet<Aspect> = kinds.unwrap_or_else(|| [Aspect::Vulnerabilities].into());
    if wanted.contains(&Aspect::Vulnerabilities) {
        let shown = |target: &Target| {
            runs.iter().any(|run| !run.retracted && run.covers.contains(&Aspect::Of(*target)))
        };
        let targets: BTreeSet<Target> = match &gate.targets {
            Some(targets) => targets.0.clone(),
            None => Target::ALL.into_iter().filter(shown).collect(),
        };
        if !targets.is_empty() {
            wanted.remove(&Aspect::Vulnerabilities);
            wanted.extend(targets.into_iter().map(Aspect::Of));
        }
    }
    wanted
}

/// Why a run that shows the aspect does not count as a scan for it, if so.
fn unusable(gate: &Scanned, run: &Scan) -> Option<String> {
    if run.retracted {
        return Some(format!("a scan by {} was retracted", run.scanner));
    }
    if !run.is_bound && gate.unbound(run.is_image) == Word::Deny {
        return Some(format!("the report of {} names no digest of what was scanned", run.scanner));
    }
    let filters = run.scope.filters.iter().flatten();
    // What the gate leaves out itself is not missed.
    let narrower: Vec<&str> = filters
        .map(String::as_str)
        .filter(|filter| !(gate.fixable_only && *filter == "only-fixed"))
        .collect();
    (!narrower.is_empty())
        .then(|| format!("the scan by {} was filtered ({})", run.scanner, narrower.join(", ")))
}

fn outdated_for(
    gate: &Scanned,
    at: DateTime<Utc>,
    digest: &Digest,
    runs: &[&Scan],
    aspect: Aspect,
) -> Option<Outdated> {
    let showing: Vec<&Scan> = runs.iter().copied().filter(|run| run.covers.contains(&aspect)).collect();
    let usable: Vec<&Scan> = showing.iter().copied().filter(|run| unusable(gate, run).is_none()).collect();
    let what = aspect.in_words();
    let Some(newest) = usable.iter().max_by_key(|run| run.scanned_at) else {
        let names = |names: &Several<String>| list(names.0.iter().map(String::as_str));
        let by = gate.scanners.as_ref().map(|some| format!(" by {}", names(some))).unwrap_or_default();
        let signed = gate.signed_by.as_ref().map(|some| format!(" in a statement of {}", names(some)));
        let mut message = format!("{digest} is not scanned for {what}{by}{}", signed.unwrap_or_default());
        for reason in showing.iter().filter_map(|run| unusable(gate, run)).collect::<BTreeSet<_>>() {
            message.push_str("; ");
            message.push_str(&reason);
        }
        if let (Aspect::Of(_), None) = (aspect, &gate.targets) {
            message.push_str(
                "; an earlier run has shown this target: scan it again, or name `targets` in the gate",
            );
        }
        return Some(Outdated { message, since: None });
    };
    let until = |run: &Scan| run.scanned_at + gate.max_age.delta();
    let fresh_until = |run: &Scan| match (gate.database_max_age, run.database_updated_at) {
        (None, _) => Some(until(run)),
        (Some(_), _) if run.scope.database_valid == Some(false) => None,
        (Some(age), Some(updated)) => Some(until(run).min(updated + age.delta())),
        (Some(_), None) => None,
    };
    if usable.iter().any(|run| fresh_until(run).is_some_and(|until| at < until)) {
        return None;
    }
    let since = usable.iter().filter_map(|run| fresh_until(run)).max();
    let message = if usable.iter().all(|run| at >= until(run)) {
        format!(
            "{digest} was scanned for {what} at {} by {}, and a scan counts for {}",
            in_words(newest.scanned_at),
            newest.scanner,
            gate.max_age
        )
    } else if newest.scope.database_valid == Some(false) {
        format!("{} found its database not valid", newest.scanner)
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
