//! Who says where it comes from: signatures, provenance, other statements.

use super::{Finding, list};
use crate::policy::gate::{Attested, Provenance, Several, SignedBy, TestResult};
use crate::policy::{Attestation, Case, Signature, in_words};
use std::collections::{BTreeMap, BTreeSet};

/// The predicate types of SLSA provenance.
const PROVENANCE: [&str; 2] = ["https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"];

/// The names of the signers whose signature on the statement counts; for the others, why not.
fn trusted<'a>(
    case: &Case,
    attestation: &'a Attestation,
    why_not: &mut BTreeSet<String>,
) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for signature in &attestation.signatures {
        let Signature { signer, .. } = signature;
        let repository = &case.facts.subject.repository;
        match signature.trusted_for(repository, &attestation.predicate_type, attestation.received_at) {
            Ok(()) => {
                names.insert(signer.as_str());
            }
            Err(untrusted) => {
                why_not.insert(format!("{signer} does not count: {untrusted}"));
            }
        }
    }
    names
}

fn among(names: &BTreeSet<&str>, by: Option<&Several<String>>) -> bool {
    match by {
        Some(by) => names.iter().any(|name| by.0.contains(*name)),
        None => !names.is_empty(),
    }
}

fn refusal(what: String, why_not: &BTreeSet<String>) -> Finding {
    let mut message = what;
    for reason in why_not {
        message.push_str("; ");
        message.push_str(reason);
    }
    Finding::fail(message)
}

pub(in crate::policy) fn signed_by(gate: &SignedBy, case: &Case) -> Finding {
    let mut why_not = BTreeSet::new();
    let mut signers = BTreeMap::new();
    for attestation in &case.facts.attestations {
        if gate.predicate.as_ref().is_some_and(|predicate| *predicate != attestation.predicate_type) {
            continue;
        }
        for name in trusted(case, attestation, &mut why_not) {
            if gate.any_of.0.contains(name) {
                signers.entry(name).or_insert(&attestation.envelope);
            }
        }
    }
    let enough = signers.len() >= gate.at_least as usize;
    let found = if enough {
        Finding::pass(format!("signed by {}", list(signers.keys().copied())))
    } else {
        let accepted = list(gate.any_of.0.iter().map(String::as_str));
        refusal(format!("{} of {} needed signatures by {accepted}", signers.len(), gate.at_least), &why_not)
    };
    signers.values().fold(found, |found, envelope| found.saw("attestation", envelope))
}

pub(in crate::policy) fn provenance(gate: &Provenance, case: &Case) -> Finding {
    let mut why_not = BTreeSet::new();
    for attestation in &case.facts.attestations {
        if !PROVENANCE.contains(&attestation.predicate_type.as_str()) {
            continue;
        }
        let names = trusted(case, attestation, &mut why_not);
        if !among(&names, gate.by.as_ref()) {
            continue;
        }
        match origin_fits(gate, attestation) {
            Ok(message) => {
                let signers = list(names.iter().copied());
                return Finding::pass(format!("{message}, signed by {signers}"))
                    .saw("attestation", &attestation.envelope);
            }
            Err(reason) => {
                why_not.insert(reason);
            }
        }
    }
    refusal("no trusted provenance from a builder of the policy".to_owned(), &why_not)
}

fn origin_fits(gate: &Provenance, attestation: &Attestation) -> Result<String, String> {
    let builder = attestation.builder.as_deref().ok_or("a provenance names no builder")?;
    if !gate.builders.0.iter().any(|pattern| pattern.matches(builder)) {
        return Err(format!("builder {builder} is not one of the policy"));
    }
    let mut message = format!("built by {builder}");
    let source = attestation.source.as_deref();
    if let Some(sources) = &gate.sources {
        let source = source.ok_or("a provenance names no source")?;
        // A source may end in its branch: `git+https://git.example/app@refs/heads/main`.
        let bare = source.rsplit_once("@refs/").map_or(source, |(bare, _)| bare);
        if !sources.0.iter().any(|pattern| pattern.matches(source) || pattern.matches(bare)) {
            return Err(format!("source {source} is not one of the policy"));
        }
    }
    if let Some(source) = source {
        message = format!("{message} from {source}");
    }
    if let Some(branches) = &gate.branches {
        let of_source = source.and_then(|source| source.rfind("@refs/").map(|at| &source[at + 1..]));
        let name = attestation.source_ref.as_deref().or(of_source).ok_or("a provenance names no branch")?;
        let branch = name.strip_prefix("refs/heads/").unwrap_or(name);
        if !branches.0.contains(branch) && !branches.0.contains(name) {
            return Err(format!("branch {name} is not one of the policy"));
        }
        message = format!("{message} at {name}");
    }
    Ok(message)
}

pub(in crate::policy) fn attested(gate: &Attested, case: &Case) -> Finding {
    let mut why_not = BTreeSet::new();
    // The newest statement for each configuration; ids grow with time.
    let mut newest: BTreeMap<Option<&str>, &Attestation> = BTreeMap::new();
    for attestation in case.facts.attestations.iter().filter(|a| a.predicate_type == gate.predicate_type) {
        let names = trusted(case, attestation, &mut why_not);
        let recent = gate.max_age.is_none_or(|age| case.at < attestation.received_at + age.delta());
        if !recent {
            why_not
                .insert(format!("one was received at {}, too long ago", in_words(attestation.received_at)));
        } else if among(&names, gate.by.as_ref()) {
            let known = newest.entry(attestation.configuration.as_deref()).or_insert(attestation);
            if known.id < attestation.id {
                *known = attestation;
            }
        }
    }
    if newest.is_empty() {
        return refusal(format!("no trusted statement of type {}", gate.predicate_type), &why_not);
    }
    let wanted = gate.result.map(TestResult::as_str);
    let mut found = Finding::pass(format!("there is a trusted statement of type {}", gate.predicate_type));
    for (configuration, attestation) in newest {
        let result = attestation.result.as_deref();
        if wanted.is_some() && result != wanted {
            found = found.and_fail(format!(
                "the newest result{} is {}",
                configuration.map(|name| format!(" for {name}")).unwrap_or_default(),
                result.unwrap_or("missing"),
            ));
        }
        found = found.saw("attestation", &attestation.envelope);
    }
    found
}
