//! A registry, exported as an OCI layout and rebuilt elsewhere, is the same and can be held against it.

use crate::harness::{
    Client, PROVENANCE, Registry, Shell, Signing, debian_report, expect, noise, provenance, sha256,
};
use chrono::TimeDelta;
use proofmark::access::Role;
use proofmark::clock;
use proofmark::names::Digest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A registry with something of everything that an export carries.
struct Furnished {
    registry: Registry,
    shell: Shell,
    release: Digest,
    gone: Digest,
}

/// Two repositories that share a layer; an index, versions, a floating tag, a deleted name, attestations
/// of a signer and of a stranger, a scan, a block, a hold, a policy, a promotion.
async fn furnished() -> Furnished {
    let registry = Registry::start().await;
    let shell = Shell::at(&registry.url, Some(registry.admin_token()));
    let admin = registry.admin();
    let rules = json!({"name": "team/app", "description": "the app", "tags": {"floating": ["edge"]},
        "quota_bytes": 50_000_000, "evidence_quota_bytes": 5_000_000, "retention": {"enforce": true, "rules": [{"tags": ["v*"], "keep_last": 9}]}});
    admin.put_document("/api/v1/repositories", &rules, 201).await;
    registry.know_signer("ci").await;
    registry.environment("prod", "{min_age: 0s}").await;
    let layer = String::from_utf8(noise(1, 300_000).iter().map(|byte| b'a' + byte % 26).collect()).unwrap();
    let release = admin.push_release("team/app", "v1", &layer).await;
    admin.push_release("team/other", "v1", &layer).await;
    let arm = admin.push_release("team/app", "v1-arm", "another processor's").await;
    let index = admin.push_index("team/app", "v2", &[(&release, "linux/amd64"), (&arm, "linux/arm64")]).await;
    for content in ["first", "second"] {
        admin.push_release("team/app", "edge", content).await;
    }
    let gone = admin.push_release("team/app", "v0", "withdrawn").await;
    // Its evidence outlives it, in rows and in the log.
    registry.state(&gone, "ci", PROVENANCE, None).await;
    let path = format!("/api/v1/scans?repository=team/app&digest={gone}");
    expect(admin.post(&path).body(debian_report()).send().await.unwrap(), 201).await;
    assert_eq!(admin.deletes("team/app", gone.as_str()).await, 202);
    // Held for ever before a rule let such names float.
    admin.push_release("team/app", "edge-frozen", "frozen").await;
    let rules = json!({"name": "team/app", "tags": {"floating": ["edge*"]}});
    admin.put_document("/api/v1/repositories", &rules, 200).await;
    registry.state(&release, "ci", PROVENANCE, None).await;
    // One statement about two artifacts is kept beside each.
    let both = Signing::new(8);
    admin.register_signer("both", &both.pem(), &["**"]).await;
    let statement = json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": PROVENANCE,
        "subject": [{"digest": {"sha256": release.hex()}}, {"digest": {"sha256": arm.hex()}}],
        "predicate": provenance("https://ci.example", "2")});
    let envelope = both.envelope("application/vnd.in-toto+json", statement.to_string().as_bytes());
    admin.attest("team/app", &envelope, 201).await;
    let strangers = Signing::new(9).statement(&index, PROVENANCE, &provenance("https://evil.example", "1"));
    admin.push_referrer("team/app", &index, "application/vnd.dsse.envelope.v1+json", &strangers).await;
    let path = format!(
        "/api/v1/scans?repository=team/app&digest={release}&database_updated_at=2026-01-01T00:00:00Z"
    );
    let scan = expect(admin.post(&path).body(debian_report()).send().await.unwrap(), 201).await;
    let retraction = json!({"reason": "of another image"});
    admin.post_document(&format!("/api/v1/scans/{}/revocation", scan["id"]), &retraction, 200).await;
    // The same bytes are stopped twice: for good, and for an hour.
    admin.block("team/app", &arm, None).await;
    let hour = (clock::now() + TimeDelta::hours(1)).to_rfc3339();
    let block = json!({"repository": "team/app", "digest": arm, "reason": "let us look", "until": hour});
    admin.post_document("/api/v1/blocks", &block, 201).await;
    let hold = json!({"repository": "team/other", "reason": "incident 42"});
    admin.post_document("/api/v1/holds", &hold, 201).await;
    let hold = json!({"environment": "prod", "repository": null, "reason": "the weekend"});
    assert_eq!(admin.promote("team/app", &release, "prod").await.status(), 201);
    admin.post_document("/api/v1/holds", &hold, 201).await;
    Furnished { registry, shell, release, gone }
}

impl Shell {
    fn layout(&self) -> PathBuf {
        self.home.path().join("layout")
    }

    async fn imports(&self, layout: &Path, more: &[&str]) -> Value {
        let mut arguments = vec!["import", layout.to_str().unwrap()];
        arguments.extend(more);
        self.json(&arguments).await
    }
}

async fn tags(client: &Client, repository: &str) -> Vec<Value> {
    let mut items = client.document(&format!("/api/v1/tags?repository={repository}&limit=1000")).await;
    for item in items["items"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("since");
    }
    items["items"].take().as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_exported_and_imported_elsewhere_is_the_same_and_says_so() {
    let Furnished { registry, shell, release, gone } = furnished().await;
    let exported = shell.json(&["export", "layout"]).await;
    assert_eq!((exported["repositories"].as_i64(), exported["left_out"].clone()), (Some(2), json!([])));
    assert_eq!(exported["differences"], json!([]));
    // Again: nothing is fetched twice, and nothing is left of the record before.
    let first = sheet(&shell.layout(), "events.ndjson");
    registry.admin().push_release("team/app", "v3", "the next").await;
    let more = shell.json(&["export", "layout"]).await;
    assert!(more["fetched_bytes"].as_i64().unwrap() < 100, "{more}");
    assert!(!first.exists() && sheet(&shell.layout(), "events.ndjson").exists());
    shell.yes(&["import", "layout", "--check", "--settings"]).await;

    let other = Registry::with(|settings| settings.public_name = Some("elsewhere.example".into())).await;
    let elsewhere = Shell::at(&other.url, Some(other.admin_token()));
    let differs = elsewhere.run(&["import", shell.layout().to_str().unwrap(), "--check", "--settings"]).await;
    assert_eq!(differs.code, 1, "{}", differs.out);
    let brought = elsewhere.imports(&shell.layout(), &["--settings", "--record", "records/old"]).await;
    assert_eq!(brought["reserved"], 2, "{brought}");
    assert!(brought["notes"][0].as_str().unwrap().contains("not enforced"), "{brought}");
    elsewhere.yes(&["import", shell.layout().to_str().unwrap(), "--check", "--settings"]).await;
    let again = elsewhere.imports(&shell.layout(), &["--settings"]).await;
    assert_eq!((again["manifests"].as_i64(), again["bytes"].as_i64()), (Some(0), Some(0)), "{again}");

    let (here, there) = (registry.admin(), other.admin());
    for repository in ["team/app", "team/other"] {
        assert_eq!(tags(&here, repository).await, tags(&there, repository).await);
        let of = async |client: &Client| {
            let rules = client.document(&format!("/api/v1/repositories?name={repository}")).await;
            ["tags", "quota_bytes", "evidence_quota_bytes", "description"]
                .map(|member| rules["items"][0][member].clone())
        };
        assert_eq!(of(&here).await, of(&there).await);
    }
    // Nothing holds versions where nothing is promoted yet, so the rules wait there.
    let enforced = async |client: &Client| {
        let rules = client.document("/api/v1/repositories?name=team/app").await;
        rules["items"][0]["retention"]["enforce"].as_bool()
    };
    assert_eq!((enforced(&here).await, enforced(&there).await), (Some(true), Some(false)));
    let stops = async |client: &Client| {
        let listed = client.document("/api/v1/blocks?repository=team/app").await;
        let until = listed["items"].as_array().unwrap().iter().map(|block| block["until"].to_string());
        until.collect::<BTreeSet<_>>()
    };
    assert_eq!(stops(&here).await, stops(&there).await);
    assert!(stops(&there).await.contains("null"), "what is stopped for good is so here too");
    // A name that was deleted there is given to no other bytes here, and to its own again.
    let other_bytes = there.push_subject("team/app", "other bytes").await;
    let body = there.get(&format!("/v2/team/app/manifests/{other_bytes}")).send().await.unwrap();
    let taken = there
        .put("/v2/team/app/manifests/v0")
        .header("content-type", "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(taken.body(body.bytes().await.unwrap()).send().await.unwrap().status(), 409);
    assert_eq!(there.push_release("team/app", "v0", "withdrawn").await, gone);
    let verdicts: Vec<Value> = there.attestations("team/app", &release).await;
    assert!(verdicts.iter().any(|one| one["verdict"] == "trusted" && one["signer"] == "ci"), "{verdicts:?}");
    let record = there.document("/api/v1/artifacts?repository=records/old").await;
    assert_eq!(record["items"][0]["artifact_type"], "application/vnd.proofmark.record.v1");
    // The old record is content of its repository, and stays when the layout's own is superseded.
    let layout = elsewhere.layout();
    elsewhere.yes(&["export", layout.to_str().unwrap()]).await;
    elsewhere.yes(&["export", layout.to_str().unwrap(), "--verify"]).await;
    elsewhere.yes(&["import", layout.to_str().unwrap(), "--check", "--settings"]).await;
    // A layout of another registry, or of more repositories, is not written over.
    for arguments in [
        &["export", shell.layout().to_str().unwrap()][..],
        &["export", "layout", "--repository", "team/app"][..],
    ] {
        assert_eq!(elsewhere.run(arguments).await.code, 2);
    }
    // What was decided there is history; here it is decided anew.
    assert_eq!(there.known_good("team/app", "prod").await.status(), 404);
    assert_eq!(there.promote("team/app", &release, "prod").await.status(), 409, "prod is held here too");
    registry.check().await;
    other.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_was_changed_is_seen_byte_by_byte_and_name_by_name() {
    let Furnished { registry, shell, release, .. } = furnished().await;
    shell.yes(&["export", "layout"]).await;
    let (index, layer) = (shell.layout().join("index.json"), layers_of(&shell.layout(), &release).remove(0));
    let whole = std::fs::read_to_string(&index).unwrap();
    let wrong = async || {
        let checked = shell.run(&["import", "layout", "--check", "--json"]).await;
        assert_eq!(checked.code, 1, "{}", checked.err);
        checked.out
    };
    // A name that points elsewhere, where the log says otherwise.
    std::fs::write(&index, whole.replace("team/app:v1-arm", "team/app:v9")).unwrap();
    let said = wrong().await;
    assert!(said.contains("team/app:v9") && said.contains("team/app:v1-arm"), "{said}");
    // A manifest that is not listed any more.
    let mut listed: Value = serde_json::from_str(&whole).unwrap();
    listed["manifests"]
        .as_array_mut()
        .unwrap()
        .retain(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] != "team/app:edge");
    std::fs::write(&index, listed.to_string()).unwrap();
    assert!(wrong().await.contains("it is not here"));
    std::fs::write(&index, &whole).unwrap();
    // One bit of a layer.
    let mut bytes = std::fs::read(&layer).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&layer, &bytes).unwrap();
    assert!(wrong().await.contains(&format!("{}", layer.file_name().unwrap().display())));
    bytes[1000] ^= 1;
    std::fs::write(&layer, &bytes).unwrap();
    shell.yes(&["import", "layout", "--check"]).await;
    // An entry of the log.
    let events = sheet(&shell.layout(), "events.ndjson");
    let text = std::fs::read_to_string(&events).unwrap();
    std::fs::write(&events, text.replacen("\"index\":3,", "\"index\":4,", 1)).unwrap();
    let damaged = shell.run(&["import", "layout"]).await;
    assert_eq!(damaged.code, 1, "nothing is brought of what cannot be believed: {}", damaged.out);
    assert!(damaged.err.contains("layout-damaged"), "{}", damaged.err);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_something_is_missing_from_is_no_success() {
    let mut registry = Registry::start().await;
    let shell = Shell::at(&registry.url, Some(registry.admin_token()));
    let layer = "x".repeat(200_000);
    registry.admin().push_release("team/app", "v1", &layer).await;
    // A job would find that the bytes are there.
    registry.stop_jobs().await;
    registry.sequence_all().await;
    // As fsck does with a blob whose bytes are lost.
    let lost = "update blobs set damaged_at = clock_timestamp() where size_bytes = 200000";
    registry.tamper(lost).await;
    let exported = shell.run(&["export", "layout", "--json"]).await;
    let said: Value = serde_json::from_str(&exported.out).unwrap();
    assert_eq!((exported.code, said["code"].as_str()), (1, Some("not-all-exported")), "{said}");
    assert!(said["differences"].to_string().contains("team/app"), "{said}");
    registry.tamper("update blobs set damaged_at = null where size_bytes = 200000").await;
    assert_eq!(shell.json(&["export", "layout"]).await["differences"], json!([]));
    registry.check().await;
}

/// The file of a sheet of the layout's record.
fn sheet(layout: &Path, name: &str) -> PathBuf {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let is_record = |entry: &&Value| entry["artifactType"] == "application/vnd.proofmark.record.v1";
    let record = index["manifests"].as_array().unwrap().iter().find(is_record).unwrap();
    let manifest = std::fs::read(blob(layout, record["digest"].as_str().unwrap())).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let is_it = |layer: &&Value| layer["annotations"]["org.opencontainers.image.title"] == name;
    let found = manifest["layers"].as_array().unwrap().iter().find(is_it).unwrap();
    blob(layout, found["digest"].as_str().unwrap())
}

fn layers_of(layout: &Path, manifest: &Digest) -> Vec<PathBuf> {
    let bytes = std::fs::read(blob(layout, manifest.as_str())).unwrap();
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| blob(layout, layer["digest"].as_str().unwrap())).collect()
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_listed_and_the_rest_is_brought() {
    let Furnished { registry, shell, .. } = furnished().await;
    shell.yes(&["export", "layout", "--repository", "team/*"]).await;
    let other = Registry::start().await;
    let admin = other.admin();
    let own = admin.push_release("team/app", "v1", "its own first version").await;
    // Its own signer and policy of the same names are not the other's to change.
    admin.register_signer("ci", &Signing::new(77).pem(), &["**"]).await;
    other.environment("prod", "{min_age: 1h}").await;
    registry
        .admin()
        .post_document(
            "/api/v1/signers/ci/revocation",
            &json!({"reason": "stolen", "compromised": true}),
            201,
        )
        .await;
    shell.yes(&["export", "layout", "--repository", "team/*"]).await;
    let elsewhere = Shell::at(&other.url, Some(other.admin_token()));
    let brought = elsewhere.run(&["import", shell.layout().to_str().unwrap(), "--settings", "--json"]).await;
    assert_eq!(brought.code, 1);
    let outcome: Value = serde_json::from_str(&brought.out).unwrap();
    let wrong: Vec<&str> =
        outcome["wrong"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    // The repository was there with its own rules: what floated elsewhere would be held here.
    assert_eq!(
        wrong,
        ["signers.ndjson: ci", "policies.ndjson: default in prod", "team/app:v1", "team/app:edge"],
        "{outcome}"
    );
    let signers = admin.document("/api/v1/signers").await;
    let ci = signers["items"].as_array().unwrap().iter().find(|one| one["name"] == "ci").unwrap();
    assert!(ci["revocation"].is_null(), "{ci}");
    assert_eq!(admin.digest_of("team/app", "v1").await, Some(own.to_string()));
    assert!(
        admin.digest_of("team/app", "v2").await.is_some()
            && admin.digest_of("team/other", "v1").await.is_some()
    );

    // Who may only push brings content, and is told what it may not bring.
    let fresh = Registry::start().await;
    let pusher = fresh.client(Role::Pusher, "team/**").await;
    let shell_of = Shell::at(&fresh.url, pusher.token());
    let refused = shell_of
        .run(&["import", shell.layout().to_str().unwrap(), "--repository", "team/other", "--json"])
        .await;
    assert_eq!(refused.code, 1);
    assert!(refused.out.contains("--content-only"), "{}", refused.out);
    let alone = shell_of.imports(&shell.layout(), &["--repository", "team/other", "--content-only"]).await;
    assert_eq!(alone["known_manifests"], 1, "{alone}");
    // Who may not read the log exports nothing.
    let reader = registry.client(Role::Reader, "team/**").await;
    let refused = Shell::at(&registry.url, reader.token()).run(&["export", "mine"]).await;
    assert_eq!(refused.code, 3, "{}", refused.err);
    registry.check().await;
    other.check().await;
    fresh.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_of_some_repositories_exports_those_and_is_told_what_is_left_out() {
    let Furnished { registry, .. } = furnished().await;
    let auditor = registry.client(Role::Auditor, "team/other").await;
    let shell = Shell::at(&registry.url, auditor.token());
    let exported = shell.json(&["export", "layout"]).await;
    assert_eq!(exported["repositories"], 1);
    let left_out = exported["left_out"].as_array().unwrap();
    assert!(left_out.contains(&json!("signers.ndjson")), "{exported}");
    let events = std::fs::read_to_string(sheet(&shell.layout(), "events.ndjson")).unwrap();
    assert!(events.contains("team/other") && !events.contains("team/app"));
    shell.yes(&["import", "layout", "--check", "--content-only"]).await;
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_of_other_tools_goes_where_it_is_told_to() {
    let registry = Registry::start().await;
    let shell = Shell::at(&registry.url, Some(registry.admin_token()));
    let layout = shell.home.path().join("theirs");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |bytes: &[u8]| {
        std::fs::write(blob(&layout, sha256(bytes).as_str()), bytes).unwrap();
        json!({"digest": sha256(bytes), "size": bytes.len()})
    };
    let typed = |mut descriptor: Value, media_type: &str| {
        descriptor["mediaType"] = media_type.into();
        descriptor
    };
    let image = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": typed(put(b"{}"), "application/vnd.oci.image.config.v1+json"),
        "layers": [typed(put(b"a layer"), "application/vnd.oci.image.layer.v1.tar")]});
    let image = typed(put(image.to_string().as_bytes()), "application/vnd.oci.image.manifest.v1+json");
    let list = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [image]});
    // The index alone is listed, as skopeo and buildah write it; what it leads to comes with it.
    let mut top = typed(put(list.to_string().as_bytes()), "application/vnd.oci.image.index.v1+json");
    top["annotations"] = json!({"org.opencontainers.image.ref.name": "3.20"});
    std::fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [top]}).to_string())
        .unwrap();
    let asked = shell.run(&["import", "theirs"]).await;
    assert_eq!(asked.code, 2, "{}", asked.err);
    assert!(asked.err.contains("--into"), "{}", asked.err);
    let brought = shell.imports(&layout, &["--into", "mirror/alpine"]).await;
    assert_eq!((brought["manifests"].as_i64(), brought["tags"].as_i64()), (Some(2), Some(1)), "{brought}");
    shell.yes(&["import", "theirs", "--into", "mirror/alpine", "--check"]).await;
    let named = registry.admin().digest_of("mirror/alpine", "3.20").await;
    assert_eq!(named.as_deref(), top["digest"].as_str());

    // A link to elsewhere is no blob, and what is missing is said.
    std::fs::remove_file(blob(&layout, sha256(b"a layer").as_str())).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", blob(&layout, sha256(b"a layer").as_str())).unwrap();
    let damaged = shell.run(&["import", "theirs", "--into", "mirror/other", "--json"]).await;
    assert_eq!(damaged.code, 1, "{}", damaged.err);
    assert!(damaged.out.contains(sha256(b"a layer").as_str()), "{}", damaged.out);
    assert_eq!(registry.admin().digest_of("mirror/other", "3.20").await, None);
    let nothing = shell.run(&["import", "nowhere"]).await;
    assert_eq!(nothing.code, 2, "{}", nothing.err);
    registry.check().await;
}

#[tokio::test]
async fn a_reserved_name_is_for_its_digest_alone_and_only_administrators_reserve() {
    let registry = Registry::start().await;
    let (admin, ci) = (registry.admin(), registry.client(Role::Pusher, "**").await);
    let kept = ci.push_release("app", "v1", "one").await;
    let later = sha256(b"not here yet");
    let path = "/api/v1/tags/reservations";
    let names = json!({"repository": "app", "tags": {"v2": later, "v1": kept}});
    assert_eq!(ci.post(path).json(&names).send().await.unwrap().status(), 403);
    let reserved = admin.post_document(path, &names, 201).await;
    assert_eq!(reserved["reserved"], json!(["v2"]), "v1 is held for that digest and stays shown");
    assert_eq!(ci.digest_of("app", "v1").await, Some(kept.to_string()));
    assert_eq!(ci.digest_of("app", "v2").await, None);
    // All or nothing.
    let clash = json!({"repository": "app", "tags": {"v3": later, "v1": later}});
    let taken = admin.post_document(path, &clash, 409).await;
    assert_eq!(
        (taken["code"].as_str(), taken["current"].as_str()),
        (Some("version-taken"), Some(kept.as_str()))
    );
    // A name that floats here may have been held for ever elsewhere: it is held from now on.
    let rules = json!({"name": "app", "tags": {"floating": ["edge*"]}});
    admin.put_document("/api/v1/repositories", &rules, 200).await;
    let moved = ci.push_release("app", "edge-1", "floats").await;
    let elsewhere = json!({"repository": "app", "tags": {"edge-1": later}});
    assert_eq!(admin.post_document(path, &elsewhere, 409).await["current"], moved.as_str());
    let there = json!({"repository": "app", "tags": {"edge-1": moved}});
    assert_eq!(admin.post_document(path, &there, 201).await["reserved"], json!(["edge-1"]));
    assert_eq!(ci.digest_of("app", "edge-1").await, Some(moved.to_string()), "it stays shown");
    let held = json!({"repository": "app", "tags": {"edge-2": kept}});
    assert_eq!(admin.post_document(path, &held, 201).await["reserved"], json!(["edge-2"]));
    let body = ci.get(&format!("/v2/app/manifests/{moved}")).send().await.unwrap().bytes().await.unwrap();
    let image = "application/vnd.oci.image.manifest.v1+json";
    let put = ci.put("/v2/app/manifests/edge-2").header("content-type", image).body(body);
    assert_eq!(put.send().await.unwrap().status(), 409);
    assert_eq!(
        admin.post_document(path, &json!({"repository": "app", "tags": {}}), 400).await["code"],
        "invalid-request"
    );
    assert_eq!(
        admin.post_document(path, &json!({"repository": "none", "tags": {"v1": later}}), 404).await["code"],
        "not-found"
    );
    let held = tags(&ci, "app").await;
    assert_eq!(held.len(), 4, "{held:?}");
    assert_eq!((held[3]["name"].as_str(), held[3]["deleted"].as_bool()), (Some("v2"), Some(true)));
    let stranger = registry.client(Role::Reader, "elsewhere").await;
    assert_eq!(stranger.get("/api/v1/tags?repository=app").send().await.unwrap().status(), 404);
    registry.check().await;
}
