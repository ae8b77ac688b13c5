//! Retention deletes what superseded scan runs and deleted versions leave behind, and never what still says something.

use crate::attesting::{DSSE, TEST_RESULT};
use crate::evidence_quotas::{Scene, report, scene};
use crate::harness::oci::Document;
use crate::harness::{Registry, Shell, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

impl Scene {
    async fn is_here(&self, digest: &Value) -> bool {
        self.admin.digest_of("app", digest.as_str().unwrap()).await.is_some()
    }

    async fn run(&self, id: &Value) -> Value {
        let page = self.admin.document("/api/v1/scans?repository=app&limit=1000").await;
        page["items"].as_array().unwrap().iter().find(|run| run["id"] == *id).unwrap().clone()
    }
}

#[tokio::test]
async fn reports_of_superseded_runs_go_only_where_retention_is_enforced() {
    let scene = scene().await;
    scene.registry.environment("prod", "scan: {max_age: 24h, deny: {severity: high}, unbound: allow}").await;
    let scan = async |image: &Digest, minutes: i64, vulnerability: &str| {
        let report = report(minutes, vulnerability);
        let mut run = scene.scan(image, &report, 201).await;
        run["length"] = json!(report.to_string().len());
        run
    };
    // The decision of the promotion names the first run.
    let first = scan(&scene.image, 9, "CVE-1").await;
    let promoted = expect(scene.admin.promote("app", &scene.image, "prod").await, 201).await;
    let nightly = scan(&scene.image, 6, "CVE-2").await;
    let newest = scan(&scene.image, 1, "CVE-3").await;
    let loose = scene.admin.push_release("app", "2.0", "two").await;
    let retracted = scan(&loose, 8, "CVE-4").await;
    let old = scan(&loose, 5, "CVE-5").await;
    let current = scan(&loose, 2, "CVE-6").await;
    let reason = json!({"reason": "of another image"});
    let retract = async |run: &Value| {
        let path = format!("/api/v1/scans/{}/revocation", run["id"]);
        scene.admin.post_document(&path, &reason, 200).await;
    };
    retract(&retracted).await;

    scene.registry.retention(json!({"enforce": false, "rules": [{"tags": ["*"]}]})).await;
    let planned = scene.registry.plan().await;
    let mut digests: Vec<&Value> = planned.iter().map(|one| &one["digest"]).collect();
    digests.sort_by_key(|digest| digest.as_str());
    let mut expected = [&nightly["report"], &old["report"]];
    expected.sort_by_key(|digest| digest.as_str());
    assert_eq!(digests, expected);
    assert!(planned.iter().all(|one| one["held_by"] == json!([])), "{planned:#?}");
    assert_eq!(scene.registry.retain().await.manifests, 0);
    let used = scene.used().await;

    scene.registry.retention(json!({"enforce": true})).await;
    scene.registry.retain().await;
    assert_eq!(scene.registry.plan().await, Vec::<Value>::new());
    for gone in [&nightly, &old] {
        assert!(!scene.is_here(&gone["report"]).await);
        assert_eq!(scene.run(&gone["id"]).await["finding_set"], gone["finding_set"]);
    }
    for kept in [&first, &newest, &retracted, &current] {
        assert!(scene.is_here(&kept["report"]).await);
    }
    assert_eq!(
        used - scene.used().await,
        nightly["length"].as_i64().unwrap() + old["length"].as_i64().unwrap()
    );

    let path = format!("/api/v1/decisions/{}/replay", promoted["decision"]["id"].as_str().unwrap());
    assert_eq!(scene.admin.post_document(&path, &json!({}), 200).await["same"], true);
    let shell = Shell::at(&scene.registry.url, Some(scene.registry.admin_token()));
    let layout = shell.file("layout", b"");
    std::fs::remove_file(&layout).unwrap();
    shell.yes(&["export", layout.to_str().unwrap()]).await;
    let other = Registry::with(|settings| settings.public_name = Some("elsewhere.example".into())).await;
    let elsewhere = Shell::at(&other.url, Some(other.admin_token()));
    elsewhere.yes(&["import", layout.to_str().unwrap(), "--settings"]).await;
    elsewhere.yes(&["import", layout.to_str().unwrap(), "--check", "--settings"]).await;
    other.check().await;

    // What it found counts again where the newer run is retracted, with or without its report.
    assert_eq!(scene.run(&old["id"]).await["current_for"], json!([]));
    retract(&current).await;
    assert_ne!(scene.run(&old["id"]).await["current_for"], json!([]));
    scene.registry.check().await;
}

#[tokio::test]
async fn evidence_goes_with_its_version_and_a_failed_or_a_statement_about_a_kept_version_stays() {
    let scene = scene().await;
    let gate = format!("attestation: {{type: {TEST_RESULT}, by: [ci], result: PASSED}}");
    scene.registry.environment("prod", &gate).await;
    let old = Document::marked("old");
    scene.admin.pushes("app", "nightly-1", &old).await;
    let about = Digest::sha256(&old.body);
    let result = |word: &str, name: &str| {
        let predicate = json!({"result": word, "configuration": [{"name": name}]});
        scene.key.statement(&about, TEST_RESULT, &predicate)
    };
    let both = |number: u8| {
        let statement = json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://example.com/v1",
            "subject": [{"digest": {"sha256": about.hex()}}, {"digest": {"sha256": scene.image.hex()}}],
            "predicate": {"number": number}});
        scene.key.envelope("application/vnd.in-toto+json", statement.to_string().as_bytes())
    };
    let post = async |envelope: &[u8]| scene.admin.attest("app", envelope, 201).await[0]["manifest"].clone();
    let builder = scene.registry.client(Role::Pusher, "**").await;
    let push = async |envelope: &[u8]| json!(builder.push_referrer("app", &about, DSSE, envelope).await);
    let failed = [result("FAILED", "posted"), result("FAILED", "pushed")];
    let (shared, of_each) = (both(1), both(2));
    let gone = [post(&result("PASSED", "posted")).await, push(&result("PASSED", "pushed")).await];
    let kept = [post(&failed[0]).await, push(&failed[1]).await, push(&shared).await];
    // Of a statement that is kept beside each version, the one beside the version that stays is enough.
    let of_old = post(&of_each).await;
    let mut unspecific = report(1, "CVE-1");
    unspecific.as_object_mut().unwrap().remove("ArtifactType");
    let run = scene.scan(&about, &unspecific, 201).await;
    let of_kept = scene.result("PASSED", 1);
    let own = post(&of_kept).await;

    let rules = |enforce: bool| json!({"enforce": enforce, "untagged_for": "0s", "rules": [{"tags": ["nightly-*"], "keep_last": 0}]});
    scene.registry.retention(rules(false)).await;
    let planned = scene.registry.plan().await;
    assert_eq!((planned.len(), &planned[0]["digest"]), (1, &json!(old.digest)), "{planned:#?}");
    scene.registry.retention(rules(true)).await;
    for _ in 0..2 {
        scene.registry.retain().await;
        for digest in gone.iter().chain([&json!(old.digest), &of_old, &run["report"]]) {
            assert!(!scene.is_here(digest).await, "{digest}");
        }
        for digest in kept.iter().chain([&json!(scene.image), &own]) {
            assert!(scene.is_here(digest).await, "{digest}");
        }
    }
    let left = failed.iter().chain([&shared, &of_each, &of_kept]).map(Vec::len).sum::<usize>();
    assert_eq!(scene.used().await, i64::try_from(left).unwrap());
    assert_eq!(scene.registry.plan().await, Vec::<Value>::new());

    // The bytes come back, and what was said against them is still said.
    scene.admin.pushes("app", "v2", &old).await;
    let refused = expect(scene.admin.promote("app", &about, "prod").await, 409).await.to_string();
    assert!(refused.contains("posted is FAILED") || refused.contains("pushed is FAILED"), "{refused}");
    let referrers = scene.admin.document(&format!("/v2/app/referrers/{about}")).await;
    assert_eq!(referrers["manifests"].as_array().unwrap().len(), kept.len());
    scene.registry.check().await;
}
