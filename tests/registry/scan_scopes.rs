//! Scans count for what they looked at: an image, a kind, a target; and what a report leaves open is said.

use crate::harness::{Client, Registry, Signing, eventually, expect, sha256};
use proofmark::access::Role;
use proofmark::evidence;
use proofmark::names::Digest;
use serde_json::{Value, json};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const VULNS: &str = "https://in-toto.io/attestation/vulns/v0.2";
const GATE: &str = "scan: {max_age: 24h, deny: {severity: high}}";

struct Scene {
    registry: Registry,
    pusher: Client,
    scanner: Client,
    promoter: Client,
    admin: Client,
}

/// An image with the digest of its configuration.
struct Image {
    digest: Digest,
    config: Digest,
}

async fn scene(gate: &str) -> Scene {
    let registry = Registry::start().await;
    registry.environment("prod", gate).await;
    let pusher = registry.client(Role::Pusher, "**").await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let admin = registry.admin();
    Scene { registry, pusher, scanner, promoter, admin }
}

impl Scene {
    async fn image(&self, name: &str, architecture: &str) -> Image {
        let config = json!({"architecture": architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha256(name.as_bytes())]}});
        self.image_of(name, &config.to_string(), "application/vnd.oci.image.layer.v1.tar").await
    }

    async fn image_of(&self, name: &str, config: &str, layers: &str) -> Image {
        let digest = self.pusher.push_blob("app", config.as_bytes()).await;
        let layer = self.pusher.push_blob("app", name.as_bytes()).await;
        let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE,
            "config": {"mediaType": CONFIG, "digest": digest, "size": config.len()},
            "layers": [{"mediaType": layers, "digest": layer, "size": name.len()}]});
        let reference = sha256(manifest.to_string().as_bytes());
        let pushed = self.pusher.push_manifest("app", reference.as_str(), IMAGE, &manifest).await;
        Image { digest: pushed, config: digest }
    }

    async fn scan(&self, digest: &Digest, report: &Value, status: u16) -> Value {
        self.scan_with(digest, report, "", status).await
    }

    async fn scan_with(&self, digest: &Digest, report: &Value, more: &str, status: u16) -> Value {
        let path = format!("/api/v1/scans?repository=app&digest={digest}{more}");
        self.scanner.post_document(&path, report, status).await
    }

    async fn promote(&self, digest: &Digest, status: u16) -> Value {
        expect(self.promoter.promote("app", digest, "prod").await, status).await
    }

    /// The message of the scan gate that refuses.
    async fn refused(&self, digest: &Digest) -> String {
        let refused = self.promote(digest, 409).await;
        let gates = refused["decision"]["gates"].as_array().or_else(|| refused["gates"].as_array()).cloned();
        let gates = gates.unwrap_or_else(|| panic!("{refused}"));
        let scan = gates.into_iter().find(|gate| gate["gate"] == "scan").unwrap();
        scan["message"].as_str().unwrap().to_owned()
    }

    async fn revoke(&self, scan: &Value) -> Value {
        let path = format!("/api/v1/scans/{}/revocation", scan["id"]);
        self.admin.post_document(&path, &json!({"reason": "the scanner was misconfigured"}), 200).await
    }
}

fn at(minutes_ago: i64) -> String {
    (proofmark::clock::now() - chrono::TimeDelta::minutes(minutes_ago)).to_rfc3339()
}

/// A report of Trivy of an image, with these results.
fn trivy(image: &Image, minutes_ago: i64, results: &Value) -> Value {
    json!({"SchemaVersion": 2, "ArtifactName": "app", "ArtifactType": "container_image", "CreatedAt": at(minutes_ago),
        "Metadata": {"ImageID": image.config}, "Results": results})
}

fn vulnerability(name: &str, severity: &str) -> Value {
    json!({"VulnerabilityID": name, "Severity": severity, "PkgName": "openssl", "InstalledVersion": "1.0",
        "FixedVersion": "1.1"})
}

fn os(found: &[Value]) -> Value {
    json!({"Target": "app (debian 12)", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": found})
}

fn libraries(found: &[Value]) -> Value {
    json!({"Target": "app/package-lock.json", "Class": "lang-pkgs", "Type": "npm", "Vulnerabilities": found})
}

/// A report of Grype of an image.
fn grype(image: &Image, minutes_ago: i64, more: &Value) -> Value {
    let mut report = json!({"matches": [], "distro": {"name": "debian", "version": "12"},
        "source": {"type": "image", "target": {"imageID": image.config}},
        "descriptor": {"name": "grype", "version": "1", "timestamp": at(minutes_ago), "configuration": {}}});
    for (name, value) in more.as_object().unwrap() {
        report[name.as_str()] = value.clone();
    }
    report
}

#[tokio::test]
async fn a_narrower_run_takes_the_place_of_no_wider_one() {
    let scene = scene(GATE).await;
    let image = scene.image("one", "amd64").await;
    let critical = vulnerability("CVE-2026-1", "CRITICAL");
    let high = vulnerability("CVE-2026-2", "HIGH");
    scene.scan(&image.digest, &trivy(&image, 60, &json!([os(&[critical]), libraries(&[high])])), 201).await;
    let secret = json!([{"Target": "deploy.sh", "Class": "secret",
        "Secrets": [{"RuleID": "github-pat", "Severity": "LOW", "Title": "a token"}]}]);
    let narrow = scene.scan(&image.digest, &trivy(&image, 50, &secret), 201).await;
    assert_eq!(narrow["scope"]["kinds"], json!(["secrets"]));
    assert!(narrow["warnings"].to_string().contains("secrets only"), "{narrow}");
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    // A run that shows one target takes the place of that target's runs.
    scene.scan(&image.digest, &trivy(&image, 40, &json!([os(&[])])), 201).await;
    let message = scene.refused(&image.digest).await;
    assert!(message.contains("CVE-2026-2") && !message.contains("CVE-2026-1"), "{message}");
    let found = scene.scanner.document("/api/v1/findings?repository=app&severity=high,critical").await;
    let names: Vec<_> = found["items"].as_array().unwrap().iter().map(|one| &one["vulnerability"]).collect();
    assert_eq!(names, [&json!("CVE-2026-2")]);
    scene.scan(&image.digest, &trivy(&image, 30, &json!([libraries(&[])])), 201).await;
    scene.promote(&image.digest, 201).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_filtered_run_neither_takes_the_place_of_a_whole_one_nor_counts_as_one() {
    let scene = scene(GATE).await;
    let image = scene.image("one", "amd64").await;
    let found = json!({"matches": [{"artifact": {"name": "openssl", "version": "1", "type": "deb"},
        "vulnerability": {"id": "CVE-2026-1", "severity": "High"}}]});
    scene.scan(&image.digest, &grype(&image, 60, &found), 201).await;
    let descriptor =
        json!({"name": "grype", "version": "1", "timestamp": at(30), "configuration": {"only-fixed": true}});
    let filtered =
        scene.scan(&image.digest, &grype(&image, 30, &json!({"descriptor": descriptor})), 201).await;
    assert_eq!(filtered["scope"]["filters"], json!(["only-fixed"]));
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));

    let other = scene.image("two", "amd64").await;
    scene.scan(&other.digest, &grype(&other, 30, &json!({"descriptor": descriptor})), 201).await;
    assert!(scene.refused(&other.digest).await.contains("filtered (only-fixed)"));
    scene.registry.policy("prod", "scan: {max_age: 24h, deny: {severity: high}, fixable_only: true}").await;
    scene.promote(&other.digest, 201).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn what_is_no_vulnerability_scan_of_the_image_satisfies_no_gate() {
    let scene = scene(GATE).await;
    let image = scene.image("one", "amd64").await;
    let license = json!([{"Target": "OS Packages", "Class": "license",
        "Licenses": [{"Name": "MIT", "PkgName": "a", "Severity": "LOW", "Category": "notice"}]}]);
    scene.scan(&image.digest, &trivy(&image, 30, &license), 201).await;
    let message = scene.refused(&image.digest).await;
    assert!(message.contains("is not scanned for vulnerabilities"), "{message}");
    for kind in ["filesystem", "repository", "cyclonedx", "vm"] {
        let mut report = trivy(&image, 20, &json!([os(&[])]));
        report["ArtifactType"] = json!(kind);
        let problem = scene.scan(&image.digest, &report, 422).await;
        assert_eq!(problem["code"], "subject-differs", "{kind}");
        assert!(
            problem["detail"].as_str().unwrap().contains("only a report of an image counts"),
            "{problem}"
        );
    }
    // An empty report of Trivy does not say what was looked for. The uploader may.
    let empty = trivy(&image, 10, &json!([]));
    let recorded = scene.scan(&image.digest, &empty, 201).await;
    assert_eq!(recorded["scope"]["kinds"], json!([]));
    assert!(recorded["warnings"].to_string().contains("kinds=vulnerabilities"), "{recorded}");
    scene.promote(&image.digest, 409).await;
    let stated = scene.scan_with(&image.digest, &empty, "&kinds=vulnerabilities", 201).await;
    assert_eq!(stated["scope"]["kinds_by_uploader"], json!(["vulnerabilities"]));
    assert_ne!(stated["id"], recorded["id"]);
    scene.scan_with(&image.digest, &empty, "&kinds=vulnerabilities", 200).await;
    scene.scan_with(&image.digest, &empty, "&kinds=everything", 400).await;
    scene.promote(&image.digest, 201).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_report_counts_for_the_image_that_it_names_whatever_it_is_posted_to() {
    let scene = scene(GATE).await;
    let amd64 = scene.image("one", "amd64").await;
    let arm64 = scene.image("one", "arm64").await;
    let platforms = [(&amd64.digest, "linux/amd64"), (&arm64.digest, "linux/arm64")];
    let index = scene.pusher.push_index("app", "1", &platforms).await;
    let mut of_amd64 = trivy(&amd64, 10, &json!([os(&[])]));
    of_amd64["Metadata"]["RepoDigests"] = json!([format!("registry.example/app@{index}")]);
    of_amd64["Metadata"]["ImageConfig"] = json!({"architecture": "amd64", "os": "linux"});
    let problem = scene.scan(&arm64.digest, &of_amd64, 422).await;
    assert_eq!(problem["code"], "subject-differs");
    let recorded = scene.scan(&index, &of_amd64, 201).await;
    assert_eq!((&recorded["digest"], &recorded["bound_by"]), (&json!(amd64.digest), &json!("config")));
    let message = scene.refused(&index).await;
    assert!(message.contains(arm64.digest.as_str()) && message.contains("is not scanned"), "{message}");
    // Of which of the images an unnamed report is, nobody knows.
    let unnamed = json!({"SchemaVersion": 2, "ArtifactName": "a", "Results": [os(&[])]});
    let problem = scene.scan(&index, &unnamed, 422).await;
    assert_eq!(problem["code"], "subject-ambiguous");
    assert!(problem["detail"].as_str().unwrap().contains("linux/arm64"), "{problem}");
    scene.scan(&index, &trivy(&arm64, 10, &json!([os(&[])])), 201).await;
    scene.promote(&index, 201).await;
    // Digests in upper case are digests; those of other algorithms name something else.
    let upper = format!("registry.example/app@sha256:{}", amd64.digest.hex().to_ascii_uppercase());
    for (digest, status) in [(upper, 201), ("registry.example/app@md5:abc".to_owned(), 422)] {
        let mut report = unnamed.clone();
        report["Metadata"] = json!({"RepoDigests": [digest]});
        scene.scan(&amd64.digest, &report, status).await;
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn an_index_of_one_image_is_scanned_as_that_image_and_one_configuration_is_one_image() {
    let scene = scene(GATE).await;
    let image = scene.image("one", "amd64").await;
    let index = scene.pusher.push_index("app", "1", &[(&image.digest, "linux/amd64")]).await;
    scene.scan(&index, &trivy(&image, 10, &json!([os(&[])])), 201).await;
    scene.promote(&index, 201).await;

    // The same image, its layer compressed, pushed after the scan.
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(b"one")]}});
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let recompressed = scene.image_of("one, compressed", &config.to_string(), gzip).await;
    assert_eq!(recompressed.config, image.config);
    assert_ne!(recompressed.digest, image.digest);
    scene.promote(&recompressed.digest, 201).await;
    let critical = json!([os(&[vulnerability("CVE-2026-1", "CRITICAL")])]);
    scene.scan(&recompressed.digest, &trivy(&image, 5, &critical), 201).await;
    assert!(scene.refused(&index).await.contains("CVE-2026-1"), "what is found in one is in the other");
    // A configuration that names other layers makes no image of the manifest that borrows it.
    let clean = scene.image("clean", "amd64").await;
    scene.scan(&clean.digest, &trivy(&clean, 5, &json!([os(&[])])), 201).await;
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(b"clean")]}});
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let borrowed = scene.image_of("another layer", &config.to_string(), tar).await;
    assert_eq!(borrowed.config, clean.config);
    scene.promote(&borrowed.digest, 409).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_report_that_names_nothing_counts_only_where_the_policy_says_so() {
    let scene = scene(GATE).await;
    let image = scene.image("one", "amd64").await;
    let report = json!({"SchemaVersion": 2, "ArtifactName": "a.tar", "Results": [os(&[])]});
    let recorded = scene.scan(&image.digest, &report, 201).await;
    assert_eq!(recorded["bound_by"], Value::Null);
    assert!(recorded["warnings"].to_string().contains("names no digest"), "{recorded}");
    assert!(scene.refused(&image.digest).await.contains("names no digest"));
    scene.registry.policy("prod", "scan: {max_age: 24h, deny: {severity: high}, unbound: warn}").await;
    let promoted = scene.promote(&image.digest, 201).await;
    assert!(promoted["warnings"].to_string().contains("names no digest"), "{promoted}");
    // What it found counts whatever the word is.
    let found = json!({"SchemaVersion": 2, "ArtifactName": "a.tar",
        "Results": [os(&[vulnerability("CVE-2026-1", "HIGH")])]});
    scene.scan(&image.digest, &found, 201).await;
    scene.registry.policy("prod", GATE).await;
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_run_that_names_nothing_or_had_no_valid_database_takes_the_place_of_none_that_is_better() {
    let scene = scene(GATE).await;
    let image = scene.image("one", "amd64").await;
    let found = json!({"matches": [{"artifact": {"name": "openssl", "version": "1", "type": "deb"},
        "vulnerability": {"id": "CVE-2026-1", "severity": "High"}}]});
    scene.scan(&image.digest, &grype(&image, 60, &found), 201).await;
    scene.scan(&image.digest, &trivy(&image, 5, &json!([os(&[]), libraries(&[])])), 201).await;
    let unnamed = grype(&image, 30, &json!({"source": {"type": "image", "target": {}}}));
    scene.scan(&image.digest, &unnamed, 201).await;
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    let invalid = json!({"descriptor": {"name": "grype", "version": "1", "timestamp": at(20), "configuration": {},
        "db": {"status": {"valid": false, "error": "checksum mismatch"}}}});
    scene.scan(&image.digest, &grype(&image, 20, &invalid), 201).await;
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    scene.scan(&image.digest, &grype(&image, 10, &json!({})), 201).await;
    scene.promote(&image.digest, 201).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_revocation_takes_back_no_finding_that_came_before_it() {
    let scene = scene(GATE).await;
    let key = Signing::new(7);
    scene.admin.register_signer("scanner-key", &key.pem(), &[VULNS]).await;
    let image = scene.image("one", "amd64").await;
    scene.scan(&image.digest, &trivy(&image, 5, &json!([os(&[])])), 201).await;
    let high = json!({"scanner": {"uri": "scan", "result": [{"id": "CVE-2026-1", "severity": [{"score": "9.1"}]}]},
        "metadata": {"scanFinishedOn": at(30)}});
    scene.admin.attest("app", &key.statement(&image.digest, VULNS, &high), 201).await;
    scene.promote(&image.digest, 409).await;
    let revocation = json!({"reason": "stolen", "compromised": true});
    scene.admin.post_document("/api/v1/signers/scanner-key/revocation", &revocation, 201).await;
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_file_is_scanned_by_reports_of_files_and_directories() {
    let scene = scene(GATE).await;
    let put =
        scene.pusher.put("/api/v1/artifacts?repository=app&filename=tool&version=1").body(b"a tool".to_vec());
    let file = expect(put.send().await.unwrap(), 201).await;
    let digest: Digest = file["digest"].as_str().unwrap().parse().unwrap();
    let report = |kind: &str| json!({"SchemaVersion": 2, "ArtifactName": "tool", "ArtifactType": kind, "Results": [libraries(&[])]});
    assert_eq!(scene.scan(&digest, &report("container_image"), 422).await["code"], "subject-differs");
    scene.scan(&digest, &report("filesystem"), 201).await;
    let promoted = scene.promote(&digest, 201).await;
    assert!(promoted["warnings"].to_string().contains("names no digest"), "{promoted}");
    scene.registry.policy("prod", "scan: {max_age: 24h, deny: {severity: high}, unbound: deny}").await;
    scene.promote(&digest, 409).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn doubts_warn_and_deny_where_the_policy_says_so() {
    let doubts = [
        ("unrated", json!({"Results": [os(&[vulnerability("CVE-2026-7", "UNKNOWN")])]}), "CVE-2026-7"),
        (
            "suppressed",
            json!({"Results": [{"Target": "t", "Class": "os-pkgs", "Type": "debian",
            "ExperimentalModifiedFindings": [{"Type": "vulnerability", "Status": "ignored", "Source": ".trivyignore",
                "Finding": vulnerability("CVE-2026-8", "CRITICAL")}]}]}),
            ".trivyignore",
        ),
        (
            "end_of_life",
            json!({"Metadata": {"OS": {"Family": "debian", "Name": "8.11", "EOSL": true}}}),
            "debian 8.11",
        ),
    ];
    for (word, more, named) in doubts {
        let scene = scene(GATE).await;
        let image = scene.image(word, "amd64").await;
        let mut report = trivy(&image, 10, &json!([os(&[])]));
        for (member, value) in more.as_object().unwrap() {
            match report[member.as_str()].as_object_mut() {
                Some(object) => object.extend(value.as_object().unwrap().clone()),
                None => report[member.as_str()] = value.clone(),
            }
        }
        scene.scan(&image.digest, &report, 201).await;
        let promoted = scene.promote(&image.digest, 201).await;
        assert!(promoted["warnings"].to_string().contains(named), "{word}: {promoted}");
        // What runs is warned about, and at risk where the policy denies.
        let good = expect(scene.promoter.known_good("app", "prod").await, 200).await;
        assert!(good["warnings"].to_string().contains(named), "{word}: {good}");
        assert_eq!(good["at_risk"], json!([]), "{word}");
        let gate = format!("scan: {{max_age: 24h, deny: {{severity: high}}, {word}: deny}}");
        scene.registry.policy("prod", &gate).await;
        assert!(scene.refused(&image.digest).await.contains(named), "{word}");
        let good = expect(scene.promoter.known_good("app", "prod").await, 200).await;
        assert_eq!(good["at_risk"], json!([]), "{word}: the recorded policy is more favourable");
        let gate = format!("scan: {{max_age: 24h, deny: {{severity: high}}, {word}: allow}}");
        scene.registry.policy("prod", &gate).await;
        let promoted = scene.promote(&image.digest, 201).await;
        assert!(!promoted["warnings"].to_string().contains(named), "{word}: {promoted}");
        scene.registry.check().await;
    }
}

#[tokio::test]
async fn a_doubt_that_comes_after_the_promotion_puts_what_runs_at_risk() {
    let scene = scene("scan: {max_age: 24h, deny: {severity: high}, suppressed: deny}").await;
    let image = scene.image("one", "amd64").await;
    scene.scan(&image.digest, &trivy(&image, 60, &json!([os(&[])])), 201).await;
    scene.promote(&image.digest, 201).await;
    let ignored = json!([{"Target": "t", "Class": "os-pkgs", "Type": "debian", "ExperimentalModifiedFindings": [
        {"Type": "vulnerability", "Status": "ignored", "Source": ".trivyignore",
         "Finding": vulnerability("CVE-2026-8", "CRITICAL")}]}]);
    scene.scan(&image.digest, &trivy(&image, 10, &ignored), 201).await;
    let good = expect(scene.promoter.known_good("app", "prod").await, 200).await;
    assert_eq!(good["at_risk"][0]["reason"], "scan_incomplete", "{good}");
    assert!(good["at_risk"][0]["message"].as_str().unwrap().contains("CVE-2026-8"), "{good}");
    scene.registry.check().await;
}

#[tokio::test]
async fn a_retracted_scan_counts_no_more_and_what_it_replaced_counts_again() {
    let scene = scene(GATE).await;
    let image = scene.image("one", "amd64").await;
    let high = json!([os(&[vulnerability("CVE-2026-1", "HIGH")])]);
    scene.scan(&image.digest, &trivy(&image, 60, &high), 201).await;
    let empty = scene.scan(&image.digest, &trivy(&image, 50, &json!([os(&[])])), 201).await;
    scene.promote(&image.digest, 201).await;
    let path = format!("/api/v1/scans/{}/revocation", empty["id"]);
    for (client, status) in [(&scene.scanner, 403), (&scene.promoter, 403)] {
        client.post_document(&path, &json!({"reason": "no"}), status).await;
    }
    let retracted = scene.revoke(&empty).await;
    assert_eq!(retracted["retraction"]["reason"], "the scanner was misconfigured");
    assert_eq!(scene.revoke(&empty).await["retraction"], retracted["retraction"], "once is for ever");
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    let good = expect(scene.promoter.known_good("app", "prod").await, 200).await;
    assert_eq!(good["at_risk"][0]["reason"], "denied_finding", "{good}");
    // The only scan of an image, retracted: it makes nothing fresh, and what it found counts until a newer one.
    let other = scene.image("two", "amd64").await;
    let only = scene.scan(&other.digest, &trivy(&other, 60, &high), 201).await;
    scene.revoke(&only).await;
    let message = scene.refused(&other.digest).await;
    assert!(message.contains("was retracted") && message.contains("CVE-2026-1"), "{message}");
    scene.scan(&other.digest, &trivy(&other, 10, &json!([os(&[])])), 201).await;
    scene.promote(&other.digest, 201).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_signed_report_is_a_run_and_a_gate_may_take_no_other() {
    let scene = scene("scan: {max_age: 24h, deny: {severity: high}, signed_by: [scanner-key]}").await;
    let key = Signing::new(7);
    scene.admin.register_signer("scanner-key", &key.pem(), &[VULNS]).await;
    let image = scene.image("one", "amd64").await;
    scene.scan(&image.digest, &trivy(&image, 5, &json!([os(&[])])), 201).await;
    assert!(scene.refused(&image.digest).await.contains("in a statement of scanner-key"));
    let predicate = |minutes: i64, found: Value| {
        json!({"scanner": {"uri": "pkg:github/aquasecurity/trivy@0.60.0", "version": "0.60.0",
                "db": {"lastUpdate": at(minutes)}, "result": found},
            "metadata": {"scanStartedOn": at(minutes), "scanFinishedOn": at(minutes)}})
    };
    let high = json!([{"id": "CVE-2026-1", "severity": [{"method": "nvd", "score": "8.1"}]}]);
    let envelope = key.statement(&image.digest, VULNS, &predicate(60, high));
    scene.admin.attest("app", &envelope, 201).await;
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    let runs = scene.scanner.document("/api/v1/scans?repository=app").await;
    assert_eq!(runs["items"][0]["statement"], json!(sha256(&envelope)), "{runs}");
    scene.admin.attest("app", &key.statement(&image.digest, VULNS, &predicate(30, json!([]))), 201).await;
    scene.promote(&image.digest, 201).await;

    // Another key's statement counts once its signer is registered and named, and not before.
    let late = Signing::new(8);
    let other = scene.image("two", "amd64").await;
    let carrier = late.statement(&other.digest, VULNS, &predicate(10, json!([])));
    push_statement(&scene, &other.digest, &carrier).await;
    scene.promote(&other.digest, 409).await;
    scene
        .registry
        .policy("prod", "scan: {max_age: 24h, deny: {severity: high}, signed_by: [late-key]}")
        .await;
    scene.promote(&other.digest, 409).await;
    scene.admin.register_signer("late-key", &late.pem(), &[VULNS]).await;
    scene.promote(&other.digest, 201).await;
    // What was retracted stays so, in whatever manifest it comes again.
    let runs = scene.scanner.document(&format!("/api/v1/scans?repository=app&digest={}", other.digest)).await;
    scene.revoke(&runs["items"][0]).await;
    scene.promote(&other.digest, 409).await;
    scene.admin.attest("app", &carrier, 201).await;
    scene.promote(&other.digest, 409).await;
    let again = late.statement(&other.digest, VULNS, &predicate(5, json!([])));
    push_statement(&scene, &other.digest, &again).await;
    scene.promote(&other.digest, 201).await;
    let revoked = json!({"reason": "lost", "compromised": true});
    scene.admin.post_document("/api/v1/signers/late-key/revocation", &revoked, 201).await;
    scene.promote(&other.digest, 409).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_signed_report_whose_signature_does_not_count_takes_no_place() {
    let scene = scene(GATE).await;
    let key = Signing::new(7);
    scene.admin.register_signer("scanner-key", &key.pem(), &[VULNS]).await;
    let image = scene.image("one", "amd64").await;
    scene.scan(&image.digest, &grype(&image, 5, &json!({})), 201).await;
    let predicate = |finished: Option<String>, found: Value| {
        json!({"scanner": {"uri": "pkg:github/aquasecurity/trivy@0.60.0", "result": found},
            "metadata": {"scanFinishedOn": finished}})
    };
    let high = json!([{"id": "CVE-2026-1", "severity": [{"method": "nvd", "score": "8.1"}]}]);
    let found = key.statement(&image.digest, VULNS, &predicate(Some(at(30)), high));
    scene.admin.attest("app", &found, 201).await;
    scene.promote(&image.digest, 409).await;
    // Held back, without a time: only a principal that may attest makes it count from its receipt.
    let withheld = key.statement(&image.digest, VULNS, &predicate(None, json!([])));
    push_statement(&scene, &image.digest, &withheld).await;
    scene.promote(&image.digest, 409).await;
    // Somebody who stole the key clears the finding until it is revoked from before.
    let before = proofmark::clock::now();
    let stolen = key.statement(&image.digest, VULNS, &predicate(Some(at(20)), json!([])));
    push_statement(&scene, &image.digest, &stolen).await;
    scene.promote(&image.digest, 201).await;
    let revocation = json!({"reason": "stolen", "at": before});
    scene.admin.post_document("/api/v1/signers/scanner-key/revocation", &revocation, 201).await;
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    let later = key.statement(&image.digest, VULNS, &predicate(Some(at(10)), json!([])));
    push_statement(&scene, &image.digest, &later).await;
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    scene.registry.check().await;
}

/// A statement of Trivy's findings.
fn vulns(key: &Signing, digest: &Digest, minutes_ago: i64, found: &Value) -> Vec<u8> {
    let predicate = json!({"scanner": {"uri": "pkg:github/aquasecurity/trivy@0.60.0", "result": found},
        "metadata": {"scanFinishedOn": at(minutes_ago)}});
    key.statement(digest, VULNS, &predicate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_waits_for_no_scan_and_what_is_being_recorded_hides_no_finding() {
    let mut scene = scene(GATE).await;
    scene.registry.stop_jobs().await;
    let key = Signing::new(7);
    let signer = scene.admin.register_signer("scanner-key", &key.pem(), &[VULNS]).await;
    assert_eq!(signer["status"], "active");
    let image = scene.image("one", "amd64").await;
    scene.scan(&image.digest, &grype(&image, 5, &json!({})), 201).await;
    let critical = json!([{"id": "CVE-2026-1", "severity": [{"method": "nvd", "score": "9.8"}]}]);
    scene.admin.attest("app", &vulns(&key, &image.digest, 30, &critical), 201).await;
    scene.admin.attest("app", &vulns(&key, &image.digest, 25, &critical), 201).await;
    let (other, before) = (scene.image("two", "amd64").await, proofmark::clock::now());
    // Somebody who stole the key: one report is recorded, another is about to be.
    scene.admin.attest("app", &vulns(&key, &image.digest, 20, &json!([])), 201).await;
    scene.promote(&image.digest, 201).await;
    let mut held = scene.registry.sql().await;
    sqlx::raw_sql(
        "create function held() returns trigger language plpgsql as $$
           begin perform pg_advisory_xact_lock(77, 7); return null; end $$;
         create constraint trigger held after insert on scan_coverage deferrable initially deferred
           for each row execute function held();
         select pg_advisory_lock(77, 7)",
    )
    .execute(&mut *held)
    .await
    .unwrap();
    let (client, envelope) = (scene.admin.clone(), vulns(&key, &image.digest, 10, &json!([])));
    let recording = tokio::spawn(async move { client.attest("app", &envelope, 201).await });
    eventually("the scan is about to be committed", async || {
        let waiting = "select exists (select from pg_locks where locktype = 'advisory' and classid = 77 and not granted)";
        sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut *scene.registry.sql().await).await.unwrap()
    })
    .await;
    let revocation = json!({"reason": "stolen", "at": before, "compromised": true});
    scene.admin.post_document("/api/v1/signers/scanner-key/revocation", &revocation, 201).await;
    scene.admin.block("app", &other.digest, None).await;
    assert!(!recording.is_finished(), "neither waits for the scan");
    sqlx::raw_sql("select pg_advisory_unlock(77, 7)").execute(&mut *held).await.unwrap();
    recording.await.unwrap();
    sqlx::raw_sql("drop trigger held on scan_coverage; drop function held()")
        .execute(&mut *held)
        .await
        .unwrap();
    // Before the job runs and after it, however often it does.
    let current = async || {
        let counting =
            "select run_id from scan_coverage where is_current and signer_id is not null order by run_id";
        sqlx::query_scalar::<_, i64>(counting).fetch_all(&mut *scene.registry.sql().await).await.unwrap()
    };
    let hiding = current().await;
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    let id: i64 = sqlx::query_scalar("select id from signers where name = 'scanner-key'")
        .fetch_one(&mut *held)
        .await
        .unwrap();
    for _ in 0..2 {
        evidence::settle_scans(&scene.registry.app.db, &id.to_string(), &Value::Null).await.unwrap();
        assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
        assert_ne!(current().await, hiding, "the older run is current");
    }
    let unsettled: i64 = sqlx::query_scalar("select count(*) from scan_revocations_unsettled")
        .fetch_one(&mut *held)
        .await
        .unwrap();
    assert_eq!(unsettled, 0);
    drop(held);
    scene.registry.check().await;
}

#[tokio::test]
async fn statements_count_once_a_keys_validity_covers_them_whichever_came_first() {
    let scene = scene("scan: {max_age: 24h, deny: {severity: high}, signed_by: [scanner-key]}").await;
    let key = Signing::new(7);
    let mut signer = json!({"name": "scanner-key", "public_key": key.pem(), "repositories": ["**"],
        "predicate_types": [VULNS], "valid_until": "2021-01-01T00:00:00Z"});
    scene.admin.post_document("/api/v1/signers", &signer, 201).await;
    let image = scene.image("one", "amd64").await;
    let critical = json!([{"id": "CVE-2026-1", "severity": [{"method": "nvd", "score": "9.8"}]}]);
    for (minutes_ago, found) in [(30, &json!([])), (10, &critical), (20, &json!([]))] {
        push_statement(&scene, &image.digest, &vulns(&key, &image.digest, minutes_ago, found)).await;
    }
    scene.promote(&image.digest, 409).await;
    signer = json!({"public_key": key.pem(), "valid_until": "2999-01-01T00:00:00Z"});
    scene.admin.post_document("/api/v1/signers/scanner-key/keys", &signer, 201).await;
    assert!(scene.refused(&image.digest).await.contains("CVE-2026-1"));
    scene.registry.check().await;
}

#[tokio::test]
async fn an_image_is_no_document_because_an_index_says_so() {
    let scene = scene(GATE).await;
    let clean = scene.image("clean", "amd64").await;
    let other = scene.image("other", "amd64").await;
    scene.scan(&clean.digest, &trivy(&clean, 5, &json!([os(&[])])), 201).await;
    let children = [(&clean.digest, "linux/amd64"), (&other.digest, "unknown/unknown")];
    let index = scene.pusher.push_index("app", "1", &children).await;
    assert!(scene.refused(&index).await.contains(other.digest.as_str()));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_signed_report_that_makes_no_scan_says_why() {
    let scene = scene(GATE).await;
    let key = Signing::new(7);
    scene.admin.register_signer("scanner-key", &key.pem(), &[VULNS]).await;
    let image = scene.image("one", "amd64").await;
    for (predicate, says) in [
        (json!({"scanner": {"uri": "trivy", "result": 7}}), "neither a list nor a report"),
        (
            json!({"scanner": {"uri": "trivy", "result": []}, "metadata": {"scanFinishedOn": "2126-01-01T00:00:00Z"}}),
            "later than now",
        ),
    ] {
        let answer = scene.admin.attest("app", &key.statement(&image.digest, VULNS, &predicate), 201).await;
        assert!(answer[0]["warnings"].to_string().contains(says), "{answer}");
    }
    let arm64 = scene.image("one", "arm64").await;
    let children = [(&image.digest, "linux/amd64"), (&arm64.digest, "linux/arm64")];
    let index = scene.pusher.push_index("app", "1", &children).await;
    let of_index = json!({"scanner": {"uri": "trivy", "result": []}, "metadata": {"scanFinishedOn": at(5)}});
    let answer = scene.admin.attest("app", &key.statement(&index, VULNS, &of_index), 201).await;
    assert!(answer[0]["warnings"].to_string().contains("does not say which image"), "{answer}");
    scene.registry.check().await;
}

/// Pushes a manifest that carries an envelope about a digest, as a pusher does.
async fn push_statement(scene: &Scene, subject: &Digest, envelope: &[u8]) {
    let layer = scene.pusher.push_blob("app", envelope).await;
    let config = scene.pusher.push_blob("app", b"{}").await;
    let path = format!("/v2/app/manifests/{subject}");
    let size = scene.pusher.get(&path).send().await.unwrap().bytes().await.unwrap().len();
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": "application/vnd.example",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.dsse.envelope.v1+json", "digest": layer, "size": envelope.len()}],
        "subject": {"mediaType": IMAGE, "digest": subject, "size": size}});
    let reference = sha256(manifest.to_string().as_bytes());
    scene.pusher.push_manifest("app", reference.as_str(), IMAGE, &manifest).await;
}

/// A run of the test below, as it is recorded.
struct Made {
    id: i64,
    minutes_ago: i64,
    filter: bool,
    aspects: Vec<&'static str>,
    retracted: bool,
}

/// The runs that count for an aspect, said in another way than the database does: from the newest on, until a whole
/// run that was not retracted; of filtered ones the newest that was not.
fn current(runs: &[Made], aspect: &str) -> Vec<i64> {
    let mut newest: Vec<&Made> = runs.iter().filter(|run| run.aspects.contains(&aspect)).collect();
    newest.sort_by_key(|run| (run.minutes_ago, -run.id));
    let (mut counts, mut filtered) = (Vec::new(), false);
    for run in newest {
        if run.filter && filtered {
            continue;
        }
        counts.push(run.id);
        match (run.retracted, run.filter) {
            (false, false) => break,
            (false, true) => filtered = true,
            (true, _) => {}
        }
    }
    counts.sort_unstable();
    counts
}

#[tokio::test]
async fn whichever_order_runs_and_retractions_come_in_the_same_runs_count() {
    let scene = scene(GATE).await;
    for seed in 0..6_u64 {
        let image = scene.image(&format!("image {seed}"), "amd64").await;
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut runs: Vec<Made> = Vec::new();
        for number in 0..14 {
            if !runs.is_empty() && next(4) == 0 {
                let at = usize::try_from(next(runs.len() as u64)).unwrap();
                scene.revoke(&json!({"id": runs[at].id})).await;
                runs[at].retracted = true;
            }
            let (minutes_ago, filter, with_os) =
                (i64::try_from(next(1000)).unwrap(), next(3) == 0, next(2) == 0);
            let configuration = json!({"only-fixed": filter});
            // The number makes each another report.
            let mut report = grype(
                &image,
                minutes_ago,
                &json!({"descriptor": {"name": "grype",
                "version": format!("1.{number}"), "timestamp": at(minutes_ago), "configuration": configuration}}),
            );
            if !with_os {
                report["distro"] = Value::Null;
            }
            let recorded = scene.scan(&image.digest, &report, 201).await;
            let id = recorded["id"].as_i64().unwrap();
            let mut aspects = vec!["vulnerabilities", "vulnerabilities/libraries"];
            if with_os {
                aspects.push("vulnerabilities/os");
            }
            runs.push(Made { id, minutes_ago, filter, aspects, retracted: false });
        }
        let path = format!("/api/v1/scans?repository=app&digest={}&limit=100", image.digest);
        let listed = scene.scanner.document(&path).await;
        for aspect in ["vulnerabilities", "vulnerabilities/libraries", "vulnerabilities/os"] {
            let mut counts: Vec<i64> = listed["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|scan| scan["current_for"].as_array().unwrap().contains(&json!(aspect)))
                .map(|scan| scan["id"].as_i64().unwrap())
                .collect();
            counts.sort_unstable();
            assert_eq!(counts, current(&runs, aspect), "seed {seed}, {aspect}");
        }
    }
    scene.registry.check().await;
}
