use super::*;
use crate::keys::Root;
use ed25519_dalek::pkcs8::spki::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer, SigningKey};
use std::collections::BTreeMap;

/// A registry that can sign what it likes, and what a consumer expects of it.
struct Case {
    key: SigningKey,
    trust: Trust,
    statement: Value,
    digest: Digest,
    file: Digest,
    repository: RepositoryName,
    environment: EnvironmentName,
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

impl Case {
    fn new() -> Self {
        let key = SigningKey::from_bytes(&[1; 32]);
        let public_key = key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        let summary = TrustedKey {
            key_id: PublicKey::from_pem(&public_key, None).unwrap().id().as_str().to_owned(),
            scheme: TrustedScheme::Ed25519,
            public_key,
            valid_from: at("2026-01-01T00:00:00Z"),
            valid_until: None,
            revoked_at: None,
        };
        let trust = Trust {
            version: 1,
            issued_at: at("2026-01-01T00:00:00Z"),
            root: Root { threshold: 1, keys: Vec::new() },
            verifier_id: "https://registry.example/proofmark".into(),
            log_origin: "registry.example/log".into(),
            public_name: "registry.example".into(),
            keys: BTreeMap::from([(KeyRole::Summary, vec![summary])]),
        };
        let (digest, file) = (Digest::sha256(b"manifest"), Digest::sha256(b"file"));
        let (repository, environment) = ("team/app".parse().unwrap(), "prod".parse().unwrap());
        let statement = build(
            &trust,
            &Verification {
                repository: &repository,
                environment: &environment,
                subjects: &[
                    SummarySubject { kind: SubjectKind::Manifest, name: "1.0.0", digests: &[&digest] },
                    SummarySubject { kind: SubjectKind::File, name: "app.tar", digests: &[&file] },
                ],
                policy_uri: "https://registry.example/proofmark/environments/prod/policies/main",
                policy_digest: &Digest::sha256(b"policy"),
                inputs: &[Input { uri: "registry.example/team/app".into(), digest: Digest::sha256(b"a") }],
                levels: &["PROOFMARK_PROMOTED".into()],
                time_verified: at("2026-11-23T10:00:00Z"),
                valid_until: at("2026-12-23T10:00:00Z"),
                running: false,
            },
        )
        .unwrap();
        let statement = serde_json::from_slice(&statement).unwrap();
        Self { key, trust, statement, digest, file, repository, environment }
    }

    fn expected(&self) -> Expectations<'_> {
        Expectations {
            part: Part::Any,
            digest: &self.digest,
            kind: SubjectKind::Manifest,
            repository: &self.repository,
            environment: &self.environment,
            level: Some("PROOFMARK_PROMOTED"),
            max_age: None,
            at: at("2026-11-24T00:00:00Z"),
        }
    }

    fn signed(&self) -> Vec<u8> {
        sign(&self.key, crate::attestation::IN_TOTO, &serde_json::to_vec(&self.statement).unwrap())
    }

    fn refusal(&self) -> Refused {
        check(&self.signed(), &self.trust, &self.expected()).unwrap_err()
    }
}

fn sign(key: &SigningKey, payload_type: &str, payload: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let signature = key.sign(&crate::keys::pae(payload_type, payload)).to_bytes();
    let envelope = json!({"payload": base64(payload), "payloadType": payload_type,
                          "signatures": [{"sig": base64(&signature)}]});
    envelope.to_string().into_bytes()
}

#[test]
fn a_summary_passes_for_what_it_was_made_for() {
    let case = Case::new();
    let checked = check(&case.signed(), &case.trust, &case.expected()).unwrap();
    assert_eq!(checked.resource_uri, "registry.example/env/prod/team/app");
    assert_eq!(checked.valid_until, at("2026-12-23T10:00:00Z"));
    let file = Expectations { digest: &case.file, kind: SubjectKind::File, ..case.expected() };
    assert_eq!(check(&case.signed(), &case.trust, &file).unwrap().digest, case.file);
}

#[test]
fn a_file_that_was_promoted_vouches_for_no_manifest_of_the_same_bytes() {
    let case = Case::new();
    let check = |digest, kind| {
        check(&case.signed(), &case.trust, &Expectations { digest, kind, ..case.expected() }).unwrap_err()
    };
    assert_eq!(check(&case.file, SubjectKind::Manifest), Refused::OnlyAFile(case.file.clone()));
    assert_eq!(check(&case.digest, SubjectKind::File), Refused::OnlyAManifest(case.digest.clone()));
}

#[test]
fn a_digest_passes_only_as_the_part_that_was_asked_for() {
    let mut case = Case::new();
    let [arm, amd, windows] = [b"arm64", b"amd64", b"win64"].map(|bytes| Digest::sha256(bytes));
    for (name, digest) in
        [("linux/arm64", &arm), ("linux/amd64", &amd), ("windows(10.0.20348.1)/amd64", &windows)]
    {
        let child = json!({"name": name, "digest": {"sha256": digest.hex()}});
        case.statement["subject"].as_array_mut().unwrap().push(child);
    }
    let signed = case.signed();
    let check = |digest, part| {
        check(&signed, &case.trust, &Expectations { digest, part, ..case.expected() })
            .map(|checked| checked.version)
    };
    let (one, other): (Tag, Tag) = ("1.0.0".parse().unwrap(), "1.0.1".parse().unwrap());
    let platform = |text: &str| text.parse::<Platform>().unwrap();
    let (on_arm, on_amd, on_s390x) =
        (platform("linux/arm64"), platform("linux/amd64"), platform("linux/s390x"));
    let on_windows = platform("windows(10.0.20348.9)/amd64");
    let yes = Ok(Some("1.0.0".to_owned()));
    for (digest, part) in [
        (&case.digest, Part::Whole),
        (&case.digest, Part::Version(&one)),
        (&arm, Part::Platform(&on_arm)),
        (&windows, Part::Platform(&on_windows)),
        (&case.digest, Part::Any),
        (&amd, Part::Any),
    ] {
        assert_eq!(check(digest, part), yes, "{digest} {part:?}");
    }
    let a_part = |digest: &Digest| Err(Refused::OnlyAPart(digest.clone()));
    assert_eq!(check(&arm, Part::Whole), a_part(&arm));
    assert_eq!(check(&arm, Part::Version(&one)), a_part(&arm));
    let found = "1.0.0".to_owned();
    let refused = Err(Refused::OtherVersion { found, expected: other.clone() });
    assert_eq!(check(&case.digest, Part::Version(&other)), refused);
    for (digest, platform) in [
        (&amd, &on_arm),
        (&case.digest, &on_arm),
        (&windows, &on_amd),
        (&arm, &on_s390x),
        (&case.digest, &on_s390x),
    ] {
        let refused = Err(Refused::OtherPlatform { digest: digest.clone(), platform: platform.clone() });
        assert_eq!(check(digest, Part::Platform(platform)), refused);
    }
    let alone = Case::new();
    let image = Expectations { part: Part::Platform(&on_arm), ..alone.expected() };
    assert!(super::check(&alone.signed(), &alone.trust, &image).is_ok(), "an image for one platform");
}

#[test]
fn each_expectation_that_is_not_met_refuses_it() {
    let case = Case::new();
    let refused = |change: &dyn Fn(&mut Expectations<'_>)| {
        let mut expected = case.expected();
        change(&mut expected);
        check(&case.signed(), &case.trust, &expected).unwrap_err()
    };
    let (staging, other) = ("staging".parse().unwrap(), "team/other".parse().unwrap());
    let elsewhere = Expectations { environment: &staging, ..case.expected() };
    let refusal = check(&case.signed(), &case.trust, &elsewhere).unwrap_err();
    assert!(matches!(refusal, Refused::OtherResource { .. }));
    let elsewhere = Expectations { repository: &other, ..case.expected() };
    let refusal = check(&case.signed(), &case.trust, &elsewhere).unwrap_err();
    assert!(matches!(refusal, Refused::OtherResource { .. }));
    let unknown = Digest::sha256(b"other");
    let elsewhere = Expectations { digest: &unknown, ..case.expected() };
    let refusal = check(&case.signed(), &case.trust, &elsewhere).unwrap_err();
    assert_eq!(refusal, Refused::OtherSubject(unknown.clone()));
    assert!(matches!(refused(&|e| e.level = Some("SLSA_BUILD_LEVEL_3")), Refused::LevelMissing(_)));
    assert!(matches!(refused(&|e| e.max_age = Some(TimeDelta::hours(1))), Refused::TooOld(_)));
    assert!(matches!(refused(&|e| e.at = at("2026-12-23T10:00:00Z")), Refused::Expired(_)));
    assert!(matches!(refused(&|e| e.at = at("2026-11-23T09:00:00Z")), Refused::FromTheFuture(_)));
}

#[test]
fn each_part_of_the_statement_is_checked() {
    let refusal = |change: &dyn Fn(&mut Value)| {
        let mut case = Case::new();
        change(&mut case.statement);
        case.refusal()
    };
    assert!(matches!(
        refusal(&|s| s["predicateType"] = "https://slsa.dev/provenance/v1".into()),
        Refused::OtherPredicate(_)
    ));
    assert!(matches!(
        refusal(&|s| s["predicate"]["verifier"]["id"] = "https://other.example".into()),
        Refused::OtherVerifier { .. }
    ));
    assert!(matches!(
        refusal(&|s| s["predicate"]["verificationResult"] = "FAILED".into()),
        Refused::NotPassed(_)
    ));
    assert!(matches!(refusal(&|s| s["_type"] = "x".into()), Refused::Malformed(_)));
    let field = "https://registry.example/proofmark/valid_until";
    for broken in [Value::Null, "never".into(), 1.into()] {
        assert!(matches!(refusal(&|s| s["predicate"][field] = broken.clone()), Refused::Malformed(_)));
    }
    assert!(matches!(
        refusal(&|s| {
            s["predicate"].as_object_mut().unwrap().remove(field);
        }),
        Refused::Malformed(_)
    ));
}

#[test]
fn only_a_summary_key_in_force_signs_summaries() {
    let mut case = Case::new();
    let stranger = Case { key: SigningKey::from_bytes(&[2; 32]), ..Case::new() };
    assert_eq!(stranger.refusal(), Refused::UnknownKey);
    let relabelled = sign(&case.key, "text/plain", &serde_json::to_vec(&case.statement).unwrap());
    assert!(matches!(check(&relabelled, &case.trust, &case.expected()), Err(Refused::Malformed(_))));
    let unsigned = br#"{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[]}"#;
    assert_eq!(check(unsigned, &case.trust, &case.expected()), Err(Refused::UnknownKey));

    let keys = case.trust.keys.remove(&KeyRole::Summary).unwrap();
    case.trust.keys.insert(KeyRole::Log, keys.clone());
    assert_eq!(case.refusal(), Refused::UnknownKey, "a log key signs no summaries");

    let mut retired = keys[0].clone();
    retired.valid_until = Some(at("2026-11-23T00:00:00Z"));
    case.trust.keys.insert(KeyRole::Summary, vec![retired]);
    assert!(matches!(case.refusal(), Refused::KeyNotInForce { .. }));
}

#[test]
fn nothing_is_believed_that_a_revoked_key_signed() {
    let mut case = Case::new();
    let revoked_at = at("2026-12-01T00:00:00Z");
    case.trust.keys.get_mut(&KeyRole::Summary).unwrap()[0].revoked_at = Some(revoked_at);
    assert!(matches!(case.refusal(), Refused::KeyRevoked { at, .. } if at == revoked_at));
}

#[test]
fn a_key_with_another_keys_name_is_refused() {
    let mut case = Case::new();
    check(&case.signed(), &case.trust, &case.expected()).unwrap();
    case.trust.keys.get_mut(&KeyRole::Summary).unwrap()[0].key_id = "edited".into();
    let refused = check(&case.signed(), &case.trust, &case.expected()).unwrap_err();
    assert!(refused.to_string().contains("edited"), "{refused}");
}
