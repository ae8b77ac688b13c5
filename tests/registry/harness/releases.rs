//! Releases on their way through environments.

use super::signing::{Signing, provenance};
use super::{Client, Registry, sha256};
use proofmark::names::Digest;
use reqwest::Response;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Client {
    /// Pushes an image of one layer, with a version.
    pub async fn push_release(&self, repository: &str, version: &str, content: &str) -> Digest {
        let config = self.push_blob(repository, format!("{{\"of\":\"{content}\"}}").as_bytes()).await;
        let layer = self.push_blob(repository, content.as_bytes()).await;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config,
                       "size": content.len() + 9},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer,
                        "size": content.len()}],
        });
        self.push_manifest(repository, version, MANIFEST, &manifest).await
    }

    /// Pushes an index of images for platforms, with a version.
    pub async fn push_index(&self, repository: &str, version: &str, images: &[(&Digest, &str)]) -> Digest {
        let mut children = Vec::new();
        for (digest, platform) in images {
            let path = format!("/v2/{repository}/manifests/{digest}");
            let size = self.get(&path).send().await.unwrap().bytes().await.unwrap().len();
            let (os, architecture) = platform.split_once('/').unwrap();
            children.push(json!({"mediaType": MANIFEST, "digest": digest, "size": size,
                                 "platform": {"os": os, "architecture": architecture}}));
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
        self.push_manifest(repository, version, INDEX, &index).await
    }

    /// Pushes a manifest under a reference.
    pub async fn push_manifest(&self, repository: &str, reference: &str, kind: &str, body: &Value) -> Digest {
        let bytes = body.to_string().into_bytes();
        let digest = sha256(&bytes);
        let path = format!("/v2/{repository}/manifests/{reference}");
        let answer = self.put(&path).header("content-type", kind).body(bytes).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        digest
    }

    /// Asks for a promotion.
    pub async fn promote(&self, repository: &str, digest: &Digest, environment: &str) -> Response {
        let body = json!({"repository": repository, "digest": digest, "environment": environment});
        self.post("/api/v1/promotions").json(&body).send().await.unwrap()
    }

    /// Asks for the known-good version.
    pub async fn known_good(&self, repository: &str, environment: &str) -> Response {
        let path = format!("/api/v1/known-good?repository={repository}&environment={environment}");
        self.get(&path).send().await.unwrap()
    }

    /// Blocks a digest, in one environment or in all.
    pub async fn block(&self, repository: &str, digest: &Digest, environment: Option<&str>) -> Value {
        let body = json!({"repository": repository, "digest": digest, "environment": environment,
                          "reason": "it corrupts data"});
        self.post_document("/api/v1/blocks", &body, 201).await
    }

    /// Whether a digest may run.
    pub async fn verdict(&self, repository: &str, digest: &Digest, environment: &str) -> Value {
        let body = json!({"repository": repository, "digest": digest, "environment": environment});
        self.post_document("/api/v1/verify", &body, 200).await
    }
}

/// A finding of a scan that is recorded in a test.
pub struct Found {
    /// Its name.
    pub vulnerability: &'static str,
    /// How bad it is.
    pub severity: &'static str,
}

impl Registry {
    /// An environment with a policy of these gates for every repository.
    pub async fn environment(&self, name: &str, gates: &str) {
        let admin = self.admin();
        let body = json!({"name": name});
        let made = admin.put("/api/v1/environments").json(&body).send().await.unwrap();
        assert!(made.status().is_success(), "{}", made.text().await.unwrap());
        self.policy(name, gates).await;
    }

    /// A policy in place of the one before.
    pub async fn policy(&self, environment: &str, gates: &str) {
        let text = format!("environment: {environment}\nrepositories: ['**']\ngates: [{gates}]\n");
        let put = self.admin().put("/api/v1/policies").body(text).send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    }

    /// Registers a signer that is believed for everything.
    pub async fn know_signer(&self, name: &str) {
        self.admin().register_signer(name, &key_of(name).pem(), &["**"]).await;
    }

    /// Records a statement about a digest, signed by a registered signer; each is another one.
    pub async fn state(&self, digest: &Digest, signer: &str, predicate_type: &str, result: Option<&str>) {
        let mut predicate = provenance("https://ci.example/builder", "0000000");
        predicate["result"] = json!(result);
        predicate["configuration"] = json!([]);
        predicate["number"] = json!(uuid::Uuid::now_v7());
        let envelope = key_of(signer).statement(digest, predicate_type, &predicate);
        let repository = self.repository_of(digest).await;
        self.admin().attest(&repository, &envelope, 201).await;
    }

    /// Where a manifest was pushed.
    async fn repository_of(&self, digest: &Digest) -> String {
        sqlx::query_scalar(
            "select r.name from manifests m join repositories r on r.id = m.repository_id where m.digest = $1",
        )
        .bind(digest.as_str())
        .fetch_one(&mut *self.sql().await)
        .await
        .unwrap()
    }

    /// Records a scan that ran some minutes ago, with a database as old.
    pub async fn scanned(&self, digest: &Digest, scanner: &str, minutes_ago: i32, found: &[Found]) {
        let repository = self.repository_of(digest).await;
        let at = proofmark::clock::now() - chrono::TimeDelta::minutes(minutes_ago.into());
        let report = match scanner {
            "grype" => grype(at, digest, found),
            _ => trivy(at, digest, found),
        };
        let path = format!("/api/v1/scans?repository={repository}&digest={digest}&scanner={scanner}");
        self.admin().post_document(&path, &report, 201).await;
    }
}

impl Registry {
    /// Records a scan by Trivy that suppresses a high finding.
    pub async fn suppressed(&self, digest: &Digest, minutes_ago: i32, vulnerability: &str) {
        let repository = self.repository_of(digest).await;
        let at = proofmark::clock::now() - chrono::TimeDelta::minutes(minutes_ago.into());
        let mut report = trivy(at, digest, &[]);
        report["Results"][0]["ExperimentalModifiedFindings"] = json!([{"Type": "vulnerability", "Status": "ignored",
            "Statement": "not now", "Source": ".trivyignore", "Finding": {"VulnerabilityID": vulnerability,
            "Severity": "HIGH", "PkgName": "openssl", "InstalledVersion": "1.0", "FixedVersion": "1.1"}}]);
        let path = format!("/api/v1/scans?repository={repository}&digest={digest}&scanner=trivy");
        self.admin().post_document(&path, &report, 201).await;
    }
}

/// The key of the signer of this name.
fn key_of(name: &str) -> Signing {
    Signing::new(name.bytes().fold(0, |seed: u8, byte| seed.wrapping_mul(31).wrapping_add(byte)))
}

/// A report of Trivy about this manifest.
fn trivy(at: chrono::DateTime<chrono::Utc>, digest: &Digest, found: &[Found]) -> Value {
    let finding = |finding: &Found| {
        json!({"VulnerabilityID": finding.vulnerability, "Severity": finding.severity.to_uppercase(),
            "PkgName": "openssl", "InstalledVersion": "1.0", "FixedVersion": "1.1"})
    };
    json!({"SchemaVersion": 2, "ArtifactName": "app", "CreatedAt": at,
        "Metadata": {"RepoDigests": [format!("registry.example/app@{digest}")]},
        "Trivy": {"Version": "1", "VulnerabilityDB": {"UpdatedAt": at}},
        "Results": [{"Target": "app (debian 12)", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": found.iter().map(finding).collect::<Vec<_>>()}]})
}

/// A report of Grype about this manifest.
fn grype(at: chrono::DateTime<chrono::Utc>, digest: &Digest, found: &[Found]) -> Value {
    let finding = |finding: &Found| {
        json!({"artifact": {"name": "openssl", "version": "1.0", "type": "deb"}, "vulnerability": {
            "id": finding.vulnerability, "severity": finding.severity, "fix": {"versions": ["1.1"]}}})
    };
    json!({"matches": found.iter().map(finding).collect::<Vec<_>>(),
        "distro": {"name": "debian", "version": "12"},
        "source": {"type": "image", "target": {"repoDigests": [format!("registry.example/app@{digest}")]}},
        "descriptor": {"name": "grype", "version": "1", "timestamp": at, "db": {"built": at}}})
}

/// A real report of Trivy without what names its image.
pub fn debian_report() -> String {
    let mut report: Value =
        serde_json::from_str(include_str!("../../fixtures/trivy/debian-stretch.json")).unwrap();
    report.as_object_mut().unwrap().remove("ArtifactType");
    report["Metadata"] = json!({"OS": report["Metadata"]["OS"]});
    report.to_string()
}
