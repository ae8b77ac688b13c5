//! Attesting: who signed what about which artifact, and how far that is believed.

use crate::harness::{
    Case, Client, PROVENANCE, Registry, Signing, eventually, expect, provenance, public_key, push_folder,
    sha256,
};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
pub const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The signers that the fixtures' verdicts assume.
async fn register_fixture_signers(registry: &Registry) {
    let approvals = "https://demo.example/attestations/approval/v1";
    let of_release = [
        COSIGN_SIGN,
        "https://slsa.dev/verification_summary/v1",
        "https://openvex.dev/ns",
        "https://cosign.sigstore.dev/attestation/v1",
        approvals,
    ];
    let of_ci = [
        "https://slsa.dev/provenance/*",
        "https://cosign.sigstore.dev/attestation/vuln/v1",
        "https://in-toto.io/attestation/*/*",
        "https://spdx.dev/Document",
        "https://cyclonedx.org/bom",
    ];
    let admin = registry.admin();
    admin.register_signer("release", &public_key("release"), &of_release).await;
    admin.register_signer("ci", &public_key("ci"), &of_ci).await;
    admin.register_signer("p384", &public_key("p384"), &["**"]).await;
    admin.register_signer("rsa", &public_key("rsa"), &["**"]).await;
    let signer = json!({"name": "ed25519", "public_key": public_key("ed25519"), "schemes": ["ed25519", "ed25519ph"],
        "repositories": ["**"], "predicate_types": ["**"], "valid_from": "2020-01-01T00:00:00Z"});
    admin.post_document("/api/v1/signers", &signer, 201).await;
}

/// The verdicts of a list.
pub fn verdicts(listed: &[Value]) -> Vec<&str> {
    listed.iter().map(|one| one["verdict"].as_str().unwrap()).collect()
}

/// Of keyless signatures (a case with a trusted root) only this is promised: they never count. To
/// verify them takes a trusted root that the operator gives, which this registry does not read yet.
fn judge(case: &Case, listed: &[Value], manifest: &Digest) {
    let name = case.name();
    let all = verdicts(listed);
    let every = |verdict: &str| !all.is_empty() && all.iter().all(|one| *one == verdict);
    let reasoned = listed.iter().all(|one| one["verdict"] == "trusted" || one["reason"].is_string());
    assert!(reasoned, "{name}: {listed:?}");
    if case.0["trusted_root"].is_string() {
        assert!(every("untrusted"), "{name}: {listed:?}");
        return;
    }
    if let Some(claimed) = case.text("verdict_as") {
        let counted =
            listed.iter().any(|one| one["predicate_type"] == claimed && one["verdict"] == "trusted");
        assert!(!counted, "{name}: {listed:?}");
        return;
    }
    match case.text("verdict").unwrap() {
        "trusted" => trusted(case, listed),
        "opaque" if case.text("kind") == Some("index") => {
            assert!(listed.iter().all(|one| one["manifest"] != manifest.as_str()), "{name}: {listed:?}");
        }
        "either" => assert!(every("trusted") || every("untrusted"), "{name}: {listed:?}"),
        verdict => assert!(every(verdict), "{name} is not {verdict}: {listed:?}"),
    }
}

fn trusted(case: &Case, listed: &[Value]) {
    let name = case.name();
    let expected: Vec<&str> = match &case.0["predicate_type"] {
        Value::Array(types) => types.iter().map(|kind| kind.as_str().unwrap()).collect(),
        Value::String(kind) => vec![kind],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![COSIGN_SIGN],
    };
    for kind in expected {
        let found = listed.iter().find(|one| one["predicate_type"] == kind && one["verdict"] == "trusted");
        let found = found.unwrap_or_else(|| panic!("{name}: no trusted {kind} in {listed:?}"));
        assert_eq!(found["key_id"].as_str().unwrap().len(), 64, "{name}");
    }
    // Layers of a stranger beside the trusted ones stay what they are.
    let strange = case.0["signatures"].as_array().unwrap().iter();
    let strange = strange.filter(|one| case.text("kind") == Some("cosign-sig-tag") && one["layer"] == 1);
    let untrusted = listed.iter().filter(|one| one["verdict"] == "untrusted").count();
    assert_eq!(untrusted, strange.count(), "{name}: {listed:?}");
}

#[tokio::test]
async fn every_signed_and_forged_case_pushed_by_a_real_client_gets_its_verdict() {
    let registry = Registry::start().await;
    register_fixture_signers(&registry).await;
    let builder = registry.client(Role::Pusher, "**").await;
    let cases = Case::all();
    let in_registry: Vec<&Case> = cases.iter().filter(|case| case.0["manifest"].is_string()).collect();
    assert_eq!(in_registry.len(), 69);
    for (number, case) in in_registry.iter().enumerate() {
        let repository = format!("case-{number}");
        push_folder(&builder, &repository, "image", None).await;
        push_folder(&builder, &repository, "other-image", None).await;
        let document: Value = serde_json::from_slice(&case.file("manifest.json")).unwrap();
        for child in document["manifests"].as_array().into_iter().flatten() {
            let child = in_registry.iter().find(|other| other.0["manifest"] == child["digest"]).unwrap();
            child.push(&builder, &repository).await;
        }
        let manifest = case.push(&builder, &repository).await;
        assert_eq!(Some(manifest.as_str()), case.text("manifest"), "{}", case.name());
        let subject: Digest = case.text("subject").unwrap().parse().unwrap();
        judge(case, &builder.attestations(&repository, &subject).await, &manifest);
    }
    registry.check().await;
}

#[tokio::test]
async fn over_the_api_a_case_is_recorded_when_it_is_trusted_and_refused_with_a_reason_otherwise() {
    let registry = Registry::start().await;
    register_fixture_signers(&registry).await;
    let builder = registry.client(Role::Pusher, "**").await;
    let attester = registry.client(Role::Attester, "**").await;
    for (number, case) in Case::all().iter().enumerate() {
        let kind = case.text("kind").unwrap();
        let file = match kind {
            "bundle" | "dsse" if case.name() == "bad-bundle-not-json" => "blob-0.bin",
            "bundle" | "dsse" => "blob-0.json",
            "bundle-file" => "bundle.json",
            _ => continue,
        };
        let repository = format!("case-{number}");
        let folder = match case.text("subject") {
            Some(subject) if subject.starts_with("sha256:36f1") => "other-image",
            _ => "image",
        };
        push_folder(&builder, &repository, folder, None).await;
        let accepted = case.text("verdict") == Some("trusted") && case.0["trusted_root"].is_null()
            || case.name() == "bad-annotation-claims-provenance"
            || case.name() == "edge-base64-unpadded";
        let answer = attester.attest(&repository, &case.file(file), if accepted { 201 } else { 422 }).await;
        if accepted {
            assert_eq!(answer[0]["envelope_digest"], sha256(&case.file(file)).as_str(), "{}", case.name());
            continue;
        }
        let code = answer["code"].as_str().unwrap();
        let wanted: &[&str] = match case.text("verdict").unwrap() {
            "malformed" => &["malformed-envelope"],
            // A payload of a foreign type cannot be read as a statement.
            _ if case.name().starts_with("bad-payloadtype-foreign") => &["malformed-envelope"],
            _ if case.name() == "bad-statement-type" => &["malformed-envelope"],
            _ if folder == "other-image" => &["subject-unknown"],
            // Signatures over files state nothing, so they are refused as such.
            _ if kind == "bundle-file" => &["signature-not-trusted", "malformed-envelope"],
            _ => &["signature-not-trusted"],
        };
        assert!(wanted.contains(&code), "{}: {answer}", case.name());
    }
    registry.check().await;
}

#[tokio::test]
async fn an_attestation_is_one_however_often_it_comes_and_its_bytes_stay_as_they_were() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "**").await, registry.client(Role::Attester, "**").await);
    let key = Signing::new(1);
    registry.admin().register_signer("ci", &key.pem(), &["**"]).await;
    let image = builder.push_subject("team/app", "one").await;
    let envelope = key.statement(&image, PROVENANCE, &provenance("https://ci.example/b", "c0ffee"));
    let first = attester.attest("team/app", &envelope, 201).await;
    let second = attester.attest("team/app", &envelope, 201).await;
    assert_eq!(first, second);
    builder.push_referrer("team/app", &image, DSSE, &envelope).await;
    let listed = builder.attestations("team/app", &image).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0]["verdict"], &listed[0]["signer"]), (&json!("trusted"), &json!("ci")));
    assert_eq!(
        (&listed[0]["commit"], &listed[0]["builder"]),
        (&json!("c0ffee"), &json!("https://ci.example/b"))
    );

    let answer = builder.get(&format!("/api/v1/attestations/{}", first[0]["id"])).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], DSSE);
    assert_eq!(answer.bytes().await.unwrap(), envelope);

    // OCI clients find it beside the image.
    let referrers = builder.document(&format!("/v2/team/app/referrers/{image}")).await;
    let carriers: Vec<&str> = referrers["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["digest"].as_str().unwrap())
        .collect();
    assert!(carriers.contains(&first[0]["manifest"].as_str().unwrap()), "{referrers}");
    registry.check().await;
}

#[tokio::test]
async fn attestations_are_found_by_what_they_say() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "**").await, registry.client(Role::Attester, "**").await);
    let key = Signing::new(1);
    registry.admin().register_signer("ci", &key.pem(), &["**"]).await;
    let image = builder.push_subject("team/app", "one").await;
    attester.attest("team/app", &key.statement(&image, PROVENANCE, &provenance("b1", "c1")), 201).await;
    attester.attest("team/app", &key.statement(&image, PROVENANCE, &provenance("b2", "c2")), 201).await;
    for (query, found) in [
        ("repository=team/app", 2),
        ("", 2),
        ("builder=b1", 1),
        ("commit=c2", 1),
        ("source=git%2Bhttps://git.example/team/app", 2),
        ("material=gitCommit:c1", 1),
        ("signer=ci", 2),
        ("signer=other", 0),
        ("predicate_type=https://slsa.dev/provenance/v1", 2),
        ("limit=1", 1),
    ] {
        let page = builder.document(&format!("/api/v1/attestations?{query}")).await;
        assert_eq!(page["items"].as_array().unwrap().len(), found, "{query}: {page}");
    }
    let page = builder.document("/api/v1/attestations?limit=1").await;
    let rest =
        builder.document(&format!("/api/v1/attestations?cursor={}", page["next"].as_str().unwrap())).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    let elsewhere = registry.client(Role::Reader, "other/**").await;
    let nothing = elsewhere.document("/api/v1/attestations").await;
    assert_eq!(nothing["items"], json!([]), "what one may not see does not exist");
    registry.check().await;
}

#[tokio::test]
async fn what_a_stranger_signed_waits_until_the_key_is_registered() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let key = Signing::new(1);
    let image = builder.push_subject("team/app", "one").await;
    let envelope = key.statement(&image, PROVENANCE, &provenance("b", "c"));
    builder.push_referrer("team/app", &image, DSSE, &envelope).await;
    let listed = builder.attestations("team/app", &image).await;
    assert_eq!(listed[0]["reason"], "no registered key verifies its signature");

    registry.admin().register_signer("other", &Signing::new(2).pem(), &["**"]).await;
    assert_eq!(verdicts(&builder.attestations("team/app", &image).await), ["untrusted"]);
    let signer = json!({"name": "late", "public_key": key.pem(), "repositories": ["team/*"],
                        "predicate_types": ["https://slsa.dev/**"], "valid_from": "2099-01-01T00:00:00Z"});
    registry.admin().post_document("/api/v1/signers", &signer, 201).await;
    let listed = builder.attestations("team/app", &image).await;
    assert_eq!(
        listed[0]["reason"],
        "late signed it, but its key was not valid when the statement was received"
    );

    let other = Signing::new(3).statement(&image, PROVENANCE, &provenance("b", "c"));
    builder.push_referrer("team/app", &image, DSSE, &other).await;
    let signer = json!({"name": "ci", "public_key": Signing::new(3).pem(), "repositories": ["**"],
                        "predicate_types": ["**"]});
    registry.admin().post_document("/api/v1/signers", &signer, 201).await;
    assert_eq!(
        verdicts(&builder.attestations("team/app", &image).await),
        ["trusted", "untrusted"],
        "a key is believed for what came before it was registered, where nothing else was said"
    );
    registry.check().await;
}

#[tokio::test]
async fn a_revoked_signer_is_distrusted_from_then_on_and_a_stolen_key_altogether() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "**").await, registry.client(Role::Attester, "**").await);
    let (retired, stolen) = (Signing::new(1), Signing::new(2));
    let admin = registry.admin();
    admin.register_signer("retired", &retired.pem(), &["**"]).await;
    admin.register_signer("stolen", &stolen.pem(), &["**"]).await;
    let image = builder.push_subject("team/app", "one").await;
    for key in [&retired, &stolen] {
        attester.attest("team/app", &key.statement(&image, PROVENANCE, &provenance("b", "c")), 201).await;
    }
    admin.post_document("/api/v1/signers/retired/revocation", &json!({"reason": "rotated"}), 201).await;
    let body = json!({"reason": "laptop lost", "compromised": true});
    admin.post_document("/api/v1/signers/stolen/revocation", &body, 201).await;
    let again = admin.post_document("/api/v1/signers/stolen/revocation", &body, 409).await;
    assert_eq!(again["code"], "signer-revoked");

    let listed = builder.attestations("team/app", &image).await;
    assert_eq!(verdicts(&listed), ["untrusted", "trusted"]);
    assert_eq!(listed[0]["reason"], "stolen signed it, but its key is compromised");
    let later = retired.statement(&image, PROVENANCE, &provenance("b", "d"));
    let refused = attester.attest("team/app", &later, 422).await;
    assert_eq!(refused["code"], "signature-not-trusted");
    assert!(refused["detail"].as_str().unwrap().contains("revoked"), "{refused}");
    registry.check().await;
}

#[tokio::test]
async fn a_signer_is_believed_only_for_its_repositories_and_predicate_types() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "**").await, registry.client(Role::Attester, "**").await);
    let key = Signing::new(1);
    let signer = json!({"name": "ci", "public_key": key.pem(), "repositories": ["team/*"],
                        "predicate_types": [PROVENANCE], "valid_from": "2020-01-01T00:00:00Z"});
    registry.admin().post_document("/api/v1/signers", &signer, 201).await;
    let (ours, theirs) =
        (builder.push_subject("team/app", "a").await, builder.push_subject("other", "a").await);
    attester.attest("team/app", &key.statement(&ours, PROVENANCE, &provenance("b", "c")), 201).await;
    for (repository, subject, kind) in [("other", &theirs, PROVENANCE), ("team/app", &ours, TEST_RESULT)] {
        let refused = attester.attest(repository, &key.statement(subject, kind, &json!({})), 422).await;
        assert_eq!(refused["code"], "signature-not-trusted");
    }
    registry.check().await;
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong_and_leaves_nothing_behind() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "team/*").await, registry.client(Role::Attester, "team/*").await);
    let key = Signing::new(1);
    registry.admin().register_signer("ci", &key.pem(), &["**"]).await;
    let image = builder.push_subject("team/app", "one").await;
    let good = key.statement(&image, PROVENANCE, &provenance("b", "c"));
    let elsewhere = key.statement(&sha256(b"elsewhere"), PROVENANCE, &provenance("b", "c"));
    let mut lines = good.clone();
    lines.push(b'\n');
    lines.extend(&elsewhere);
    for (body, code) in [
        (elsewhere, "subject-unknown"),
        (lines, "subject-unknown"),
        (b"{}".to_vec(), "malformed-envelope"),
        (b"".to_vec(), "malformed-envelope"),
        (vec![b'['; 100_000], "malformed-envelope"),
        (key.envelope("application/vnd.in-toto+json", b"no statement"), "malformed-envelope"),
        (key.envelope("text/plain", b"hello"), "malformed-envelope"),
        (Signing::new(9).statement(&image, PROVENANCE, &json!({})), "signature-not-trusted"),
    ] {
        let refused = attester.attest("team/app", &body, 422).await;
        assert_eq!(refused["code"], code, "{refused}");
    }
    assert!(builder.attestations("team/app", &image).await.is_empty(), "all of a body or none");

    // Authority comes first, and what one may not see does not exist.
    assert_eq!(builder.attest("team/app", &good, 403).await["code"], "forbidden");
    assert_eq!(attester.attest("other/app", &good, 404).await["code"], "not-found");
    assert_eq!(attester.attest("team/none", &good, 404).await["code"], "not-found");
    registry.anyone().attest("team/app", &good, 404).await;
    registry.check().await;
}

#[tokio::test]
async fn json_lines_are_recorded_together() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "**").await, registry.client(Role::Attester, "**").await);
    let key = Signing::new(1);
    registry.admin().register_signer("ci", &key.pem(), &["**"]).await;
    let image = builder.push_subject("team/app", "one").await;
    let lines: Vec<u8> = (0..3)
        .flat_map(|n| {
            let mut line = key.statement(&image, PROVENANCE, &provenance("b", &format!("c{n}")));
            line.push(b'\n');
            line
        })
        .collect();
    let recorded = attester.attest("team/app", &lines, 201).await;
    assert_eq!(recorded.as_array().unwrap().len(), 3);
    assert_eq!(verdicts(&builder.attestations("team/app", &image).await), ["trusted"; 3]);
    registry.check().await;
}

#[tokio::test]
async fn a_bundle_whose_payload_postgres_could_not_keep_is_malformed_and_not_an_error() {
    let registry = Registry::start().await;
    let (builder, key) = (registry.client(Role::Pusher, "**").await, Signing::new(1));
    registry.admin().register_signer("ci", &key.pem(), &["**"]).await;
    let image = builder.push_subject("team/app", "one").await;
    let nul = key.statement(&image, PROVENANCE, &json!({"runDetails": {"builder": {"id": "a\u{0}b"}}}));
    builder.push_referrer("team/app", &image, DSSE, &nul).await;
    builder.push_referrer("team/app", &image, BUNDLE, b"not a bundle").await;
    let long = key.statement(&image, PROVENANCE, &provenance(&"b".repeat(10_000), &"c".repeat(10_000)));
    builder.push_referrer("team/app", &image, DSSE, &long).await;
    let listed = builder.attestations("team/app", &image).await;
    assert_eq!(verdicts(&listed), ["trusted", "malformed", "malformed"]);
    assert_eq!(listed[0]["builder"], Value::Null, "what is longer than any name is not indexed");
    registry.check().await;
}

#[tokio::test]
async fn signers_are_registered_by_administrators_and_never_changed() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let registered = admin.register_signer("ci", &public_key("ci"), &["**"]).await;
    assert_eq!((&registered["scheme"], &registered["revocation"]), (&json!("ecdsa-p256"), &Value::Null));
    assert_eq!(admin.register_signer("ci", &public_key("ci"), &["**"]).await, registered);
    let mut other = json!({"name": "ci", "public_key": public_key("release"), "repositories": ["**"],
                           "predicate_types": ["**"]});
    assert_eq!(admin.post_document("/api/v1/signers", &other, 409).await["code"], "signer-exists");
    other["name"] = "ci-2".into();
    other["public_key"] = public_key("ci").into();
    let taken = admin.post_document("/api/v1/signers", &other, 409).await;
    assert!(taken["detail"].as_str().unwrap().contains("signer ci"), "{taken}");
    for (member, bad) in [
        ("public_key", json!("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")),
        ("scheme", json!("rsa")),
        ("name", json!("a b")),
        ("repositories", json!([])),
        ("valid_until", json!("2000-01-01T00:00:00Z")),
    ] {
        let mut body = other.clone();
        body["valid_from"] = "2010-01-01T00:00:00Z".into();
        body[member] = bad;
        assert_eq!(
            admin.post_document("/api/v1/signers", &body, 422).await["code"],
            "invalid-signer",
            "{member}"
        );
    }
    let pusher = registry.client(Role::Pusher, "**").await;
    pusher.post_document("/api/v1/signers", &other, 403).await;
    let auditor = registry.client(Role::Auditor, "**").await;
    assert_eq!(auditor.document("/api/v1/signers").await["items"][0]["name"], "ci");
    registry.check().await;
}

#[tokio::test]
async fn the_trust_file_is_public_and_holds_for_every_replica() {
    let registry = Registry::start().await;
    let replica = registry.replica().await;
    let trust = registry.anyone().document("/.well-known/proofmark").await;
    assert_eq!(trust["signed"]["verifier_id"], "https://registry.example/proofmark");
    assert_eq!(replica.anyone().document("/.well-known/proofmark").await, trust);
    for role in ["summary", "attestation", "log", "token", "webhook"] {
        let key = trust["signed"]["keys"][role][0]["public_key"].as_str().unwrap();
        assert!(key.starts_with("-----BEGIN PUBLIC KEY-----"), "{role}");
    }
    replica.check().await;
    registry.check().await;
}

async fn referrer_with_layers(client: &Client, repository: &str, subject: &Digest, layers: &[Vec<u8>]) {
    let config = client.push_blob(repository, b"{}").await;
    let mut descriptors = Vec::new();
    for layer in layers {
        let digest = client.push_blob(repository, layer).await;
        descriptors.push(json!({"mediaType": DSSE, "digest": digest, "size": layer.len()}));
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": descriptors});
    let tag = format!("{}.att", subject.as_str().replace(':', "-"));
    client.push_manifest_bytes(repository, Some(&tag), manifest.to_string().as_bytes()).await;
}

#[tokio::test]
async fn a_layer_that_another_writer_lost_from_cosigns_tag_stays_known() {
    let registry = Registry::start().await;
    let (builder, key) = (registry.client(Role::Pusher, "**").await, Signing::new(1));
    registry.admin().register_signer("ci", &key.pem(), &["**"]).await;
    let image = builder.push_subject("team/app", "one").await;
    let statement = |n: u8| key.statement(&image, PROVENANCE, &provenance("b", &format!("c{n}")));
    referrer_with_layers(&builder, "team/app", &image, &[statement(1)]).await;
    referrer_with_layers(&builder, "team/app", &image, &[statement(2)]).await;
    referrer_with_layers(&builder, "team/app", &image, &[statement(2), statement(3)]).await;
    assert_eq!(verdicts(&builder.attestations("team/app", &image).await), ["trusted"; 3]);
    registry.check().await;
}

/// Whether somebody wants a scope alone and has to wait for it.
pub async fn somebody_waits_for_a_scope(registry: &Registry) -> bool {
    let waits = sqlx::query_scalar(
        "select exists (select from pg_locks where locktype = 'advisory' and not granted
           and mode = 'ExclusiveLock' and database = (select oid from pg_database where datname = current_database()))",
    );
    waits.fetch_one(&mut *registry.sql().await).await.unwrap()
}

#[tokio::test]
async fn a_failed_test_result_waits_for_decisions_on_its_repository_and_no_other() {
    let registry = Registry::start().await;
    let (builder, attester) =
        (registry.client(Role::Pusher, "**").await, registry.client(Role::Attester, "**").await);
    let key = Signing::new(1);
    registry.admin().register_signer("ci", &key.pem(), &["**"]).await;
    let image = builder.push_subject("team/app", "one").await;
    let result =
        |result: &str| key.statement(&image, TEST_RESULT, &json!({"result": result, "configuration": []}));

    // A decision holds its repository shared.
    let mut decision = registry.app.db.begin().await.unwrap();
    let repository: i64 = sqlx::query_scalar("select id from repositories where name = 'team/app'")
        .fetch_one(&mut *decision)
        .await
        .unwrap();
    proofmark::postgres::Scopes::promote(repository, 1).lock(&mut decision).await.unwrap();
    // What can only help does not wait for it.
    attester.attest("team/app", &key.statement(&image, PROVENANCE, &provenance("b", "c")), 201).await;
    let failed = result("FAILED");
    let waiting = attester.post("/api/v1/attestations?repository=team/app").body(failed).send();
    let waiting = tokio::spawn(waiting);
    eventually("somebody waits for a scope", async || {
        assert!(!waiting.is_finished(), "a FAILED result came between a decision and its facts");
        somebody_waits_for_a_scope(&registry).await
    })
    .await;
    decision.commit().await.unwrap();
    let recorded = expect(waiting.await.unwrap().unwrap(), 201).await;
    let listed = builder.attestations("team/app", &image).await;
    assert_eq!((&listed[0]["id"], &listed[0]["result"]), (&recorded[0]["id"], &json!("FAILED")));
    registry.check().await;
}

fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn what_is_refused_leaves_no_bytes_however_large() {
    let registry = Registry::start().await;
    let ci = Signing::new(1);
    registry.admin().register_signer("ci", &ci.pem(), &["**"]).await;
    let builder = registry.client(Role::Pusher, "**").await;
    let attester = registry.client(Role::Attester, "**").await;
    let subject = builder.push_subject("app", "one").await;
    let objects = registry.directory().join("objects");
    let before = files(&objects);
    let large = json!({"result": "PASSED", "log": "x".repeat(100_000)});
    let about = |subject: &Digest| ci.statement(subject, TEST_RESULT, &large);
    let refused = attester.attest("app", &about(&sha256(b"unknown")), 422).await;
    assert_eq!(refused["code"], "subject-unknown");
    assert_eq!(files(&objects), before);
    attester.attest("app", &about(&subject), 201).await;
    assert_eq!(files(&objects).len(), before.len() + 1);
    // The same again is the same attestation, and its bytes are there once.
    attester.attest("app", &about(&subject), 201).await;
    assert_eq!(files(&objects).len(), before.len() + 1);
    registry.check().await;
}

#[tokio::test]
async fn thousands_of_materials_are_kept_in_their_order_and_found() {
    let registry = Registry::start().await;
    let ci = Signing::new(1);
    registry.admin().register_signer("ci", &ci.pem(), &["**"]).await;
    let builder = registry.client(Role::Pusher, "**").await;
    let attester = registry.client(Role::Attester, "**").await;
    let subject = builder.push_subject("app", "one").await;
    let mut made = provenance("https://ci.example/builder", "c0ffee");
    let materials: Vec<Value> = (0..4000)
        .map(|number| json!({"uri": format!("pkg:cargo/part@{number}"), "digest": {"sha1": format!("{number:040}")}}))
        .collect();
    made["buildDefinition"]["resolvedDependencies"] = materials.into();
    attester.attest("app", &ci.statement(&subject, PROVENANCE, &made), 201).await;
    let rows: Vec<(i32, String, Vec<String>)> =
        sqlx::query_as("select position, uri, digests from attestation_materials order by position")
            .fetch_all(&mut *registry.sql().await)
            .await
            .unwrap();
    assert_eq!(rows.len(), 4000);
    assert_eq!(rows[17], (17, "pkg:cargo/part@17".into(), vec![format!("sha1:{:040}", 17)]));
    let path = format!("/api/v1/attestations?repository=app&material=sha1:{:040}", 3999);
    assert_eq!(builder.document(&path).await["items"].as_array().unwrap().len(), 1);
    registry.check().await;
}

#[tokio::test]
async fn materials_are_found_once_a_known_key_signed_them() {
    let registry = Registry::start().await;
    let ci = Signing::new(1);
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("app", "one").await;
    let mut made = provenance("https://ci.example/builder", "c0ffee");
    made["buildDefinition"]["resolvedDependencies"] = json!([{"uri": "pkg:cargo/part@1"}]);
    let envelope = ci.statement(&image, PROVENANCE, &made);
    builder.push_referrer("app", &image, DSSE, &envelope).await;
    let found = async || {
        let path = "/api/v1/attestations?repository=app&material=pkg:cargo/part@1";
        builder.document(path).await["items"].as_array().unwrap().len()
    };
    assert_eq!(found().await, 0, "who has no key makes no index longer");
    registry.admin().register_signer("ci", &ci.pem(), &["**"]).await;
    assert_eq!(found().await, 1);
    registry.check().await;
}

#[tokio::test]
async fn the_same_layer_many_times_is_tried_once() {
    let registry = Registry::start().await;
    let ci = Signing::new(1);
    registry.admin().register_signer("ci", &ci.pem(), &["**"]).await;
    let builder = registry.client(Role::Pusher, "**").await;
    let image = builder.push_subject("app", "one").await;
    let statement = |n: usize| ci.statement(&image, PROVENANCE, &provenance("b", &n.to_string()));
    let mut crowded: Value = serde_json::from_slice(&statement(1)).unwrap();
    crowded["signatures"] = vec![crowded["signatures"][0].clone(); 32].into();
    // Together more signatures than are tried of one act, if each layer counted.
    let mut layers = vec![crowded.to_string().into_bytes(); 40];
    layers.push(statement(2));
    referrer_with_layers(&builder, "app", &image, &layers).await;
    assert_eq!(verdicts(&builder.attestations("app", &image).await), ["trusted", "trusted"]);
    registry.check().await;
}

async fn put_file(client: &Client, filename: &str, bytes: &[u8]) -> Digest {
    let path = format!("/api/v1/artifacts?repository=app&filename={filename}");
    let put = expect(client.put(&path).body(bytes.to_vec()).send().await.unwrap(), 201).await;
    put["digest"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_statement_about_a_file_counts_for_the_artifact_that_is_just_that_file() {
    let registry = Registry::start().await;
    let ci = Signing::new(1);
    registry.admin().register_signer("ci", &ci.pem(), &["**"]).await;
    let gate = format!("{{signed_by: {{any_of: [ci], predicate: '{PROVENANCE}'}}}}");
    registry.environment("prod", &gate).await;
    let builder = registry.client(Role::Pusher, "**").await;
    let attester = registry.client(Role::Attester, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let file = sha256(b"the program");
    // What a builder signs: what sha256sum prints.
    let statement = ci.statement(&file, PROVENANCE, &provenance("https://ci.example/builder", "c0ffee"));
    assert_eq!(attester.attest("app", &statement, 404).await["code"], "not-found");
    let artifact = put_file(&builder, "program", b"the program").await;
    let other = put_file(&builder, "other", b"another program").await;
    expect(promoter.promote("app", &artifact, "prod").await, 409).await;
    let first = attester.attest("app", &statement, 201).await;
    assert_eq!(first[0]["subjects"], json!([file]));
    let listed = builder.attestations("app", &artifact).await;
    assert_eq!(verdicts(&listed), ["trusted"], "{listed:?}");
    assert_eq!(verdicts(&builder.attestations("app", &file).await), ["trusted"]);
    expect(promoter.promote("app", &artifact, "prod").await, 201).await;
    expect(promoter.promote("app", &other, "prod").await, 409).await;
    // OCI clients find it at the artifact.
    let referrers = builder.document(&format!("/v2/app/referrers/{artifact}")).await;
    assert_eq!(referrers["manifests"].as_array().unwrap().len(), 1);
    // The same file by another name, pushed later, is the same file.
    let renamed = put_file(&builder, "renamed", b"the program").await;
    assert_ne!(renamed, artifact);
    expect(promoter.promote("app", &renamed, "prod").await, 201).await;
    // The same statement again is the same attestation.
    let again = attester.attest("app", &statement, 201).await;
    assert_eq!(again[0]["id"], first[0]["id"]);
    registry.check().await;
}

#[tokio::test]
async fn an_image_of_one_layer_is_not_its_layer() {
    let registry = Registry::start().await;
    let ci = Signing::new(1);
    registry.admin().register_signer("ci", &ci.pem(), &["**"]).await;
    let builder = registry.client(Role::Pusher, "**").await;
    let attester = registry.client(Role::Attester, "**").await;
    builder.push_subject("app", "a layer").await;
    let statement =
        ci.statement(&sha256(b"a layer"), PROVENANCE, &provenance("https://ci.example/builder", "c0"));
    assert_eq!(attester.attest("app", &statement, 422).await["code"], "subject-unknown");
    registry.check().await;
}

#[tokio::test]
async fn a_statement_about_a_file_counts_for_no_other_manifest_around_it() {
    let registry = Registry::start().await;
    let ci = Signing::new(1);
    registry.admin().register_signer("ci", &ci.pem(), &["**"]).await;
    registry.environment("prod", "{signed_by: {any_of: [ci]}}").await;
    let builder = registry.client(Role::Pusher, "**").await;
    let attester = registry.client(Role::Attester, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let artifact = put_file(&builder, "program", b"the program").await;
    let file = sha256(b"the program");
    attester.attest("app", &ci.statement(&file, COSIGN_SIGN, &json!({})), 201).await;
    let path = format!("/v2/app/manifests/{artifact}");
    let written = builder.get(&path).send().await.unwrap().text().await.unwrap();
    let config = builder.push_blob("app", b"{\"run\":true}").await;
    let changed = |old: &str, new: &str| {
        let other = written.replacen(old, new, 1);
        assert_ne!(other, written, "{old}");
        other
    };
    let others = [
        changed("\"program\"", "\"../../.ssh/authorized_keys\""),
        changed("application/octet-stream", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
        changed("\"schemaVersion\":2", "\"schemaVersion\": 2"),
        changed("{\"artifactType\"", "{\"annotations\":{\"a\":\"b\"},\"artifactType\""),
        changed(sha256(b"{}").as_str(), config.as_str()).replacen("\"size\":2}", "\"size\":12}", 1),
    ];
    for other in &others {
        let digest = builder.push_manifest_bytes("app", None, other.as_bytes()).await;
        let refused = expect(promoter.promote("app", &digest, "prod").await, 409).await;
        assert_eq!(refused["code"], "promotion-denied", "{other}");
        assert_eq!(verdicts(&builder.attestations("app", &digest).await), Vec::<String>::new(), "{other}");
    }
    // A statement that comes after them counts for none either.
    attester.attest("app", &ci.statement(&file, COSIGN_SIGN, &json!({"again": true})), 201).await;
    for other in &others {
        expect(promoter.promote("app", &sha256(other.as_bytes()), "prod").await, 409).await;
    }
    expect(promoter.promote("app", &artifact, "prod").await, 201).await;
    // The bytes of the registry's own manifest are it, whoever pushes them.
    let pushed = changed("\"program\"", "\"pushed \\\"by\\\" hand\"");
    let pushed = builder.push_manifest_bytes("app", None, pushed.as_bytes()).await;
    expect(promoter.promote("app", &pushed, "prod").await, 201).await;
    recognised_by_the_migration(&registry, 2).await;
    registry.check().await;
}

/// The migration recognises the registry's own manifests among those that are there, and no others.
async fn recognised_by_the_migration(registry: &Registry, count: i64) {
    let migration = include_str!("../../migrations/20261130090170_provenance_origins.sql");
    let from = migration.find("with written as").unwrap();
    let to = from + migration[from..].find(';').unwrap();
    let mut sql = registry.sql().await;
    sqlx::query("update manifests set file = null").execute(&mut *sql).await.unwrap();
    sqlx::raw_sql(&migration[from..to]).execute(&mut *sql).await.unwrap();
    let found: i64 = sqlx::query_scalar("select count(*) from manifests where file is not null")
        .fetch_one(&mut *sql)
        .await
        .unwrap();
    assert_eq!(found, count);
}
