//! Statements about vulnerabilities: predicates that say what a scanner found.

use super::finding::{Finding, clean, id, present};
use super::report::{Read, Report, Unreadable, finish, read, time};
use super::severity::{of_score, of_word};
use super::{Class, Rating, Scope, Severity, SeverityOrder, Source};
use crate::failure::Failure;
use crate::names::ScannerName;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// in-toto's predicate, without its version.
const IN_TOTO: &str = "https://in-toto.io/attestation/vulns/v0.";
/// cosign's predicate (`cosign attest --type vuln`).
const COSIGN: &str = "https://cosign.sigstore.dev/attestation/vuln/v1";

#[derive(Deserialize)]
struct Predicate {
    scanner: Scanner,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Scanner {
    uri: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    db: Option<Database>,
    result: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Database {
    #[serde(default)]
    last_update: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    scan_finished_on: Option<String>,
}

/// One vulnerability. Version 0.1 of the predicate describes a member `vulnerability` around these, and its
/// example has none.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    vulnerability: Option<Box<Entry>>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    severity: Option<Vec<Score>>,
    #[serde(default)]
    annotations: Option<Vec<BTreeMap<String, Value>>>,
}

#[derive(Deserialize)]
struct Score {
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    score: Option<Value>,
}

/// Reads the predicate of a vulns statement. The statement is about an image; what it was made from says more
/// where it is the report of a scanner that we read.
pub fn read_vulns(
    predicate_type: &str,
    predicate: &Value,
    order: &SeverityOrder,
    max_findings: usize,
) -> Result<Report, Unreadable> {
    let malformed = |why: String| Unreadable::Malformed { scanner: "a vulns statement", why };
    if predicate_type != COSIGN && !predicate_type.starts_with(IN_TOTO) {
        return Err(Unreadable::UnknownKind("this is no statement about vulnerabilities"));
    }
    let predicate = Predicate::deserialize(predicate).map_err(|error| malformed(error.to_string()))?;
    let scanner = scanner(&predicate.scanner.uri).map_err(malformed)?;
    let mut report = match &predicate.scanner.result {
        Value::Array(entries) => {
            let findings = entries.iter().map(|entry| finding(entry, &scanner, order));
            let findings = findings.collect::<Result<_, _>>().map_err(malformed)?;
            finish(listed(scanner.clone(), findings), max_findings)?
        }
        Value::Object(_) => {
            let json = serde_json::to_vec(&predicate.scanner.result)
                .map_err(|error| Failure::new("writing the report in a statement", error))?;
            read(&json, order, max_findings)?
        }
        Value::String(text) => read(text.as_bytes(), order, max_findings)?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            return Err(malformed("its scanner.result is neither a list nor a report".to_owned()));
        }
    };
    // A report says who made it; the URI only must not name another scanner that we know.
    if report.scanner != scanner && scanner.is_reserved() {
        return Err(malformed(format!(
            "its scanner.uri names {scanner} and its result is a report of {}",
            report.scanner
        )));
    }
    if let Some(version) = predicate.scanner.version.as_deref().and_then(present) {
        report.scanner_version = version;
    }
    let finished = predicate.metadata.and_then(|metadata| metadata.scan_finished_on);
    report.scanned_at = finished.as_deref().and_then(time).or(report.scanned_at);
    let updated = predicate.scanner.db.and_then(|database| database.last_update);
    report.database_updated_at = updated.as_deref().and_then(time).or(report.database_updated_at);
    Ok(report)
}

/// A run whose findings a statement lists. It states neither targets nor filters.
fn listed(scanner: ScannerName, findings: Vec<Finding>) -> Read {
    Read {
        scanner,
        scanner_version: String::new(),
        database_updated_at: None,
        scanned_at: None,
        scope: Scope { source: Source::Image, kinds: [Class::Vulnerability].into(), ..Scope::default() },
        findings,
    }
}

/// `pkg:github/aquasecurity/trivy@0.66.0` and `https://github.com/anchore/grype` name the scanner last. The
/// names of the scanners that we read are found anywhere in the path.
fn scanner(uri: &str) -> Result<ScannerName, String> {
    let path = uri.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let parts = path.split('/').map(|part| part.split('@').next().unwrap_or_default().to_ascii_lowercase());
    let parts: Vec<String> = parts.map(|part| part.trim_end_matches(".git").to_owned()).collect();
    for known in [ScannerName::trivy(), ScannerName::grype()] {
        if parts.iter().any(|part| part == known.as_str()) {
            return Ok(known);
        }
    }
    let last = parts.last().map(String::as_str).unwrap_or_default();
    let words = last.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: String = words.collect::<Vec<_>>().join("-").chars().take(64).collect();
    name.trim_end_matches('-')
        .parse()
        .map_err(|_| format!("its scanner.uri {:?} names no scanner", clean(uri)))
}

fn finding(entry: &Value, scanner: &ScannerName, order: &SeverityOrder) -> Result<Finding, String> {
    let outer = Entry::deserialize(entry).map_err(|error| format!("its scanner.result: {error}"))?;
    let annotations = outer.annotations.unwrap_or_default();
    let entry = outer.vulnerability.map_or(
        Entry { vulnerability: None, id: outer.id, severity: outer.severity, annotations: None },
        |inner| *inner,
    );
    let annotations: Vec<_> = annotations.into_iter().chain(entry.annotations.unwrap_or_default()).collect();
    let ratings = ratings(entry.severity.unwrap_or_default(), scanner);
    let unrated =
        Rating { source: scanner.to_string(), severity: Severity::Unknown, score: None, vector: None };
    let worst = ratings.iter().max_by_key(|rating| rating.severity).unwrap_or(&unrated);
    let (severity, severity_source) = order.choose(worst, &ratings);
    let purl = annotations.iter().flat_map(BTreeMap::values).filter_map(Value::as_str);
    let purl = purl.filter(|text| text.starts_with("pkg:")).find_map(present);
    let (package, installed) = purl.as_deref().map(package).unwrap_or_default();
    Ok(Finding {
        class: Class::Vulnerability,
        vulnerability: id(&entry.id.unwrap_or_default())?,
        aliases: vec![],
        target: None,
        path: None,
        package,
        purl,
        installed,
        fixed_in: vec![],
        severity,
        severity_source,
        ratings,
        suppressed: None,
        title: String::new(),
    })
}

/// A rating for each method, the worst where one is there twice.
fn ratings(scores: Vec<Score>, scanner: &ScannerName) -> Vec<Rating> {
    let mut ratings: BTreeMap<String, Rating> = BTreeMap::new();
    for score in scores {
        let source = score.method.as_deref().and_then(present).unwrap_or_else(|| scanner.to_string());
        let source = source.to_ascii_lowercase();
        let text = match &score.score {
            Some(Value::String(text)) => clean(text),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        let severity = number.map_or_else(|| of_word(&text), of_score);
        let rating = Rating { source: source.clone(), severity, score: number, vector: None };
        match ratings.get(&source) {
            Some(known) if known.severity >= severity => {}
            Some(_) | None => {
                ratings.insert(source, rating);
            }
        }
    }
    ratings.into_values().collect()
}

/// The name and version in a package's URL.
fn package(purl: &str) -> (String, String) {
    let purl = purl.split(['?', '#']).next().unwrap_or_default();
    let last = purl.rsplit('/').next().unwrap_or_default();
    let (name, version) = last.split_once('@').unwrap_or((last, ""));
    (name.to_owned(), version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(predicate_type: &str, predicate: &Value) -> Result<Report, Unreadable> {
        read_vulns(predicate_type, predicate, &SeverityOrder::default(), 10)
    }

    fn listed(result: &Value) -> Value {
        json!({"scanner": {"uri": "pkg:github/anchore/grype@0.104.0", "version": "0.104.0",
            "db": {"lastUpdate": "2026-11-20T02:11:00Z"}, "result": result},
            "metadata": {"scanStartedOn": "2026-11-20T10:06:00Z", "scanFinishedOn": "2026-11-20T10:06:03Z"}})
    }

    #[test]
    fn in_totos_list_is_read_with_the_worst_of_its_scores() {
        let result = json!([
            {"id": "CVE-2026-1", "severity": [{"method": "nvd", "score": "medium"}, {"method": "cvss_score", "score": "9.2"}],
             "annotations": [{"package": "pkg:pypi/requests@2.31.0?os=linux"}]},
            {"id": "CVE-2026-2", "severity": [{"method": "vendor", "score": 7.1}]},
            {"id": "CVE-2026-3", "severity": []},
            {"vulnerability": {"id": "CVE-2026-4", "severity": [{"method": "vendor", "score": "SEVERE"}]}},
        ]);
        let report = read("https://in-toto.io/attestation/vulns/v0.2", &listed(&result)).unwrap();
        assert_eq!((report.scanner.as_str(), report.scanner_version.as_str()), ("grype", "0.104.0"));
        assert_eq!(report.scanned_at.unwrap().to_rfc3339(), "2026-11-20T10:06:03+00:00");
        assert_eq!(report.database_updated_at.unwrap().to_rfc3339(), "2026-11-20T02:11:00+00:00");
        assert_eq!((report.scope.source, report.scope.filters.as_ref()), (Source::Image, None));
        assert_eq!(report.scope.kinds, [Class::Vulnerability].into());
        let severities: Vec<Severity> = report.findings.findings().iter().map(|one| one.severity).collect();
        let expected = [Severity::Critical, Severity::High, Severity::Unknown, Severity::Critical];
        let mut by_id: Vec<_> =
            report.findings.findings().iter().map(|one| &one.vulnerability).zip(severities).collect();
        by_id.sort();
        assert_eq!(by_id.iter().map(|(_, severity)| *severity).collect::<Vec<_>>(), expected);
        let requests = report.findings.findings().iter().find(|one| one.purl.is_some()).unwrap();
        assert_eq!((requests.package.as_str(), requests.installed.as_str()), ("requests", "2.31.0"));
    }

    #[test]
    fn cosigns_predicate_holds_the_scanners_own_report() {
        let trivy = json!({"SchemaVersion": 2, "ArtifactName": "a", "ArtifactType": "container_image", "Results": [
            {"Target": "requirements.txt", "Class": "lang-pkgs", "Type": "pip", "Vulnerabilities": [
                {"VulnerabilityID": "CVE-2026-1", "PkgName": "requests", "Severity": "MEDIUM"}]}]});
        let predicate = |uri: &str, result: Value| {
            json!({"scanner": {"uri": uri, "version": "0.66.0", "db": {"uri": "a", "version": "2"}, "result": result},
                "metadata": {"scanFinishedOn": "2026-11-20T10:05:09Z"}})
        };
        let uri = "pkg:github/aquasecurity/trivy@0.66.0";
        for result in [trivy.clone(), Value::String(trivy.to_string())] {
            let report = read(COSIGN, &predicate(uri, result)).unwrap();
            assert_eq!((report.scanner.as_str(), report.scanner_version.as_str()), ("trivy", "0.66.0"));
            assert_eq!(report.findings.findings()[0].path.as_deref(), Some("requirements.txt"));
            assert_eq!(report.scanned_at.unwrap().to_rfc3339(), "2026-11-20T10:05:09+00:00");
            assert_eq!(report.database_updated_at, None);
        }
        let other = read(COSIGN, &predicate("https://ci.example/scan-step", trivy.clone())).unwrap();
        assert_eq!(other.scanner.as_str(), "trivy");
        let refused = read(COSIGN, &predicate("pkg:github/anchore/grype@1", trivy)).unwrap_err();
        assert!(refused.to_string().contains("names grype and its result is a report of trivy"), "{refused}");
        let refused = read(COSIGN, &predicate(uri, json!({"runs": []}))).unwrap_err();
        assert!(refused.to_string().contains("SARIF"), "{refused}");
    }

    #[test]
    fn what_is_no_such_predicate_is_refused() {
        for (predicate_type, predicate, says) in [
            ("https://slsa.dev/provenance/v1", json!({}), "no statement about vulnerabilities"),
            (COSIGN, json!({}), "missing field `scanner`"),
            (COSIGN, listed(&json!(null)), "neither a list nor a report"),
            ("https://in-toto.io/attestation/vulns/v0.2", listed(&json!([{"severity": []}])), "no id"),
            ("https://in-toto.io/attestation/vulns/v0.2", listed(&json!([1])), "scanner.result"),
        ] {
            let refused = read(predicate_type, &predicate).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn the_scanners_name_is_the_last_part_of_its_uri() {
        for (uri, name) in [
            ("pkg:github/aquasecurity/trivy@244fd47", "trivy"),
            ("https://github.com/anchore/grype.git", "grype"),
            ("https://scanner.example/Some Scanner/?v=1", "some-scanner"),
            ("scanner", "scanner"),
            ("https://github.com/aquasecurity/trivy/releases/tag/v0.66.0", "trivy"),
        ] {
            assert_eq!(scanner(uri).unwrap().as_str(), name);
        }
        assert!(scanner("").is_err());
        assert!(scanner("https://a/@").is_err());
    }
}
