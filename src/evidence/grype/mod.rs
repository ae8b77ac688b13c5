//! Grype's JSON report (`grype -o json`).
//!
//! The `manifestDigest` of an image that did not come from a registry is one that Grype made up, so
//! it only confirms a subject and never contradicts one on its own.

mod configuration;
mod findings;
mod scope;
#[cfg(test)]
mod tests;

use super::bounded::{self, List, text};
use super::finding::{Finding, clean, title};
use super::report::{Read, Unreadable, time};
use super::{SeverityOrder, spelling};
use crate::names::ScannerName;
use findings::Match;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    matches: List<Match>,
    #[serde(default)]
    ignored_matches: List<Match>,
    #[serde(default)]
    alerts_by_package: List<PackageAlerts>,
    #[serde(default, borrow)]
    source: Option<Source<'a>>,
    #[serde(default)]
    distro: Option<Distribution>,
    #[serde(borrow)]
    descriptor: Descriptor<'a>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(rename = "type", default, deserialize_with = "text")]
    kind: String,
    /// An object for an image, a string for a directory or file.
    #[serde(default, borrow)]
    target: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Distribution {
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "text")]
    version: String,
}

#[derive(Deserialize)]
struct PackageAlerts {
    #[serde(default)]
    alerts: List<Alert>,
}

/// What Grype warns of in a package.
#[derive(Deserialize)]
struct Alert {
    #[serde(rename = "type", default, deserialize_with = "text")]
    kind: String,
    #[serde(default, deserialize_with = "text")]
    message: String,
}

#[derive(Deserialize)]
struct Descriptor<'a> {
    /// Empty in reports of 0.69.
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "text")]
    version: String,
    #[serde(default, deserialize_with = "text")]
    timestamp: String,
    #[serde(default, borrow)]
    configuration: Option<&'a RawValue>,
    #[serde(default, borrow)]
    db: Option<Database<'a>>,
}

/// Grype before 0.88 says `db.built`, later ones `db.status.built`.
#[derive(Deserialize)]
struct Database<'a> {
    #[serde(default, deserialize_with = "text")]
    built: String,
    /// `null`, or a Go error, which may be an empty object.
    #[serde(default, borrow, deserialize_with = "stated")]
    error: Option<&'a RawValue>,
    #[serde(default)]
    status: Option<DatabaseStatus>,
}

/// A value that is there, also where it is `null`.
fn stated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct DatabaseStatus {
    #[serde(default, deserialize_with = "text")]
    built: String,
    #[serde(default)]
    valid: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    error: String,
}

/// Reads a report that looks like Grype's.
pub(super) fn read(json: &[u8], order: &SeverityOrder) -> Result<Read, Unreadable> {
    let malformed = |why: String| Unreadable::Malformed { scanner: "Grype", why };
    spelling::check(json, spelling::GRYPE).map_err(malformed)?;
    let report: Report<'_> = bounded::from_slice(json).map_err(|error| malformed(error.to_string()))?;
    let name = report.descriptor.name.trim();
    if name != "grype" && !report.is_nameless() {
        return Err(malformed(format!("its descriptor names {:?} instead of \"grype\"", title(name))));
    }
    let open = report.matches.0.iter().map(|found| found.finding(order));
    let ignored = report.ignored_matches.0.iter().map(|found| {
        let suppressed = Some(found.why_ignored());
        found.finding(order).map(|finding| Finding { suppressed, ..finding })
    });
    let findings = open.chain(ignored).collect::<Result<_, _>>().map_err(malformed)?;
    let database = report.descriptor.db.as_ref().and_then(|db| {
        let newer = db.status.as_ref().and_then(|status| time(&status.built));
        newer.or_else(|| time(&db.built))
    });
    Ok(Read {
        scanner: ScannerName::grype(),
        scanner_version: clean(&report.descriptor.version),
        database_updated_at: database,
        scanned_at: time(&report.descriptor.timestamp),
        scope: scope::of(&report).map_err(malformed)?,
        findings,
    })
}

impl Report<'_> {
    /// Whether this is a report of the version that left its name empty: nothing else has matches, and beside
    /// them a distribution, a database or a configuration.
    fn is_nameless(&self) -> bool {
        let descriptor = &self.descriptor;
        let states = self.distro.is_some() || descriptor.db.is_some() || descriptor.configuration.is_some();
        descriptor.name.trim().is_empty() && states
    }
}
