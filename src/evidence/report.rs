//! A report of any scanner that we read: told apart by content, normalised to one form.

use super::bounded::List;
use super::finding::present;
use super::kind::{self, Kind};
use super::scope::bounded_digests;
use super::{FindingSet, NamedDigest, Scope, SeverityOrder, grype, trivy};
use crate::failure::Failure;
use crate::names::ScannerName;
use chrono::{DateTime, Datelike, Utc};
use std::collections::BTreeSet;

/// What a report says, in the one form.
#[derive(Clone, Debug)]
pub struct Report {
    /// Who scanned.
    pub scanner: ScannerName,
    /// Its version, as it says; empty when it does not.
    pub scanner_version: String,
    /// How new its vulnerability database was, when it says.
    pub database_updated_at: Option<DateTime<Utc>>,
    /// When it ran, when it says.
    pub scanned_at: Option<DateTime<Utc>>,
    /// What it looked at.
    pub scope: Scope,
    /// What it found.
    pub findings: FindingSet,
}

/// Why a report cannot be read. Each says what would be accepted.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON at all.
    #[error("this is not JSON ({0}); a report of Trivy (--format json) or Grype (-o json) is accepted")]
    NotJson(String),
    /// JSON of another kind.
    #[error("{0}; a report of Trivy (--format json) or Grype (-o json) is accepted")]
    UnknownKind(&'static str),
    /// A report of a known kind that breaks its form.
    #[error("this looks like a report of {scanner}, but {why}")]
    Malformed {
        /// Whose report it looks like.
        scanner: &'static str,
        /// What is wrong.
        why: String,
    },
    /// More findings than the service takes.
    #[error("this report has {found} findings; at most {limit} are accepted")]
    TooMany {
        /// How many it has.
        found: usize,
        /// How many are taken.
        limit: usize,
    },
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Reads a report of any known kind. Pure; takes up to a second for the largest document, so the
/// caller keeps it off the threads that serve requests.
pub fn read(json: &[u8], order: &SeverityOrder, max_findings: usize) -> Result<Report, Unreadable> {
    let json = kind::text(json)?;
    let read = match kind::of(json)? {
        Kind::Trivy => trivy::read(json, order),
        Kind::Grype => grype::read(json, order),
    }?;
    finish(read, max_findings)
}

/// Bounds and sorts the findings.
pub(super) fn finish(read: Read, max_findings: usize) -> Result<Report, Unreadable> {
    let found = read.findings.len();
    if found > max_findings {
        return Err(Unreadable::TooMany { found, limit: max_findings });
    }
    // Whatever else it states, a run has looked at what it found.
    let mut scope = read.scope;
    scope.kinds.extend(read.findings.iter().map(|finding| finding.class));
    scope.targets.extend(read.findings.iter().filter_map(|finding| finding.target));
    Ok(Report {
        scanner: read.scanner,
        scanner_version: read.scanner_version,
        database_updated_at: read.database_updated_at,
        scanned_at: read.scanned_at,
        scope,
        findings: FindingSet::of(read.findings)?,
    })
}

/// What a scanner's own file gives.
pub(super) struct Read {
    pub scanner: ScannerName,
    pub scanner_version: String,
    pub database_updated_at: Option<DateTime<Utc>>,
    pub scanned_at: Option<DateTime<Utc>>,
    pub scope: Scope,
    pub findings: Vec<super::Finding>,
}

/// A time as scanners write it; empty, unreadable and year 1 (Go's zero time) are none.
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text.trim()).ok()?.with_timezone(&Utc);
    (time.year() > 1970).then_some(time)
}

/// The digests in references such as `registry/name@sha256:...`, of whatever algorithm.
pub(super) fn digests(references: &List<String>) -> Result<BTreeSet<NamedDigest>, String> {
    let behind_at = |reference: &String| present(reference.rsplit_once('@')?.1).map(NamedDigest::from);
    bounded_digests(references.0.iter().filter_map(behind_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &[u8]) -> String {
        read(json, &SeverityOrder::default(), 10).unwrap_err().to_string()
    }

    #[test]
    fn depth_is_bounded() {
        let deep =
            format!("{{\"matches\": [], \"descriptor\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(refused(deep.as_bytes()).contains("Grype"));
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let marked = b"\xef\xbb\xbf{\"SchemaVersion\": 2, \"ArtifactName\": \"a\"}";
        assert!(read(marked, &SeverityOrder::default(), 10).unwrap().findings.findings().is_empty());
    }

    #[test]
    fn a_member_given_twice_is_refused() {
        let twice = br#"{"SchemaVersion": 2, "ArtifactName": "a", "Results": [], "Results": []}"#;
        assert!(refused(twice).contains("duplicate field"));
    }
}
