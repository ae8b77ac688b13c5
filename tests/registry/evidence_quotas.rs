//! A repository holds no more evidence than its quota says, except what can make a decision stricter.

use crate::attesting::{DSSE, TEST_RESULT};
use crate::harness::oci::{Document, descriptor, refusal};
use crate::harness::{Client, Registry, Signing, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const VULNS: &str = "https://in-toto.io/attestation/vulns/v0.2";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image `1.0` in `app`, and a signer `ci`.
pub struct Scene {
    pub registry: Registry,
    pub admin: Client,
    pub key: Signing,
    pub image: Digest,
}

pub async fn scene() -> Scene {
    let registry = Registry::collecting().await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    admin.register_signer("ci", &key.pem(), &["**"]).await;
    let image = admin.push_release("app", "1.0", "one").await;
    Scene { registry, admin, key, image }
}

impl Scene {
    pub async fn quota(&self, bytes: impl Into<Value>) {
        let rules = json!({"name": "app", "evidence_quota_bytes": bytes.into()});
        self.admin.put_document("/api/v1/repositories", &rules, 200).await;
    }

    pub async fn used(&self) -> i64 {
        let page = self.admin.document("/api/v1/repositories?name=app").await;
        page["items"][0]["evidence_used_bytes"].as_i64().unwrap()
    }

    /// A signed result of a test of the image; each number is another statement of the same length.
    pub fn result(&self, word: &str, number: u8) -> Vec<u8> {
        let predicate = json!({"result": word, "configuration": [{"name": format!("{number:03}")}]});
        self.key.statement(&self.image, TEST_RESULT, &predicate)
    }

    pub async fn promote(&self, image: &Digest) {
        expect(self.admin.promote("app", image, "prod").await, 201).await;
    }

    pub async fn scan(&self, image: &Digest, report: &Value, status: u16) -> Value {
        let path = format!("/api/v1/scans?repository=app&digest={image}");
        self.admin.post_document(&path, report, status).await
    }

    /// Pushes a manifest with one layer, which may refer to a subject, under a tag or its digest.
    async fn push(&self, layer: (&str, &[u8]), subject: Option<&Digest>, tag: Option<&str>) -> (u16, Value) {
        let config = self.admin.push_blob("app", b"{}").await;
        self.admin.push_blob("app", layer.1).await;
        let mut layers = vec![descriptor(layer.0, layer.1)];
        if layer.0 == SIMPLE_SIGNING {
            layers[0]["annotations"] = json!({"dev.cosignproject.cosign/signature": "AAAA"});
        }
        let mut manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": layers,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2}});
        if let Some(subject) = subject {
            manifest["subject"] = json!({"mediaType": IMAGE, "digest": subject, "size": 1});
        }
        let document = Document::new(&manifest);
        let answer = self.admin.push("app", tag.unwrap_or(&document.digest), &document).await;
        if answer.status() == 201 { (201, Value::Null) } else { refusal(answer).await }
    }
}

/// A report of Trivy, `minutes_ago`, with this vulnerability.
pub fn report(minutes_ago: i64, vulnerability: &str) -> Value {
    let at = proofmark::clock::now() - chrono::TimeDelta::minutes(minutes_ago);
    json!({"SchemaVersion": 2, "ArtifactName": "app", "ArtifactType": "container_image",
        "CreatedAt": at.to_rfc3339(), "Results": [
            {"Target": "app (debian 12)", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": [
                {"VulnerabilityID": vulnerability, "Severity": "LOW", "PkgName": "openssl", "InstalledVersion": "1"}]}]})
}

fn vulns() -> Value {
    let at = proofmark::clock::now().to_rfc3339();
    json!({"scanner": {"uri": "https://scanner.example", "version": "1", "db": {"lastUpdate": at}, "result": []},
        "metadata": {"scanStartedOn": at, "scanFinishedOn": at}})
}

#[tokio::test]
async fn evidence_that_only_helps_is_refused_over_the_evidence_quota_by_every_way_in() {
    let scene = scene().await;
    scene.quota(0).await;
    let passed = scene.result("PASSED", 1);
    let refused = scene.admin.attest("app", &passed, 409).await;
    assert_eq!(
        (&refused["code"], &refused["quota_bytes"], &refused["used_bytes"]),
        (&json!("quota-exceeded"), &json!(0), &json!(0))
    );
    let signed_scan = scene.key.statement(&scene.image, VULNS, &vulns());
    assert_eq!(scene.admin.attest("app", &signed_scan, 409).await["code"], "quota-exceeded");
    assert_eq!(scene.scan(&scene.image, &report(1, "CVE-1"), 409).await["code"], "quota-exceeded");

    let image = &scene.image;
    let unknown = Signing::new(9);
    let by_nobody = unknown.statement(image, TEST_RESULT, &json!({"result": "FAILED", "configuration": []}));
    let signature = json!({"critical": {"identity": {"docker-reference": "app"}, "type": "cosign container image signature",
        "image": {"docker-manifest-digest": image}}, "optional": null})
    .to_string();
    let bare =
        json!({"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",
        "predicate": {}, "subject": [{"name": "app", "digest": {"sha256": image.hex()}}]})
        .to_string();
    let tag = |end: &str| format!("sha256-{}.{end}", image.hex());
    let (att, sig) = (tag("att"), tag("sig"));
    for (layer, subject, tag) in [
        ((DSSE, &passed[..]), Some(image), None),
        ((DSSE, &signed_scan[..]), Some(image), None),
        ((DSSE, &by_nobody[..]), Some(image), None),
        (("application/vnd.dev.sigstore.bundle.v0.3+json", b"no bundle".as_slice()), Some(image), None),
        ((DSSE, &passed[..]), None, Some(att.as_str())),
        ((SIMPLE_SIGNING, signature.as_bytes()), None, Some(sig.as_str())),
        ((IN_TOTO, bare.as_bytes()), None, None),
    ] {
        let (status, error) = scene.push(layer, subject, tag).await;
        assert_eq!((status, &error["code"]), (409, &json!("DENIED")), "{layer:?}: {error}");
        assert_eq!(error["detail"], json!({"quota_bytes": 0, "used_bytes": 0}));
    }
    assert_eq!(scene.used().await, 0);
    assert!(scene.admin.attestations("app", image).await.is_empty());
    let referrers = scene.admin.document(&format!("/v2/app/referrers/{image}")).await;
    assert_eq!(referrers["manifests"], json!([]));

    // What is no evidence has its own quota.
    assert_eq!(scene.push(("application/octet-stream", b"data"), Some(image), None).await.0, 201);
    scene.quota(Value::Null).await;
    scene.admin.attest("app", &passed, 201).await;
    assert_eq!(scene.used().await, i64::try_from(passed.len()).unwrap());
    scene.registry.check().await;
}

#[tokio::test]
async fn what_can_make_a_decision_stricter_passes_the_evidence_quota() {
    let scene = scene().await;
    scene.registry.environment("prod", "min_age: 0s").await;
    scene.promote(&scene.image).await;
    let child = scene.admin.push_release("app", "1.1-amd64", "two").await;
    let index = scene.admin.push_index("app", "1.1", &[(&child, "linux/amd64")]).await;
    scene.promote(&index).await;
    let loose = scene.admin.push_release("app", "2.0", "three").await;
    let first = report(9, "CVE-1");
    scene.scan(&loose, &first, 201).await;
    let passed = scene.result("PASSED", 1);
    scene.admin.attest("app", &passed, 201).await;
    let used = scene.used().await;
    scene.quota(0).await;

    // What is there already takes no more room.
    scene.scan(&loose, &first, 200).await;
    scene.admin.attest("app", &passed, 201).await;
    assert_eq!(scene.push((DSSE, &passed), Some(&scene.image), None).await.0, 201);
    assert_eq!(scene.used().await, used);
    scene.scan(&loose, &report(1, "CVE-2"), 409).await;

    let mut brought = 0;
    let mut run = Value::Null;
    for promoted in [&scene.image, &child] {
        let report = report(1, "CVE-3");
        run = scene.scan(promoted, &report, 201).await;
        brought += report.to_string().len();
    }
    let signed_scan = scene.key.statement(&scene.image, VULNS, &vulns());
    scene.admin.attest("app", &signed_scan, 201).await;
    let (posted, pushed) = (scene.result("FAILED", 2), scene.result("FAILED", 3));
    scene.admin.attest("app", &posted, 201).await;
    assert_eq!(scene.push((DSSE, &pushed), Some(&scene.image), None).await.0, 201);
    brought += signed_scan.len() + posted.len() + pushed.len();
    assert_eq!(scene.used().await, used + i64::try_from(brought).unwrap());
    let reason = json!({"reason": "of another image"});
    scene.admin.post_document(&format!("/api/v1/scans/{}/revocation", run["id"]), &reason, 200).await;
    scene.admin.block("app", &scene.image, None).await;

    // Who has no key says nothing anew by wrapping what was signed once more.
    let again = |envelope: &[u8]| [b" ", envelope].concat();
    for known in [&pushed, &signed_scan] {
        assert_eq!(scene.push((DSSE, &again(known)), Some(&scene.image), None).await.0, 409);
    }
    scene.admin.attest("app", &again(&pushed), 201).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn acts_that_fit_alone_and_not_together_never_pass_the_evidence_quota() {
    let scene = scene().await;
    let replica = scene.registry.replica().await;
    // Nothing but the quota makes these wait for each other: only results and scans take the repository alone.
    let statement = |number: u8| {
        let predicate = json!({"number": format!("{number:03}")});
        scene.key.statement(&scene.image, "https://example.com/v1", &predicate)
    };
    let each = statement(0).len();
    let pusher = scene.registry.client(Role::Pusher, "**").await;
    scene.quota(i64::try_from(each * 10 + each / 2).unwrap()).await;
    let acts = (0..40_u8).map(|number| {
        let envelope = statement(number);
        assert_eq!(envelope.len(), each);
        let (admin, pusher, image) = (scene.admin.at(&replica.url), pusher.clone(), scene.image.clone());
        tokio::spawn(async move {
            if number % 2 == 0 {
                let path = "/api/v1/attestations?repository=app";
                return admin.post(path).body(envelope).send().await.unwrap().status().as_u16();
            }
            let config = pusher.push_blob("app", b"{}").await;
            pusher.push_blob("app", &envelope).await;
            let document = Document::new(&json!({"schemaVersion": 2, "mediaType": IMAGE,
                "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
                "layers": [descriptor(DSSE, &envelope)],
                "subject": {"mediaType": IMAGE, "digest": image, "size": 1}}));
            pusher.push("app", &document.digest, &document).await.status().as_u16()
        })
    });
    let mut taken = 0;
    for act in acts.collect::<Vec<_>>() {
        match act.await.unwrap() {
            201 => taken += 1,
            status => assert_eq!(status, 409),
        }
    }
    assert_eq!(taken, 10);
    assert_eq!(scene.used().await, i64::try_from(each * 10).unwrap());
    drop(replica);
    scene.registry.check().await;
}

#[tokio::test]
async fn evidence_counts_once_and_as_long_as_a_manifest_carries_it() {
    let scene = scene().await;
    let passed = scene.result("PASSED", 1);
    let posted = scene.admin.attest("app", &passed, 201).await[0]["manifest"].as_str().unwrap().to_owned();
    let pushed = scene.admin.push_referrer("app", &scene.image, DSSE, &passed).await;
    let report = report(1, "CVE-1");
    let run = scene.scan(&scene.image, &report, 201).await;
    let (envelope, report) = (passed.len(), report.to_string().len());
    let expect = async |bytes: usize| assert_eq!(scene.used().await, i64::try_from(bytes).unwrap());
    expect(envelope + report).await;
    for (gone, left) in
        [(run["report"].as_str().unwrap(), envelope), (posted.as_str(), envelope), (pushed.as_str(), 0)]
    {
        assert_eq!(scene.admin.deletes("app", gone).await, 202);
        expect(left).await;
    }
    scene.quota(0).await;
    scene.admin.attest("app", &passed, 409).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_repository_without_a_quota_has_the_evidence_quota_of_the_service() {
    let registry = Registry::with(|settings| settings.evidence_bytes = Some(10)).await;
    let (admin, key) = (registry.admin(), Signing::new(1));
    admin.register_signer("ci", &key.pem(), &["**"]).await;
    let image = admin.push_release("app", "1.0", "one").await;
    let passed = key.statement(&image, TEST_RESULT, &json!({"result": "PASSED", "configuration": []}));
    assert_eq!(admin.attest("app", &passed, 409).await["quota_bytes"], 10);
    let rules = json!({"name": "app", "quota_bytes": 1_000_000});
    admin.put_document("/api/v1/repositories", &rules, 200).await;
    admin.attest("app", &passed, 201).await;
    registry.check().await;
}
