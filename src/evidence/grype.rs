//! Grype's JSON report (`grype -o json`).
//!
//! The `manifestDigest` of an image that did not come from a registry is one that Grype made up, so
//! it only confirms a subject and never contradicts one on its own.

use super::bounded::{self, List, text};
use super::finding::{Class, Finding, clean, id, present, title};
use super::report::{Read, Unreadable, digests, time};
use super::severity::{of_score, of_word};
use super::{Rating, SeverityOrder};
use crate::names::ScannerName;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    matches: List<Match>,
    #[serde(default)]
    ignored_matches: List<Match>,
    #[serde(default, borrow)]
    source: Option<Source<'a>>,
    descriptor: Descriptor,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Match {
    vulnerability: Vulnerability,
    #[serde(default)]
    related_vulnerabilities: List<Vulnerability>,
    artifact: Artifact,
    #[serde(default)]
    applied_ignore_rules: List<IgnoreRule>,
}

#[derive(Deserialize)]
struct Vulnerability {
    id: String,
    #[serde(default, deserialize_with = "text")]
    namespace: String,
    #[serde(default, deserialize_with = "text")]
    severity: String,
    #[serde(default, deserialize_with = "text")]
    description: String,
    #[serde(default)]
    cvss: List<Cvss>,
    #[serde(default)]
    fix: Option<Fix>,
}

#[derive(Deserialize)]
struct Cvss {
    #[serde(default, deserialize_with = "text")]
    source: String,
    #[serde(default, deserialize_with = "text")]
    version: String,
    #[serde(default, deserialize_with = "text")]
    vector: String,
    #[serde(default)]
    metrics: Option<Metrics>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    #[serde(default)]
    base_score: Option<f64>,
}

#[derive(Deserialize)]
struct Fix {
    #[serde(default)]
    versions: List<String>,
}

#[derive(Deserialize)]
struct Artifact {
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "text")]
    version: String,
    #[serde(default, deserialize_with = "text")]
    purl: String,
}

#[derive(Deserialize)]
struct IgnoreRule {
    #[serde(default, deserialize_with = "text")]
    reason: String,
    #[serde(rename = "vex-status", default, deserialize_with = "text")]
    vex_status: String,
    #[serde(rename = "vex-justification", default, deserialize_with = "text")]
    vex_justification: String,
}

#[derive(Deserialize)]
struct Source<'a> {
    /// An object for an image, a string for a directory or file.
    #[serde(default, borrow)]
    target: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    #[serde(default)]
    repo_digests: List<String>,
    #[serde(default, deserialize_with = "text")]
    manifest_digest: String,
}

#[derive(Deserialize)]
struct Descriptor {
    name: String,
    #[serde(default, deserialize_with = "text")]
    version: String,
    #[serde(default, deserialize_with = "text")]
    timestamp: String,
    #[serde(default)]
    db: Option<Database>,
}

/// Grype before 0.88 says `db.built`, later ones `db.status.built`.
#[derive(Deserialize)]
struct Database {
    #[serde(default, deserialize_with = "text")]
    built: String,
    #[serde(default)]
    status: Option<DatabaseStatus>,
}

#[derive(Deserialize)]
struct DatabaseStatus {
    #[serde(default, deserialize_with = "text")]
    built: String,
}

/// Reads a report that looks like Grype's.
pub(super) fn read(json: &[u8], order: &SeverityOrder) -> Result<Read, Unreadable> {
    let malformed = |why: String| Unreadable::Malformed { scanner: "Grype", why };
    let report: Report<'_> = bounded::from_slice(json).map_err(|error| malformed(error.to_string()))?;
    if report.descriptor.name != "grype" {
        return Err(malformed(format!(
            "its descriptor names {:?} instead of \"grype\"",
            title(&report.descriptor.name)
        )));
    }
    let subjects =
        report.source.and_then(|source| source.target).map(subjects).transpose().map_err(malformed)?;
    let open = report.matches.0.iter().map(|found| found.finding(order));
    let ignored = report.ignored_matches.0.iter().map(|found| {
        let suppressed = Some(found.why_ignored());
        found.finding(order).map(|finding| Finding { suppressed, ..finding })
    });
    let findings = open.chain(ignored).collect::<Result<_, _>>().map_err(malformed)?;
    let database = report.descriptor.db.and_then(|db| {
        let newer = db.status.and_then(|status| time(&status.built));
        newer.or_else(|| time(&db.built))
    });
    Ok(Read {
        scanner: ScannerName::grype(),
        scanner_version: clean(&report.descriptor.version),
        database_updated_at: database,
        scanned_at: time(&report.descriptor.timestamp),
        subjects: subjects.unwrap_or_default(),
        findings,
    })
}

fn subjects(target: &RawValue) -> Result<Vec<crate::names::Digest>, String> {
    if !target.get().trim_start().starts_with('{') {
        return Ok(vec![]);
    }
    let image: Image =
        bounded::from_slice(target.get().as_bytes()).map_err(|error| format!("its source: {error}"))?;
    let mut subjects = digests(&image.repo_digests);
    if !subjects.is_empty() {
        subjects.extend(image.manifest_digest.parse().ok());
    }
    Ok(subjects)
}

impl Match {
    fn finding(&self, order: &SeverityOrder) -> Result<Finding, String> {
        let own = id(&self.vulnerability.id)?;
        let mut names = vec![own.clone()];
        for related in &self.related_vulnerabilities.0 {
            names.push(id(&related.id)?);
        }
        names.sort();
        names.dedup();
        let vulnerability = main_name(own, &names);
        names.retain(|name| *name != vulnerability);
        let chosen_by_grype = Rating {
            source: source(&self.vulnerability.namespace),
            severity: of_word(&self.vulnerability.severity),
            score: None,
            vector: None,
        };
        let ratings = self.ratings();
        let (severity, severity_source) = order.choose(&chosen_by_grype, &ratings);
        let related = self.related_vulnerabilities.0.iter();
        let mut descriptions =
            std::iter::once(&self.vulnerability).chain(related).map(|v| v.description.as_str());
        Ok(Finding {
            class: Class::Vulnerability,
            vulnerability,
            aliases: names,
            package: clean(&self.artifact.name),
            purl: present(&self.artifact.purl),
            installed: clean(&self.artifact.version),
            fixed_in: fixed_in(self.vulnerability.fix.as_ref()),
            severity,
            severity_source,
            ratings,
            suppressed: None,
            title: title(descriptions.find(|text| !text.is_empty()).unwrap_or_default()),
        })
    }

    /// By source: its word, and the newest CVSS score it gives.
    fn ratings(&self) -> Vec<Rating> {
        let mut ratings: Vec<Rating> = Vec::new();
        for vulnerability in std::iter::once(&self.vulnerability).chain(&self.related_vulnerabilities.0) {
            let by = source(&vulnerability.namespace);
            if ratings.iter().all(|rating| rating.source != by) {
                let severity = of_word(&vulnerability.severity);
                ratings.push(Rating { source: by.clone(), severity, score: None, vector: None });
            }
            let mut scores: Vec<&Cvss> =
                vulnerability.cvss.0.iter().filter(|cvss| cvss.version != "2.0").collect();
            scores.sort_by(|a, b| b.version.cmp(&a.version));
            for cvss in scores {
                let Some(score) = cvss.metrics.as_ref().and_then(|metrics| metrics.base_score) else {
                    continue;
                };
                let by = if cvss.source.is_empty() { by.clone() } else { source(&cvss.source) };
                let vector = present(&cvss.vector);
                match ratings.iter_mut().find(|rating| rating.source == by) {
                    Some(rating) if rating.score.is_none() => {
                        (rating.score, rating.vector) = (Some(score), vector);
                    }
                    Some(_) => {}
                    None => {
                        let severity = of_score(score);
                        ratings.push(Rating { source: by, severity, score: Some(score), vector });
                    }
                }
            }
        }
        ratings.sort_by(|a, b| a.source.cmp(&b.source));
        ratings
    }

    fn why_ignored(&self) -> String {
        let rules = self.applied_ignore_rules.0.iter();
        let parts = rules.flat_map(|rule| [&rule.vex_status, &rule.vex_justification, &rule.reason]);
        let mut why: Vec<String> = parts.filter_map(|part| present(part)).collect();
        why.dedup();
        if why.is_empty() { "ignored by a rule of Grype".to_owned() } else { why.join(", ") }
    }
}

/// The CVE, where exactly one is known: a GitHub advisory may stand for several.
fn main_name(own: String, names: &[String]) -> String {
    let mut cves = names.iter().filter(|name| name.starts_with("CVE-"));
    match (own.starts_with("CVE-"), cves.next(), cves.next()) {
        (false, Some(one), None) => one.clone(),
        _ => own,
    }
}

fn fixed_in(fix: Option<&Fix>) -> Vec<String> {
    let mut versions: Vec<String> =
        fix.into_iter().flat_map(|fix| &fix.versions.0).filter_map(|version| present(version)).collect();
    versions.sort();
    versions.dedup();
    versions
}

/// Grype's namespaces (`debian:distro:debian:12`, `github:language:go`, `nvd:cpe`) and the mail
/// addresses that the NVD gives (`nvd@nist.gov`) as the names that Trivy uses too.
fn source(namespace: &str) -> String {
    let first = namespace.split([':', '@']).next().unwrap_or_default();
    match first {
        "" => "grype".to_owned(),
        "github" | "security-advisories" => "ghsa".to_owned(),
        other => clean(other).to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Report, Severity, read};
    use super::*;

    fn report(json: &[u8]) -> Report {
        read(json, &SeverityOrder::default(), 1000).unwrap()
    }

    #[test]
    fn a_github_advisory_is_known_by_its_cve_and_keeps_its_own_name() {
        let report = report(include_bytes!("../../tests/fixtures/grype/ghsa.json"));
        let findings = report.findings.findings();
        let client = findings.iter().find(|finding| finding.vulnerability == "CVE-2014-3577").unwrap();
        assert_eq!(client.aliases, ["GHSA-cfh5-3ghh-wfjx"]);
        assert_eq!((client.severity, client.severity_source.as_str()), (Severity::Medium, "ghsa"));
        assert_eq!(client.fixed_in, ["4.3.5"]);
        assert_eq!(report.database_updated_at.unwrap().to_rfc3339(), "2023-08-31T01:24:19+00:00");
        assert_eq!(report.scanned_at.unwrap().timestamp(), 1_693_509_212);
    }

    #[test]
    fn the_image_is_known_by_its_repository_digests() {
        let report = report(include_bytes!("../../tests/fixtures/grype/chainguard-ruby.json"));
        assert_eq!((report.scanner.as_str(), report.scanner_version.as_str()), ("grype", "0.61.1"));
        let subjects: Vec<&str> = report.subjects.iter().map(|digest| &digest.hex()[..8]).collect();
        assert_eq!(subjects, ["3c9afb4f", "86abe662"]);
        assert_eq!(report.findings.findings()[0].ratings.len(), 2);
    }

    #[test]
    fn without_repository_digests_no_subject_is_claimed() {
        let report = report(include_bytes!("../../tests/fixtures/grype/kev-epss.json"));
        assert!(report.subjects.is_empty());
        assert_eq!((report.scanned_at, report.database_updated_at), (None, None));
        let counts = report.findings.counts();
        assert_eq!((counts["critical"], counts["low"]), (1, 1));
        let first = &report.findings.findings()[0];
        assert_eq!(first.fixed_in.len(), 3);
    }

    #[test]
    fn what_grype_ignored_is_kept_as_suppressed() {
        let json = br#"{"matches": [], "descriptor": {"name": "grype", "db": {"status": {"built": "2026-11-22T00:00:00Z"}}},
            "source": {"type": "directory", "target": "/src"},
            "ignoredMatches": [{"vulnerability": {"id": "GHSA-a"}, "artifact": {"name": "a", "version": "1"},
              "relatedVulnerabilities": [{"id": "CVE-2026-1"}, {"id": "CVE-2026-2"}],
              "appliedIgnoreRules": [{"reason": "", "vex-status": "not_affected", "vex-justification": "component_not_present"}]}]}"#;
        let report = report(json);
        let only = &report.findings.findings()[0];
        assert_eq!(only.suppressed.as_deref(), Some("not_affected, component_not_present"));
        assert_eq!(only.vulnerability, "GHSA-a", "two CVEs are no one name");
        assert_eq!(only.aliases, ["CVE-2026-1", "CVE-2026-2"]);
        assert_eq!(report.database_updated_at.unwrap().to_rfc3339(), "2026-11-22T00:00:00+00:00");
    }

    #[test]
    fn a_descriptor_of_another_tool_is_refused() {
        let json = br#"{"matches": [], "descriptor": {"name": "syft"}}"#;
        assert!(read(json, &SeverityOrder::default(), 10).unwrap_err().to_string().contains("\"syft\""));
    }

    #[test]
    fn more_findings_than_are_taken_are_refused() {
        let json = include_bytes!("../../tests/fixtures/grype/kev-epss.json");
        let refused = read(json, &SeverityOrder::default(), 1).unwrap_err();
        assert!(refused.to_string().contains("2 findings; at most 1"), "{refused}");
    }
}
