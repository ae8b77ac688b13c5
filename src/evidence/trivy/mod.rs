//! Trivy's JSON report, schema version 2.
//!
//! `ArtifactID` is no digest of the manifest (of an image it was the digest of the configuration, later a
//! hash of that and the repository's name), so it names no subject; `ImageID` and `RepoDigests` do.

mod findings;
mod scope;
#[cfg(test)]
mod tests;

use super::bounded::{self, List, text};
use super::finding::{Finding, clean, present};
use super::report::{Read, Unreadable, time};
use super::{Class, SeverityOrder, spelling};
use crate::names::ScannerName;
use findings::{License, Place, Rule, Vulnerability};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Report<'a> {
    #[serde(rename = "SchemaVersion")]
    schema_version: i64,
    #[serde(rename = "ArtifactType", default, deserialize_with = "text")]
    artifact_type: String,
    #[serde(rename = "Trivy", default)]
    trivy: Option<Info>,
    #[serde(rename = "CreatedAt", default, deserialize_with = "text")]
    created_at: String,
    #[serde(rename = "Metadata", default)]
    metadata: Option<scope::Metadata>,
    #[serde(rename = "Results", default, borrow)]
    results: List<Part<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default, deserialize_with = "text")]
    version: String,
    #[serde(rename = "VulnerabilityDB", default)]
    database: Option<Database>,
    /// With a Trivy server the database is the server's.
    #[serde(default)]
    server: Option<Server>,
}

#[derive(Deserialize)]
struct Server {
    #[serde(rename = "VulnerabilityDB", default)]
    database: Option<Database>,
}

#[derive(Deserialize)]
struct Database {
    #[serde(rename = "UpdatedAt", default, deserialize_with = "text")]
    updated_at: String,
}

/// What Trivy calls a result: one lock file, the packages of the operating system, one file with secrets.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part<'a> {
    #[serde(rename = "Target", default, deserialize_with = "text")]
    name: String,
    /// Absent in the first reports of schema version 2.
    #[serde(default, deserialize_with = "text")]
    class: String,
    #[serde(rename = "Type", default, deserialize_with = "text")]
    kind: String,
    #[serde(default)]
    packages: List<IgnoredAny>,
    #[serde(default)]
    vulnerabilities: List<Vulnerability>,
    #[serde(default)]
    secrets: List<Rule>,
    #[serde(rename = "MisconfSummary", default)]
    misconfiguration_summary: Option<IgnoredAny>,
    #[serde(default)]
    misconfigurations: List<Rule>,
    #[serde(default)]
    licenses: List<License>,
    #[serde(rename = "ExperimentalModifiedFindings", default, borrow)]
    modified: List<Modified<'a>>,
}

/// A finding that Trivy itself set aside, because of a VEX document or its ignore file.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Modified<'a> {
    #[serde(rename = "Type", default, deserialize_with = "text")]
    kind: String,
    #[serde(default, deserialize_with = "text")]
    status: String,
    #[serde(default, deserialize_with = "text")]
    statement: String,
    #[serde(default, deserialize_with = "text")]
    source: String,
    #[serde(borrow)]
    finding: &'a RawValue,
}

/// Reads a report that looks like Trivy's.
pub(super) fn read(json: &[u8], order: &SeverityOrder) -> Result<Read, Unreadable> {
    let malformed = |why: String| Unreadable::Malformed { scanner: "Trivy", why };
    spelling::check(json, spelling::TRIVY).map_err(malformed)?;
    let mut report: Report<'_> = bounded::from_slice(json).map_err(|error| malformed(error.to_string()))?;
    if report.schema_version != 2 {
        return Err(malformed(format!(
            "its schema version is {} and only version 2 is accepted (Trivy 0.20 and later)",
            report.schema_version
        )));
    }
    let (version, database) = report.trivy.take().map_or_else(Default::default, |info| {
        let database = info.database.or(info.server.and_then(|server| server.database));
        (clean(&info.version), database)
    });
    let scope = scope::of(&report, database.is_some()).map_err(malformed)?;
    let mut findings = Vec::new();
    for part in &report.results.0 {
        part.collect(order, &mut findings).map_err(malformed)?;
    }
    Ok(Read {
        scanner: ScannerName::trivy(),
        scanner_version: version,
        database_updated_at: database.and_then(|database| time(&database.updated_at)),
        scanned_at: time(&report.created_at),
        scope,
        findings,
    })
}

impl Part<'_> {
    fn collect(&self, order: &SeverityOrder, findings: &mut Vec<Finding>) -> Result<(), String> {
        let place = self.place();
        for vulnerability in &self.vulnerabilities.0 {
            findings.push(vulnerability.finding(order, place)?);
        }
        for secret in &self.secrets.0 {
            findings.push(secret.finding(Class::Secret, &self.name)?);
        }
        for rule in self.misconfigurations.0.iter().filter(|rule| rule.failed()) {
            findings.push(rule.finding(Class::Misconfiguration, &self.name)?);
        }
        for license in &self.licenses.0 {
            findings.push(license.finding()?);
        }
        for modified in &self.modified.0 {
            findings.push(modified.finding(order, &self.name, place)?);
        }
        Ok(())
    }
}

impl Modified<'_> {
    /// The class of the finding, by Trivy's word.
    fn class(&self) -> Option<Class> {
        Class::of(&self.kind)
    }

    fn finding(&self, order: &SeverityOrder, target: &str, place: Place<'_>) -> Result<Finding, String> {
        fn parse<'de, T: Deserialize<'de>>(raw: &'de RawValue) -> Result<T, String> {
            bounded::from_slice(raw.get().as_bytes()).map_err(|error| format!("a modified finding: {error}"))
        }
        let raw = self.finding;
        let mut finding = match self.class() {
            Some(Class::Vulnerability) => parse::<Vulnerability>(raw)?.finding(order, place)?,
            Some(class @ (Class::Secret | Class::Misconfiguration)) => {
                parse::<Rule>(raw)?.finding(class, target)?
            }
            Some(Class::License) => parse::<License>(raw)?.finding()?,
            None => {
                return Err(format!("a modified finding is of the unknown type {:?}", clean(&self.kind)));
            }
        };
        let why = [&self.status, &self.statement, &self.source];
        let why: Vec<String> = why.into_iter().filter_map(|part| present(part)).collect();
        finding.suppressed =
            Some(if why.is_empty() { "set aside by Trivy".to_owned() } else { why.join(", ") });
        Ok(finding)
    }
}
