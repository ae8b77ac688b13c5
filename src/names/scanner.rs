//! Names of scanners.

use super::repository::is_component;
use super::text_name;

/// A scanner's name: one component of a repository's name, such as `trivy`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScannerName(String);

/// Not a scanner's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a scanner's name is lower-case letters and digits with single '.', '_' or dashes between, at most 64"
)]
pub struct InvalidScannerName;

impl ScannerName {
    /// Scanners whose name says who made a report: never given to another's.
    const KNOWN: [&str; 9] = [
        "anchore",
        "clair",
        "dependency-track",
        "docker-scout",
        "grype",
        "osv-scanner",
        "snyk",
        "syft",
        "trivy",
    ];

    fn check(text: &str) -> Result<(), InvalidScannerName> {
        if text.len() <= 64 && is_component(text) { Ok(()) } else { Err(InvalidScannerName) }
    }

    /// Whether this is a real scanner's name, which only its own reports bear.
    pub fn is_reserved(&self) -> bool {
        Self::KNOWN.contains(&self.as_str())
    }

    /// Trivy's.
    pub fn trivy() -> Self {
        Self("trivy".to_owned())
    }

    /// Grype's.
    pub fn grype() -> Self {
        Self("grype".to_owned())
    }
}

text_name!(ScannerName, InvalidScannerName);
