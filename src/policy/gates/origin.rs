//! Gates about where a version comes from: signatures, provenance, other statements.
//!
//! The same functions serve both evaluations. A promotion asks what the registered signers vouch for today.
//! Of what runs, evidence that its promotion counted goes on counting until it is withdrawn, whatever became
//! of its signer's scope or validity since.

use super::{Finding, list, threshold};
use crate::names::{Digest, is_branch, is_source};
use crate::policy::gate::{Attested, Of, Provenance, Several, SignedBy};
use crate::policy::results::{self, SignedResult, TestName, is_good, says_failed, says_passed};
use crate::policy::{Attestation, Case, Evidence, EvidenceKind, Facts, Gate, Signature, in_words};
use chrono::TimeDelta;
use std::collections::{BTreeMap, BTreeSet};

/// The predicate types of SLSA provenance.
pub(in crate::policy) const PROVENANCE: [&str; 2] =
    ["https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"];

/// The predicate type of a signature: what `cosign sign` and `proofmark sign` state, simple signing among it.
pub(in crate::policy) const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Recorded signatures that were not withdrawn, as pairs of envelope and signer.
pub(in crate::policy) type Kept<'a> = BTreeSet<(&'a Digest, &'a str)>;

/// How statements are looked at.
pub(in crate::policy) struct Basis<'a> {
    /// Signatures that count whatever is registered today.
    pub kept: Kept<'a>,
    /// Whether they satisfied this very gate, so that nothing else of them is compared again.
    pub kept_fits: bool,
    /// Those of `kept` that were counted as signatures, whatever they state.
    pub kept_signatures: Kept<'a>,
    /// Whether statements are too old after the gate's `max_age`.
    pub ages: bool,
}

impl Basis<'_> {
    /// For a promotion: nothing is kept, and ages count.
    pub const PROMOTION: Basis<'static> =
        Basis { kept: BTreeSet::new(), kept_fits: false, kept_signatures: BTreeSet::new(), ages: true };
}

/// The gate's outcome, where it is one about origin.
pub(in crate::policy) fn origin(gate: &Gate, case: &Case, basis: &Basis<'_>) -> Option<Finding> {
    let found = match gate {
        Gate::SignedBy(gate) => of_each(gate.of, case, |about| signed_by(gate, case, about, basis)),
        Gate::Provenance(gate) => of_each(gate.of, case, |about| provenance(gate, case, about, basis)),
        Gate::Attestation(gate) => of_each(gate.of, case, |about| attested(gate, case, about, basis)),
        Gate::Scan(_) | Gate::PromotedIn(_) | Gate::Approvals(_) | Gate::MinAge(_) => return None,
    };
    Some(found)
}

/// How long a gate is put off at a time whose signer's key is being verified.
const ASK_AGAIN: TimeDelta = TimeDelta::seconds(10);

/// Puts the gate off while a signer that it names is being verified by pending envelopes: what they say may satisfy
/// it or, of results and scans, speak against it.
pub(in crate::policy) fn verified(gate: &Gate, case: &Case, found: Finding) -> Finding {
    let (names, can_only_help) = match gate {
        Gate::SignedBy(gate) => (Some(&gate.any_of), true),
        Gate::Provenance(gate) => (gate.by.as_ref(), true),
        Gate::Attestation(gate) => (gate.by.as_ref(), false),
        Gate::Scan(gate) => (gate.signed_by.as_ref(), false),
        Gate::PromotedIn(_) | Gate::Approvals(_) | Gate::MinAge(_) => (None, true),
    };
    let verifying = &case.facts.verifying;
    let unfinished: Vec<&str> = names
        .into_iter()
        .flat_map(|names| &names.0)
        .filter(|name| verifying.contains(*name))
        .map(String::as_str)
        .collect();
    if unfinished.is_empty() || (found.passes() && can_only_help) {
        return found;
    }
    let message = format!("{}: pending envelopes are being verified by the signer's key", list(unfinished));
    if found.passes() { found } else { found.reopened() }.and_wait(case.at + ASK_AGAIN, message)
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
/// others that the gate names, why not.
fn trusted<'a>(
    case: &Case,
    attestation: &'a Attestation,
    (basis, by): (&Basis<'_>, Option<&Several<String>>),
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
            // Of a signer that the gate does not name nothing is missing.
            Err(untrusted) if by.is_none_or(|by| by.0.contains(signer)) => {
                why_not.insert(format!("{signer} does not count: {untrusted}"));
            }
            Err(_) => {}
        }
    }
    (names, kept)
}

/// The signatures of these signers that count, each with the key that made it.
fn keys<'a>(
    case: &Case,
    attestation: &'a Attestation,
    basis: &Basis<'_>,
    names: &BTreeSet<&str>,
) -> Vec<(&'a str, &'a str)> {
    let (repository, kind) = (&case.facts.subject.repository, &attestation.predicate_type);
    let at = attestation.received_at;
    let trusted = |signature: &Signature| signature.trusted_for(repository, kind, at).is_ok();
    let counts = |signature: &&'a Signature| {
        let signer = signature.signer.as_str();
        let by_signer = || attestation.signatures.iter().filter(|one| one.signer == signer);
        names.contains(signer)
            && (trusted(signature)
                // Of a recorded signer that no key is trusted for today, one of those by which it may have counted.
                || basis.kept.contains(&(&attestation.envelope, signer))
                    && !signature.is_withdrawn(at)
                    && !by_signer().any(trusted))
    };
    let counting = attestation.signatures.iter().filter(counts);
    counting.map(|signature| (signature.signer.as_str(), signature.key_id.as_str())).collect()
}

fn among<'a>(names: BTreeSet<&'a str>, by: Option<&Several<String>>) -> BTreeSet<&'a str> {
    match by {
        Some(by) => names.into_iter().filter(|name| by.0.contains(*name)).collect(),
        None => names,
    }
}

/// Of the signers of a FAILED those by which it was counted for this very gate, before a FAILED satisfied none.
fn only_kept<'a>(
    names: BTreeSet<&'a str>,
    attestation: &Attestation,
    basis: &Basis<'_>,
    why_not: &mut BTreeSet<String>,
) -> BTreeSet<&'a str> {
    let is_kept = |name: &&str| basis.kept_fits && basis.kept.contains(&(&attestation.envelope, *name));
    let (kept, others): (BTreeSet<_>, BTreeSet<_>) = names.into_iter().partition(is_kept);
    for name in others {
        why_not.insert(format!("a statement by {name} says FAILED"));
    }
    kept
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
    let mut signatures = BTreeSet::new();
    let wanted = gate.predicate.as_deref().unwrap_or(SIGNATURE);
    let mut others: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for attestation in statements(case, about, basis) {
        let mut untrusted = BTreeSet::new();
        let (names, _) = trusted(case, attestation, (basis, Some(&gate.any_of)), &mut untrusted);
        let mut names = among(names, Some(&gate.any_of));
        if attestation.predicate_type == wanted {
            why_not.extend(untrusted);
            if says_failed(attestation) {
                names = only_kept(names, attestation, basis, &mut why_not);
            }
        } else {
            // Before signatures alone counted, a promotion may have counted another statement.
            let is_kept = |name: &&str| {
                gate.predicate.is_none() && basis.kept_signatures.contains(&(&attestation.envelope, *name))
            };
            let (kept, no_signature): (BTreeSet<_>, BTreeSet<_>) = names.into_iter().partition(is_kept);
            if !no_signature.is_empty() {
                others.entry(attestation.predicate_type.as_str()).or_default().extend(no_signature);
            }
            names = kept;
        }
        if !names.is_empty() {
            evidence.push(seen(attestation, &names));
            signatures.extend(keys(case, attestation, basis, &names));
            signers.extend(names);
        }
    }
    for (name, kinds) in case.facts.other_statements.iter().filter(|(name, _)| gate.any_of.0.contains(*name))
    {
        for kind in kinds.iter().filter(|kind| *kind != wanted) {
            others.entry(kind).or_default().insert(name);
        }
    }
    let count = threshold::count(signatures.iter().copied());
    if count < signers.len() {
        why_not.insert(format!("{} share a key, and count as {count}", list(signers.iter().copied())));
    }
    let enough = count >= gate.at_least as usize;
    let mut found = if enough {
        Finding::pass(format!("signed by {}", list(signers.iter().copied())))
    } else {
        let accepted = list(gate.any_of.0.iter().map(String::as_str));
        why_not.extend(no_signatures(&others, &signers, gate));
        refusal(format!("{count} of {} needed signatures by {accepted}", gate.at_least), &why_not)
    };
    found.evidence.extend(evidence);
    found
}

/// Of signers that are still missing: the statements that they made instead of what counts.
fn no_signatures<'a>(
    others: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    signers: &BTreeSet<&str>,
    gate: &SignedBy,
) -> Vec<String> {
    let mut by_signers: BTreeMap<BTreeSet<&str>, BTreeSet<&str>> = BTreeMap::new();
    for (kind, names) in others {
        let missing: BTreeSet<&str> = names.difference(signers).copied().collect();
        if !missing.is_empty() {
            by_signers.entry(missing).or_default().insert(kind);
        }
    }
    let told = by_signers.into_iter().map(|(names, kinds)| {
        let (names, kinds) = (list(names), list(kinds));
        match &gate.predicate {
            None => format!(
                "{names} made statements of type {kinds}, which are no signatures; `proofmark sign` or `cosign sign` makes one"
            ),
            Some(wanted) => format!("{names} made statements of type {kinds}, and the policy demands {wanted}"),
        }
    });
    told.collect()
}

/// The signers of whom a `signed_by` gate may miss a signature: fewer of them than it demands made a statement that it
/// asks for.
pub(in crate::policy) fn missing_signers<'a>(gate: &'a SignedBy, facts: &Facts) -> Vec<&'a str> {
    let wanted = gate.predicate.as_deref().unwrap_or(SIGNATURE);
    let made = |name: &str| {
        let of = |one: &Attestation| one.signatures.iter().any(|signature| signature.signer == name);
        facts.attestations.iter().any(|one| one.predicate_type == wanted && of(one))
    };
    let (made, missing): (Vec<&str>, Vec<&str>) =
        gate.any_of.0.iter().map(String::as_str).partition(|name| made(name));
    if made.len() < gate.at_least as usize { missing } else { Vec::new() }
}

/// The statements about these bytes; with them recorded ones that were counted for them before only the registry's
/// own manifest of a file counted as the file.
fn statements<'a>(
    case: &'a Case,
    about: &Digest,
    basis: &Basis<'_>,
) -> impl Iterator<Item = &'a Attestation> {
    case.facts.attestations.iter().filter(move |one| {
        let kept = || basis.kept.iter().any(|(envelope, _)| **envelope == one.envelope);
        one.about.contains(about) || (one.formerly_about.contains(about) && kept())
    })
}

/// Whether the evidence that a decision recorded for the gate is enough signatures.
pub(in crate::policy) fn is_signed(gate: &SignedBy, case: &Case, evidence: &BTreeSet<Evidence>) -> bool {
    let signature = |one: &&Evidence| {
        let found = case.facts.attestations.iter().find(|a| a.envelope.as_str() == one.id);
        found.is_some_and(|attestation| attestation.predicate_type == SIGNATURE)
    };
    let signers: BTreeSet<&String> = evidence.iter().filter(signature).flat_map(|one| &one.by).collect();
    let counted = signers.into_iter().filter(|name| gate.any_of.0.contains(*name)).count();
    counted >= gate.at_least as usize
}

fn provenance(gate: &Provenance, case: &Case, about: &Digest, basis: &Basis<'_>) -> Finding {
    let (mut why_not, mut messages, mut evidence) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut is_signed = false;
    for attestation in statements(case, about, basis) {
        if !PROVENANCE.contains(&attestation.predicate_type.as_str()) {
            continue;
        }
        let (names, kept) = trusted(case, attestation, (basis, gate.by.as_ref()), &mut why_not);
        let fits = kept && basis.kept_fits;
        let names = if fits { names } else { among(names, gate.by.as_ref()) };
        if names.is_empty() {
            continue;
        }
        is_signed = true;
        let origin = if kept {
            // What was counted before goes on, as it was read when it was promoted.
            let read = readings(attestation);
            let mut fitting = read.map(|reading| origin_fits(gate, attestation, &reading));
            let first = fitting.next().unwrap_or_else(|| Err("a provenance names no source".to_owned()));
            first.or_else(|why| fitting.find_map(Result::ok).ok_or(why))
        } else if attestation.unread {
            Err(UNREAD.to_owned())
        } else {
            origin_fits(gate, attestation, &Reading::current(attestation))
        };
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
        let what = if is_signed { "no signed provenance fits the policy" } else { "no trusted provenance" };
        return refusal(what.to_owned(), &why_not);
    }
    let mut found = Finding::pass(list(messages.iter().map(String::as_str)));
    found.evidence.extend(evidence);
    found
}

/// Follows a statement that this release has still to read.
const UNREAD: &str =
    "a provenance is still to be read by the rules of this release, which a job does: ask again in a moment";

/// What one reader read of a statement.
struct Reading<'a> {
    build_type: Option<&'a str>,
    source: Option<&'a str>,
    source_ref: Option<&'a str>,
}

impl<'a> Reading<'a> {
    fn current(attestation: &'a Attestation) -> Self {
        Self {
            build_type: attestation.build_type.as_deref(),
            source: attestation.source.as_deref(),
            source_ref: attestation.source_ref.as_deref(),
        }
    }
}

/// The newest reading and those before it.
fn readings(attestation: &Attestation) -> impl Iterator<Item = Reading<'_>> {
    let earlier = attestation.earlier_origins.iter().map(|one| Reading {
        build_type: one.build_type.as_deref(),
        source: one.source.as_deref(),
        source_ref: one.source_ref.as_deref(),
    });
    std::iter::once(Reading::current(attestation)).chain(earlier)
}

fn origin_fits(
    gate: &Provenance,
    attestation: &Attestation,
    reading: &Reading<'_>,
) -> Result<String, String> {
    let builder = attestation.builder.as_deref().ok_or("a provenance names no builder")?;
    if !gate.builders.0.iter().any(|pattern| pattern.matches(builder)) {
        return Err(format!("builder {builder} is not one of the policy"));
    }
    let mut message = format!("built by {builder}");
    let kind = reading.build_type.map(|kind| format!(" of build type {kind}")).unwrap_or_default();
    if let Some(build_types) = &gate.build_types {
        let named = reading.build_type.ok_or("a provenance names no build type")?;
        if !build_types.0.iter().any(|pattern| pattern.matches(named)) {
            return Err(format!("build type {named} is not one of the policy"));
        }
    }
    if let Some(sources) = &gate.sources {
        let source = reading.source.ok_or_else(|| {
            format!(
                "a provenance{kind} names no source; where a type of your own names it, an administrator declares it \
                 (`proofmark build-type declare`)"
            )
        })?;
        if !sources.0.iter().any(|pattern| is_source(pattern, source, reading.source_ref)) {
            return Err(format!("source {source} is not one of the policy (a provenance{kind})"));
        }
    }
    if let Some(source) = reading.source {
        message = format!("{message} from {source}");
    }
    if let Some(branches) = &gate.branches {
        let name = reading.source_ref.ok_or_else(|| format!("a provenance{kind} names no branch"))?;
        if !branches.0.iter().any(|branch| is_branch(branch, name)) {
            return Err(format!("branch {name} is not one of the policy (a provenance{kind})"));
        }
        message = format!("{message} at {name}");
    }
    Ok(message)
}

/// The statements that an attestation gate looks at, each with one signature that counts.
#[derive(Default)]
struct Results<'a> {
    /// With a result as the gate demands it.
    good: Vec<SignedResult<'a>>,
    failed: Vec<SignedResult<'a>>,
    /// With another result.
    others: Vec<SignedResult<'a>>,
}

fn attested(gate: &Attested, case: &Case, about: &Digest, basis: &Basis<'_>) -> Finding {
    let mut why_not = BTreeSet::new();
    let Results { good, failed, others } = results_for(gate, case, about, basis, &mut why_not);
    if !basis.ages && !good.is_empty() {
        // Of what runs one good result is enough: what another one does to it is a row of the table.
        return shown(Finding::pass(satisfied(gate)), results::deciding(&good, &[]));
    }
    let open = results::open_failures(&failed, &good, &|_| true);
    let mut found = Finding::pass(satisfied(gate));
    for failed in &open {
        let (name, by) = (failed.test.in_words(), failed.signer());
        let mut message = format!("the newest result{name} is FAILED: a statement by {by} says FAILED");
        if good.iter().any(|one| one.signature.pushed && one.test == failed.test && one.signer() == by) {
            message.push_str(PUSHED);
        }
        found = found.and_fail(message);
    }
    // Any test that never had a result as demanded, or PASSED, is not passed.
    for other in &others {
        let same = |one: &&SignedResult<'_>| one.signer() == other.signer() && one.test == other.test;
        if !good.iter().any(|one| same(&one)) {
            let result = other.attestation.result.as_deref().unwrap_or("missing");
            let (name, by) = (other.test.in_words(), other.signer());
            found = found.and_fail(format!("the newest result{name} is {result}, by {by}"));
        }
    }
    if good.is_empty() && found.passes() {
        let result = gate.result.map(|word| format!(" with result {}", word.as_str())).unwrap_or_default();
        return refusal(format!("no trusted statement of type {}{result}", gate.predicate_type), &why_not);
    }
    let seen = results::deciding(&good, &failed).into_iter().chain(open);
    if found.passes() { shown(found, seen) } else { shown(found, seen.chain(&others)) }
}

/// Follows a failure that a good result would end if it had not come with a push.
const PUSHED: &str = "; a result that came with a push does not clear a FAILED: record it with \
    `proofmark attest --envelope` or POST /api/v1/attestations";

fn satisfied(gate: &Attested) -> String {
    format!("there is a trusted statement of type {}", gate.predicate_type)
}

/// Shows the statements as evidence, each once with all signers that count.
fn shown<'a>(mut found: Finding, results: impl IntoIterator<Item = &'a SignedResult<'a>>) -> Finding {
    let mut by_envelope: BTreeMap<&Digest, (&Attestation, BTreeSet<&str>)> = BTreeMap::new();
    for one in results {
        let entry = by_envelope.entry(&one.attestation.envelope);
        entry.or_insert((one.attestation, BTreeSet::new())).1.insert(one.signer());
    }
    found.evidence.extend(by_envelope.into_values().map(|(attestation, names)| seen(attestation, &names)));
    found
}

fn results_for<'a>(
    gate: &Attested,
    case: &'a Case,
    about: &Digest,
    basis: &Basis<'_>,
    why_not: &mut BTreeSet<String>,
) -> Results<'a> {
    let mut found = Results::default();
    for attestation in statements(case, about, basis).filter(|a| a.predicate_type == gate.predicate_type) {
        let (names, kept) = trusted(case, attestation, (basis, gate.by.as_ref()), why_not);
        let kept = kept && basis.kept_fits;
        let mut names = if kept { names } else { among(names, gate.by.as_ref()) };
        let failed = says_failed(attestation);
        let good = if failed {
            // What a promotion of an earlier release counted goes on counting.
            names = only_kept(names, attestation, basis, why_not);
            !names.is_empty()
        } else {
            is_good(gate.result, attestation)
        };
        if failed && !good {
            names = among(trusted_then(case, attestation), gate.by.as_ref());
        }
        let test = TestName::of(attestation.configuration.as_deref());
        for signature in attestation.signatures.iter().filter(|one| names.contains(one.signer.as_str())) {
            let one = SignedResult { attestation, signature, test: test.clone() };
            let from = if failed { one.counts_from() } else { attestation.received_at };
            // A FAILED does not become a lesser one with time: a newer PASSED clears it.
            let age = gate.max_age.filter(|_| basis.ages && !failed);
            if age.is_some_and(|age| case.at >= from + age.delta()) {
                why_not.insert(format!("one was received at {}, too long ago", in_words(from)));
            } else if good {
                found.good.push(one);
            } else if failed {
                found.failed.push(one);
            } else if !says_passed(attestation) {
                found.others.push(one);
            }
        }
    }
    found
}

/// The signers of a FAILED that were trusted for it when it was received.
fn trusted_then<'a>(case: &Case, attestation: &'a Attestation) -> BTreeSet<&'a str> {
    let (repository, kind) = (&case.facts.subject.repository, &attestation.predicate_type);
    let at = attestation.received_at;
    let then = attestation.signatures.iter().filter(|one| one.was_trusted_for(repository, kind, at).is_ok());
    then.map(|one| one.signer.as_str()).collect()
}
