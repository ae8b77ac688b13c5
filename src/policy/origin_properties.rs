//! Properties of the provenance gate: which readings count for a promotion, and which for what runs.

use super::laws::{at, attestation, case, good, policies};
use super::properties::promoted;
use super::*;
use std::collections::BTreeSet;

const GITHUB: &str = "https://actions.github.io/buildtypes/workflow/v1";

fn gate(more: &str) -> Policies {
    policies(&[&format!(
        "{{environment: prod, repositories: ['**'], gates: [provenance: {{builders: ['https://ci.example/*'], {more}}}]}}"
    )])
}

fn built(source: Option<&str>, reference: Option<&str>) -> Attestation {
    Attestation {
        build_type: Some(GITHUB.into()),
        source: source.map(str::to_owned),
        source_ref: reference.map(str::to_owned),
        result: None,
        ..attestation(1, "https://slsa.dev/provenance/v1")
    }
}

fn facts(statement: Attestation) -> Facts {
    Facts { attestations: [statement].into(), ..good() }
}

fn allows(policies: &Policies, statement: Attestation) -> bool {
    judge(policies, &case(facts(statement))).0 == Verdict::Allow
}

#[test]
fn sources_and_branches_are_compared_in_one_spelling() {
    let main = || built(Some("https://git.example/payments/api"), Some("refs/heads/main"));
    for (more, allowed) in [
        ("sources: ['https://git.example/payments/api']", true),
        ("sources: ['git+https://git.example/payments/*']", true),
        ("sources: ['git+https://git.example/payments/api@refs/heads/main']", true),
        ("sources: ['git+https://git.example/payments/api@refs/heads/other']", false),
        ("sources: ['https://GIT.example:443/payments/api.git/']", true),
        ("sources: ['ssh://git@git.example/payments/api']", false),
        ("sources: ['https://git.example/payment*']", false),
        ("sources: ['https://git.example/*']", false),
        ("sources: ['https://git.example/**'], branches: [main]", true),
        ("branches: [refs/heads/main]", true),
        ("branches: [heads/main]", false),
        ("branches: [Main]", false),
        (&format!("build_types: ['{GITHUB}']"), true),
        ("build_types: ['https://actions.github.io/buildtypes/workflow/*']", true),
        ("build_types: ['https://tekton.dev/**']", false),
    ] {
        assert_eq!(allows(&gate(more), main()), allowed, "{more}");
    }
    for reference in
        ["refs/heads/x@refs/heads/main", "refs/tags/main", "refs/heads/refs/heads/main", "heads/main", "main"]
    {
        let other = built(Some("https://git.example/payments/api"), Some(reference));
        assert!(!allows(&gate("branches: [main]"), other.clone()), "{reference}");
        assert!(!allows(&gate("branches: [refs/heads/main]"), other), "{reference}");
    }
    let local = || built(Some("https://[::1]:8443/team/app"), Some("refs/heads/main"));
    for (more, allowed) in [
        ("sources: ['https://[::1]:8443/team/app']", true),
        ("sources: ['https://[::0001]:8443/team/*']", true),
        ("sources: ['https://[::2]:8443/team/*']", false),
        ("sources: ['https://[::12]:8443/team/**']", false),
    ] {
        assert_eq!(allows(&gate(more), local()), allowed, "{more}");
    }
    assert!(!allows(&gate("sources: ['**']"), built(None, None)));
    assert!(!allows(&gate("branches: [main]"), built(Some("https://h/a"), None)));
    let untyped = Attestation { build_type: None, ..main() };
    assert!(!allows(&gate("build_types: ['**']"), untyped));
}

#[test]
fn an_earlier_reading_counts_for_no_promotion_and_for_what_was_promoted_by_it() {
    let earlier = EarlierOrigin {
        build_type: None,
        source: Some("git+https://git.example/payments/api".into()),
        source_ref: Some("refs/heads/main".into()),
    };
    let past = in_words(at(-10));
    let policies = gate(&format!(
        "sources: ['https://git.example/payments/*'], branches: [main], enforce_on_running_from: {past}"
    ));
    let recorded =
        promoted(&facts(built(Some("https://git.example/payments/api"), Some("refs/heads/main"))), &policies);
    let sets = PolicySets { in_force: policies.clone(), recorded: policies.clone() };
    for unread in [false, true] {
        let now = Attestation { unread, earlier_origins: [earlier.clone()].into(), ..built(None, None) };
        assert!(!allows(&policies, now.clone()), "{unread}");
        let status = evaluate_running(&sets, &case(facts(now)), &recorded, Position::Current);
        assert_eq!((status.verdict, status.ended_by), (Verdict::Allow, BTreeSet::new()), "{unread}");
        assert_eq!(status.would_not_be_promoted_today[0].gate, "provenance");
    }
    // Without a reading that fits, a gate that is enforced on what runs ends it.
    let other = Attestation { earlier_origins: BTreeSet::new(), ..built(None, None) };
    let status = evaluate_running(&sets, &case(facts(other)), &recorded, Position::Current);
    assert_eq!(status.ended_by, [Condition::EnforcedOnRunning].into());
}

#[test]
fn an_unread_statement_does_not_count_whatever_it_says() {
    let unread = Attestation {
        unread: true,
        ..built(Some("https://git.example/payments/api"), Some("refs/heads/main"))
    };
    let says = reasons(&judge(&gate("branches: [main]"), &case(facts(unread.clone()))).1).join("\n");
    assert!(says.contains("still to be read"), "{says}");
    assert!(!allows(&gate("sources: ['**']"), unread));
}
