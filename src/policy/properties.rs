//! Properties of the second evaluation. What ends a promoted version is read from the table, never from the
//! code under test.

use super::laws::{at, attestation, block, case, critical, digest, good, policies, scan, signature};
use super::*;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::LazyLock;

const TESTS: &str = "https://in-toto.io/attestation/test-result/v0.1";

const RECORDED: &str = r#"
environment: prod
repositories: ["payments/*"]
gates:
  - signed_by: { any_of: [release-key], predicate: https://sigstore.dev/cosign/sign/v1 }
  - provenance: { builders: ["https://ci.example/*"], sources: ["git+https://git.example/payments/*"], branches: [main] }
  - attestation: { type: https://in-toto.io/attestation/test-result/v0.1, result: PASSED, max_age: 30d }
  - scan: { max_age: 24h, database_max_age: 72h, deny: { severity: high }, grace: { high: 10d, critical: 0d } }
  - promoted_in: { environments: [staging], soak: 1h }
  - approvals: { count: 2, from: ["*"] }
  - min_age: 10m
"#;

static POLICY: LazyLock<Policies> = LazyLock::new(|| policies(&[RECORDED]));

/// A version that was promoted with everything, and the policies that concern it.
pub(super) fn promoted(facts: &Facts, policies: &Policies) -> Recorded {
    let sets = PolicySets { in_force: policies.clone(), recorded: Policies::new() };
    let decision = decide(&sets, &case(facts.clone())).unwrap();
    assert_eq!(decision.verdict, Verdict::Allow, "{:?}", decision.reasons());
    let gates = decision.gates.iter().filter_map(|gate| {
        Some(RecordedGate {
            policy: gate.policy.clone()?,
            gate: gate.gate.to_owned(),
            passed: gate.outcome == Outcome::Pass,
            evidence: gate.evidence.iter().cloned().collect(),
            overridden: gate.overridden.as_ref().map(|one| one.id),
            overridden_findings: BTreeSet::new(),
        })
    });
    let (gates, policies) = (gates.collect(), policies.keys().cloned().collect());
    Recorded { decision: decision.id, policies, gates, accepted: None }
}

fn evaluate_with(in_force: &Policies, facts: Facts, now: DateTime<Utc>, position: Position) -> Status {
    let sets = PolicySets { in_force: in_force.clone(), recorded: POLICY.clone() };
    let recorded = promoted(&good(), &POLICY);
    let case = Case { at: now, recorded: Some(recorded.clone()), ..case(facts) };
    evaluate_running(&sets, &case, &recorded, position)
}

fn evaluate(facts: Facts, position: Position) -> Status {
    evaluate_with(&POLICY, facts, at(0), position)
}

fn running(facts: Facts) -> Status {
    evaluate(facts, Position::Current)
}

const CANDIDATE: Position = Position::Candidate { named: false };
const NAMED: Position = Position::Candidate { named: true };

/// A signer is revoked once: what it signs later has the same revocation.
fn revoked(mut facts: Facts, revocation: Revocation) -> Facts {
    let known = facts.attestations.iter().flat_map(|a| &a.signatures).find_map(|s| s.revocation);
    let revocation = known.unwrap_or(revocation);
    let signed = facts.attestations.into_iter().map(|mut a| {
        a.signatures = a
            .signatures
            .into_iter()
            .map(|s| Signature { revocation: s.revocation.or(Some(revocation)), ..s })
            .collect();
        a
    });
    facts.attestations = signed.collect();
    facts
}

fn found(facts: &mut Facts, severity: Severity, known_minutes_ago: i64) {
    let known = Known {
        vulnerability: "CVE-1".into(),
        severity,
        fixable: true,
        since: at(-known_minutes_ago),
        unsuppressed_at: None,
    };
    facts.scans = [Scan { known: [known].into(), ..scan("trivy", [critical("CVE-1", severity)]) }].into();
}

fn result(id: i64, configuration: Option<&str>, result: &str) -> Attestation {
    Attestation {
        result: Some(result.into()),
        configuration: configuration.map(str::to_owned),
        received_at: at(-1),
        ..attestation(id, TESTS)
    }
}

const DAY: i64 = 24 * 60;

#[test]
fn what_was_promoted_with_everything_goes_on_running_without_a_risk() {
    let status = running(good());
    assert_eq!((status.verdict, status.at_risk, status.ended_by), (Verdict::Allow, vec![], BTreeSet::new()));
    assert_eq!(status.would_not_be_promoted_today, vec![]);
}

#[test]
fn the_conditions_of_the_moment_of_a_promotion_end_nothing() {
    let mut facts = good();
    facts.approvals.clear();
    facts.stays.clear();
    facts.subject.pushed_at = at(-1);
    facts.holds = [Hold { id: 1, why: "freeze".into(), until: None, by: "ann".into() }].into();
    let status = running(facts);
    assert_eq!((status.verdict, status.at_risk), (Verdict::Allow, vec![]));
    let told: Vec<&str> = status.would_not_be_promoted_today.iter().map(|one| one.gate).collect();
    assert_eq!(told, ["promoted_in", "approvals"], "holds and ages are in neither list");
}

#[test]
fn blocks_end_everything_and_a_block_on_a_child_its_platform() {
    let mut facts = good();
    facts.blocks = [block("manifest", None)].into();
    for position in [Position::Current, Position::Superseded { at: at(-5) }, CANDIDATE, NAMED] {
        assert_eq!(evaluate(facts.clone(), position).verdict, Verdict::Deny, "{position:?}");
    }
    let child =
        |name: &str| Platform { digest: digest(name), sha256: digest(name), platform: None, position: None };
    facts.subject.platforms = [child("amd"), child("arm")].into();
    facts.scans = ["amd", "arm"].map(|name| Scan { sha256: digest(name), ..scan("trivy", []) }).into();
    facts.blocks = [block("arm", None)].into();
    let recorded = promoted(&good(), &POLICY);
    let about = |child: Option<&str>| {
        let sets = PolicySets { in_force: POLICY.clone(), recorded: POLICY.clone() };
        let case = Case { child: child.map(digest), ..case(facts.clone()) };
        evaluate_running(&sets, &case, &recorded, Position::Current).verdict
    };
    assert_eq!(about(None), Verdict::Deny);
    assert_eq!(about(Some("arm")), Verdict::Deny);
    assert_eq!(about(Some("amd")), Verdict::Allow);
}

#[test]
fn a_signer_that_is_compromised_ends_what_stands_on_it_and_one_that_retires_does_not() {
    let from_now = revoked(good(), Revocation { distrusted_from: at(-1), compromised: false });
    assert_eq!(running(from_now.clone()).verdict, Verdict::Allow);
    for withdrawn in [
        Revocation { distrusted_from: at(-1), compromised: true },
        Revocation { distrusted_from: at(-600), compromised: false },
    ] {
        let status = running(revoked(good(), withdrawn));
        assert_eq!(status.ended_by, [Condition::EvidenceWithdrawn].into(), "{withdrawn:?}");
        let named = evaluate(revoked(good(), withdrawn), NAMED);
        assert_eq!(named.verdict, Verdict::Deny, "not even by name");
    }
    // Statements of another signer of the gate take the place of what was withdrawn.
    let mut mended = revoked(good(), Revocation { distrusted_from: at(-1), compromised: true });
    let others = good().attestations.into_iter().map(|a| Attestation {
        id: a.id + 100,
        envelope: digest(&format!("again {}", a.id)),
        received_at: at(-1),
        signatures: [Signature { key_id: "another key".into(), ..signature("release-key") }].into(),
        ..a
    });
    mended.attestations.extend(others);
    assert_eq!(running(mended).verdict, Verdict::Allow);
}

#[test]
fn a_key_that_was_not_valid_when_a_statement_came_keeps_nothing_that_another_key_made_count() {
    let withdrawn = revoked(good(), Revocation { distrusted_from: at(-1), compromised: true });
    let with = |change: fn(&mut Signature)| {
        let mut facts = withdrawn.clone();
        let attestations = facts.attestations.into_iter().map(|mut one| {
            let mut second = Signature { key_id: "second".into(), ..signature("release-key") };
            change(&mut second);
            one.signatures.insert(second);
            one
        });
        facts.attestations = attestations.collect();
        running(facts).verdict
    };
    assert_eq!(with(|_| ()), Verdict::Allow);
    assert_eq!(with(|key| key.valid_from = at(-599)), Verdict::Deny);
    assert_eq!(with(|key| key.valid_until = Some(at(-600))), Verdict::Deny);
}

#[test]
fn a_signer_that_expired_or_was_narrowed_ends_nothing() {
    for change in [
        (|s: &mut Signature| s.valid_until = Some(at(-601))) as fn(&mut Signature),
        |s| s.repositories = ["elsewhere/*".parse().unwrap()].into(),
        |s| s.predicate_types = ["https://elsewhere.example/**".parse().unwrap()].into(),
    ] {
        let mut facts = good();
        let changed = facts.attestations.into_iter().map(|mut a| {
            a.signatures = a
                .signatures
                .into_iter()
                .map(|mut s| {
                    change(&mut s);
                    s
                })
                .collect();
            a
        });
        facts.attestations = changed.collect();
        let status = running(facts);
        assert_eq!((status.verdict, status.at_risk), (Verdict::Allow, vec![]));
        assert!(status.would_not_be_promoted_today.iter().any(|one| one.gate == "signed_by"));
    }
}

#[test]
fn a_failed_test_ends_what_counted_it_until_it_passes_again() {
    let mut facts = good();
    facts.attestations.insert(result(9, None, "FAILED"));
    assert_eq!(running(facts.clone()).ended_by, [Condition::CountedTestFailed].into());
    facts.attestations.insert(result(10, None, "PASSED"));
    assert_eq!(running(facts).verdict, Verdict::Allow);

    let mut other = good();
    other.attestations.insert(result(9, Some("another test"), "FAILED"));
    let status = running(other);
    assert_eq!(status.verdict, Verdict::Allow);
    assert_eq!(status.at_risk.iter().map(|risk| risk.reason).collect::<Vec<_>>(), [Risk::FailedResult]);
}

#[test]
fn a_policy_may_only_be_warned_by_a_failed_test() {
    let lenient = RECORDED.replace("max_age: 30d", "on_failed: at_risk");
    let mut facts = good();
    facts.attestations.insert(result(9, None, "FAILED"));
    let status = evaluate_with(&policies(&[&lenient]), facts, at(0), Position::Current);
    assert_eq!(status.verdict, Verdict::Allow);
    assert_eq!(status.at_risk[0].reason, Risk::FailedResult);
}

#[test]
fn a_failed_result_of_a_compromised_signer_still_counts() {
    let mut facts = good();
    let revocation = Some(Revocation { distrusted_from: at(0), compromised: true });
    let stolen = Signature { revocation, ..signature("release-key") };
    facts.attestations.insert(Attestation { signatures: [stolen].into(), ..result(9, None, "FAILED") });
    assert_eq!(running(facts.clone()).ended_by, [Condition::CountedTestFailed].into());
    let tester = [signature("tester")].into();
    facts.attestations.insert(Attestation { signatures: tester, ..result(10, None, "PASSED") });
    assert_eq!(running(facts).verdict, Verdict::Allow, "another signer's newer PASSED restores it");
}

#[test]
fn a_denied_finding_is_a_risk_until_its_grace_is_over() {
    let mut facts = good();
    found(&mut facts, Severity::High, 60);
    let status = running(facts.clone());
    assert_eq!(status.verdict, Verdict::Allow);
    assert_eq!(status.at_risk[0].reason, Risk::DeniedFinding);
    assert_eq!(status.at_risk[0].ends_at, Some(at(-60) + TimeDelta::days(10)));
    assert!(status.warnings[0].contains("tolerated until"), "{:?}", status.warnings);
    assert_eq!(evaluate(facts.clone(), CANDIDATE).verdict, Verdict::Allow, "within its grace");
    let later = evaluate_with(&POLICY, facts.clone(), at(11 * DAY), Position::Current);
    assert_eq!(later.ended_by, [Condition::DeniedFinding].into());
    let later = |position| evaluate_with(&POLICY, facts.clone(), at(11 * DAY), position).verdict;
    assert_eq!((later(CANDIDATE), later(NAMED)), (Verdict::Deny, Verdict::Allow));

    found(&mut facts, Severity::Critical, 0);
    assert_eq!(running(facts.clone()).verdict, Verdict::Deny, "critical: 0d");
    assert_eq!(evaluate(facts.clone(), CANDIDATE).verdict, Verdict::Deny);
    assert_eq!(evaluate(facts, NAMED).verdict, Verdict::Allow);
}

#[test]
fn a_severity_without_a_grace_takes_that_of_the_next_lower_one() {
    let in_force = policies(&[&RECORDED.replace(", critical: 0d", "")]);
    let mut facts = good();
    found(&mut facts, Severity::Critical, 0);
    let sets = PolicySets { in_force: in_force.clone(), recorded: in_force.clone() };
    let recorded = promoted(&good(), &in_force);
    let status = evaluate_running(&sets, &case(facts.clone()), &recorded, Position::Current);
    assert_eq!(status.at_risk[0].ends_at, Some(at(10 * DAY)));

    let without = policies(&[&RECORDED.replace("grace: { high: 10d, critical: 0d }", "grace: {}")]);
    let sets = PolicySets { in_force: without.clone(), recorded: without.clone() };
    let recorded = promoted(&good(), &without);
    let evaluate = |position, now| {
        let case = Case { at: now, ..case(facts.clone()) };
        evaluate_running(&sets, &case, &recorded, position)
    };
    let status = evaluate(Position::Current, at(3000 * DAY));
    assert_eq!((status.verdict, status.at_risk[0].ends_at), (Verdict::Allow, None));
    let superseded = Position::Superseded { at: at(0) };
    assert_eq!(evaluate(superseded, at(71 * 60)).at_risk[0].ends_at, Some(at(72 * 60)));
    assert_eq!(evaluate(superseded, at(72 * 60)).ended_by, [Condition::SupersededUnfixed].into());
    assert_eq!(evaluate(CANDIDATE, at(1)).ended_by, [Condition::KnownCritical].into());
}

#[test]
fn grace_counts_from_the_latest_of_what_may_start_it() {
    let ends = |facts: &Facts| running(facts.clone()).at_risk.first().and_then(|risk| risk.ends_at);
    let mut facts = good();
    found(&mut facts, Severity::High, 5 * DAY);
    assert_eq!(ends(&facts), Some(at(5 * DAY)));
    // Known earlier, but at a severity that no policy denied.
    let known = |severity, days: i64, unsuppressed_at| Known {
        vulnerability: "CVE-1".into(),
        severity,
        fixable: true,
        since: at(-days * DAY),
        unsuppressed_at,
    };
    let with = |known: BTreeSet<Known>| {
        let mut facts = facts.clone();
        facts.scans = facts.scans.into_iter().map(|scan| Scan { known: known.clone(), ..scan }).collect();
        facts
    };
    let milder = with([known(Severity::Low, 90, None), known(Severity::High, 5, None)].into());
    assert_eq!(ends(&milder), Some(at(5 * DAY)));
    let again = with([known(Severity::High, 90, Some(at(-DAY)))].into());
    assert_eq!(ends(&again), Some(at(9 * DAY)), "from the end of a suppression");
    let mut waived = with([known(Severity::High, 90, None)].into());
    waived.waivers = [Waiver { expires_at: Some(at(-2 * DAY)), ..waiver() }].into();
    assert_eq!(ends(&waived), Some(at(8 * DAY)), "from the end of a waiver");
}

fn waiver() -> Waiver {
    Waiver {
        id: 5,
        repositories: "payments/*".parse().unwrap(),
        sha256: None,
        vulnerabilities: ["CVE-1".to_owned()].into(),
        package: None,
        status: WaiverStatus::AcceptedRisk,
        reason: "no fix exists".into(),
        created_by: "ann".into(),
        approved_by: "bob".into(),
        approved_at: at(-4 * DAY),
        expires_at: Some(at(DAY)),
        ended_at: None,
    }
}

#[test]
fn a_waiver_accepts_a_finding_until_it_expires() {
    let mut facts = good();
    found(&mut facts, Severity::Critical, DAY);
    assert_eq!(running(facts.clone()).verdict, Verdict::Deny);
    facts.waivers = [waiver()].into();
    let status = running(facts.clone());
    assert_eq!((status.verdict, status.at_risk.len()), (Verdict::Allow, 0));
    let shown = status.gates.iter().flat_map(|gate| &gate.waived).next().unwrap();
    assert_eq!((shown.vulnerability.as_str(), shown.waiver), ("CVE-1", 5));
    assert_eq!(evaluate(facts.clone(), CANDIDATE).verdict, Verdict::Allow);
    let promotion = judge(&POLICY, &case(facts.clone()));
    assert_eq!(promotion.0, Verdict::Allow, "a promotion counts it too");
    facts.waivers = [Waiver { expires_at: Some(at(0)), ..waiver() }].into();
    assert_eq!(running(facts.clone()).verdict, Verdict::Deny, "critical: 0d, from its end on");
    facts.waivers = [Waiver { repositories: "other/*".parse().unwrap(), ..waiver() }].into();
    assert_eq!(running(facts).verdict, Verdict::Deny);
}

#[test]
fn an_override_passes_a_gate_that_may_be_overridden_and_is_shown() {
    let mut facts = good();
    facts.approvals.clear();
    let one = Override {
        id: 3,
        gates: ["approvals".to_owned(), "signed_by".to_owned()].into(),
        reason: "incident".into(),
        created_by: "ann".into(),
        created_at: at(-5),
        expires_at: at(5),
        ended_at: None,
        reviewed_by: None,
    };
    facts.overrides = [one.clone()].into();
    let (verdict, gates) = judge(&POLICY, &case(facts.clone()));
    assert_eq!(verdict, Verdict::Allow);
    let shown = gates.iter().find(|gate| gate.gate == "approvals").unwrap();
    assert_eq!((shown.outcome, shown.overridden.as_ref().map(|one| one.id)), (Outcome::Fail, Some(3)));
    let mut unsigned = facts.clone();
    unsigned.attestations.retain(|a| a.predicate_type != "https://sigstore.dev/cosign/sign/v1");
    assert_eq!(judge(&POLICY, &case(unsigned)).0, Verdict::Deny, "never a signature");
    facts.overrides = [Override { expires_at: at(0), ..one }].into();
    assert_eq!(judge(&POLICY, &case(facts)).0, Verdict::Deny, "it expired");
}

#[test]
fn an_override_that_nobody_reviewed_in_time_passes_nothing_new_and_ends_nothing_that_runs() {
    let stating = |time: &str, name: &str| {
        RECORDED.replace(
            "environment: prod",
            &format!("name: {name}\noverride_review: {time}\nenvironment: prod"),
        )
    };
    let mut facts = good();
    facts.approvals.clear();
    let one = Override {
        id: 3,
        gates: ["approvals".to_owned()].into(),
        reason: "incident".into(),
        created_by: "ann".into(),
        created_at: at(-60),
        expires_at: at(60),
        ended_at: None,
        reviewed_by: None,
    };
    facts.overrides = [one.clone()].into();
    let verdict =
        |policies: &Policies, facts: &Facts, now| judge(policies, &Case { at: now, ..case(facts.clone()) }).0;
    let late = policies(&[&stating("1h", "a"), &stating("2h", "b")]);
    assert_eq!(verdict(&late, &facts, at(-1)), Verdict::Allow);
    assert_eq!(verdict(&late, &facts, at(0)), Verdict::Deny, "the smallest time counts, from the creation");
    assert_eq!(verdict(&policies(&[&stating("2h", "b")]), &facts, at(0)), Verdict::Allow);
    let gates = judge(&late, &case(facts.clone())).1;
    let shown = gates.iter().find(|gate| gate.gate == "approvals").unwrap();
    assert!(shown.overridden.is_none() && shown.message.contains("proofmark override review 3"), "{shown:?}");
    let elsewhere = stating("1m", "c").replace("payments/*", "elsewhere/*");
    assert_eq!(
        verdict(&policies(&[RECORDED, &elsewhere]), &facts, at(0)),
        Verdict::Allow,
        "it does not cover"
    );
    let late = Override { created_at: at(-24 * 60), ..one.clone() };
    let by = |name: &str| Override { id: 4, created_by: name.into(), ..one.clone() };
    for (first, second, counts, why) in [
        (late.clone(), by("ann"), Verdict::Deny, "another one of the same author is no review"),
        (Override { ended_at: Some(at(0)), ..late.clone() }, by("ann"), Verdict::Deny, "nor is its end"),
        (Override { expires_at: at(-600), ..late.clone() }, by("ann"), Verdict::Deny, "nor that it expired"),
        (
            Override { ended_at: Some(at(-600)), ..late.clone() },
            by("ann"),
            Verdict::Allow,
            "ended before it was due",
        ),
        (late.clone(), by("eve"), Verdict::Allow, "another author answers for another one"),
        (Override { reviewed_by: Some("bob".into()), ..late.clone() }, by("ann"), Verdict::Allow, "reviewed"),
        (
            Override { gates: ["scan".to_owned()].into(), ..late },
            by("ann"),
            Verdict::Allow,
            "of another gate",
        ),
    ] {
        facts.overrides = [first, second].into();
        assert_eq!(verdict(&POLICY, &facts, at(0)), counts, "{why}");
    }
    facts.overrides = [Override { created_at: at(-24 * 60), ..one.clone() }].into();
    assert_eq!(verdict(&POLICY, &facts, at(0)), Verdict::Deny, "24 hours where no policy states a time");
    assert_eq!(verdict(&POLICY, &facts, at(-1)), Verdict::Allow);

    let mut recorded = promoted(&good(), &POLICY);
    for gate in recorded.gates.iter_mut().filter(|gate| gate.gate == "approvals") {
        (gate.overridden, gate.evidence) = (Some(3), BTreeSet::new());
    }
    let sets = PolicySets { in_force: POLICY.clone(), recorded: POLICY.clone() };
    for position in [Position::Current, Position::Candidate { named: false }] {
        let status = evaluate_running(&sets, &case(facts.clone()), &recorded, position);
        assert_eq!(status.verdict, Verdict::Allow, "{:?}", status.ended_by);
        assert!(status.would_not_be_promoted_today.iter().any(|one| one.message.contains("override 3")));
    }
    facts.overrides =
        [Override { reviewed_by: Some("bob".into()), ..facts.overrides.pop_first().unwrap() }].into();
    assert_eq!(verdict(&POLICY, &facts, at(0)), Verdict::Allow, "it counts once it is reviewed");
}

#[test]
fn a_stricter_policy_ends_nothing_before_its_date() {
    let with = |gate: &str| policies(&[&format!("{RECORDED}  - {gate}\n")]);
    let signed = "signed_by: { any_of: [security] }";
    let status = evaluate_with(&with(signed), good(), at(0), Position::Current);
    assert_eq!((status.verdict, status.at_risk), (Verdict::Allow, vec![]));
    assert!(status.would_not_be_promoted_today.iter().any(|one| one.gate == "signed_by"));
    let dated = |date: DateTime<Utc>| {
        with(&format!("signed_by: {{ any_of: [security], enforce_on_running_from: {} }}", in_words(date)))
    };
    let status = evaluate_with(&dated(at(10)), good(), at(0), Position::Current);
    assert_eq!(status.verdict, Verdict::Allow);
    assert!(status.warnings.iter().any(|w| w.contains("ends at")), "{:?}", status.warnings);
    let status = evaluate_with(&dated(at(10)), good(), at(10), Position::Current);
    assert_eq!(status.ended_by, [Condition::EnforcedOnRunning].into());

    let mut medium = good();
    found(&mut medium, Severity::Medium, 0);
    let stricter = |more: &str| {
        policies(&[&RECORDED.replace(
            "deny: { severity: high }, grace: { high: 10d, critical: 0d }",
            &format!("deny: {{ severity: medium }}, grace: {{ medium: 0d }}{more}"),
        )])
    };
    let status = evaluate_with(&stricter(""), medium.clone(), at(0), Position::Current);
    assert_eq!((status.verdict, status.at_risk), (Verdict::Allow, vec![]), "the recorded wording counts");
    let dated = stricter(&format!(", enforce_on_running_from: {}", in_words(at(5))));
    let status = evaluate_with(&dated, medium.clone(), at(0), Position::Current);
    assert_eq!((status.verdict, status.at_risk[0].ends_at), (Verdict::Allow, Some(at(5))));
    assert_eq!(evaluate_with(&dated, medium, at(5), Position::Current).verdict, Verdict::Deny);
}

#[test]
fn a_laxer_policy_counts_at_once_and_a_deleted_one_changes_nothing() {
    let mut facts = good();
    found(&mut facts, Severity::High, 20 * DAY);
    assert_eq!(running(facts.clone()).verdict, Verdict::Deny);
    let laxer = policies(&[&RECORDED.replace("severity: high }", "severity: critical }")]);
    assert_eq!(evaluate_with(&laxer, facts.clone(), at(0), Position::Current).verdict, Verdict::Allow);
    let none = Policies::new();
    assert_eq!(evaluate_with(&none, facts, at(0), Position::Current).verdict, Verdict::Deny);
    let status = evaluate_with(&none, good(), at(0), Position::Current);
    assert_eq!(status.verdict, Verdict::Allow, "the recorded policy goes on");
    assert_eq!(status.would_not_be_promoted_today[0].gate, "policy");
}

#[test]
fn an_old_scan_is_a_risk_and_ends_nothing() {
    let status = evaluate_with(&POLICY, good(), at(30 * DAY), Position::Current);
    assert_eq!(status.verdict, Verdict::Allow);
    assert_eq!(status.at_risk.iter().map(|risk| risk.reason).collect::<Vec<_>>(), [Risk::ScanOutdated]);
    assert!(status.at_risk[0].since.is_some());
    assert_eq!(evaluate_with(&POLICY, good(), at(30 * DAY), CANDIDATE).verdict, Verdict::Allow);
}

#[test]
fn a_statement_about_the_index_or_about_each_image_as_the_gate_says() {
    let mut facts = good();
    let child =
        |name: &str| Platform { digest: digest(name), sha256: digest(name), platform: None, position: None };
    facts.subject.platforms = [child("amd"), child("arm")].into();
    let text = |of: &str| {
        format!(
            "{{environment: prod, repositories: ['**'], gates: [signed_by: {{any_of: [release-key], of: {of}}}]}}"
        )
    };
    let verdict = |of: &str, facts: &Facts| judge(&policies(&[&text(of)]), &case(facts.clone())).0;
    assert_eq!(verdict("index", &facts), Verdict::Allow);
    assert_eq!(verdict("each_image", &facts), Verdict::Deny, "one about the index does not count");
    let of_child = |id, name: &str| Attestation {
        about: [digest(name)].into(),
        ..attestation(id, "https://sigstore.dev/cosign/sign/v1")
    };
    facts.attestations = [of_child(1, "amd")].into();
    assert_eq!(verdict("each_image", &facts), Verdict::Deny);
    facts.attestations.insert(of_child(2, "arm"));
    assert_eq!(verdict("each_image", &facts), Verdict::Allow);
    assert_eq!(verdict("index", &facts), Verdict::Deny);
}

#[test]
fn a_rollback_accepts_the_findings_of_the_version_that_it_names() {
    let mut facts = good();
    found(&mut facts, Severity::Critical, 20 * DAY);
    let mut recorded = promoted(&good(), &POLICY);
    let accepted = Accepted { by: "ann".into(), at: at(0), vulnerabilities: ["CVE-1".to_owned()].into() };
    recorded.accepted = Some(accepted);
    let sets = PolicySets { in_force: POLICY.clone(), recorded: POLICY.clone() };
    let at_time = |now| {
        let case = Case { at: now, ..case(facts.clone()) };
        evaluate_running(&sets, &case, &recorded, Position::Current)
    };
    let status = at_time(at(0));
    assert_eq!((status.verdict, status.at_risk[0].ends_at), (Verdict::Allow, Some(at(72 * 60))));
    assert_eq!(at_time(at(72 * 60)).verdict, Verdict::Deny);
}

#[test]
fn only_a_newer_passed_of_the_same_test_clears_a_failed_one() {
    let by = |signer: &str, one: Attestation| Attestation { signatures: [signature(signer)].into(), ..one };
    let mut facts = good();
    facts.attestations.insert(result(9, None, "FAILED"));
    for (id, other) in [
        (10, result(10, None, "WARNED")),
        (11, by("tester", result(11, None, "PASSED"))),
        (12, Attestation { about: [digest("another image")].into(), ..result(12, None, "PASSED") }),
        (13, result(13, Some("another test"), "PASSED")),
    ] {
        facts.attestations.insert(other);
        assert_eq!(running(facts.clone()).ended_by, [Condition::CountedTestFailed].into(), "{id}");
    }
    facts.attestations.insert(result(14, None, "PASSED"));
    assert_eq!(running(facts).verdict, Verdict::Allow);

    let mut other = good();
    other.attestations.insert(by("tester", result(9, None, "FAILED")));
    let status = running(other);
    assert_eq!(
        (status.verdict, status.at_risk[0].reason),
        (Verdict::Allow, Risk::FailedResult),
        "not counted"
    );

    let mut narrowed = good();
    let none = BTreeSet::new();
    let out = Signature { repositories: none, ..signature("release-key") };
    narrowed.attestations.insert(Attestation { signatures: [out].into(), ..result(9, None, "FAILED") });
    assert_eq!(
        running(narrowed).ended_by,
        [Condition::CountedTestFailed].into(),
        "its scope was narrowed later"
    );
}

#[test]
fn what_an_override_passed_ends_nothing_afterwards() {
    let mut facts = good();
    found(&mut facts, Severity::Critical, DAY);
    let mut recorded = promoted(&good(), &POLICY);
    for gate in recorded.gates.iter_mut().filter(|gate| ["scan", "attestation"].contains(&gate.gate.as_str()))
    {
        gate.overridden = Some(3);
        gate.overridden_findings = ["CVE-1".to_owned()].into();
    }
    let sets = PolicySets { in_force: POLICY.clone(), recorded: POLICY.clone() };
    let status = evaluate_running(&sets, &case(facts.clone()), &recorded, Position::Current);
    assert_eq!(status.verdict, Verdict::Allow, "{:?}", status.ended_by);
    let mut scan = facts.scans.first().unwrap().clone();
    scan.findings.insert(critical("CVE-2", Severity::Critical));
    facts.scans = [scan].into();
    let status = evaluate_running(&sets, &case(facts), &recorded, Position::Current);
    assert_eq!(status.verdict, Verdict::Deny, "a finding that came later is not overridden");
}

#[test]
fn a_gate_counts_for_what_runs_neither_before_its_date_nor_before_it_takes_effect() {
    let with =
        |more: &str| policies(&[&format!("{RECORDED}  - signed_by: {{ any_of: [security], {more} }}\n")]);
    let past = in_words(at(-10));
    let both = format!("enforce_on_running_from: {past}, effective_on: {}", in_words(at(10)));
    let status = evaluate_with(&with(&both), good(), at(0), Position::Current);
    assert_eq!(status.verdict, Verdict::Allow);
    assert!(status.warnings.iter().any(|warning| warning.contains("ends at")), "{:?}", status.warnings);
    assert_eq!(evaluate_with(&with(&both), good(), at(10), Position::Current).verdict, Verdict::Deny);
    let warns = with(&format!("enforce_on_running_from: {past}, mode: warn"));
    assert_eq!(evaluate_with(&warns, good(), at(0), Position::Current).verdict, Verdict::Allow);
}

#[test]
fn a_dated_gate_leaves_failed_results_to_what_on_failed_says() {
    let lenient = RECORDED.replace(
        "max_age: 30d",
        &format!("on_failed: at_risk, enforce_on_running_from: {}", in_words(at(-10))),
    );
    for configuration in [None, Some("another test")] {
        let mut facts = good();
        facts.attestations.insert(result(9, configuration, "FAILED"));
        let status = evaluate_with(&policies(&[&lenient]), facts, at(0), Position::Current);
        assert_eq!((status.verdict, status.at_risk[0].reason), (Verdict::Allow, Risk::FailedResult));
    }
}

#[test]
fn the_grace_of_a_finding_goes_on_under_another_name_of_the_vulnerability() {
    let mut facts = good();
    found(&mut facts, Severity::High, 20 * DAY);
    let mut scan = facts.scans.first().unwrap().clone();
    let alias =
        Finding { aliases: ["cve-1".to_owned()].into(), ..critical("GHSA-aaaa-bbbb-cccc", Severity::High) };
    scan.findings = [alias].into();
    facts.scans = [scan].into();
    assert_eq!(running(facts).verdict, Verdict::Deny);
}

#[test]
fn narrowing_a_signer_ends_nothing_where_a_dated_gate_is_in_force() {
    let dated = RECORDED.replace(
        "predicate: https://sigstore.dev/cosign/sign/v1",
        &format!(
            "predicate: https://sigstore.dev/cosign/sign/v1, enforce_on_running_from: {}",
            in_words(at(-10))
        ),
    );
    let in_force = policies(&[&dated]);
    let narrowed = change(Condition::SignerNarrowed, &good(), &in_force, 1).unwrap();
    assert_eq!(evaluate_with(&in_force, narrowed.0, at(0), Position::Current).verdict, Verdict::Allow);
}

#[test]
fn a_gate_of_another_type_ends_nothing_when_evidence_is_withdrawn() {
    let text = |gates: &str| format!("environment: prod\nrepositories: ['**']\ngates: [{gates}]\n");
    let one = "attestation: {type: https://in-toto.io/attestation/test-result/v0.1, by: [release-key]}";
    let recorded_policy = policies(&[&text(one)]);
    let recorded = promoted(&good(), &recorded_policy);
    let laxer =
        "attestation: {type: https://in-toto.io/attestation/test-result/v0.1, by: [release-key, other]}";
    let more = "attestation: {type: https://example.com/review/v1}";
    let in_force = policies(&[&text(&format!("{laxer}, {more}"))]);
    let mut facts = revoked(good(), Revocation { distrusted_from: at(-1), compromised: true });
    let other = Attestation { signatures: [signature("other")].into(), ..result(20, None, "PASSED") };
    facts.attestations.insert(other);
    let sets = PolicySets { in_force, recorded: recorded_policy };
    let status = evaluate_running(&sets, &case(facts), &recorded, Position::Current);
    assert_eq!(status.verdict, Verdict::Allow, "{:?}", status.ended_by);
}

#[test]
fn a_block_on_bytes_counts_under_every_digest_that_an_index_lists_them_by() {
    let mut facts = good();
    let by = |name: &str| Platform {
        digest: digest(name),
        sha256: digest("bytes"),
        platform: None,
        position: None,
    };
    facts.subject.platforms = [by("bytes"), by("bytes by another algorithm")].into();
    facts.scans = [Scan { sha256: digest("bytes"), ..scan("trivy", []) }].into();
    facts.blocks = [block("bytes", None)].into();
    for name in ["bytes", "bytes by another algorithm"] {
        let case = Case { child: Some(digest(name)), ..case(facts.clone()) };
        assert_eq!(judge(&POLICY, &case).0, Verdict::Deny, "{name}");
    }
}

/// What may happen to a version, each as a condition of the table.
#[derive(Clone, Debug)]
struct Change(Facts, Policies);

/// Every change, laid on facts, policies and time: ordinary acts elsewhere, new evidence, the passing of time.
#[allow(clippy::too_many_lines, reason = "one arm for each row")]
fn change(condition: Condition, facts: &Facts, in_force: &Policies, minutes: i64) -> Option<Change> {
    let (mut facts, mut in_force) = (facts.clone(), in_force.clone());
    match condition {
        Condition::Hold => {
            facts.holds.insert(Hold { id: 1, why: "freeze".into(), until: None, by: "ann".into() });
        }
        Condition::MinAge => facts.subject.pushed_at = at(minutes),
        Condition::PromotedIn => facts.stays.clear(),
        Condition::ApprovalEnded => facts.approvals.clear(),
        Condition::SignerNarrowed => {
            let narrowed = facts.attestations.iter().cloned().map(|mut a| {
                let none = BTreeSet::new();
                a.signatures =
                    a.signatures.into_iter().map(|s| Signature { repositories: none.clone(), ..s }).collect();
                a
            });
            facts.attestations = narrowed.collect();
        }
        Condition::SignerRevokedFromNow => {
            facts = revoked(facts, Revocation { distrusted_from: at(0), compromised: false });
        }
        Condition::EvidenceWithdrawn => {
            facts =
                revoked(facts, Revocation { distrusted_from: at(-100_000), compromised: minutes % 2 == 0 });
        }
        Condition::CountedTestFailed => {
            facts.attestations.insert(result(90, None, "FAILED"));
        }
        Condition::OtherTestFailed => {
            facts.attestations.insert(result(91, Some("other"), "FAILED"));
        }
        Condition::Block => {
            facts.blocks.insert(block("manifest", None));
        }
        Condition::DeniedFinding => found(&mut facts, Severity::High, minutes.abs()),
        Condition::ScanOutdated => {
            facts.scans = facts.scans.into_iter().map(|s| Scan { scanned_at: at(-100_000), ..s }).collect();
        }
        Condition::StricterPolicy => {
            let text = "{name: second, environment: prod, repositories: ['**'], gates: [
              {signed_by: {any_of: [nobody]}}, {approvals: {count: 9}}, {scan: {max_age: 1s, deny: {severity: low}, grace: {low: 0s}}}]}";
            in_force.extend(policies(&[text]));
        }
        Condition::PolicyDeleted => in_force.clear(),
        Condition::LaxerPolicy => {
            in_force = policies(&[&RECORDED.replace("severity: high }", "severity: critical }")]);
        }
        // Nobody reviewed it, in time or ever.
        Condition::OverrideExpired => {
            facts.overrides.insert(Override {
                id: 1,
                gates: Override::GATES.map(str::to_owned).into(),
                reason: "incident".into(),
                created_by: "ann".into(),
                created_at: at(-minutes),
                expires_at: at(minutes),
                ended_at: None,
                reviewed_by: None,
            });
        }
        Condition::EvidenceManifestLost | Condition::SummaryKeyChanged | Condition::ServiceUpgraded => {}
        Condition::BlockOnChild
        | Condition::FreezeWindow
        | Condition::Budget
        | Condition::Requires
        | Condition::Expr
        | Condition::CountedTestFailedAtRisk
        | Condition::DeniedFindingWithoutGrace
        | Condition::KnownCritical
        | Condition::WaivedFinding
        | Condition::ScanIncomplete
        | Condition::ScanIncompleteWarned
        | Condition::EnforcedOnRunning
        | Condition::ScopeDeleted
        | Condition::TagDeleted
        | Condition::RolledBackFrom
        | Condition::SkippedByRollback
        | Condition::Superseded
        | Condition::SupersededUnfixed
        | Condition::Older
        | Condition::SummaryExpired => return None,
    }
    Some(Change(facts, in_force))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_ends_what_runs_but_the_rows_that_say_so(
        picks in proptest::collection::vec((0..Condition::ALL.len(), 0_i64..20_000), 0..6),
        passed in 0_i64..200_000,
    ) {
        let (mut facts, mut in_force, mut may_end) = (good(), POLICY.clone(), false);
        let mut applied = BTreeSet::new();
        for (pick, minutes) in picks {
            let condition = Condition::ALL[pick];
            if let Some(Change(changed, policies)) = change(condition, &facts, &in_force, minutes) {
                (facts, in_force) = (changed, policies);
                may_end |= condition.can_end();
                applied.insert(condition);
            }
        }
        let status = evaluate_with(&in_force, facts, at(passed), Position::Current);
        prop_assert!(status.verdict == Verdict::Allow || may_end, "{applied:?}: {status:?}");
        for ended_by in &status.ended_by {
            prop_assert!(ended_by.can_end(), "{ended_by:?} does not say that it ends anything");
        }
        prop_assert_eq!(status.verdict == Verdict::Deny, !status.ended_by.is_empty());
    }

    #[test]
    fn what_can_only_harm_never_turns_a_deny_into_an_allow(
        before in proptest::collection::vec((0..Condition::ALL.len(), 0_i64..20_000), 0..4),
        harm in prop_oneof![
            Just(Condition::Block), Just(Condition::EvidenceWithdrawn), Just(Condition::CountedTestFailed),
            Just(Condition::OtherTestFailed), Just(Condition::SignerRevokedFromNow), Just(Condition::Hold),
            Just(Condition::ApprovalEnded), Just(Condition::ScanOutdated),
        ],
        passed in 0_i64..200_000,
        position in prop_oneof![Just(Position::Current), Just(CANDIDATE), Just(NAMED)],
    ) {
        let (mut facts, mut in_force) = (good(), POLICY.clone());
        for (pick, minutes) in before {
            if let Some(Change(changed, policies)) = change(Condition::ALL[pick], &facts, &in_force, minutes) {
                (facts, in_force) = (changed, policies);
            }
        }
        let denied = evaluate_with(&in_force, facts.clone(), at(passed), position).verdict == Verdict::Deny;
        let Change(harmed, policies) = change(harm, &facts, &in_force, 1).unwrap();
        let after = evaluate_with(&policies, harmed, at(passed), position).verdict;
        prop_assert!(!denied || after == Verdict::Deny, "{harm:?}");
    }

    #[test]
    fn a_candidate_is_never_judged_more_kindly_than_what_runs(
        picks in proptest::collection::vec((0..Condition::ALL.len(), 0_i64..20_000), 0..5),
        passed in 0_i64..200_000,
    ) {
        let (mut facts, mut in_force) = (good(), POLICY.clone());
        for (pick, minutes) in picks {
            if let Some(Change(changed, policies)) = change(Condition::ALL[pick], &facts, &in_force, minutes) {
                (facts, in_force) = (changed, policies);
            }
        }
        let of = |position| evaluate_with(&in_force, facts.clone(), at(passed), position).verdict;
        prop_assert!(of(CANDIDATE) == Verdict::Deny || of(Position::Current) == Verdict::Allow);
    }
}
