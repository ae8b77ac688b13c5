//! The laws of `decide`, over arbitrary facts, and its sentences one by one.

use super::*;
use crate::names::{Digest, EnvironmentName, Pattern};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

const STRICT: &str = r#"
environment: prod
repositories: ["payments/*"]
gates:
  - signed_by: { any_of: [release-key], predicate: https://sigstore.dev/cosign/sign/v1 }
  - provenance: { builders: ["https://ci.example/*"], sources: ["git+https://git.example/payments/*"], branches: [main] }
  - attestation: { type: https://in-toto.io/attestation/test-result/v0.1, result: PASSED }
  - scan: { max_age: 24h, database_max_age: 72h, deny: { severity: high }, grace: { high: 10d } }
  - promoted_in: { environments: [staging], soak: 1h }
  - approvals: { count: 2, from: ["*"] }
  - min_age: 10m
"#;

// Compiling a pattern takes longer than deciding.
static IN_FORCE: LazyLock<Policies> = LazyLock::new(|| policies(&[STRICT]));
static PAYMENTS: LazyLock<Pattern> = LazyLock::new(|| "payments/*".parse().unwrap());

pub(super) fn policies(texts: &[&str]) -> Policies {
    let parsed = texts.iter().map(|text| Policy::parse(text.as_bytes()).unwrap());
    parsed.map(|policy| (policy.digest().unwrap(), Arc::new(policy))).collect()
}

pub(super) fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::minutes(minutes)
}

pub(super) fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

pub(super) fn signature(signer: &str) -> Signature {
    Signature {
        signer: signer.into(),
        key_id: format!("key of {signer}"),
        repositories: [PAYMENTS.clone()].into(),
        predicate_types: [Pattern::everything()].into(),
        valid_from: at(-10_000),
        valid_until: None,
        revocation: None,
        pushed: false,
        repeated_at: None,
    }
}

pub(super) fn attestation(id: i64, predicate_type: &str) -> Attestation {
    Attestation {
        id,
        envelope: digest(&format!("envelope {id}")),
        about: [digest("manifest")].into(),
        formerly_about: BTreeSet::new(),
        predicate_type: predicate_type.into(),
        builder: Some("https://ci.example/builder".into()),
        build_type: Some("https://ci.example/build".into()),
        source: Some("https://git.example/payments/api".into()),
        source_ref: Some("refs/heads/main".into()),
        commit: None,
        unread: false,
        earlier_origins: BTreeSet::new(),
        result: Some("PASSED".into()),
        configuration: None,
        received_at: at(-600),
        signed_at: None,
        signatures: [signature("release-key")].into(),
    }
}

/// Everything that the strict policy asks for.
pub(super) fn good() -> Facts {
    let approval = |id, by: &str| Approval { id, by: by.into(), until: None, authorized: true };
    Facts {
        subject: Subject {
            repository: "payments/api".parse().unwrap(),
            environment: "prod".parse().unwrap(),
            digest: digest("manifest"),
            sha256: digest("manifest"),
            pushed_at: at(-1000),
            authors: ["ci".to_owned()].into(),
            platforms: BTreeSet::new(),
        },
        blocks: BTreeSet::new(),
        holds: BTreeSet::new(),
        attestations: [
            attestation(1, "https://sigstore.dev/cosign/sign/v1"),
            attestation(2, "https://slsa.dev/provenance/v1"),
            attestation(3, "https://in-toto.io/attestation/test-result/v0.1"),
        ]
        .into(),
        verifying: BTreeSet::new(),
        scans: [scan("trivy", [])].into(),
        stays: [Stay {
            environment: "staging".parse().unwrap(),
            since: at(-120),
            until: None,
            rolled_back: false,
        }]
        .into(),
        approvals: [approval(1, "ann"), approval(2, "bob")].into(),
        waivers: BTreeSet::new(),
        overrides: BTreeSet::new(),
        other_statements: BTreeMap::new(),
    }
}

pub(super) fn scan<const N: usize>(scanner: &str, findings: [Finding; N]) -> Scan {
    Scan {
        id: 1,
        sha256: digest("manifest"),
        scanner: scanner.into(),
        scanned_at: at(-60),
        database_updated_at: Some(at(-120)),
        report: digest("report"),
        finding_set: digest("findings"),
        covers: [Aspect::Vulnerabilities, Aspect::Of(Target::Os)].into(),
        is_image: true,
        is_bound: true,
        scope: ScanScope::default(),
        retracted: false,
        statement: None,
        findings: findings.into(),
        known: BTreeSet::new(),
    }
}

pub(super) fn critical(name: &str, severity: Severity) -> Finding {
    Finding {
        severity,
        vulnerability: name.into(),
        package: "openssl".into(),
        installed: "1.0".into(),
        fixable: true,
        aliases: BTreeSet::new(),
        purl: None,
        aspect: Aspect::Of(Target::Os),
        path: None,
        suppressed: None,
    }
}

pub(super) fn case(facts: Facts) -> Case {
    Case { action: Action::Promote, at: at(0), child: None, facts, recorded: None }
}

fn decide_by(in_force: &Policies, case: &Case) -> Decision {
    let policies = PolicySets { in_force: in_force.clone(), recorded: Policies::new() };
    decide(&policies, case).unwrap()
}

fn promote(facts: Facts) -> Decision {
    decide_by(&IN_FORCE, &case(facts))
}

/// The gates that stand in the way.
fn refused_by(facts: Facts) -> Vec<&'static str> {
    let decision = promote(facts);
    decision.gates.iter().filter(|gate| gate.stands_in_the_way()).map(|gate| gate.gate).collect()
}

#[test]
fn a_release_with_everything_is_allowed_and_the_yes_names_it() {
    let decision = promote(good());
    assert_eq!(decision.verdict, Verdict::Allow, "{:?}", decision.reasons());
    let yes = decision.yes().unwrap();
    assert_eq!((yes.digest(), yes.decision()), (&digest("manifest"), &decision.id));
}

#[test]
fn a_release_with_nothing_is_refused_with_every_reason() {
    let mut bare = good();
    bare.attestations.clear();
    bare.scans.clear();
    bare.stays.clear();
    bare.approvals.clear();
    bare.subject.pushed_at = at(-1);
    assert_eq!(
        refused_by(bare.clone()),
        ["signed_by", "provenance", "attestation", "scan", "promoted_in", "approvals", "min_age"]
    );
    assert!(promote(bare.clone()).yes().is_none());
    let unsolved = promote(bare).gates.into_iter().find(|g| g.stands_in_the_way() && g.solution.is_none());
    assert_eq!(unsolved, None);
}

#[test]
fn without_a_policy_the_answer_is_no() {
    let case = case(good());
    let decision = decide_by(&Policies::new(), &case);
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(decision.reasons()[0].contains("no policy covers payments/api in prod"));
    let other = STRICT.replace("payments/*\"]\ng", "elsewhere/*\"]\ng");
    assert_eq!(decide_by(&policies(&[&other]), &case).verdict, Verdict::Deny);
}

#[test]
fn all_gates_of_all_matching_policies_must_hold() {
    let second = "{name: second, environment: prod, repositories: ['**'], gates: [approvals: {count: 3}]}";
    let case = case(good());
    assert_eq!(decide_by(&policies(&[STRICT]), &case).verdict, Verdict::Allow);
    assert_eq!(decide_by(&policies(&[STRICT, second]), &case).verdict, Verdict::Deny);
}

#[test]
fn soak_and_age_put_off_and_say_until_when() {
    let mut young = good();
    young.stays =
        [Stay { environment: "staging".parse().unwrap(), since: at(-20), until: None, rolled_back: false }]
            .into();
    assert_eq!(promote(young.clone()).verdict, Verdict::Defer { until: at(40) });
    young.approvals.clear();
    assert_eq!(promote(young).verdict, Verdict::Deny, "a no outweighs a not yet");
    let mut replaced = good();
    let until = Some(at(-100));
    replaced.stays =
        [Stay { environment: "staging".parse().unwrap(), since: at(-120), until, rolled_back: false }].into();
    assert_eq!(refused_by(replaced), ["promoted_in"], "replaced before the soak time ended");
}

#[test]
fn what_was_gone_back_from_or_is_blocked_there_did_not_prove_itself_there() {
    let staging: EnvironmentName = "staging".parse().unwrap();
    let mut left = good();
    let stay =
        Stay { environment: staging.clone(), since: at(-500), until: Some(at(-10)), rolled_back: false };
    left.stays = [stay.clone()].into();
    assert_eq!(refused_by(left.clone()), [""; 0], "another version took its place after it soaked");
    left.stays = [Stay { rolled_back: true, ..stay }].into();
    assert_eq!(refused_by(left), ["promoted_in"]);

    let mut index = good();
    let child =
        |name: &str| Platform { digest: digest(name), sha256: digest(name), platform: None, position: None };
    index.subject.platforms = [child("manifest")].into();
    assert_eq!(refused_by(index.clone()), [""; 0]);
    let block = Block {
        id: 1,
        sha256: digest("manifest"),
        environment: Some(staging),
        why: "it corrupts data".into(),
        until: None,
        by: "ann".into(),
    };
    index.subject.sha256 = digest("index");
    let about = BTreeSet::from([digest("index")]);
    index.attestations =
        index.attestations.into_iter().map(|a| Attestation { about: about.clone(), ..a }).collect();
    index.blocks = [block].into();
    assert_eq!(refused_by(index), ["promoted_in"], "a child is blocked there");
}

#[test]
fn approvals_count_different_people_who_are_not_its_author() {
    let with = |names: &[&str]| {
        let mut facts = good();
        facts.approvals = (0_i64..)
            .zip(names)
            .map(|(id, by)| Approval { id, by: (*by).into(), until: None, authorized: true })
            .collect();
        promote(facts).verdict
    };
    assert_eq!(with(&["ann", "bob"]), Verdict::Allow);
    assert_eq!(with(&["ann", "ann"]), Verdict::Deny);
    assert_eq!(with(&["ann", "ci"]), Verdict::Deny);
    let mut ended = good();
    ended.approvals = ended.approvals.into_iter().map(|a| Approval { until: Some(at(0)), ..a }).collect();
    assert_eq!(refused_by(ended), ["approvals"]);
}

#[test]
fn a_key_that_is_revoked_or_meant_for_other_things_does_not_count() {
    let changed = |change: fn(&mut Signature)| {
        let mut facts = good();
        facts.attestations = facts
            .attestations
            .into_iter()
            .map(|mut a| {
                a.signatures = a
                    .signatures
                    .into_iter()
                    .map(|mut s| {
                        change(&mut s);
                        s
                    })
                    .collect();
                a
            })
            .collect();
        refused_by(facts)
    };
    let origin = ["signed_by", "provenance", "attestation"];
    assert_eq!(changed(|_| ()), [""; 0]);
    assert_eq!(changed(|s| s.repositories = ["other/*".parse().unwrap()].into()), origin);
    assert_eq!(changed(|s| s.predicate_types = ["https://other.example/**".parse().unwrap()].into()), origin);
    assert_eq!(changed(|s| s.valid_until = Some(at(-601))), origin);
    assert_eq!(changed(|s| s.valid_from = at(-599)), origin);
    assert_eq!(
        changed(|s| s.revocation = Some(Revocation { distrusted_from: at(-600), compromised: false })),
        origin
    );
    assert_eq!(
        changed(|s| s.revocation = Some(Revocation { distrusted_from: at(-1), compromised: false })),
        [""; 0]
    );
    assert_eq!(
        changed(|s| s.revocation = Some(Revocation { distrusted_from: at(-1), compromised: true })),
        origin
    );
}

#[test]
fn the_newest_test_result_counts() {
    let mut facts = good();
    let mut failed = attestation(9, "https://in-toto.io/attestation/test-result/v0.1");
    failed.result = Some("FAILED".into());
    facts.attestations.insert(failed.clone());
    assert_eq!(refused_by(facts.clone()), ["attestation"]);
    facts.attestations.insert(Attestation { id: 10, result: Some("PASSED".into()), ..failed });
    assert_eq!(refused_by(facts), [""; 0]);
}

#[test]
fn unscanned_old_and_vulnerable_are_different_answers() {
    let told = |facts: Facts| promote(facts).reasons().join("\n");
    let mut facts = good();
    facts.scans.clear();
    assert!(told(facts.clone()).contains("is not scanned"));
    facts.scans = [Scan { scanned_at: at(-2000), ..scan("trivy", []) }].into();
    assert!(told(facts.clone()).contains("a scan counts for 1d"), "{}", told(facts));
    facts.scans = [Scan { database_updated_at: Some(at(-20_000)), ..scan("trivy", []) }].into();
    assert!(told(facts.clone()).contains("scanned with a database of"));
    facts.scans = [scan("trivy", [critical("CVE-1", Severity::Critical)])].into();
    assert!(told(facts.clone()).contains("trivy found CVE-1 (critical) in openssl 1.0"));
    facts.scans = [scan("trivy", [critical("CVE-2", Severity::Medium)])].into();
    assert_eq!(told(facts), "");
}

#[test]
fn what_one_scanner_found_another_does_not_wash_away() {
    let mut facts = good();
    facts.scans = [scan("grype", [critical("CVE-1", Severity::High)]), scan("trivy", [])].into();
    assert_eq!(refused_by(facts), ["scan"]);
}

#[test]
fn every_image_of_an_index_needs_its_scan_and_its_documents_do_not() {
    let mut facts = good();
    let child = |name: &str, platform: &str| Platform {
        digest: digest(name),
        sha256: digest(name),
        platform: Some(platform.into()),
        position: None,
    };
    facts.subject.platforms =
        [child("amd", "linux/amd64"), child("arm", "linux/arm64"), child("sbom", "unknown/unknown")].into();
    let of = |name: &str| Scan { sha256: digest(name), ..scan("trivy", []) };
    facts.scans = [of("amd"), of("arm")].into();
    assert_eq!(refused_by(facts.clone()), [""; 0]);
    facts.scans = [of("amd")].into();
    assert_eq!(refused_by(facts.clone()), ["scan"]);
    // Nothing but documents is a disguise, and scanned like images.
    facts.subject.platforms = [child("sbom", "unknown/unknown")].into();
    assert_eq!(refused_by(facts.clone()), ["scan"]);
    facts.scans = [of("sbom")].into();
    assert_eq!(refused_by(facts), [""; 0]);
}

#[test]
fn a_hold_stops_promotions() {
    let mut facts = good();
    facts.holds = [Hold { id: 1, why: "freeze".into(), until: Some(at(30)), by: "ann".into() }].into();
    assert_eq!(promote(facts.clone()).verdict, Verdict::Defer { until: at(30) });
    facts.holds.insert(Hold { id: 2, why: "incident".into(), until: None, by: "ann".into() });
    assert_eq!(promote(facts).verdict, Verdict::Deny);
}

#[test]
fn a_gate_that_warns_or_is_not_yet_effective_does_not_refuse() {
    let verdict = |terms: &str| {
        let text =
            format!("{{environment: prod, repositories: ['**'], gates: [approvals: {{count: 5, {terms}}}]}}");
        let decision = decide_by(&policies(&[&text]), &case(good()));
        (decision.verdict, decision.warnings().len())
    };
    assert_eq!(verdict("mode: enforce"), (Verdict::Deny, 0));
    assert_eq!(verdict("mode: warn"), (Verdict::Allow, 1));
    assert_eq!(verdict("mode: dry_run"), (Verdict::Allow, 0));
    assert_eq!(verdict("effective_on: 2099-01-01T00:00:00Z"), (Verdict::Allow, 1));
}

pub(super) fn block(of: &str, until: Option<i64>) -> Block {
    Block {
        id: 7,
        sha256: digest(of),
        environment: None,
        why: "it corrupts data".into(),
        until: until.map(at),
        by: "ann".into(),
    }
}

/// Facts that have any part of what is asked for, in ways that may or may not count.
fn some_facts() -> impl Strategy<Value = Facts> {
    let times = -3000_i64..100;
    let signer = prop_oneof![Just("release-key"), Just("other-key")];
    let kind = prop_oneof![
        Just("https://sigstore.dev/cosign/sign/v1"),
        Just("https://slsa.dev/provenance/v1"),
        Just("https://slsa.dev/provenance/v0.2"),
    ];
    let statement =
        (1..50_i64, kind, signer, times.clone()).prop_map(|(id, kind, signer, received)| Attestation {
            received_at: at(received),
            signatures: [signature(signer)].into(),
            ..attestation(id, kind)
        });
    let statements = proptest::collection::btree_set(statement, 0..6);
    let people = proptest::collection::btree_set(prop_oneof![Just("ann"), Just("bob"), Just("ci")], 0..4);
    let stay = proptest::option::of(times);
    (statements, people, stay, any::<bool>(), any::<bool>()).prop_map(|(extra, people, stay, whole, bad)| {
        let mut facts = good();
        if !whole {
            facts.attestations.clear();
            facts.approvals = (0..)
                .zip(people)
                .map(|(id, by)| Approval { id, by: by.into(), until: None, authorized: true })
                .collect();
            let environment = "staging".parse().unwrap();
            facts.stays = stay
                .map(|s| Stay { environment, since: at(s), until: None, rolled_back: false })
                .into_iter()
                .collect();
            if bad {
                facts.scans = [scan("trivy", [critical("CVE-1", Severity::High)])].into();
            }
        }
        facts.attestations.extend(extra);
        facts
    })
}

proptest! {
    #[test]
    fn adding_a_block_never_turns_a_no_into_a_yes(facts in some_facts(), until in proptest::option::of(-10_i64..10)) {
        let before = promote(facts.clone()).verdict;
        let mut blocked = facts;
        blocked.blocks.insert(block("manifest", until));
        let after = promote(blocked).verdict;
        prop_assert!(before == Verdict::Allow || after != Verdict::Allow);
        prop_assert!(until.is_some_and(|until| until <= 0) || after == Verdict::Deny);
    }

    #[test]
    fn adding_an_attestation_never_turns_a_yes_into_a_no(facts in some_facts(), more in some_facts()) {
        let before = promote(facts.clone()).verdict;
        let mut richer = facts;
        richer.attestations.extend(more.attestations);
        prop_assert!(before != Verdict::Allow || promote(richer).verdict == Verdict::Allow);
    }

    #[test]
    fn the_order_of_facts_does_not_matter(facts in some_facts(), seed: u64) {
        let mut shuffled: Vec<Attestation> = facts.attestations.iter().cloned().collect();
        let len = shuffled.len().max(1);
        shuffled.rotate_left(usize::try_from(seed % len as u64).unwrap());
        shuffled.reverse();
        let mut document = serde_json::to_value(&facts).unwrap();
        document["attestations"] = serde_json::to_value(&shuffled).unwrap();
        let mut again: Facts = serde_json::from_value(document).unwrap();
        again.scans = facts.scans.clone();
        prop_assert_eq!(promote(again), promote(facts));
    }

    #[test]
    fn a_case_that_was_written_down_gives_the_same_decision(facts in some_facts()) {
        let policies = policies(&[STRICT]);
        let case = case(facts);
        let inputs: serde_json::Value = serde_json::from_slice(&case.inputs(&policies).unwrap()).unwrap();
        let mut again: Case = serde_json::from_value(inputs["case"].clone()).unwrap();
        // Findings stand among the inputs by the digest of their set; who replays reads them again.
        again.facts.scans = case.facts.scans.clone();
        prop_assert_eq!(decide_by(&policies, &again), decide_by(&policies, &case));
    }
}
