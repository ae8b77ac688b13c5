//! Properties of the scan gate: nothing that makes a scan worth less turns a deny into an allow.

use super::laws::{at, attestation, case, critical, digest, good, policies, scan};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn verdict(gate: &str, facts: &Facts) -> (Verdict, Vec<GateResult>) {
    let text = format!("environment: prod\nrepositories: [payments/*]\ngates: [{gate}]\n");
    judge(&policies(&[&text]), &case(facts.clone()))
}

fn allows(gate: &str, facts: &Facts) -> bool {
    verdict(gate, facts).0 == Verdict::Allow
}

/// A run with anything about it that a report may state.
fn any_run() -> impl Strategy<Value = Scan> {
    let aspects = proptest::sample::subsequence(Aspect::ALL.to_vec(), 0..=6);
    let finding = (0..6_usize, any::<bool>(), any::<bool>(), 0..6_usize).prop_map(
        |(severity, fixable, hidden, aspect)| Finding {
            fixable,
            suppressed: hidden.then(|| "ignored".to_owned()),
            aspect: Aspect::ALL[aspect],
            ..critical("CVE-1", Severity::ALL[severity])
        },
    );
    let states = (any::<bool>(), any::<bool>(), any::<bool>(), proptest::option::of(any::<bool>()));
    let scope = (proptest::option::of(any::<bool>()), proptest::option::of(any::<bool>()));
    (aspects, proptest::collection::btree_set(finding, 0..3), states, scope, 0..3000_i64, 0..100_i64)
        .prop_map(
            |(covers, findings, (is_image, is_bound, retracted, filtered), (end_of_life, valid), age, id)| {
                let filters =
                    filtered.map(|some| some.then(|| "only-fixed".to_owned()).into_iter().collect());
                Scan {
                    id,
                    covers: covers.into_iter().collect(),
                    findings,
                    is_image,
                    is_bound,
                    retracted,
                    scope: ScanScope { filters, end_of_life, database_valid: valid, ..ScanScope::default() },
                    scanned_at: at(-age),
                    ..scan("trivy", [])
                }
            },
        )
}

fn any_gate() -> impl Strategy<Value = [&'static str; 4]> {
    let word = || proptest::sample::select(vec!["allow", "warn", "deny"]);
    [word(), word(), word(), word()]
}

fn gate([unrated, suppressed, end_of_life, unbound]: [&str; 4]) -> String {
    format!(
        "scan: {{max_age: 24h, database_max_age: 48h, deny: {{severity: high}}, unrated: {unrated}, suppressed: {suppressed}, \
         end_of_life: {end_of_life}, unbound: {unbound}}}"
    )
}

proptest! {
    #[test]
    fn what_makes_a_run_worth_less_turns_no_deny_into_an_allow(
        runs in proptest::collection::vec(any_run(), 1..4), words in any_gate(), change in 0..6_u8,
    ) {
        let before = Facts { scans: runs.iter().cloned().collect(), ..good() };
        let mut less = runs;
        let first = less.first_mut().unwrap();
        match change {
            0 => first.retracted = true,
            1 => first.is_bound = false,
            2 => first.scope.filters = Some(["only-fixed".to_owned()].into()),
            3 => first.scope.end_of_life = Some(true),
            4 => first.scope.database_valid = Some(false),
            _ => first.scanned_at = at(-1_000_000),
        }
        let after = Facts { scans: less.into_iter().collect(), ..good() };
        let gate = gate(words);
        // A target that only a retracted run has shown is not asked for any more.
        let targets = |facts: &Facts| facts.scans.iter().filter(|run| !run.retracted)
            .flat_map(|run| run.covers.clone()).collect::<BTreeSet<_>>();
        prop_assume!(targets(&before) == targets(&after));
        prop_assert!(allows(&gate, &before) || !allows(&gate, &after));
    }

    #[test]
    fn a_stricter_word_turns_no_deny_into_an_allow(
        runs in proptest::collection::vec(any_run(), 0..4), words in any_gate(), place in 0..4_usize,
    ) {
        let facts = Facts { scans: runs.into_iter().collect(), ..good() };
        let mut stricter = words;
        stricter[place] = "deny";
        prop_assert!(allows(&gate(words), &facts) || !allows(&gate(stricter), &facts));
        let mut laxer = words;
        laxer[place] = "allow";
        prop_assert!(!allows(&gate(words), &facts) || allows(&gate(laxer), &facts));
    }

    /// A denied finding denies in whatever run it is, and one without a severity never passes in silence.
    #[test]
    fn findings_never_pass_in_silence(
        runs in proptest::collection::vec(any_run(), 1..4), words in any_gate(),
    ) {
        let facts = Facts { scans: runs.into_iter().collect(), ..good() };
        let findings: Vec<&Finding> = facts.scans.iter().flat_map(|run| &run.findings).collect();
        let (decided, gates) = verdict(&gate(words), &facts);
        let open = |finding: &&&Finding| finding.suppressed.is_none();
        if findings.iter().filter(open).any(|finding| finding.severity >= Severity::High) {
            prop_assert_ne!(decided, Verdict::Allow);
        }
        if findings.iter().filter(open).any(|finding| finding.severity == Severity::Unknown) {
            let said = gates.iter().any(|gate| gate.warnings.iter().any(|text| text.contains("CVE-1")));
            let heard = match words[0] {
                "deny" => decided != Verdict::Allow,
                "warn" => said,
                _ => true,
            };
            prop_assert!(heard);
        }
    }
}

#[test]
fn every_wanted_target_is_asked_for() {
    let os =
        Scan { id: 1, covers: [Aspect::Vulnerabilities, Aspect::Of(Target::Os)].into(), ..scan("trivy", []) };
    let old_libraries = Scan {
        id: 2,
        covers: [Aspect::Of(Target::Libraries)].into(),
        scanned_at: at(-2000),
        ..scan("trivy", [])
    };
    let facts = |scans: &[&Scan]| Facts { scans: scans.iter().map(|run| (*run).clone()).collect(), ..good() };
    let default = "scan: {max_age: 24h}";
    assert!(allows(default, &facts(&[&os])));
    assert!(!allows(default, &facts(&[&os, &old_libraries])), "an earlier run has shown libraries");
    assert!(allows("scan: {max_age: 24h, targets: [os]}", &facts(&[&os, &old_libraries])));
    assert!(!allows("scan: {max_age: 24h, targets: [os, libraries]}", &facts(&[&os])));
    assert!(!allows("scan: {max_age: 24h, kinds: [vulnerabilities, secrets]}", &facts(&[&os])));
    let secrets = Scan { id: 3, covers: [Aspect::Secrets].into(), ..scan("trivy", []) };
    assert!(allows("scan: {max_age: 24h, kinds: [vulnerabilities, secrets]}", &facts(&[&os, &secrets])));
    assert!(!allows(default, &facts(&[&secrets])));
}

#[test]
fn a_gate_is_put_off_while_a_signer_of_its_reports_is_being_verified() {
    let statement = SignedReport { envelope: digest("envelope 9"), signer: "release-key".into() };
    let signed = Scan { statement: Some(statement), ..scan("trivy", []) };
    let vulns = attestation(9, "https://in-toto.io/attestation/vulns/v0.2");
    let facts = Facts { scans: [signed].into(), attestations: [vulns].into(), ..good() };
    let gate = "scan: {max_age: 24h, signed_by: [release-key, late-key]}";
    assert!(allows(gate, &facts));
    for (name, verified) in [("late-key", false), ("release-key", false), ("stranger", true)] {
        let facts = Facts { verifying: [name.to_owned()].into(), ..facts.clone() };
        let (verdict, gates) = verdict(gate, &facts);
        assert_eq!(verdict == Verdict::Allow, verified, "{name}");
        assert!(verified || matches!(verdict, Verdict::Defer { .. }), "{name}: {gates:?}");
    }
}

#[test]
fn a_signed_report_counts_while_its_signer_is_trusted() {
    let statement = SignedReport { envelope: digest("envelope 9"), signer: "release-key".into() };
    let signed = Scan { statement: Some(statement), ..scan("trivy", []) };
    let vulns = attestation(9, "https://in-toto.io/attestation/vulns/v0.2");
    let mut facts = Facts { scans: [signed.clone()].into(), attestations: [vulns.clone()].into(), ..good() };
    let named = "scan: {max_age: 24h, signed_by: [release-key]}";
    assert!(allows(named, &facts) && allows("scan: {max_age: 24h}", &facts));
    assert!(!allows("scan: {max_age: 24h, signed_by: [other-key]}", &facts));
    facts.attestations = BTreeSet::new();
    assert!(!allows(named, &facts) && !allows("scan: {max_age: 24h}", &facts), "nobody's word");
    facts.attestations = [vulns].into();
    facts.scans = [Scan { statement: None, ..signed }].into();
    assert!(!allows(named, &facts), "an unsigned report");
}
