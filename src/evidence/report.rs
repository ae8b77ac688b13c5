//! A report of any scanner that we read: told apart by content, normalised to one form.

use super::bounded::{self, List};
use super::{FindingSet, SeverityOrder, grype, trivy};
use crate::failure::Failure;
use crate::names::{Digest, ScannerName};
use chrono::{DateTime, Datelike, Utc};
use serde::Deserialize;
use serde::de::IgnoredAny;

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
    /// Digests of the image that it scanned, as its registry names them; empty when it scanned
    /// something that has none.
    pub subjects: Vec<Digest>,
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
    let read = match kind(json)? {
        Kind::Trivy => trivy::read(json, order),
        Kind::Grype => grype::read(json, order),
    }?;
    let found = read.findings.len();
    if found > max_findings {
        return Err(Unreadable::TooMany { found, limit: max_findings });
    }
    Ok(Report {
        scanner: read.scanner,
        scanner_version: read.scanner_version,
        database_updated_at: read.database_updated_at,
        scanned_at: read.scanned_at,
        subjects: read.subjects,
        findings: FindingSet::of(read.findings)?,
    })
}

/// What a scanner's own file gives.
pub(super) struct Read {
    pub scanner: ScannerName,
    pub scanner_version: String,
    pub database_updated_at: Option<DateTime<Utc>>,
    pub scanned_at: Option<DateTime<Utc>>,
    pub subjects: Vec<Digest>,
    pub findings: Vec<super::Finding>,
}

enum Kind {
    Trivy,
    Grype,
}

/// The members at the top that tell kinds apart; what stands in them is skipped.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Shape {
    #[serde(rename = "SchemaVersion")]
    trivy_schema: Option<IgnoredAny>,
    #[serde(rename = "ArtifactName")]
    trivy_artifact: Option<IgnoredAny>,
    #[serde(rename = "Results")]
    trivy_results: Option<IgnoredAny>,
    matches: Option<IgnoredAny>,
    descriptor: Option<IgnoredAny>,
    #[serde(rename = "bomFormat")]
    cyclonedx: Option<IgnoredAny>,
    #[serde(rename = "spdxVersion")]
    spdx: Option<IgnoredAny>,
    #[serde(rename = "SPDXID")]
    spdx_id: Option<IgnoredAny>,
    runs: Option<IgnoredAny>,
    results: Option<IgnoredAny>,
    #[serde(rename = "predicateType")]
    predicate_type: Option<IgnoredAny>,
    #[serde(rename = "payloadType")]
    payload_type: Option<IgnoredAny>,
}

fn kind(json: &[u8]) -> Result<Kind, Unreadable> {
    let text = std::str::from_utf8(json).map_err(|error| Unreadable::NotJson(error.to_string()))?;
    match text.trim_start().chars().next() {
        Some('[') => {
            bounded::from_slice::<IgnoredAny>(json)
                .map_err(|error| Unreadable::NotJson(error.to_string()))?;
            return Err(Unreadable::UnknownKind(
                "this is a JSON list (Trivy wrote those before schema version 2)",
            ));
        }
        Some('{') => {}
        Some(_) | None => return Err(Unreadable::NotJson("no object or list".into())),
    }
    let shape: Shape = bounded::from_slice(json).map_err(|error| Unreadable::NotJson(error.to_string()))?;
    let trivy = shape.trivy_artifact.is_some() || shape.trivy_results.is_some();
    if shape.trivy_schema.is_some() && trivy {
        return Ok(Kind::Trivy);
    }
    if shape.matches.is_some() && shape.descriptor.is_some() {
        return Ok(Kind::Grype);
    }
    Err(Unreadable::UnknownKind(if shape.cyclonedx.is_some() {
        "this is a CycloneDX document"
    } else if shape.spdx.is_some() || shape.spdx_id.is_some() {
        "this is an SPDX document"
    } else if shape.runs.is_some() {
        "this looks like SARIF"
    } else if shape.predicate_type.is_some() || shape.payload_type.is_some() {
        "this is an attestation, which goes to /api/v1/attestations"
    } else if shape.results.is_some() {
        "this looks like a report of OSV-Scanner"
    } else {
        "this is no report of a known scanner"
    }))
}

/// A time as scanners write it; empty, unreadable and year 1 (Go's zero time) are none.
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text.trim()).ok()?.with_timezone(&Utc);
    (time.year() > 1970).then_some(time)
}

/// The digests in references such as `registry/name@sha256:...`; others name nothing we could compare.
pub(super) fn digests(references: &List<String>) -> Vec<Digest> {
    let behind_at = |reference: &String| reference.rsplit_once('@')?.1.parse().ok();
    references.0.iter().filter_map(behind_at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &[u8]) -> String {
        read(json, &SeverityOrder::default(), 10).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_kind_is_named_and_what_would_be_accepted_is_said() {
        for (json, says) in [
            (&b""[..], "not JSON"),
            (b"\xff\xfe{}", "not JSON"),
            (b"{\"matches\": [", "not JSON"),
            (b"\"trivy\"", "not JSON"),
            (b"{}", "no report of a known scanner"),
            (b"[{\"Target\": \"a\"}]", "JSON list"),
            (b"{\"bomFormat\": \"CycloneDX\", \"Results\": []}", "CycloneDX"),
            (b"{\"SPDXID\": \"SPDXRef-DOCUMENT\"}", "SPDX"),
            (b"{\"runs\": []}", "SARIF"),
            (b"{\"results\": []}", "OSV-Scanner"),
            (b"{\"payloadType\": \"a\"}", "/api/v1/attestations"),
        ] {
            let message = refused(json);
            assert!(message.contains(says), "{message}");
            assert!(message.contains("Trivy (--format json) or Grype (-o json)"), "{message}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep =
            format!("{{\"matches\": [], \"descriptor\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(refused(deep.as_bytes()).contains("Grype"));
    }

    #[test]
    fn a_member_given_twice_is_refused() {
        let twice = br#"{"SchemaVersion": 2, "ArtifactName": "a", "Results": [], "Results": []}"#;
        assert!(refused(twice).contains("duplicate field"));
    }
}
