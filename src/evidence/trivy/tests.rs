use crate::evidence::{Class, Severity, SeverityOrder};
use crate::evidence::{Finding, FindingSet, Report, Unreadable, read};

fn report(json: &[u8]) -> Report {
    read(json, &SeverityOrder::default(), 1000).unwrap()
}

fn of<'a>(set: &'a FindingSet, vulnerability: &str) -> &'a Finding {
    set.findings().iter().find(|finding| finding.vulnerability == vulnerability).unwrap()
}

#[test]
fn a_real_report_of_debian_keeps_every_rating_and_follows_the_distribution() {
    let json = include_bytes!("../../../tests/fixtures/trivy/debian-stretch.json");
    let report = report(json);
    assert_eq!((report.scanner.as_str(), report.scanner_version.as_str()), ("trivy", "dev"));
    assert_eq!(report.scanned_at.unwrap().to_rfc3339(), "2021-08-25T12:20:30.000000005+00:00");
    assert!(report.scope.manifests.is_empty(), "ArtifactID is not the manifest's digest");
    let bash = of(&report.findings, "CVE-2019-18276");
    assert_eq!((bash.severity, bash.severity_source.as_str()), (Severity::Low, "debian"));
    let nvd = bash.ratings.iter().find(|rating| rating.source == "nvd").unwrap();
    assert_eq!((nvd.severity, nvd.score), (Severity::High, Some(7.8)));
    assert!(bash.fixed_in.is_empty());
    let e2fs = of(&report.findings, "CVE-2019-5094");
    assert_eq!(e2fs.aliases, ["DSA-4535-1"]);
    assert_eq!(e2fs.fixed_in, ["1.43.4-2+deb9u1"]);
    let strict = read(json, &"nvd".parse().unwrap(), 1000).unwrap();
    assert_eq!(of(&strict.findings, "CVE-2019-18276").severity, Severity::High);
}

#[test]
fn what_trivy_suppressed_is_kept_as_suppressed() {
    let report = report(include_bytes!("../../../tests/fixtures/trivy/npm-with-suppressed.json"));
    let debug = of(&report.findings, "CVE-2017-16137");
    let why = debug.suppressed.as_deref().unwrap();
    assert_eq!(why, "not_affected, vulnerable_code_not_in_execute_path, ./vex.json");
    assert_eq!(report.findings.counts()["suppressed"], 1);
}

#[test]
fn a_secret_is_a_finding_and_what_matched_is_not_kept() {
    let report = report(include_bytes!("../../../tests/fixtures/trivy/secrets.json"));
    let key = of(&report.findings, "aws-access-key-id");
    assert_eq!(
        (key.class, key.severity, key.package.as_str()),
        (Class::Secret, Severity::Critical, "deploy.sh")
    );
    assert!(!format!("{:?}", report.findings).contains("ghp_"));
}

#[test]
fn one_advisory_of_github_is_an_alias() {
    let report = report(include_bytes!("../../../tests/fixtures/trivy/gomod-vex.json"));
    assert_eq!(of(&report.findings, "GMS-2022-20").aliases, ["GHSA-qq97-vm5h-rrhg"]);
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
    assert_eq!(report.scope.manifests.first().unwrap().digest(), Some(&digest.parse().unwrap()));
    assert_eq!(report.database_updated_at.unwrap().to_rfc3339(), "2026-11-22T06:00:00+00:00");
    assert!(report.findings.findings().is_empty());
}

#[test]
fn another_schema_version_is_refused() {
    let json = br#"{"SchemaVersion": 3, "ArtifactName": "a"}"#;
    let refused = read(json, &SeverityOrder::default(), 10).unwrap_err();
    assert!(matches!(&refused, Unreadable::Malformed { .. }));
    assert!(refused.to_string().contains("only version 2"), "{refused}");
}

#[test]
fn findings_under_another_spelling_are_refused() {
    let json = br#"{"SchemaVersion": 2, "ArtifactName": "a", "Results": [{"Target": "t",
        "vulnerabilities": [{"VulnerabilityID": "CVE-2026-1", "Severity": "HIGH"}]}]}"#;
    let refused = read(json, &SeverityOrder::default(), 10).unwrap_err().to_string();
    assert!(refused.contains("report of Trivy") && refused.contains("only by case"), "{refused}");
}

#[test]
fn far_too_many_digests_are_refused() {
    let digests: Vec<String> = (0..2000).map(|n| format!("\"a@sha256:{n:064x}\"")).collect();
    let json = format!(
        r#"{{"SchemaVersion": 2, "ArtifactName": "a", "Metadata": {{"RepoDigests": [{}]}}}}"#,
        digests.join(",")
    );
    let refused = read(json.as_bytes(), &SeverityOrder::default(), 10).unwrap_err().to_string();
    assert!(refused.contains("more than 1000 digests"), "{refused}");
}
