//! Properties of results: which statements say no, and in which order results count.

use super::laws::{at, attestation, case, digest, good, policies, signature};
use super::properties::promoted;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const TESTS: &str = "https://in-toto.io/attestation/test-result/v0.1";
const SUMMARY: &str = "https://slsa.dev/verification_summary/v1";

const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

const E2E: &str = r#"[{"digest":{"gitCommit":"aa"},"name":"e2e"},{"uri":"https://ci.example/load"}]"#;
const E2E_AGAIN: &str = r#"[{"name":"https://ci.example/load"},{"digest":{"gitCommit":"bb"},"name":"e2e"}]"#;

/// A policy of one gate about results.
fn policy(gate: &str) -> Policies {
    policies(&[&format!("{{environment: prod, repositories: ['**'], gates: [{gate}]}}")])
}

fn tests(more: &str) -> Policies {
    policy(&format!("attestation: {{type: {TESTS}, by: [canary, other]{more}}}"))
}

fn with(results: impl IntoIterator<Item = Attestation>) -> Facts {
    Facts { attestations: results.into_iter().collect(), ..good() }
}

fn verdict(policies: &Policies, results: impl IntoIterator<Item = Attestation>) -> Verdict {
    judge(policies, &case(with(results))).0
}

fn messages(policies: &Policies, results: impl IntoIterator<Item = Attestation>) -> String {
    reasons(&judge(policies, &case(with(results))).1).join("\n")
}

/// May a version go on running that was promoted with one PASSED that came first?
fn running(policies: &Policies, results: impl IntoIterator<Item = Attestation>) -> Verdict {
    let first = Attestation { received_at: at(-9000), ..result(1, "PASSED") };
    let recorded = promoted(&with([first.clone()]), policies);
    let sets = PolicySets { in_force: policies.clone(), recorded: policies.clone() };
    let facts = with(results.into_iter().chain([first]));
    evaluate_running(&sets, &case(facts), &recorded, Position::Current).verdict
}

/// A result of the test `e2e` by the signer `canary`, received at its number.
fn result(id: i64, word: &str) -> Attestation {
    Attestation {
        result: Some(word.into()),
        configuration: Some(r#"[{"name":"e2e"}]"#.into()),
        received_at: at(id - 1000),
        signatures: [signature("canary")].into(),
        ..attestation(id, TESTS)
    }
}

fn changed(of: Attestation, change: impl Fn(&mut Signature)) -> Attestation {
    let signatures = of.signatures.into_iter().map(|mut one| {
        change(&mut one);
        one
    });
    Attestation { signatures: signatures.collect(), ..of }
}

fn pushed(of: Attestation) -> Attestation {
    changed(of, |one| one.pushed = true)
}

fn again(of: Attestation, minutes: i64) -> Attestation {
    changed(of, |one| one.repeated_at = Some(at(minutes)))
}

fn signed(of: Attestation, minutes: i64) -> Attestation {
    Attestation { signed_at: Some(at(minutes)), ..of }
}

#[test]
fn a_result_that_says_failed_satisfies_no_gate() {
    let failed = |kind: &str| Attestation { predicate_type: kind.into(), ..result(5, "FAILED") };
    let any = "signed_by: {any_of: [canary]}";
    for kind in [TESTS, SUMMARY] {
        for gate in [
            any,
            &format!("signed_by: {{any_of: [canary], predicate: {kind}}}"),
            &format!("attestation: {{type: {kind}}}"),
            &format!("attestation: {{type: {kind}, by: [canary], result: any}}"),
        ] {
            assert_eq!(verdict(&policy(gate), [failed(kind)]), Verdict::Deny, "{gate}");
            let says = messages(&policy(gate), [failed(kind)]);
            let why =
                if gate == any { "which are no signatures" } else { "a statement by canary says FAILED" };
            assert!(says.contains(why), "{says}");
        }
        let two = policy("signed_by: {any_of: [canary, other], at_least: 2}");
        let other = Attestation { signatures: [signature("other")].into(), ..result(6, "PASSED") };
        assert_eq!(verdict(&two, [failed(kind), other]), Verdict::Deny, "it is not counted");
    }
    let unlike = Attestation { predicate_type: "https://example.com/t".into(), ..result(5, "FAILED") };
    let named = policy("signed_by: {any_of: [canary], predicate: 'https://example.com/t'}");
    assert_eq!(verdict(&named, [unlike]), Verdict::Allow, "of a type without results");
}

#[test]
fn without_a_word_a_gate_demands_passed_and_any_takes_what_is_not_failed() {
    let missing = Attestation { result: None, ..result(5, "") };
    for (word, by_default, by_any, by_warned) in [
        (result(5, "PASSED"), true, true, false),
        (result(5, "WARNED"), false, true, true),
        (result(5, "passed"), false, true, false),
        (result(5, "failed"), false, false, false),
        (missing, false, false, false),
    ] {
        for (more, allowed) in [("", by_default), (", result: any", by_any), (", result: WARNED", by_warned)]
        {
            let expected = if allowed { Verdict::Allow } else { Verdict::Deny };
            assert_eq!(verdict(&tests(more), [word.clone()]), expected, "{:?}{more}", word.result);
        }
    }
}

#[test]
fn a_policy_that_demands_failed_is_refused_and_a_recorded_one_is_read() {
    let text = |more: &str| {
        format!("{{environment: prod, repositories: ['**'], gates: [attestation: {{type: {TESTS}{more}}}]}}")
    };
    let refused = Policy::parse(text(", result: FAILED").as_bytes()).unwrap_err();
    assert!(refused.message.contains("PASSED, WARNED or any"), "{refused}");
    let saved = |more: &str| {
        String::from_utf8(Policy::parse(text(more).as_bytes()).unwrap().canonical().unwrap()).unwrap()
    };
    let default = saved("");
    assert!(default.contains(r#""result":"PASSED""#), "the default is written out: {default}");
    assert!(saved(", result: any").contains(r#""result":"any""#));
    let recorded = |result: &str| {
        let text = default.replace(r#""result":"PASSED","#, result);
        let policy = Policy::from_canonical(text.as_bytes()).unwrap();
        assert_eq!(policy.canonical().unwrap(), text.as_bytes());
        Policies::from([(policy.digest().unwrap(), std::sync::Arc::new(policy))])
    };
    let of_failed = recorded(r#""result":"FAILED","#);
    assert_eq!(verdict(&of_failed, [result(5, "FAILED")]), Verdict::Deny);
    let without = recorded("");
    assert_eq!(verdict(&without, [result(5, "WARNED")]), Verdict::Allow, "it was saved without a demand");
    assert_eq!(verdict(&without, [result(5, "FAILED")]), Verdict::Deny);
    let other = text("").replace(TESTS, "https://example.com/review/v1");
    let other = Policy::parse(other.as_bytes()).unwrap().canonical().unwrap();
    assert!(!String::from_utf8(other).unwrap().contains("\"result\""), "of a type without results");
}

#[test]
fn the_names_in_the_configuration_are_the_test_in_any_order() {
    let of = |configuration: &str, one: Attestation| Attestation {
        configuration: Some(configuration.to_owned()),
        ..one
    };
    let strict = tests("");
    let failed = of(E2E, result(5, "FAILED"));
    assert_eq!(verdict(&strict, [failed.clone(), of(E2E_AGAIN, result(6, "PASSED"))]), Verdict::Allow);
    for other in [r#"[{"name":"e2e"}]"#, "[]", r#"{"name":"e2e"}"#, "not JSON"] {
        let results = [failed.clone(), of(other, result(6, "PASSED"))];
        assert_eq!(verdict(&strict, results), Verdict::Deny, "{other} is another test");
    }
    let (one, other) = (r#"[{"digest":{"sha256":"a"}}]"#, r#"[{"digest":{"sha256":"b"}}]"#);
    let failed = of(one, result(5, "FAILED"));
    assert_eq!(verdict(&strict, [failed.clone(), of(one, result(6, "PASSED"))]), Verdict::Allow);
    assert_eq!(verdict(&strict, [failed, of(other, result(6, "PASSED"))]), Verdict::Deny, "without names");
}

#[test]
fn results_count_by_signed_times_and_otherwise_by_receipts() {
    let (failed, passed) = (|id| result(id, "FAILED"), |id| result(id, "PASSED"));
    let of_other = Attestation { signatures: [signature("other")].into(), ..passed(7) };
    for (results, passes, why) in [
        (vec![failed(5), passed(6)], true, "received later"),
        (vec![passed(5), failed(6)], false, "received earlier"),
        (vec![failed(5), of_other], false, "by another signer"),
        (vec![signed(passed(5), -900), signed(failed(6), -1900)], true, "signed later, received earlier"),
        (vec![signed(failed(5), -1800), signed(passed(6), -1900)], false, "signed earlier, received later"),
        (vec![again(signed(failed(5), -1900), -10), signed(passed(6), -1800)], true, "posted again"),
        (vec![signed(passed(5), 99_999), signed(failed(6), -994)], false, "a time to come is the receipt"),
        (vec![signed(failed(5), -1800), signed(passed(6), -1800)], false, "signed at the same time"),
        (vec![failed(5), signed(passed(6), -1900)], false, "signed before the FAILED came"),
        (vec![again(failed(5), -10), passed(6)], false, "the FAILED came again"),
        (vec![again(failed(5), -10), passed(995)], true, "and was passed since"),
        (vec![failed(5), pushed(passed(6))], false, "pushed"),
        (vec![failed(5), pushed(signed(passed(6), -994))], false, "pushed with a time, against one without"),
        (vec![signed(failed(5), -1900), pushed(signed(passed(6), -1800))], true, "signed times decide"),
        (vec![pushed(failed(5)), passed(6)], true, "a pushed FAILED counts from its first receipt"),
        (vec![pushed(passed(5))], true, "pushed, and nothing failed"),
        (vec![failed(5), passed(6), result(7, "WARNED")], true, "WARNED is not FAILED"),
    ] {
        let expected = if passes { Verdict::Allow } else { Verdict::Deny };
        assert_eq!(verdict(&tests(""), results.clone()), expected, "promotion: {why}");
        assert_eq!(running(&tests(""), results), expected, "running: {why}");
    }
    let says = messages(&tests(""), [failed(5), pushed(passed(6))]);
    assert!(says.contains("proofmark attest") && says.contains("POST /api/v1/attestations"), "{says}");
    assert!(says.contains("for e2e is FAILED"), "{says}");
}

#[test]
fn one_result_must_be_newer_than_every_failed_one() {
    // One PASSED is newer than the signed FAILED only, the other one than the one without a time.
    let results = [
        signed(result(5, "FAILED"), -1900),
        result(8, "FAILED"),
        pushed(signed(result(6, "PASSED"), -1800)),
        signed(result(7, "PASSED"), -1950),
    ];
    assert_eq!(verdict(&tests(""), results.clone()), Verdict::Deny);
    assert_eq!(verdict(&tests(""), results.into_iter().chain([result(9, "PASSED")])), Verdict::Allow);
}

#[test]
fn a_failed_result_outlives_its_signers_key_until_another_signer_passes_the_test() {
    let stolen = |of| {
        let revocation = Some(Revocation { distrusted_from: at(-10), compromised: true });
        changed(of, |one| one.revocation = revocation)
    };
    let by_other = |id| Attestation { signatures: [signature("other")].into(), ..result(id, "PASSED") };
    let failed = stolen(result(5, "FAILED"));
    let load = Attestation { configuration: Some(r#"[{"name":"load"}]"#.into()), ..by_other(4) };
    assert_eq!(verdict(&tests(""), [failed.clone(), load]), Verdict::Deny);
    assert_eq!(verdict(&tests(""), [failed.clone(), by_other(4)]), Verdict::Deny, "older");
    assert_eq!(verdict(&tests(""), [failed, by_other(6)]), Verdict::Allow);
    let late = stolen(Attestation { received_at: at(-5), ..result(999, "FAILED") });
    assert_eq!(verdict(&tests(""), [late, by_other(6)]), Verdict::Allow, "received after the revocation");
}

#[test]
fn recorded_evidence_that_says_failed_ends_nothing() {
    let failed = result(5, "FAILED");
    let (policies, recorded) = counted_as_a_signature("signed_by: {any_of: [canary]}", &failed);
    let sets = PolicySets { in_force: policies.clone(), recorded: policies };
    let status = evaluate_running(&sets, &case(with([failed])), &recorded, Position::Current);
    assert_eq!((status.verdict, status.ended_by), (Verdict::Allow, BTreeSet::new()));
    assert_eq!(status.would_not_be_promoted_today[0].gate, "signed_by");
}

/// A statement of another type that a promotion counted as a signature before signatures alone counted.
fn counted_as_a_signature(gate: &str, statement: &Attestation) -> (Policies, Recorded) {
    let policies = policy(gate);
    let by = BTreeSet::from(["canary".to_owned()]);
    let evidence = Evidence { kind: EvidenceKind::Attestation, id: statement.envelope.to_string(), by };
    let gate = RecordedGate {
        policy: "default".into(),
        gate: "signed_by".into(),
        passed: true,
        evidence: [evidence].into(),
        overridden: None,
        overridden_findings: BTreeSet::new(),
    };
    let recorded = Recorded {
        decision: digest("decision"),
        policies: policies.keys().cloned().collect(),
        gates: vec![gate],
        accepted: None,
    };
    (policies, recorded)
}

#[test]
fn signed_by_counts_signatures_and_the_refusal_says_what_the_signer_made_instead() {
    const SBOM: &str = "https://cyclonedx.org/bom";
    const REPORT: &str = "https://cosign.sigstore.dev/attestation/vuln/v1";
    let gate = policy("signed_by: {any_of: [canary]}");
    let of = |id, kind: &str| Attestation { predicate_type: kind.into(), result: None, ..result(id, "") };
    for kind in [SBOM, REPORT, "https://slsa.dev/provenance/v1", "https://sigstore.dev/cosign/sign/v1x"] {
        assert_eq!(verdict(&gate, [of(5, kind)]), Verdict::Deny, "{kind}");
        let says = messages(&gate, [of(5, kind)]);
        assert!(
            says.contains(&format!("canary made statements of type {kind}, which are no signatures")),
            "{says}"
        );
        assert!(says.contains("`proofmark sign`"), "{says}");
        let named = policy(&format!("signed_by: {{any_of: [canary], predicate: '{kind}'}}"));
        assert_eq!(verdict(&named, [of(5, kind)]), Verdict::Allow, "{kind}");
        assert_eq!(verdict(&named, [of(5, SIGN)]), Verdict::Deny, "the gate names another type");
    }
    assert_eq!(verdict(&gate, [of(5, SIGN)]), Verdict::Allow);
    assert_eq!(verdict(&gate, [of(5, SIGN), of(6, SBOM)]), Verdict::Allow);
    let two = policy("signed_by: {any_of: [canary, other], at_least: 2}");
    let other = Attestation { signatures: [signature("other")].into(), ..of(6, SBOM) };
    let says = messages(&two, [of(5, SIGN), other]);
    assert!(says.contains("1 of 2 needed") && says.contains("other made statements"), "{says}");
    assert!(!says.contains("canary made"), "{says}");
}

#[test]
fn what_was_counted_as_a_signature_goes_on_standing_and_a_summary_no_longer_says_so() {
    let statement = result(5, "PASSED");
    let past = in_words(at(-10));
    for (gate, ends) in [
        ("signed_by: {any_of: [canary]}".to_owned(), false),
        (format!("signed_by: {{any_of: [canary], enforce_on_running_from: {past}}}"), false),
        (
            format!("signed_by: {{any_of: [canary], predicate: {SIGN}, enforce_on_running_from: {past}}}"),
            true,
        ),
    ] {
        let (policies, recorded) = counted_as_a_signature(&gate, &statement);
        let sets = PolicySets { in_force: policies.clone(), recorded: policies.clone() };
        let case = case(with([statement.clone()]));
        let status = evaluate_running(&sets, &case, &recorded, Position::Current);
        assert_eq!(status.verdict == Verdict::Deny, ends, "{gate}: {:?}", status.ended_by);
        assert_eq!(levels(&policies, &case, &recorded), BTreeSet::new(), "{gate}");
        let signature = Attestation { predicate_type: SIGN.into(), result: None, ..statement.clone() };
        let case = super::Case { facts: with([signature]), ..case };
        assert_eq!(levels(&policies, &case, &recorded), ["signed_by"].into(), "{gate}");
    }
}

#[test]
fn what_was_counted_for_another_manifest_of_its_file_goes_on_standing_and_counts_for_no_promotion() {
    let about = result(5, "").about;
    let signed = Attestation { predicate_type: SIGN.into(), result: None, ..result(5, "") };
    let statement = Attestation { about: BTreeSet::new(), formerly_about: about, ..signed };
    let (policies, recorded) = counted_as_a_signature("signed_by: {any_of: [canary]}", &statement);
    assert_eq!(verdict(&policies, [statement.clone()]), Verdict::Deny);
    let sets = PolicySets { in_force: policies.clone(), recorded: policies.clone() };
    let status = evaluate_running(&sets, &case(with([statement.clone()])), &recorded, Position::Current);
    assert_eq!((status.verdict, status.at_risk), (Verdict::Allow, vec![]));
    // It is withdrawn with its key all the same.
    let stolen = changed(statement, |signature| {
        signature.revocation = Some(Revocation { distrusted_from: at(-1), compromised: true });
    });
    let status = evaluate_running(&sets, &case(with([stolen])), &recorded, Position::Current);
    assert_eq!(status.ended_by, [Condition::EvidenceWithdrawn].into());
}

#[test]
fn a_scan_gate_that_denies_nothing_is_no_level_of_a_summary() {
    for (gate, level) in
        [("scan: {max_age: 24h}", false), ("scan: {max_age: 24h, deny: {severity: low}}", true)]
    {
        let (policies, recorded) = counted_as_a_signature(gate, &result(5, "PASSED"));
        let gates = recorded.gates.into_iter().map(|one| RecordedGate { gate: "scan".into(), ..one });
        let recorded = Recorded { gates: gates.collect(), ..recorded };
        assert_eq!(levels(&policies, &case(with([])), &recorded).contains("scan"), level, "{gate}");
    }
}

#[test]
fn facts_without_the_new_members_are_written_as_they_were() {
    let text = serde_json::to_string(&result(5, "FAILED")).unwrap();
    for member in ["signed_at", "pushed", "repeated_at"] {
        assert!(!text.contains(member), "{text}");
    }
    let full = pushed(again(signed(result(5, "FAILED"), 1), 2));
    let read: Attestation = serde_json::from_str(&serde_json::to_string(&full).unwrap()).unwrap();
    assert_eq!(read, full);
}

/// Results of some tests by two signers, in the order of their receipts.
fn some_results(all_signed: bool) -> impl Strategy<Value = Vec<Attestation>> {
    let word = prop_oneof![
        3 => Just("PASSED"), 3 => Just("FAILED"), 1 => Just("WARNED"), 1 => Just("failed"), 1 => Just("passed")
    ];
    let configuration = prop_oneof![Just(None), Just(Some(E2E)), Just(Some(E2E_AGAIN)), Just(Some("[]"))];
    let name = prop_oneof![Just("canary"), Just("other")];
    let time = -2000_i64..50;
    let signed = (any::<bool>(), time).prop_map(move |(states, time)| (states || all_signed).then_some(time));
    let repeated = proptest::option::of(0..1000_i64);
    let way = (any::<bool>(), repeated, proptest::bool::weighted(0.1));
    let one = (word, configuration, name, -1500..-1000_i64, signed, way);
    let one = one.prop_map(|(word, configuration, signer, received, signed, (pushed, repeated, revoked))| {
        let mut signature = signature(signer);
        signature.pushed = pushed;
        if word.eq_ignore_ascii_case("FAILED") && !pushed {
            signature.repeated_at = repeated.map(|after| at(received + after));
        }
        if revoked {
            signature.revocation = Some(Revocation { distrusted_from: at(-1200), compromised: false });
        }
        Attestation {
            result: Some(word.into()),
            configuration: configuration.map(str::to_owned),
            received_at: at(received),
            signed_at: signed.map(at),
            signatures: [signature].into(),
            ..attestation(0, TESTS)
        }
    });
    proptest::collection::vec(one, 1..9).prop_map(|mut results| {
        results.sort_by_key(|one| one.received_at);
        let numbered = (10..).zip(results);
        numbered
            .map(|(id, one)| Attestation { id, envelope: digest(&format!("envelope {id}")), ..one })
            .collect()
    })
}

fn some_gate() -> impl Strategy<Value = Policies> {
    prop_oneof![Just(""), Just(", result: any"), Just(", result: WARNED"), Just(", max_age: 20h")]
        .prop_map(tests)
}

/// Every evaluation that results concern. `running` begins with a PASSED, which a gate must take.
fn verdicts(gate: &Policies, results: &[Attestation]) -> Vec<Verdict> {
    vec![
        verdict(gate, results.to_vec()),
        verdict(&policy(&format!("signed_by: {{any_of: [canary], predicate: {TESTS}}}")), results.to_vec()),
        running(&tests(""), results.to_vec()),
        running(&tests(", result: any"), results.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn adding_a_passed_never_denies_and_adding_a_failed_never_allows(
        gate in some_gate(), results in some_results(false), pick: usize,
    ) {
        let mut fewer = results.clone();
        let added = fewer.remove(pick % results.len());
        let word = added.result.as_deref().unwrap();
        for (before, after) in verdicts(&gate, &fewer).into_iter().zip(verdicts(&gate, &results)) {
            if word == "PASSED" {
                prop_assert!(before != Verdict::Allow || after == Verdict::Allow, "{added:?}");
            } else if word.eq_ignore_ascii_case("FAILED") {
                prop_assert!(before == Verdict::Allow || after != Verdict::Allow, "{added:?}");
            }
        }
    }

    #[test]
    fn the_order_of_results_does_not_matter(
        gate in some_gate(), results in some_results(false), turn: usize,
    ) {
        let mut turned = results.clone();
        turned.rotate_left(turn % results.len());
        turned.reverse();
        prop_assert_eq!(verdicts(&gate, &turned), verdicts(&gate, &results));
    }

    #[test]
    fn where_all_results_have_signed_times_posting_again_changes_nothing(
        results in some_results(true), pick: usize, minutes in 0..1000_i64,
    ) {
        let mut posted = results.clone();
        let place = pick % results.len();
        let failed = results[place].result.as_deref().is_some_and(is_failed);
        posted[place] = changed(posted[place].clone(), |one| {
            one.pushed = false;
            one.repeated_at = failed.then(|| at(minutes));
        });
        for gate in [tests(""), tests(", result: any")] {
            prop_assert_eq!(verdicts(&gate, &posted), verdicts(&gate, &results));
        }
    }

    #[test]
    fn a_passed_that_was_held_back_clears_no_failed_when_it_is_pushed(
        failed_at in proptest::option::of(-1500..-995_i64), before in proptest::option::of(1..500_i64),
        others in some_results(false),
    ) {
        // Signed before the FAILED was, or without a time.
        let held_back = before.map(|minutes| failed_at.unwrap_or(-995) - minutes);
        let failed = Attestation { signed_at: failed_at.map(at), ..result(5, "FAILED") };
        let passed = pushed(Attestation { signed_at: held_back.map(at), ..result(900, "PASSED") });
        let others = others.into_iter().filter(|one| one.signatures.iter().all(|s| s.signer == "other"));
        let results: Vec<_> = others.chain([failed, passed]).collect();
        prop_assert_eq!(verdict(&tests(""), results.clone()), Verdict::Deny);
        prop_assert_eq!(running(&tests(""), results), Verdict::Deny);
    }
}
