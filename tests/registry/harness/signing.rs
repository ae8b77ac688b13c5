//! Keys and statements of a test's own, and the fixtures that others signed.

use super::{Client, expect, sha256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer, SigningKey};
use proofmark::names::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};
use std::path::PathBuf;

/// SLSA provenance v1.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// A key that signs statements.
pub struct Signing(SigningKey);

impl Signing {
    /// A key of its own for each number.
    pub fn new(seed: u8) -> Self {
        Self(SigningKey::from_bytes(&[seed; 32]))
    }

    /// A key of its own for each number, however many there are.
    pub fn of(number: usize) -> Self {
        Self(SigningKey::from_bytes(&sha2::Sha256::digest(number.to_le_bytes()).into()))
    }

    /// The public half.
    pub fn pem(&self) -> String {
        self.0.verifying_key().to_public_key_pem(LineEnding::LF).unwrap()
    }

    /// A DSSE envelope over a statement about the subject.
    pub fn statement(&self, subject: &Digest, predicate_type: &str, predicate: &Value) -> Vec<u8> {
        let (algorithm, hex) = subject.as_str().split_once(':').unwrap();
        let statement = json!({"_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {algorithm: hex}}],
            "predicateType": predicate_type, "predicate": predicate});
        self.envelope("application/vnd.in-toto+json", statement.to_string().as_bytes())
    }

    /// The same, signed as cosign signs with such a key: Ed25519ph.
    pub fn prehashed(&self, subject: &Digest, predicate_type: &str, predicate: &Value) -> Vec<u8> {
        let mut envelope: Value =
            serde_json::from_slice(&self.statement(subject, predicate_type, predicate)).unwrap();
        let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
        let kind = envelope["payloadType"].as_str().unwrap();
        let mut pae = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        pae.extend_from_slice(&payload);
        let signature = self.0.sign_prehashed(Sha512::new_with_prefix(pae), None).unwrap();
        envelope["signatures"][0]["sig"] = json!(STANDARD.encode(signature.to_bytes()));
        envelope.to_string().into_bytes()
    }

    /// A DSSE envelope.
    pub fn envelope(&self, payload_type: &str, payload: &[u8]) -> Vec<u8> {
        let mut pae = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
        pae.extend_from_slice(payload);
        let signature = self.0.sign(&pae).to_bytes();
        json!({"payload": STANDARD.encode(payload), "payloadType": payload_type,
               "signatures": [{"sig": STANDARD.encode(signature)}]})
        .to_string()
        .into_bytes()
    }
}

/// Provenance of a builder, a source and a commit.
pub fn provenance(builder: &str, commit: &str) -> Value {
    json!({"buildDefinition": {"buildType": "https://actions.github.io/buildtypes/workflow/v1",
               "externalParameters": {"workflow": {"repository": "https://git.example/team/app",
                                                   "ref": "refs/heads/main"}},
               "resolvedDependencies": [{"uri": "git+https://git.example/team/app@refs/heads/main",
                                         "digest": {"gitCommit": commit}}]},
           "runDetails": {"builder": {"id": builder}}})
}

impl Client {
    /// Registers a key for everything in the repositories that match a pattern.
    pub async fn register_signer(&self, name: &str, pem: &str, predicate_types: &[&str]) -> Value {
        let signer = json!({"name": name, "public_key": pem, "repositories": ["**"],
                            "predicate_types": predicate_types, "valid_from": "2020-01-01T00:00:00Z"});
        self.post_document("/api/v1/signers", &signer, 201).await
    }

    /// Records an attestation.
    pub async fn attest(&self, repository: &str, body: &[u8], status: u16) -> Value {
        let path = format!("/api/v1/attestations?repository={repository}");
        expect(self.post(&path).body(body.to_vec()).send().await.unwrap(), status).await
    }

    /// What is attested about a digest.
    pub async fn attestations(&self, repository: &str, digest: &Digest) -> Vec<Value> {
        let path = format!("/api/v1/attestations?repository={repository}&digest={digest}");
        self.document(&path).await["items"].as_array().unwrap().clone()
    }

    /// Pushes a manifest, by tag or by its digest.
    pub async fn push_manifest_bytes(
        &self,
        repository: &str,
        reference: Option<&str>,
        body: &[u8],
    ) -> Digest {
        let digest = sha256(body);
        let document: Value = serde_json::from_slice(body).unwrap();
        let media_type =
            document["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json");
        let reference = reference.unwrap_or(digest.as_str());
        let path = format!("/v2/{repository}/manifests/{reference}");
        let request = self.put(&path).header("content-type", media_type).body(body.to_vec());
        expect(request.send().await.unwrap(), 201).await;
        digest
    }

    /// Pushes a small image; `content` makes it another one.
    pub async fn push_subject(&self, repository: &str, content: &str) -> Digest {
        let config = self.push_blob(repository, b"{}").await;
        let layer = self.push_blob(repository, content.as_bytes()).await;
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer,
                        "size": content.len()}]});
        self.push_manifest_bytes(repository, None, manifest.to_string().as_bytes()).await
    }

    /// Pushes a manifest that carries the bytes as its one layer and refers to the subject.
    pub async fn push_referrer(&self, repository: &str, subject: &Digest, kind: &str, body: &[u8]) -> Digest {
        let config = self.push_blob(repository, b"{}").await;
        let layer = self.push_blob(repository, body).await;
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": kind,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": kind, "digest": layer, "size": body.len()}],
            "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1}});
        self.push_manifest_bytes(repository, None, manifest.to_string().as_bytes()).await
    }
}

/// A case of tests/fixtures/signing.
pub struct Case(pub Value);

impl Case {
    /// Every case.
    pub fn all() -> Vec<Self> {
        let text = std::fs::read_to_string(directory().join("cases.json")).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        document["cases"].as_array().unwrap().iter().cloned().map(Self).collect()
    }

    /// A member that is text.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.0[member].as_str()
    }

    /// The folder's name.
    pub fn name(&self) -> &str {
        self.text("name").unwrap()
    }

    /// A file of the folder.
    pub fn file(&self, file: &str) -> Vec<u8> {
        std::fs::read(directory().join(self.name()).join(file)).unwrap()
    }

    /// Pushes all that the folder has, and returns the manifest's digest.
    pub async fn push(&self, client: &Client, repository: &str) -> Digest {
        push_folder(client, repository, self.name(), self.text("tag")).await
    }
}

/// Pushes a folder of blobs with their manifest.
pub async fn push_folder(client: &Client, repository: &str, folder: &str, tag: Option<&str>) -> Digest {
    let mut manifest = None;
    for entry in std::fs::read_dir(directory().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        match path.file_name().unwrap().to_str().unwrap() {
            "manifest.json" => manifest = Some(bytes),
            "tag.txt" => {}
            _ => drop(client.push_blob(repository, &bytes).await),
        }
    }
    client.push_manifest_bytes(repository, tag, &manifest.unwrap()).await
}

/// A public key of the fixtures.
pub fn public_key(name: &str) -> String {
    std::fs::read_to_string(directory().join(format!("keys/{name}.pub"))).unwrap()
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signing")
}
