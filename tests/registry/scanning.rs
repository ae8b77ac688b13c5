//! Scan reports: known by content, kept whole, their findings stored once.

use crate::harness::{Client, Found, Registry, expect};
use futures::StreamExt;
use proofmark::access::Role;
use proofmark::names::Digest;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A real report, said to be of the images that are pushed here, whose configuration is `{}`.
static TRIVY: LazyLock<String> = LazyLock::new(|| {
    let of = "f26939cc87ef44a6fc554eedd0a976ab30b5bc2769d65d2e986b6c5f1fd4053d";
    include_str!("../fixtures/trivy/debian-stretch.json").replace(of, Digest::sha256(b"{}").hex())
});
const GRYPE: &str = include_str!("../fixtures/grype/ghsa.json");
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Pushes a blob and says its digest.
async fn push_blob(client: &Client, repository: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let answer = client.post(&path).body(bytes.to_vec()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
    digest
}

async fn push_manifest(client: &Client, repository: &str, media_type: &str, manifest: &Value) -> Digest {
    let body = manifest.to_string();
    let digest = Digest::sha256(body.as_bytes());
    let put = client.put(&format!("/v2/{repository}/manifests/{digest}")).header("content-type", media_type);
    let answer = put.body(body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
    digest
}

/// Pushes a small image whose content is `text`.
async fn push(registry: &Registry, repository: &str, text: &str) -> Digest {
    let pusher = registry.client(Role::Pusher, "**").await;
    let config = push_blob(&pusher, repository, b"{}").await;
    let layer = push_blob(&pusher, repository, text.as_bytes()).await;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/octet-stream", "digest": layer, "size": text.len()}],
    });
    push_manifest(&pusher, repository, IMAGE, &manifest).await
}

async fn record(scanner: &Client, query: &str, report: &str, status: u16) -> Value {
    let post = scanner.post(&format!("/api/v1/scans?{query}")).header("content-type", "application/json");
    expect(post.body(report.to_owned()).send().await.unwrap(), status).await
}

async fn count(registry: &Registry, table: &'static str) -> i64 {
    let sql = format!("select count(*) from {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *registry.sql().await).await.unwrap()
}

async fn all(client: &Client, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.document(&format!("{path}{cursor}")).await;
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

#[tokio::test]
async fn a_report_of_trivy_becomes_findings_and_is_kept_as_a_referrer() {
    let registry = Registry::start().await;
    let digest = push(&registry, "team/app", "one").await;
    let scanner = registry.client(Role::Scanner, "team/*").await;
    let query = format!("repository=team/app&digest={digest}");
    let recorded = record(&scanner, &query, &TRIVY, 201).await;
    assert_eq!((&recorded["scanner"], &recorded["scanner_version"]), (&json!("trivy"), &json!("dev")));
    assert_eq!(recorded["database_updated_at"], Value::Null);

    let listed = scanner.document(&format!("/api/v1/scans?{query}")).await;
    assert_eq!(listed["items"][0]["id"], recorded["id"]);
    assert_eq!(listed["items"][0]["counts"], recorded["counts"]);
    assert_eq!(listed["items"][0]["scanned_at"], "2021-08-25T12:20:30Z");

    let findings = all(&scanner, &format!("/api/v1/findings?{query}&limit=2")).await;
    let bash = findings.iter().find(|finding| finding["vulnerability"] == "CVE-2019-18276").unwrap();
    assert_eq!((&bash["severity"], &bash["severity_source"]), (&json!("low"), &json!("debian")));
    assert!(bash["ratings"].as_array().unwrap().iter().any(|rating| rating["source"] == "nvd"));

    let referrers = scanner.document(&format!("/v2/team/app/referrers/{digest}")).await;
    let report = &referrers["manifests"][0];
    assert_eq!(report["digest"], recorded["report"]);
    assert_eq!(report["artifactType"], "application/vnd.proofmark.scan-report.v1+json");
    let manifest = scanner.get(&format!("/v2/team/app/manifests/{}", report["digest"].as_str().unwrap()));
    let manifest: Value = manifest.send().await.unwrap().json().await.unwrap();
    let blob = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    let raw = scanner.get(&format!("/v2/team/app/blobs/{blob}")).send().await.unwrap().text().await.unwrap();
    assert_eq!(raw, *TRIVY, "the raw report is kept byte for byte");
    registry.check().await;
}

#[tokio::test]
async fn the_same_report_twice_is_one_run_and_no_second_event() {
    let registry = Registry::start().await;
    let digest = push(&registry, "team/app", "one").await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let query = format!("repository=team/app&digest={digest}");
    let first = record(&scanner, &query, GRYPE, 422).await;
    assert_eq!(first["code"], "subject-differs", "the fixture is about another image");
    let first = record(&scanner, &query, &TRIVY, 201).await;
    let events = count(&registry, "events").await;
    let second = record(&scanner, &query, &TRIVY, 200).await;
    assert_eq!(first, second);
    assert_eq!(count(&registry, "events").await, events);
    assert_eq!(count(&registry, "scan_runs").await, 1);
    registry.check().await;
}

#[tokio::test]
async fn a_set_of_findings_that_is_known_is_not_stored_again() {
    let registry = Registry::start().await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let mut sets = Vec::new();
    for text in ["one", "two", "three"] {
        let digest = push(&registry, "team/app", text).await;
        // Another time of the scan makes another report with the same findings.
        let report = TRIVY.replace("2021-08-25T12:20:30", &format!("2021-08-25T12:20:3{}", text.len()));
        let recorded = record(&scanner, &format!("repository=team/app&digest={digest}"), &report, 201).await;
        sets.push(recorded["finding_set"].clone());
    }
    assert!(sets.iter().all(|set| *set == sets[0]), "{sets:?}");
    assert_eq!((count(&registry, "finding_sets").await, count(&registry, "scan_runs").await), (1, 3));
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_record_the_same_findings_at_once_store_them_once() {
    let registry = Registry::start().await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let mut digests = Vec::new();
    for n in 0..8 {
        digests.push(push(&registry, &format!("team/app-{n}"), "one").await);
    }
    let recorded = digests.iter().enumerate().map(|(n, digest)| {
        let (scanner, query) = (scanner.clone(), format!("repository=team/app-{n}&digest={digest}"));
        async move { record(&scanner, &query, &TRIVY, 201).await }
    });
    futures::future::join_all(recorded).await;
    assert_eq!((count(&registry, "finding_sets").await, count(&registry, "scan_runs").await), (1, 8));
    registry.check().await;
}

#[tokio::test]
async fn only_a_scanner_records_and_what_is_out_of_sight_is_not_there() {
    let registry = Registry::start().await;
    let digest = push(&registry, "team/app", "one").await;
    let query = format!("repository=team/app&digest={digest}");
    for role in Role::ALL {
        let status = if matches!(role, Role::Scanner | Role::Admin) { 422 } else { 403 };
        record(&registry.client(role, "team/*").await, &query, "{}", status).await;
        record(&registry.client(role, "other/*").await, &query, "{}", 404).await;
    }
    let recorded = record(&registry.client(Role::Scanner, "team/*").await, &query, &TRIVY, 201).await;
    let stranger = registry.client(Role::Reader, "other/*").await;
    for path in ["scans", "findings"] {
        let hidden = stranger.get(&format!("/api/v1/{path}?{query}")).send().await.unwrap();
        assert_eq!(hidden.status(), 404);
        let nothing = all(&stranger, &format!("/api/v1/{path}?limit=10")).await;
        assert!(nothing.is_empty(), "{nothing:?}");
        let mine = registry.client(Role::Reader, "team/*").await;
        assert!(!all(&mine, &format!("/api/v1/{path}?limit=10")).await.is_empty());
    }
    let by_id = stranger.document(&format!("/api/v1/findings?scan={}", recorded["id"])).await;
    assert_eq!(by_id["items"], json!([]));
    registry.check().await;
}

#[tokio::test]
async fn hostile_and_unknown_reports_are_refused_and_leave_nothing() {
    let registry = Registry::with(|settings| {
        settings.max_document_bytes = Some(1 << 20);
        settings.max_findings = Some(3);
    })
    .await;
    let digest = push(&registry, "team/app", "one").await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let query = format!("repository=team/app&digest={digest}");
    let tables = ["events", "blobs", "manifests", "finding_sets", "scan_runs"];
    let mut before = Vec::new();
    for table in tables {
        before.push(count(&registry, table).await);
    }
    let deep = format!("{{\"matches\": {}", "[".repeat(200_000));
    let bomb = format!(
        "{{\"descriptor\": {{\"name\": \"grype\"}}, \"matches\": [{}]}}",
        vec!["{\"vulnerability\":{\"id\":\"a\"},\"artifact\":{}}"; 20_000].join(",")
    );
    let nul = r#"{"SchemaVersion": 2, "ArtifactName": "a", "Results": [{"Vulnerabilities": [{"VulnerabilityID": "\u0000"}]}]}"#;
    for (report, status, code) in [
        ("", 422, "report-unreadable"),
        ("null", 422, "report-unreadable"),
        ("{}", 422, "report-unreadable"),
        (nul, 422, "report-unreadable"),
        (&deep, 422, "report-unreadable"),
        (&bomb, 422, "report-unreadable"),
        (TRIVY.as_str(), 413, "too-many-findings"),
        (include_str!("../fixtures/hostile/npm-cyclonedx-1.7.json"), 422, "report-unreadable"),
        (include_str!("../fixtures/hostile/cyclonedx-loop.json"), 422, "report-unreadable"),
        (include_str!("../fixtures/hostile/indigestable.json"), 422, "report-unreadable"),
        (include_str!("../fixtures/hostile/alpine-310.sarif"), 422, "report-unreadable"),
        (&"[".repeat(2 << 20), 413, "document-too-large"),
    ] {
        let problem = record(&scanner, &query, report, status).await;
        assert_eq!(problem["code"], code, "{problem}");
    }
    let unknown = format!("repository=team/app&digest={}", Digest::sha256(b"nothing"));
    // Long enough to be an object of its own, which must be gone again.
    let secrets = &format!("{}{}", include_str!("../fixtures/trivy/secrets.json"), " ".repeat(100_000));
    assert_eq!(record(&scanner, &unknown, secrets, 422).await["code"], "subject-unknown");
    let nowhere = format!("repository=team/none&digest={digest}");
    assert_eq!(record(&scanner, &nowhere, secrets, 422).await["code"], "subject-unknown");
    let objects: Vec<_> = registry.app.store.list().collect().await;
    assert!(objects.is_empty(), "{objects:?}");
    for (table, before) in tables.into_iter().zip(before) {
        assert_eq!(count(&registry, table).await, before, "{table}");
    }
    registry.check().await;
}

#[tokio::test]
async fn a_report_may_be_renamed_but_never_to_a_known_scanner() {
    let registry = Registry::start().await;
    let digest = push(&registry, "team/app", "one").await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let query = |name: &str| format!("repository=team/app&digest={digest}&scanner={name}");
    assert_eq!(record(&scanner, &query("sample"), &TRIVY, 201).await["scanner"], "sample");
    assert_eq!(record(&scanner, &query("trivy"), &TRIVY, 201).await["scanner"], "trivy");
    for known in ["grype", "osv-scanner"] {
        let problem = record(&scanner, &query(known), &TRIVY, 422).await;
        assert_eq!(problem["code"], "scanner-name-reserved");
    }
    record(&scanner, &query("Not%20a%20name"), &TRIVY, 400).await;
    registry.check().await;
}

#[tokio::test]
async fn a_report_that_names_images_must_name_this_one_or_its_index() {
    let registry = Registry::start().await;
    let digest = push(&registry, "team/app", "one").await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": IMAGE, "digest": digest, "size": manifest_size(&registry, &digest).await,
            "platform": {"os": "linux", "architecture": "amd64"}}],
    });
    let pusher = registry.client(Role::Pusher, "**").await;
    let index = push_manifest(&pusher, "team/app", INDEX, &index).await;
    let about = |named: &Digest, time: &str| {
        json!({"SchemaVersion": 2, "ArtifactName": "a", "CreatedAt": time, "Results": [],
            "Metadata": {"RepoDigests": [format!("registry.example/team/app@{named}")]}})
        .to_string()
    };
    let query = format!("repository=team/app&digest={digest}");
    record(&scanner, &query, &about(&digest, "2026-11-20T00:00:00Z"), 201).await;
    record(&scanner, &query, &about(&index, "2026-11-20T00:00:00Z"), 201).await;
    let other = Digest::sha256(b"other");
    let problem = record(&scanner, &query, &about(&other, "2026-11-20T00:00:00Z"), 422).await;
    assert_eq!(problem["code"], "subject-differs");
    assert!(problem["detail"].as_str().unwrap().contains(other.as_str()), "{problem}");
    registry.check().await;
}

async fn manifest_size(registry: &Registry, digest: &Digest) -> i64 {
    sqlx::query_scalar("select octet_length(body)::bigint from manifests where digest = $1")
        .bind(digest.as_str())
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn nothing_looks_newer_than_it_can_be() {
    let registry = Registry::start().await;
    let digest = push(&registry, "team/app", "one").await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let query = format!("repository=team/app&digest={digest}");
    let of = |time: &str| TRIVY.replace("2021-08-25T12:20:30", time);
    let ahead = |minutes| (proofmark::clock::now() + chrono::TimeDelta::minutes(minutes)).to_rfc3339();
    for (query, report) in [
        (query.clone(), of("2126-01-01T00:00:00")),
        (query.clone(), of(&ahead(10)[..19])),
        (format!("{query}&database_updated_at=2126-01-01T00:00:00Z"), TRIVY.clone()),
    ] {
        let problem = record(&scanner, &query, &report, 422).await;
        assert_eq!(problem["code"], "report-from-the-future", "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("5 minutes"), "{problem}");
    }
    assert_eq!(count(&registry, "scan_runs").await, 0);
    // Clocks that differ a little are no lie, and win nothing.
    let soon = &ahead(3)[..19];
    record(&scanner, &format!("{query}&database_updated_at={soon}Z"), &of(soon), 201).await;
    let scan = scanner.document("/api/v1/scans?repository=team/app").await["items"][0].clone();
    assert_eq!(scan["scanned_at"], scan["received_at"]);
    assert_eq!(scan["database_updated_at"], scan["received_at"]);
    registry.check().await;
}

#[tokio::test]
async fn an_old_report_that_comes_late_takes_no_newer_ones_place() {
    let registry = Registry::start().await;
    let digest = push(&registry, "team/app", "one").await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("prod", "scan: {max_age: 24h, deny: {severity: high}}").await;
    let bad = [Found { vulnerability: "CVE-2026-1", severity: "critical" }];
    registry.scanned(&digest, "trivy", 5, &bad).await;
    expect(promoter.promote("team/app", &digest, "prod").await, 409).await;
    registry.scanned(&digest, "trivy", 60, &[]).await;
    let refused = expect(promoter.promote("team/app", &digest, "prod").await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("CVE-2026-1"), "{refused}");
    let found = scanner.document("/api/v1/findings?repository=team/app").await;
    assert_eq!(found["items"][0]["vulnerability"], "CVE-2026-1");
    registry.scanned(&digest, "trivy", 1, &[]).await;
    expect(promoter.promote("team/app", &digest, "prod").await, 201).await;
    assert_eq!(scanner.document("/api/v1/findings?repository=team/app").await["items"], json!([]));
    registry.check().await;
}

#[tokio::test]
async fn findings_are_found_by_alias_and_by_severity_and_only_in_the_newest_scan() {
    let registry = Registry::start().await;
    let digest = push(&registry, "team/app", "one").await;
    let scanner = registry.client(Role::Scanner, "**").await;
    let query = format!("repository=team/app&digest={digest}");
    // The fixture names the image it was made of; without that it is about any.
    let mut grype: Value = serde_json::from_str(GRYPE).unwrap();
    grype["source"] = Value::Null;
    let first = record(&scanner, &query, &grype.to_string(), 201).await;
    record(&scanner, &query, &TRIVY, 201).await;
    let by_alias = all(&scanner, "/api/v1/findings?vulnerability=GHSA-cfh5-3ghh-wfjx").await;
    assert_eq!(by_alias.len(), 1);
    assert_eq!(by_alias[0]["vulnerability"], "CVE-2014-3577");
    let low = all(&scanner, "/api/v1/findings?severity=low,critical&limit=1").await;
    assert!(!low.is_empty() && low.iter().all(|finding| finding["severity"] == "low"), "{low:?}");

    grype["matches"] = json!([]);
    record(&scanner, &query, &grype.to_string(), 201).await;
    let now = all(&scanner, "/api/v1/findings?vulnerability=GHSA-cfh5-3ghh-wfjx&limit=5").await;
    assert!(now.is_empty(), "a newer scan by the same scanner counts: {now:?}");
    let then = all(&scanner, &format!("/api/v1/findings?scan={}", first["id"])).await;
    assert_eq!(then.len(), 2);

    let suppressed = include_str!("../fixtures/trivy/npm-with-suppressed.json");
    record(&scanner, &query, &suppressed.replace("\"filesystem\"", "\"container_image\""), 201).await;
    let open = all(&scanner, "/api/v1/findings?scanner=trivy&limit=3").await;
    let whole = all(&scanner, "/api/v1/findings?scanner=trivy&suppressed=true&limit=3").await;
    assert_eq!(whole.len(), open.len() + 1);
    assert_eq!(scanner.get("/api/v1/findings?severity=bad").send().await.unwrap().status(), 400);
    registry.check().await;
}
