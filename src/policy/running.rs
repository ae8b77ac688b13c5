//! The second evaluation: may what was promoted go on running? Every fact that concerns it is one condition
//! of the table, and the table says what the condition does to the version in its position.

use super::gate::{Attested, OnFailed, Scanned, Word};
use super::gates::origin::{Kept, is_signed};
use super::gates::{Basis, Finding as Found, origin, scanned};
use super::results::{self, SignedResult, TestName, is_good, says_failed, says_passed};
use super::table::{OnCandidate, OnRunning};
use super::{
    AtRisk, Case, Condition, Evidence, EvidenceKind, Finding, Gate, GateResult, Mode, NotToday, Outcome,
    Policies, Policy, PolicySets, Scan, Severity, Verdict, WaivedFinding, in_words, judge,
};
use crate::names::Digest;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long a denied finding without a stated grace leaves a version that was superseded.
pub const SUPERSEDED_GRACE: TimeDelta = TimeDelta::hours(72);

/// The least grace that a rollback gives to the findings which it accepts.
pub const ACCEPTED_GRACE: TimeDelta = TimeDelta::hours(72);

/// Where the version stands in its release channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// It is the version that known-good answers.
    Current,
    /// A newer version is current, since then.
    Superseded {
        /// When the newer one was promoted.
        at: DateTime<Utc>,
    },
    /// A rollback went away from it.
    RolledBackFrom {
        /// When.
        at: DateTime<Utc>,
    },
    /// An answer may fall back to it, or a rollback go to it.
    Candidate {
        /// The rollback names it.
        named: bool,
    },
}

/// What is recorded of the promotion of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The decision.
    pub decision: Digest,
    /// The policies by which it was made.
    pub policies: BTreeSet<Digest>,
    /// What satisfied each gate of these policies, in their order.
    pub gates: Vec<RecordedGate>,
    /// Findings that the rollback to it accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
}

impl Recorded {
    /// The envelopes of recorded signatures: those of earlier releases may be statements of any type.
    pub fn signatures(&self) -> BTreeSet<&str> {
        let of_signatures = self.gates.iter().filter(|gate| gate.gate == "signed_by");
        let evidence = of_signatures.flat_map(|gate| &gate.evidence);
        evidence.filter(|one| one.kind == EvidenceKind::Attestation).map(|one| one.id.as_str()).collect()
    }
}

/// A gate as a decision recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedGate {
    /// The policy's name.
    pub policy: String,
    /// The gate's name.
    pub gate: String,
    /// Whether it passed, and was enforced.
    pub passed: bool,
    /// All evidence that satisfied it.
    pub evidence: BTreeSet<Evidence>,
    /// The override that passed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<i64>,
    /// Of a scan gate that an override passed: the vulnerabilities that it denied. They end nothing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub overridden_findings: BTreeSet<String>,
}

/// Findings that were known when somebody rolled back to the version by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Who.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Which vulnerabilities.
    pub vulnerabilities: BTreeSet<String>,
}

/// The status of a promoted version now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Allow or deny, never defer.
    pub verdict: Verdict,
    /// Every gate that concerns what runs.
    pub gates: Vec<GateResult>,
    /// What ends it, as conditions of the table.
    pub ended_by: BTreeSet<Condition>,
    /// Named, dated risks.
    pub at_risk: Vec<AtRisk>,
    /// Gates that would refuse it today.
    pub would_not_be_promoted_today: Vec<NotToday>,
    /// What holds for now but will not for ever.
    pub warnings: Vec<String>,
    /// Vulnerabilities that a rollback to it by name accepts.
    pub known_findings: BTreeSet<String>,
}

/// One condition that holds.
struct Observed {
    condition: Condition,
    gate: &'static str,
    policy: Option<String>,
    message: String,
    since: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    evidence: Vec<Evidence>,
}

/// What becomes of a condition in a position.
enum Effect {
    Ends,
    Risk(super::Risk, Option<DateTime<Utc>>),
    Warned,
    Nothing,
}

impl Observed {
    fn new(condition: Condition, gate: &'static str, message: impl Into<String>) -> Self {
        let (message, policy, since, ends_at) = (message.into(), None, None, None);
        Self { condition, gate, policy, message, since, ends_at, evidence: Vec::new() }
    }

    fn of(self, policy: &Policy) -> Self {
        Self { policy: Some(policy.name.as_str().to_owned()), ..self }
    }

    /// The table, read for the position.
    fn effect(&self, position: Position, at: DateTime<Utc>) -> Effect {
        let over = self.ends_at.is_some_and(|end| end <= at);
        if let Position::Candidate { named } = position {
            return match self.condition.on_candidate() {
                OnCandidate::Denies => Effect::Ends,
                OnCandidate::OnlyNamed if !named => Effect::Ends,
                OnCandidate::OnlyNamedAfterGrace if over && !named => Effect::Ends,
                OnCandidate::OnlyNamed
                | OnCandidate::OnlyNamedAfterGrace
                | OnCandidate::Reported
                | OnCandidate::Nothing => Effect::Nothing,
            };
        }
        match self.condition.on_running() {
            OnRunning::Ends => Effect::Ends,
            OnRunning::EndsAfterGrace(_) if over => Effect::Ends,
            OnRunning::EndsAfterGrace(risk) | OnRunning::AtRisk(risk) => Effect::Risk(risk, self.ends_at),
            OnRunning::Warned => Effect::Warned,
            OnRunning::Told | OnRunning::Refused | OnRunning::Nothing => Effect::Nothing,
        }
    }
}

/// Evaluates a promoted version. Pure: the same facts, policies and time give the same answer.
pub fn evaluate_running(
    policies: &PolicySets,
    case: &Case,
    recorded: &Recorded,
    position: Position,
) -> Status {
    let mut observed = blocks(case);
    if let Position::RolledBackFrom { at } = position {
        let message = format!("a rollback went away from it at {}", in_words(at));
        observed.push(Observed::new(Condition::RolledBackFrom, "promoted", message));
    }
    let mut gates = Vec::new();
    for policy in policies.recorded.values() {
        let in_force = policies.in_force.values().find(|other| other.name == policy.name);
        gates.extend(recorded_origin(policy, in_force.map(AsRef::as_ref), case, recorded, &mut observed));
    }
    let mut warnings = enforced_on_running(policies, case, recorded, &mut observed);
    other_failures(case, &mut observed);
    let (known_findings, waived) = findings(policies, case, recorded, position, &mut observed);
    outdated(policies, case, &mut observed);
    incomplete(policies, case, &mut observed);
    let today = judge(&policies.in_force, case).1;
    let mut status = Status {
        verdict: Verdict::Allow,
        gates: Vec::new(),
        ended_by: BTreeSet::new(),
        at_risk: Vec::new(),
        would_not_be_promoted_today: not_today(&today),
        warnings: Vec::new(),
        known_findings,
    };
    gates.extend(scan_gates(policies, case, &waived));
    fold(&mut status, observed, gates, &mut warnings, position, case.at);
    status.warnings = warnings;
    status
}

/// Lays every condition on the status, by the table.
fn fold(
    status: &mut Status,
    observed: Vec<Observed>,
    mut gates: Vec<GateResult>,
    warnings: &mut Vec<String>,
    position: Position,
    at: DateTime<Utc>,
) {
    for one in observed {
        match one.effect(position, at) {
            Effect::Ends => {
                status.verdict = Verdict::Deny;
                status.ended_by.insert(one.condition);
                fail(&mut gates, one);
            }
            Effect::Risk(reason, ends_at) => {
                let until =
                    ends_at.map_or(String::new(), |end| format!(", tolerated until {}", in_words(end)));
                warnings.push(format!("{}: {}{until}", one.gate, one.message));
                status.at_risk.push(AtRisk {
                    reason,
                    gate: one.gate,
                    policy: one.policy,
                    message: one.message,
                    since: one.since,
                    ends_at,
                    evidence: one.evidence,
                });
            }
            Effect::Warned => warnings.push(format!("{}: {}", one.gate, one.message)),
            Effect::Nothing => {}
        }
    }
    if !gates.iter().any(|gate| gate.gate == "not_blocked") {
        gates.insert(0, passing("not_blocked", None, "nothing blocks these bytes"));
    }
    status.at_risk.sort();
    status.gates = gates;
}

/// The gates whose recorded passing a summary may state: those that demand something, were not overridden, and of
/// `signed_by` those that signatures satisfied.
pub fn levels(policies: &Policies, case: &Case, recorded: &Recorded) -> BTreeSet<&'static str> {
    let mut levels = BTreeSet::new();
    for policy in policies.values() {
        let records = recorded.gates.iter().filter(|record| record.policy == policy.name.as_str());
        for (gate, record) in policy.gates.iter().zip(records) {
            let demands = match gate {
                Gate::SignedBy(gate) => is_signed(gate, case, &record.evidence),
                Gate::Scan(gate) => gate.deny.is_some(),
                Gate::Provenance(_)
                | Gate::Attestation(_)
                | Gate::PromotedIn(_)
                | Gate::Approvals(_)
                | Gate::MinAge(_) => true,
            };
            if demands && record.passed && record.overridden.is_none() && gate.name() == record.gate {
                levels.insert(gate.name());
            }
        }
    }
    levels
}

fn passing(gate: &'static str, policy: Option<&Policy>, message: &str) -> GateResult {
    let policy = policy.map(|policy| policy.name.as_str());
    Found::pass(message).result(gate, policy, Mode::Enforce, "")
}

/// Puts a failure among the gates: the gate of that name and policy fails, or a new one is added.
fn fail(gates: &mut Vec<GateResult>, one: Observed) {
    let solution = if matches!(one.condition, Condition::Block | Condition::BlockOnChild) {
        "use another version; its author or a higher role can revoke the block"
    } else if one.condition == Condition::RolledBackFrom {
        "promote it again"
    } else if one.condition == Condition::KnownCritical {
        "name the version in the rollback, or use another one"
    } else if one.gate == "scan" {
        "use another version, or waive the finding"
    } else {
        "record a statement that satisfies the gate, or use another version"
    };
    let same = |gate: &&mut GateResult| gate.gate == one.gate && gate.policy == one.policy;
    if let Some(gate) = gates.iter_mut().find(same) {
        gate.message = match gate.outcome {
            Outcome::Pass => one.message,
            Outcome::Fail | Outcome::Wait { .. } => format!("{}; {}", gate.message, one.message),
        };
        gate.outcome = Outcome::Fail;
        gate.mode = Mode::Enforce;
        gate.solution = Some(solution.to_owned());
        gate.evidence.extend(one.evidence);
        return;
    }
    let mut found = Found::fail(one.message);
    found.evidence.extend(one.evidence);
    gates.push(found.result(one.gate, one.policy.as_deref(), Mode::Enforce, solution));
}

fn blocks(case: &Case) -> Vec<Observed> {
    let subject = &case.facts.subject;
    let blocks = case.blocks_in(&subject.environment).map(|block| {
        let own = block.sha256 == subject.sha256;
        let (condition, what) =
            if own { (Condition::Block, "it") } else { (Condition::BlockOnChild, "a child of the index") };
        let until = block.until.map(|until| format!(" until {}", in_words(until))).unwrap_or_default();
        let message = format!("{what} is blocked{until} by {}: {}", block.by, block.why);
        let evidence = Evidence { kind: EvidenceKind::Block, id: block.id.to_string(), by: BTreeSet::new() };
        Observed { evidence: vec![evidence], ..Observed::new(condition, "not_blocked", message) }
    });
    blocks.collect()
}

/// The origin gates of a recorded policy: each stands on the evidence that was recorded for it, until that
/// is withdrawn and nothing else satisfies the gate.
fn recorded_origin(
    policy: &Policy,
    in_force: Option<&Policy>,
    case: &Case,
    recorded: &Recorded,
    observed: &mut Vec<Observed>,
) -> Vec<GateResult> {
    let gates = recorded.gates.iter().filter(|gate| gate.policy == policy.name.as_str());
    let mut results = Vec::new();
    for (gate, record) in policy.gates.iter().zip(gates) {
        if !gate.is_origin() || gate.name() != record.gate || !record.passed {
            continue;
        }
        // What an override passed stands on no evidence.
        let (kept, withdrawn) =
            if record.overridden.is_some() { (Kept::new(), Vec::new()) } else { divide(case, record) };
        if let (Gate::Attestation(test), None) = (gate, record.overridden) {
            counted_failures(test, policy, in_force, case, record, observed);
        }
        let found = if withdrawn.is_empty() {
            let mut found = Found::pass(standing_message(gate, record));
            found.evidence.extend(record.evidence.iter().cloned());
            found
        } else {
            let kept_signatures = signatures_of(gate, &kept);
            let basis = Basis { kept: kept.clone(), kept_fits: true, kept_signatures, ages: false };
            let own = origin(gate, case, &basis).unwrap_or_else(|| Found::fail(String::new()));
            let other = in_force.is_some_and(|other| holds_in(other, gate, case, &kept));
            if !own.passes() && !other {
                let message = format!("{}: {}", withdrawn.join("; "), own.message());
                observed.push(Observed::new(Condition::EvidenceWithdrawn, gate.name(), message).of(policy));
            }
            if own.passes() { own } else { Found::pass("the policy in force is satisfied") }
        };
        results.push(found.result(gate.name(), Some(policy.name.as_str()), Mode::Enforce, ""));
    }
    results
}

fn standing_message(gate: &Gate, record: &RecordedGate) -> String {
    let by: BTreeSet<&str> = record.evidence.iter().flat_map(|one| &one.by).map(String::as_str).collect();
    let by = by.into_iter().collect::<Vec<_>>().join(", ");
    match (gate, record.overridden) {
        (_, Some(id)) => format!("override {id} passed it at the promotion"),
        (Gate::SignedBy(_), None) => format!("signed by {by}"),
        _ => format!("satisfied at the promotion by statements of {by}"),
    }
}

/// The recorded evidence of a `signed_by` gate.
fn signatures_of<'a>(gate: &Gate, kept: &Kept<'a>) -> Kept<'a> {
    if matches!(gate, Gate::SignedBy(_)) { kept.clone() } else { Kept::new() }
}

/// Whether all gates of the policy in force that word the same demand hold, with what is kept as evidence.
fn holds_in(policy: &Policy, recorded: &Gate, case: &Case, kept: &Kept<'_>) -> bool {
    let kept_signatures = signatures_of(recorded, kept);
    let basis = Basis { kept: kept.clone(), kept_fits: false, kept_signatures, ages: false };
    let same = |gate: &&Gate| match (recorded, gate) {
        (Gate::Attestation(one), Gate::Attestation(other)) => one.predicate_type == other.predicate_type,
        (one, other) => one.name() == other.name(),
    };
    let gates = policy.gates.iter().filter(same).filter(|gate| gate.is_enforced(case.at));
    gates.map(|gate| origin(gate, case, &basis)).all(|found| found.is_none_or(|found| found.passes()))
}

/// The recorded signatures that still count, and of the others why they were withdrawn.
fn divide<'a>(case: &'a Case, record: &'a RecordedGate) -> (Kept<'a>, Vec<String>) {
    let (mut kept, mut withdrawn) = (Kept::new(), Vec::new());
    for evidence in record.evidence.iter().filter(|one| one.kind == EvidenceKind::Attestation) {
        let Some(attestation) = case.facts.attestations.iter().find(|a| a.envelope.as_str() == evidence.id)
        else {
            continue;
        };
        let recorded = attestation.signatures.iter().filter(|one| evidence.by.contains(&one.signer));
        let (repository, kind, at) =
            (&case.facts.subject.repository, &attestation.predicate_type, attestation.received_at);
        let (mut revoked, mut counting, mut never_valid) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for signature in recorded {
            let signer = signature.signer.as_str();
            match signature.revocation {
                Some(revocation) if revocation.compromised => {
                    revoked.push((signer, format!("the key of {signer} is compromised")));
                }
                Some(revocation) if revocation.distrusted_from <= at => {
                    let from = in_words(revocation.distrusted_from);
                    revoked.push((signer, format!("{signer} was revoked from {from}")));
                }
                Some(_) | None if signature.registered_for(repository, kind, at).is_ok() => {
                    counting.insert(signer);
                }
                Some(_) | None => {
                    never_valid.insert(signer);
                }
            }
        }
        // What the promotion counted goes on counting whatever became of the signer; but a key that did not count
        // then takes the place of none that was revoked.
        never_valid.retain(|signer| revoked.iter().all(|(name, _)| name != signer));
        counting.append(&mut never_valid);
        // A signer that signed with two keys signed as long as one of them counts.
        let revoked = revoked.into_iter().filter(|(signer, _)| !counting.contains(signer));
        withdrawn.extend(revoked.map(|(_, reason)| reason));
        kept.extend(counting.into_iter().map(|signer| (&attestation.envelope, signer)));
    }
    withdrawn.sort();
    withdrawn.dedup();
    (kept, withdrawn)
}

/// FAILED of a test that the decision counted: of the same signer, type and configuration, about the same
/// manifest. A newer PASSED of the test clears it, or one by another signer of the gate where the signer of the
/// FAILED was revoked since.
fn counted_failures(
    gate: &Attested,
    policy: &Policy,
    in_force: Option<&Policy>,
    case: &Case,
    record: &RecordedGate,
    observed: &mut Vec<Observed>,
) {
    if gate.result.is_none() {
        return;
    }
    let counted: Vec<(&super::Attestation, &BTreeSet<String>)> = record
        .evidence
        .iter()
        .filter_map(|one| {
            let found = case.facts.attestations.iter().find(|a| a.envelope.as_str() == one.id)?;
            Some((found, &one.by))
        })
        .collect();
    let same = |other: &&Attested| other.predicate_type == gate.predicate_type;
    let now: Vec<&Attested> =
        in_force.into_iter().flat_map(|policy| policy.attestation_gates(case.at)).filter(same).collect();
    // A policy in force that no longer asks for the test counts in the version's favour.
    let dropped = in_force.is_some() && now.is_empty();
    let lenient = dropped
        || gate.on_failed == OnFailed::AtRisk
        || now.iter().any(|now| now.on_failed == OnFailed::AtRisk);
    let condition = if lenient { Condition::CountedTestFailedAtRisk } else { Condition::CountedTestFailed };
    let by = |name: &str| {
        let among = |gate: &Attested| gate.by.as_ref().is_none_or(|by| by.0.contains(name));
        if now.is_empty() { among(gate) } else { now.iter().any(|now| among(now)) }
    };
    let good = |one: &super::Attestation| says_passed(one) || is_good(gate.result, one);
    let (failed, good) = results(case, &good);
    for failed in results::open_failures(&failed, &good, &by) {
        let counts = counted.iter().any(|(attestation, signers)| {
            signers.contains(failed.signer()) && is_same_test(attestation, failed)
        });
        if counts {
            observed.push(failure(condition, failed).of(policy));
        }
    }
}

/// Whether the result is of the same test as this FAILED, signers aside.
fn is_same_test(one: &super::Attestation, failed: &SignedResult<'_>) -> bool {
    one.predicate_type == failed.attestation.predicate_type
        && !one.about.is_disjoint(&failed.attestation.about)
        && TestName::of(one.configuration.as_deref()) == failed.test
}

fn failure(condition: Condition, failed: &SignedResult<'_>) -> Observed {
    let (attestation, by) = (failed.attestation, failed.signer());
    let what = match failed.test {
        TestName::Configuration(None) => attestation.predicate_type.clone(),
        TestName::Names(_) | TestName::Configuration(Some(_)) => failed.test.to_string(),
    };
    let message = format!("the newest result for {what} by {by} is FAILED");
    let evidence = Evidence {
        kind: EvidenceKind::Attestation,
        id: attestation.envelope.to_string(),
        by: BTreeSet::from([by.to_owned()]),
    };
    Observed {
        since: Some(failed.counts_from()),
        evidence: vec![evidence],
        ..Observed::new(condition, "attestation", message)
    }
}

/// The FAILED results about the subject or an image in question that count, and the good ones. A FAILED counts if
/// it came before its signer was revoked, a compromised one's too, whatever became of the signer's scope since; of
/// the others only what is trusted today.
fn results<'a>(
    case: &'a Case,
    good: &dyn Fn(&super::Attestation) -> bool,
) -> (Vec<SignedResult<'a>>, Vec<SignedResult<'a>>) {
    let images = case.images();
    let concerned = |a: &super::Attestation| {
        a.about.contains(&case.facts.subject.sha256)
            || images.iter().any(|(_, image)| a.about.contains(*image))
    };
    let repository = &case.facts.subject.repository;
    let (mut failures, mut others) = (Vec::new(), Vec::new());
    for attestation in case.facts.attestations.iter().filter(|a| a.result.is_some() && concerned(a)) {
        let failed = says_failed(attestation);
        if !failed && !good(attestation) {
            continue;
        }
        let counts = |signature: &&super::Signature| {
            let (kind, at) = (&attestation.predicate_type, attestation.received_at);
            if failed {
                return signature.revocation.is_none_or(|revocation| at < revocation.distrusted_from);
            }
            signature.trusted_for(repository, kind, at).is_ok()
        };
        let test = TestName::of(attestation.configuration.as_deref());
        let signatures = attestation.signatures.iter().filter(counts);
        let of = if failed { &mut failures } else { &mut others };
        of.extend(signatures.map(|signature| SignedResult { attestation, signature, test: test.clone() }));
    }
    (failures, others)
}

/// FAILED of any other test, type or signer that no newer PASSED cleared.
fn other_failures(case: &Case, observed: &mut Vec<Observed>) {
    let (failed, passed) = results(case, &says_passed);
    for failed in results::open_failures(&failed, &passed, &|_| true) {
        let id = failed.attestation.envelope.as_str();
        if !observed.iter().any(|one| one.evidence.iter().any(|evidence| evidence.id == id)) {
            observed.push(failure(Condition::OtherTestFailed, failed));
        }
    }
}

/// The gates in force whose `enforce_on_running_from` has come; of those for which it is still to come, what
/// it will end.
fn enforced_on_running(
    policies: &PolicySets,
    case: &Case,
    recorded: &Recorded,
    observed: &mut Vec<Observed>,
) -> Vec<String> {
    // Recorded signatures go on counting, whatever became of their signers' scope.
    let (mut kept, mut kept_signatures) = (Kept::new(), Kept::new());
    for gate in recorded.gates.iter().filter(|gate| gate.overridden.is_none()) {
        let of_gate = divide(case, gate).0;
        if gate.gate == "signed_by" {
            kept_signatures.extend(of_gate.iter().copied());
        }
        kept.extend(of_gate);
    }
    let basis = Basis { kept, kept_fits: false, kept_signatures, ages: false };
    let mut warnings = Vec::new();
    for policy in policies.in_force.values() {
        for gate in &policy.gates {
            let Some(from) = gate.enforced_on_running_from() else { continue };
            let overridden = recorded.gates.iter().any(|record| {
                let name = record.policy == policy.name.as_str() && record.gate == gate.name();
                name && record.overridden.is_some()
            });
            let found = origin(gate, case, &basis).filter(|found| !found.passes() && !overridden);
            let Some(found) = found else { continue };
            if from <= case.at {
                let message = found.message();
                observed.push(Observed::new(Condition::EnforcedOnRunning, gate.name(), message).of(policy));
            } else {
                let (name, at) = (gate.name(), in_words(from));
                warnings.push(format!(
                    "{name}: ends at {at} by policy {}: {}",
                    policy.name.as_str(),
                    found.message()
                ));
            }
        }
    }
    warnings
}

/// How a policy's wording denies a finding: the less, the more favourable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Denial {
    /// Until then it is tolerated.
    Until(DateTime<Utc>),
    /// It is denied, and no grace is stated.
    WithoutGrace,
    /// It is not denied.
    Not,
}

/// Findings that one policy denies alike.
#[derive(Default)]
struct Group {
    names: BTreeSet<String>,
    since: Option<DateTime<Utc>>,
    evidence: BTreeSet<Evidence>,
}

/// Every finding of the images in question: those that a waiver accepts, and of the others when they end
/// the version.
fn findings(
    policies: &PolicySets,
    case: &Case,
    recorded: &Recorded,
    position: Position,
    observed: &mut Vec<Observed>,
) -> (BTreeSet<String>, BTreeSet<WaivedFinding>) {
    let mut grouped: BTreeMap<(Denial, &str), Group> = BTreeMap::new();
    let (mut criticals, mut known, mut waived) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let names: BTreeSet<&str> =
        policies.recorded.values().chain(policies.in_force.values()).map(|p| p.name.as_str()).collect();
    for (_, sha256) in case.images() {
        for run in case.facts.scans.iter().filter(|scan| scan.sha256 == *sha256) {
            for finding in run.findings.iter().filter(|finding| finding.suppressed.is_none()) {
                if let Some(waiver) = case.waiver(finding, sha256) {
                    if denied_by_any(policies, case, run, finding) {
                        waived.insert(scanned::waived(finding, waiver));
                    }
                    continue;
                }
                if finding.severity == Severity::Critical {
                    criticals.insert(scanned::name(finding));
                    known.insert(finding.vulnerability.clone());
                }
                for policy in &names {
                    let denial = denial(policies, policy, case, recorded, run, finding);
                    if denial == Denial::Not {
                        continue;
                    }
                    known.insert(finding.vulnerability.clone());
                    let group = grouped.entry((denial, policy)).or_default();
                    group.names.insert(scanned::name(finding));
                    let since = first_known(run, finding, Severity::Unknown, false);
                    group.since = Some(group.since.map_or(since, |earlier| earlier.min(since)));
                    let id = run.report.to_string();
                    group.evidence.insert(Evidence { kind: EvidenceKind::Scan, id, by: BTreeSet::new() });
                }
            }
        }
    }
    if !criticals.is_empty() {
        let message = format!("it has known critical vulnerabilities: {}", scanned::named(&criticals));
        observed.push(Observed::new(Condition::KnownCritical, "scan", message));
    }
    for ((denial, policy), Group { names, since, evidence }) in grouped {
        let (condition, ends_at) = match (denial, position) {
            (Denial::Until(end), _) => (Condition::DeniedFinding, Some(end)),
            (Denial::WithoutGrace, Position::Superseded { at }) => {
                let end = at + SUPERSEDED_GRACE;
                let over = end <= case.at;
                let condition =
                    if over { Condition::SupersededUnfixed } else { Condition::DeniedFindingWithoutGrace };
                (condition, Some(end))
            }
            _ => (Condition::DeniedFindingWithoutGrace, None),
        };
        let message = format!("found {}", scanned::named(&names));
        observed.push(Observed {
            policy: Some(policy.to_owned()),
            since,
            ends_at,
            evidence: evidence.into_iter().collect(),
            ..Observed::new(condition, "scan", message)
        });
    }
    (known, waived)
}

fn denied_by_any(policies: &PolicySets, case: &Case, run: &Scan, finding: &Finding) -> bool {
    let all = policies.recorded.values().chain(policies.in_force.values());
    all.flat_map(|policy| policy.scan_gates(case.at))
        .any(|gate| scanned::counts(gate, case, run) && scanned::denies(gate, finding))
}

/// How the policy of this name denies the finding: by the wording that is more favourable to what runs, of
/// the recorded one and the one in force; and by each gate in force from its `enforce_on_running_from` on.
fn denial(
    policies: &PolicySets,
    name: &str,
    case: &Case,
    recorded: &Recorded,
    run: &Scan,
    finding: &Finding,
) -> Denial {
    let of = |policies: &Policies| policies.values().find(|p| p.name.as_str() == name).cloned();
    let wording = |policy: &Policy| {
        let gates = policy.scan_gates(case.at);
        gates.map(|gate| by_gate(gate, case, recorded, run, finding)).min().unwrap_or(Denial::Not)
    };
    // A gate that only warned at the promotion is no part of what was recorded.
    let recorded_wording = |policy: &Policy| {
        let records = recorded.gates.iter().filter(|record| record.policy == policy.name.as_str());
        let gates = policy.gates.iter().zip(records).filter(|(_, record)| record.passed);
        let gates = gates.filter_map(|(gate, _)| gate.as_scan());
        gates.map(|gate| by_gate(gate, case, recorded, run, finding)).min().unwrap_or(Denial::Not)
    };
    let in_force = of(&policies.in_force);
    let favourable = match (of(&policies.recorded), &in_force) {
        (Some(policy), Some(in_force)) => recorded_wording(&policy).max(wording(in_force)),
        (Some(policy), None) => recorded_wording(&policy),
        (None, _) => Denial::Not,
    };
    let enforced = in_force.iter().flat_map(|policy| &policy.gates).filter_map(|gate| {
        let from = gate.enforced_on_running_from()?;
        match by_gate(gate.as_scan()?, case, recorded, run, finding) {
            Denial::Until(end) => Some(Denial::Until(end.max(from))),
            Denial::WithoutGrace => (from <= case.at).then_some(Denial::WithoutGrace),
            Denial::Not => None,
        }
    });
    enforced.min().map_or(favourable, |enforced| enforced.min(favourable))
}

fn by_gate(gate: &Scanned, case: &Case, recorded: &Recorded, run: &Scan, finding: &Finding) -> Denial {
    let overridden = |record: &RecordedGate| record.overridden_findings.contains(&finding.vulnerability);
    let denied = scanned::counts(gate, case, run) && scanned::denies(gate, finding);
    if !denied || recorded.gates.iter().any(overridden) {
        return Denial::Not;
    }
    let accepted = recorded.accepted.as_ref().filter(|a| a.vulnerabilities.contains(&finding.vulnerability));
    let Some(grace) = gate.grace_of(finding.severity) else { return Denial::WithoutGrace };
    let denied = gate.deny.map_or(Severity::Unknown, |deny| deny.severity);
    let known = first_known(run, finding, denied, gate.fixable_only);
    let again = run.known.iter().filter(|known| is_of(known, finding));
    let again = again.filter_map(|known| known.unsuppressed_at).max();
    let waiver = case.waiver_end(finding, &run.sha256);
    let from = [Some(known), again, waiver].into_iter().flatten().max().unwrap_or(known);
    let end = from + grace.delta();
    Denial::Until(accepted.map_or(end, |a| end.max(a.at + grace.delta().max(ACCEPTED_GRACE))))
}

/// Whether it is the same vulnerability, under whatever name a scanner gave it.
fn is_of(known: &super::Known, finding: &Finding) -> bool {
    let mut names = std::iter::once(&finding.vulnerability).chain(&finding.aliases);
    names.any(|name| name.eq_ignore_ascii_case(&known.vulnerability))
}

/// When the vulnerability was first known for these bytes at such a severity (with a fix, where asked).
fn first_known(run: &Scan, finding: &Finding, severity: Severity, fixable_only: bool) -> DateTime<Utc> {
    let known = run.known.iter().filter(|known| {
        is_of(known, finding) && known.severity >= severity && (known.fixable || !fixable_only)
    });
    known.map(|known| known.since).min().unwrap_or(run.scanned_at)
}

/// Scans that are not recent enough, by every wording of the policy.
fn outdated(policies: &PolicySets, case: &Case, observed: &mut Vec<Observed>) {
    for policy in policies.recorded.values() {
        let in_force = policies.in_force.values().find(|other| other.name == policy.name);
        let of = |policy: &Policy| {
            let mut found = policy.scan_gates(case.at).flat_map(|gate| {
                let images = case.images().into_iter();
                images.filter_map(move |(digest, sha256)| {
                    scanned::outdated(gate, case, digest, &scanned::runs(gate, case, sha256))
                })
            });
            found.next()
        };
        let now = in_force.map(|policy| of(policy));
        let Some(outdated) = of(policy).filter(|_| !matches!(now, Some(None))) else { continue };
        let since = outdated.since;
        let observation = Observed::new(Condition::ScanOutdated, "scan", outdated.message).of(policy);
        observed.push(Observed { since, ..observation });
    }
}

/// What leaves the scans open to doubt, by the more favourable wording of each policy.
fn incomplete(policies: &PolicySets, case: &Case, observed: &mut Vec<Observed>) {
    type Doubted = BTreeMap<scanned::DoubtKind, BTreeMap<String, Word>>;
    let of = |policy: &Policy| {
        let mut doubted = Doubted::new();
        for gate in policy.scan_gates(case.at) {
            for (_, sha256) in case.images() {
                for doubt in scanned::doubts(gate, case, sha256, &scanned::runs(gate, case, sha256)) {
                    let words = doubted.entry(doubt.kind).or_default();
                    let word = words.entry(doubt.message).or_insert(doubt.word);
                    *word = doubt.word.max(*word);
                }
            }
        }
        doubted
    };
    for policy in policies.recorded.values() {
        let now = policies.in_force.values().find(|other| other.name == policy.name).map(|policy| of(policy));
        for (kind, messages) in of(policy) {
            let now = now.as_ref().map(|now| {
                let words = now.get(&kind).into_iter().flat_map(BTreeMap::values);
                words.max().copied().unwrap_or(Word::Allow)
            });
            for (message, word) in messages {
                let condition = match now.map_or(word, |now| now.min(word)) {
                    Word::Deny => Condition::ScanIncomplete,
                    Word::Warn => Condition::ScanIncompleteWarned,
                    Word::Allow => continue,
                };
                observed.push(Observed::new(condition, "scan", message).of(policy));
            }
        }
    }
}

/// The scan gates as they are shown, passing; what ends the version is laid on them afterwards.
fn scan_gates(policies: &PolicySets, case: &Case, waived: &BTreeSet<WaivedFinding>) -> Vec<GateResult> {
    let mut results = Vec::new();
    for policy in policies.recorded.values() {
        for gate in policy.scan_gates(case.at).take(1) {
            let mut found = Found::pass("no finding ends what runs");
            for (_, sha256) in case.images() {
                for run in scanned::runs(gate, case, sha256) {
                    found = found.saw(EvidenceKind::Scan, &run.report);
                }
            }
            for one in waived {
                found.waive(one.clone());
            }
            results.push(found.result("scan", Some(policy.name.as_str()), Mode::Enforce, ""));
        }
    }
    results
}

/// What today's rules would refuse, but for what is asked at the moment of a promotion only.
fn not_today(gates: &[GateResult]) -> Vec<NotToday> {
    let refusing = gates.iter().filter(|gate| gate.stands_in_the_way());
    let lasting =
        refusing.filter(|gate| !matches!(gate.gate, "not_blocked" | "not_held" | "min_age" | "window"));
    lasting
        .map(|gate| NotToday { gate: gate.gate, policy: gate.policy.clone(), message: gate.message.clone() })
        .collect()
}
