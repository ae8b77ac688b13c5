use crate::evidence::{Report, Severity, SeverityOrder, read};

fn report(json: &[u8]) -> Report {
    read(json, &SeverityOrder::default(), 1000).unwrap()
}

#[test]
fn a_github_advisory_is_known_by_its_cve_and_keeps_its_own_name() {
    let report = report(include_bytes!("../../../tests/fixtures/grype/ghsa.json"));
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
    let report = report(include_bytes!("../../../tests/fixtures/grype/chainguard-ruby.json"));
    assert_eq!((report.scanner.as_str(), report.scanner_version.as_str()), ("grype", "0.61.1"));
    let subjects: Vec<&str> =
        report.scope.manifests.iter().map(|one| &one.digest().unwrap().hex()[..8]).collect();
    assert_eq!(subjects, ["3c9afb4f", "86abe662"]);
    assert_eq!(report.findings.findings()[0].ratings.len(), 2);
}

#[test]
fn without_repository_digests_no_subject_is_claimed() {
    let report = report(include_bytes!("../../../tests/fixtures/grype/kev-epss.json"));
    assert!(report.scope.manifests.is_empty());
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
fn a_descriptor_of_another_tool_is_refused_and_one_without_a_name_needs_more() {
    for (json, says) in [
        (r#"{"matches": [], "descriptor": {"name": "syft"}, "distro": {"name": "debian"}}"#, "\"syft\""),
        (r#"{"matches": [], "descriptor": {"name": ""}}"#, "names \"\""),
        (r#"{"matches": [], "descriptor": {}, "distro": null}"#, "names \"\""),
        (r#"{"matches": [], "ignoredmatches": [], "descriptor": {"name": "grype"}}"#, "only by case"),
    ] {
        let refused = read(json.as_bytes(), &SeverityOrder::default(), 10).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    let nameless = br#"{"matches": [], "descriptor": {"version": "0.69.1"}, "distro": {"name": "debian"}}"#;
    assert_eq!(report(nameless).scanner.as_str(), "grype");
}

#[test]
fn more_findings_than_are_taken_are_refused() {
    let json = include_bytes!("../../../tests/fixtures/grype/kev-epss.json");
    let refused = read(json, &SeverityOrder::default(), 1).unwrap_err();
    assert!(refused.to_string().contains("2 findings; at most 1"), "{refused}");
}
