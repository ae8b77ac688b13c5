//! Trivy's JSON report, schema version 2.
//!
//! `ArtifactID` is the digest of an image's configuration, not of its manifest, so it names no
//! subject; `RepoDigests` do.

use super::bounded::{self, List, Map, text};
use super::finding::{Class, Finding, clean, id, present, title};
use super::report::{Read, Unreadable, digests, time};
use super::severity::{of_score, of_word};
use super::{Rating, Severity, SeverityOrder};
use crate::names::ScannerName;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Report<'a> {
    #[serde(rename = "SchemaVersion")]
    schema_version: i64,
    #[serde(rename = "Trivy", default)]
    trivy: Option<Info>,
    #[serde(rename = "CreatedAt", default, deserialize_with = "text")]
    created_at: String,
    #[serde(rename = "Metadata", default)]
    metadata: Option<Metadata>,
    #[serde(rename = "Results", default, borrow)]
    results: List<Target<'a>>,
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

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "RepoDigests", default)]
    repo_digests: List<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Target<'a> {
    #[serde(rename = "Target", default, deserialize_with = "text")]
    name: String,
    #[serde(default)]
    vulnerabilities: List<Vulnerability>,
    #[serde(default)]
    secrets: List<Rule>,
    #[serde(default)]
    misconfigurations: List<Rule>,
    #[serde(default)]
    licenses: List<License>,
    #[serde(rename = "ExperimentalModifiedFindings", default, borrow)]
    modified: List<Modified<'a>>,
}

#[derive(Deserialize)]
struct Vulnerability {
    #[serde(rename = "VulnerabilityID")]
    id: String,
    #[serde(rename = "VendorIDs", default)]
    vendor_ids: List<String>,
    #[serde(rename = "PkgName", default, deserialize_with = "text")]
    package: String,
    #[serde(rename = "PkgIdentifier", default)]
    identifier: Option<Identifier>,
    #[serde(rename = "InstalledVersion", default, deserialize_with = "text")]
    installed: String,
    #[serde(rename = "FixedVersion", default, deserialize_with = "text")]
    fixed: String,
    #[serde(rename = "SeveritySource", default, deserialize_with = "text")]
    severity_source: String,
    #[serde(rename = "DataSource", default)]
    data_source: Option<DataSource>,
    #[serde(rename = "Title", default, deserialize_with = "text")]
    title: String,
    #[serde(rename = "Severity", default, deserialize_with = "text")]
    severity: String,
    #[serde(rename = "VendorSeverity", default)]
    vendor_severity: Map<i64>,
    #[serde(rename = "CVSS", default)]
    cvss: Map<Cvss>,
    #[serde(rename = "References", default)]
    references: List<String>,
}

#[derive(Deserialize)]
struct Identifier {
    #[serde(rename = "PURL", default, deserialize_with = "text")]
    purl: String,
}

#[derive(Deserialize)]
struct DataSource {
    #[serde(rename = "ID", default, deserialize_with = "text")]
    id: String,
}

#[derive(Deserialize)]
struct Cvss {
    #[serde(rename = "V3Score", default)]
    v3_score: Option<f64>,
    #[serde(rename = "V3Vector", default)]
    v3_vector: Option<String>,
    #[serde(rename = "V40Score", default)]
    v40_score: Option<f64>,
    #[serde(rename = "V40Vector", default)]
    v40_vector: Option<String>,
}

/// A secret or a misconfiguration. What matched (`Match`, `Code`) is not read.
#[derive(Deserialize)]
struct Rule {
    #[serde(rename = "RuleID", alias = "ID")]
    id: String,
    #[serde(rename = "AVDID", default, deserialize_with = "text")]
    avd_id: String,
    #[serde(rename = "Title", default, deserialize_with = "text")]
    title: String,
    #[serde(rename = "Severity", default, deserialize_with = "text")]
    severity: String,
    /// Of a misconfiguration: PASS, FAIL or EXCEPTION.
    #[serde(rename = "Status", default, deserialize_with = "text")]
    status: String,
}

#[derive(Deserialize)]
struct License {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "PkgName", default, deserialize_with = "text")]
    package: String,
    #[serde(rename = "FilePath", default, deserialize_with = "text")]
    file: String,
    #[serde(rename = "Category", default, deserialize_with = "text")]
    category: String,
    #[serde(rename = "Severity", default, deserialize_with = "text")]
    severity: String,
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
    let report: Report<'_> = bounded::from_slice(json).map_err(|error| malformed(error.to_string()))?;
    if report.schema_version != 2 {
        return Err(malformed(format!(
            "its schema version is {} and only version 2 is accepted (Trivy 0.20 and later)",
            report.schema_version
        )));
    }
    let mut findings = Vec::new();
    for target in &report.results.0 {
        target.collect(order, &mut findings).map_err(malformed)?;
    }
    let (version, database) = report.trivy.map_or_else(Default::default, |info| {
        let database = info.database.or(info.server.and_then(|server| server.database));
        (clean(&info.version), database.and_then(|database| time(&database.updated_at)))
    });
    Ok(Read {
        scanner: ScannerName::trivy(),
        scanner_version: version,
        database_updated_at: database,
        scanned_at: time(&report.created_at),
        subjects: report.metadata.map(|metadata| digests(&metadata.repo_digests)).unwrap_or_default(),
        findings,
    })
}

impl Target<'_> {
    fn collect(&self, order: &SeverityOrder, findings: &mut Vec<Finding>) -> Result<(), String> {
        for vulnerability in &self.vulnerabilities.0 {
            findings.push(vulnerability.finding(order)?);
        }
        for secret in &self.secrets.0 {
            findings.push(secret.finding(Class::Secret, &self.name)?);
        }
        for rule in self.misconfigurations.0.iter().filter(|rule| rule.status != "PASS") {
            findings.push(rule.finding(Class::Misconfiguration, &self.name)?);
        }
        for license in &self.licenses.0 {
            findings.push(license.finding()?);
        }
        for modified in &self.modified.0 {
            findings.push(modified.finding(order, &self.name)?);
        }
        Ok(())
    }
}

impl Modified<'_> {
    fn finding(&self, order: &SeverityOrder, target: &str) -> Result<Finding, String> {
        fn parse<'de, T: Deserialize<'de>>(raw: &'de RawValue) -> Result<T, String> {
            bounded::from_slice(raw.get().as_bytes()).map_err(|error| format!("a modified finding: {error}"))
        }
        let mut finding = match self.kind.as_str() {
            "vulnerability" => parse::<Vulnerability>(self.finding)?.finding(order)?,
            "secret" => parse::<Rule>(self.finding)?.finding(Class::Secret, target)?,
            "misconfiguration" => parse::<Rule>(self.finding)?.finding(Class::Misconfiguration, target)?,
            "license" => parse::<License>(self.finding)?.finding()?,
            other => return Err(format!("a modified finding is of the unknown type {:?}", clean(other))),
        };
        let why = [&self.status, &self.statement, &self.source];
        let why: Vec<String> = why.into_iter().filter_map(|part| present(part)).collect();
        finding.suppressed =
            Some(if why.is_empty() { "set aside by Trivy".to_owned() } else { why.join(", ") });
        Ok(finding)
    }
}

impl Vulnerability {
    fn finding(&self, order: &SeverityOrder) -> Result<Finding, String> {
        let own = id(&self.id)?;
        let data_source = self.data_source.as_ref().map_or("", |source| &source.id);
        let mut aliases = self.vendor_ids.0.iter().map(|alias| id(alias)).collect::<Result<Vec<_>, _>>()?;
        if data_source == "ghsa" {
            aliases.extend(advisory(&self.references.0));
        }
        aliases.retain(|alias| *alias != own);
        aliases.sort();
        aliases.dedup();
        let mut ratings = self.ratings();
        let chosen_by_trivy = Rating {
            source: [&self.severity_source, data_source, "trivy"]
                .into_iter()
                .find_map(present)
                .unwrap_or_default(),
            severity: of_word(&self.severity),
            score: None,
            vector: None,
        };
        if !ratings.iter().any(|rating| rating.source == chosen_by_trivy.source) {
            ratings.push(chosen_by_trivy.clone());
        }
        let (severity, severity_source) = order.choose(&chosen_by_trivy, &ratings);
        Ok(Finding {
            class: Class::Vulnerability,
            vulnerability: own,
            aliases,
            package: clean(&self.package),
            purl: self.identifier.as_ref().and_then(|identifier| present(&identifier.purl)),
            installed: clean(&self.installed),
            fixed_in: self.fixed.split(',').filter_map(present).collect(),
            severity,
            severity_source,
            ratings,
            suppressed: None,
            title: title(&self.title),
        })
    }

    /// Every source that rated it by a word (0 unknown to 4 critical) or by a CVSS score.
    fn ratings(&self) -> Vec<Rating> {
        let words = self.vendor_severity.0.keys();
        let mut sources: Vec<&String> = words.chain(self.cvss.0.keys()).collect();
        sources.sort();
        sources.dedup();
        let rating = |source: &String| {
            let cvss = self.cvss.0.get(source);
            let score = cvss.and_then(|cvss| cvss.v40_score.or(cvss.v3_score)).filter(|score| *score > 0.0);
            let vector = cvss.and_then(|cvss| cvss.v40_vector.as_ref().or(cvss.v3_vector.as_ref()));
            let word = self.vendor_severity.0.get(source).map(|word| match word {
                4 => Severity::Critical,
                3 => Severity::High,
                2 => Severity::Medium,
                1 => Severity::Low,
                _ => Severity::Unknown,
            });
            Rating {
                source: clean(source),
                severity: word.unwrap_or_else(|| score.map_or(Severity::Unknown, of_score)),
                score,
                vector: vector.and_then(|vector| present(vector)),
            }
        };
        sources.into_iter().map(rating).collect()
    }
}

/// The GitHub advisory that a finding of GitHub's data is about: known only when its references
/// name exactly one. Of two, one may be another vulnerability's, and an alias must never be wrong,
/// since a waiver of it would waive this one.
fn advisory(references: &[String]) -> Option<String> {
    let prefix = "https://github.com/advisories/";
    let mut named: Vec<&str> =
        references.iter().filter_map(|reference| reference.strip_prefix(prefix)).collect();
    named.retain(|name| {
        name.starts_with("GHSA-") && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    named.dedup();
    match named.as_slice() {
        [one] => id(one).ok(),
        _ => None,
    }
}

impl Rule {
    fn finding(&self, class: Class, target: &str) -> Result<Finding, String> {
        let severity = of_word(&self.severity);
        let suppressed = (self.status == "EXCEPTION").then(|| "an exception of Trivy's policy".to_owned());
        Ok(Finding {
            aliases: Some(&self.avd_id)
                .and_then(|avd| id(avd).ok())
                .filter(|avd| *avd != self.id)
                .into_iter()
                .collect(),
            suppressed,
            ..simple(class, id(&self.id)?, clean(target), severity, title(&self.title))
        })
    }
}

impl License {
    fn finding(&self) -> Result<Finding, String> {
        let place = present(&self.package).unwrap_or_else(|| clean(&self.file));
        let severity = of_word(&self.severity);
        Ok(simple(Class::License, id(&self.name)?, place, severity, title(&self.category)))
    }
}

/// A finding that only Trivy rates.
fn simple(class: Class, id: String, place: String, severity: Severity, title: String) -> Finding {
    Finding {
        class,
        vulnerability: id,
        aliases: vec![],
        package: place,
        purl: None,
        installed: String::new(),
        fixed_in: vec![],
        severity,
        severity_source: "trivy".to_owned(),
        ratings: vec![Rating { source: "trivy".to_owned(), severity, score: None, vector: None }],
        suppressed: None,
        title,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FindingSet, Report, Unreadable};
    use super::*;

    fn report(json: &[u8]) -> Report {
        super::super::read(json, &SeverityOrder::default(), 1000).unwrap()
    }

    fn of<'a>(set: &'a FindingSet, vulnerability: &str) -> &'a Finding {
        set.findings().iter().find(|finding| finding.vulnerability == vulnerability).unwrap()
    }

    #[test]
    fn a_real_report_of_debian_keeps_every_rating_and_follows_the_distribution() {
        let json = include_bytes!("../../tests/fixtures/trivy/debian-stretch.json");
        let report = report(json);
        assert_eq!((report.scanner.as_str(), report.scanner_version.as_str()), ("trivy", "dev"));
        assert_eq!(report.scanned_at.unwrap().to_rfc3339(), "2021-08-25T12:20:30.000000005+00:00");
        assert!(report.subjects.is_empty(), "ArtifactID is not the manifest's digest");
        let bash = of(&report.findings, "CVE-2019-18276");
        assert_eq!((bash.severity, bash.severity_source.as_str()), (Severity::Low, "debian"));
        let nvd = bash.ratings.iter().find(|rating| rating.source == "nvd").unwrap();
        assert_eq!((nvd.severity, nvd.score), (Severity::High, Some(7.8)));
        assert!(bash.fixed_in.is_empty());
        let e2fs = of(&report.findings, "CVE-2019-5094");
        assert_eq!(e2fs.aliases, ["DSA-4535-1"]);
        assert_eq!(e2fs.fixed_in, ["1.43.4-2+deb9u1"]);
        let strict = super::super::read(json, &"nvd".parse().unwrap(), 1000).unwrap();
        assert_eq!(of(&strict.findings, "CVE-2019-18276").severity, Severity::High);
    }

    #[test]
    fn what_trivy_suppressed_is_kept_as_suppressed() {
        let report = report(include_bytes!("../../tests/fixtures/trivy/npm-with-suppressed.json"));
        let debug = of(&report.findings, "CVE-2017-16137");
        let why = debug.suppressed.as_deref().unwrap();
        assert_eq!(why, "not_affected, vulnerable_code_not_in_execute_path, ./vex.json");
        assert_eq!(report.findings.counts()["suppressed"], 1);
    }

    #[test]
    fn a_secret_is_a_finding_and_what_matched_is_not_kept() {
        let report = report(include_bytes!("../../tests/fixtures/trivy/secrets.json"));
        let key = of(&report.findings, "aws-access-key-id");
        assert_eq!(
            (key.class, key.severity, key.package.as_str()),
            (Class::Secret, Severity::Critical, "deploy.sh")
        );
        assert!(!format!("{:?}", report.findings).contains("ghp_"));
    }

    #[test]
    fn one_advisory_of_github_is_an_alias_and_of_two_neither() {
        let report = report(include_bytes!("../../tests/fixtures/trivy/gomod-vex.json"));
        assert_eq!(of(&report.findings, "GMS-2022-20").aliases, ["GHSA-qq97-vm5h-rrhg"]);
        let url = |id: &str| format!("https://github.com/advisories/{id}");
        assert_eq!(advisory(&[url("GHSA-aaaa-aaaa-aaaa"), url("GHSA-bbbb-bbbb-bbbb")]), None);
    }

    #[test]
    fn the_subject_and_the_database_are_read_where_they_are_said() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let json = format!(
            r#"{{"SchemaVersion": 2, "ArtifactName": "a", "Results": null,
                "Trivy": {{"Version": "0.70.0", "Server": {{"VulnerabilityDB": {{"UpdatedAt": "2026-11-22T06:00:00Z"}}}}}},
                "Metadata": {{"RepoDigests": ["registry.example/a@{digest}", "nonsense"]}}}}"#
        );
        let report = report(json.as_bytes());
        assert_eq!(report.subjects, [digest.parse().unwrap()]);
        assert_eq!(report.database_updated_at.unwrap().to_rfc3339(), "2026-11-22T06:00:00+00:00");
        assert!(report.findings.findings().is_empty());
    }

    #[test]
    fn another_schema_version_is_refused() {
        let json = br#"{"SchemaVersion": 3, "ArtifactName": "a"}"#;
        let refused = super::super::read(json, &SeverityOrder::default(), 10).unwrap_err();
        assert!(matches!(&refused, Unreadable::Malformed { .. }));
        assert!(refused.to_string().contains("only version 2"), "{refused}");
    }
}
