//! Gates about where a version comes from: signatures, provenance, other statements.
//!
//! The same functions serve both evaluations. A promotion asks what the registered signers vouch for today.
//! Of what runs, evidence that its promotion counted goes on counting until it is withdrawn, whatever became
//! of its signer's scope or validity since.

use super::{Finding, list};
use crate::names::Digest;
use crate::policy::gate::{Attested, Of, Provenance, Several, SignedBy, TestResult};
use crate::policy::{Attestation, Case, Evidence, EvidenceKind, Gate, in_words};
use std::collections::{BTreeMap, BTreeSet};

/// The predicate types of SLSA provenance.
const PROVENANCE: [&str; 2] = ["https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"];

/// Recorded signatures that were not withdrawn, as pairs of envelope and signer.
pub(in crate::policy) type Kept<'a> = BTreeSet<(&'a Digest, &'a str)>;

/// How statements are looked at.
pub(in crate::policy) struct Basis<'a> {
    /// Signatures that count whatever is registered today.
    pub kept: Kept<'a>,
    /// Whether they satisfied this very gate, so that nothing else of them is compared again.
    pub kept_fits: bool,
    /// Whether statements are too old after the gate's `max_age`.
    pub ages: bool,
}

impl Basis<'_> {
    /// For a promotion: nothing is kept, and ages count.
    pub const PROMOTION: Basis<'static> = Basis { kept: BTreeSet::new(), kept_fits: false, ages: true };
}

/// The gate's outcome, where it is one about origin.
pub(in crate::policy) fn origin(gate: &Gate, case: &Case, basis: &Basis<'_>) -> Option<Finding> {
    match gate {
        Gate::SignedBy(gate) => Some(of_each(gate.of, case, |about| signed_by(gate, case, about, basis))),
        Gate::Provenance(gate) => Some(of_each(gate.of, case, |about| provenance(gate, case, about, basis))),
        Gate::Attestation(gate) => Some(of_each(gate.of, case, |about| attested(gate, case, about, basis))),
        Gate::Scan(_) | Gate::PromotedIn(_) | Gate::Approvals(_) | Gate::MinAge(_) => None,
    }
}

/// Asks the gate about the subject, or about each image that the question concerns.
fn of_each(of: Of, case: &Case, ask: impl Fn(&Digest) -> Finding) -> Finding {
    let images = match of {
        Of::Index => return ask(&case.facts.subject.sha256),
        Of::EachImage => case.images(),
    };
    if let [(_, only)] = images.as_slice() {
        return ask(only);
    }
    let mut all = Finding::pass("every image passes");
    for (digest, sha256) in images {
        all = all.and(&format!("{digest}: "), ask(sha256));
    }
    all
}

/// The names of the signers whose signature on the statement counts, and whether one was kept; for the
/// others, why not.
fn trusted<'a>(
    case: &Case,
    attestation: &'a Attestation,
    basis: &Basis<'_>,
    why_not: &mut BTreeSet<String>,
) -> (BTreeSet<&'a str>, bool) {
    let (mut names, mut kept) = (BTreeSet::new(), false);
    for signature in &attestation.signatures {
        let signer = signature.signer.as_str();
        if basis.kept.contains(&(&attestation.envelope, signer)) {
            kept = true;
            names.insert(signer);
            continue;
        }
        let repository = &case.facts.subject.repository;
        match signature.trusted_for(repository, &attestation.predicate_type, attestation.received_at) {
            Ok(()) => {
                names.insert(signer);
            }
            Err(untrusted) => {
                why_not.insert(format!("{signer} does not count: {untrusted}"));
            }
        }
    }
    (names, kept)
}

fn among<'a>(names: BTreeSet<&'a str>, by: Option<&Several<String>>) -> BTreeSet<&'a str> {
    match by {
        Some(by) => names.into_iter().filter(|name| by.0.contains(*name)).collect(),
        None => names,
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

fn seen(attestation: &Attestation, by: &BTreeSet<&str>) -> Evidence {
    Evidence {
        kind: EvidenceKind::Attestation,
        id: attestation.envelope.to_string(),
        by: by.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn signed_by(gate: &SignedBy, case: &Case, about: &Digest, basis: &Basis<'_>) -> Finding {
    let (mut why_not, mut signers, mut evidence) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for attestation in case.facts.attestations.iter().filter(|a| a.about.contains(about)) {
        if gate.predicate.as_ref().is_some_and(|predicate| *predicate != attestation.predicate_type) {
            continue;
        }
        let (names, _) = trusted(case, attestation, basis, &mut why_not);
        let names = among(names, Some(&gate.any_of));
        if !names.is_empty() {
            evidence.push(seen(attestation, &names));
            signers.extend(names);
        }
    }
    let enough = signers.len() >= gate.at_least as usize;
    let mut found = if enough {
        Finding::pass(format!("signed by {}", list(signers.iter().copied())))
    } else {
        let accepted = list(gate.any_of.0.iter().map(String::as_str));
        refusal(format!("{} of {} needed signatures by {accepted}", signers.len(), gate.at_least), &why_not)
    };
    found.evidence.extend(evidence);
    found
}

fn provenance(gate: &Provenance, case: &Case, about: &Digest, basis: &Basis<'_>) -> Finding {
    let (mut why_not, mut messages, mut evidence) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for attestation in case.facts.attestations.iter().filter(|a| a.about.contains(about)) {
        if !PROVENANCE.contains(&attestation.predicate_type.as_str()) {
            continue;
        }
        let (names, kept) = trusted(case, attestation, basis, &mut why_not);
        let fits = kept && basis.kept_fits;
        let names = if fits { names } else { among(names, gate.by.as_ref()) };
        if names.is_empty() {
            continue;
        }
        let origin = origin_fits(gate, attestation);
        let origin = if fits { Ok(origin.unwrap_or_else(|_| "as recorded".to_owned())) } else { origin };
        match origin {
            Ok(message) => {
                messages.insert(format!("{message}, signed by {}", list(names.iter().copied())));
                evidence.push(seen(attestation, &names));
            }
            Err(reason) => {
                why_not.insert(reason);
            }
        }
    }
    if evidence.is_empty() {
        return refusal("no trusted provenance from a builder of the policy".to_owned(), &why_not);
    }
    let mut found = Finding::pass(list(messages.iter().map(String::as_str)));
    found.evidence.extend(evidence);
    found
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

fn attested(gate: &Attested, case: &Case, about: &Digest, basis: &Basis<'_>) -> Finding {
    let mut why_not = BTreeSet::new();
    let mut has_wanted = false;
    // The newest statement for each configuration; ids grow with time.
    let mut newest: BTreeMap<Option<&str>, (&Attestation, BTreeSet<&str>)> = BTreeMap::new();
    let statements = case.facts.attestations.iter().filter(|a| a.about.contains(about));
    for attestation in statements.filter(|a| a.predicate_type == gate.predicate_type) {
        let (names, kept) = trusted(case, attestation, basis, &mut why_not);
        let names = if kept && basis.kept_fits { names } else { among(names, gate.by.as_ref()) };
        let age = gate.max_age.filter(|_| basis.ages);
        if age.is_some_and(|age| case.at >= attestation.received_at + age.delta()) {
            why_not
                .insert(format!("one was received at {}, too long ago", in_words(attestation.received_at)));
        } else if !names.is_empty() {
            has_wanted |= attestation.result.as_deref() == gate.result.map(TestResult::as_str);
            let configuration = attestation.configuration.as_deref();
            if newest.get(&configuration).is_none_or(|(known, _)| known.id < attestation.id) {
                newest.insert(configuration, (attestation, names));
            }
        }
    }
    if newest.is_empty() {
        return refusal(format!("no trusted statement of type {}", gate.predicate_type), &why_not);
    }
    let wanted = gate.result.map(TestResult::as_str);
    let mut found = Finding::pass(format!("there is a trusted statement of type {}", gate.predicate_type));
    // Of what runs one wanted result is enough: what another one does to it is a row of the table.
    let one_is_enough = !basis.ages && has_wanted;
    for (configuration, (attestation, names)) in newest {
        let result = attestation.result.as_deref();
        if wanted.is_some() && result != wanted && !one_is_enough {
            found = found.and_fail(format!(
                "the newest result{} is {}",
                configuration.map(|name| format!(" for {name}")).unwrap_or_default(),
                result.unwrap_or("missing"),
            ));
        }
        found.evidence.insert(seen(attestation, &names));
    }
    found
}
