//! The one function that decides.

use super::decision::{Decision, Evidence, EvidenceKind, GateResult, Outcome, Overridden, Verdict, in_words};
use super::gates::{self, Basis, approvals, origin, scanned, timing, verified};
use super::running::{Position, Recorded, evaluate_running};
use super::{
    Block, Facts, Finding, Gate, Mode, Override, Platform, Policy, Scan, Span, Waiver, override_review,
};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// Which edition of `decide` made a decision. Raised by a change that could give another answer;
/// the inputs name it, so old decisions are never replayed by rules they did not know.
pub const DECIDE_VERSION: u32 = 6;

/// Policies by their digests.
pub type Policies = BTreeMap<Digest, Arc<Policy>>;

/// The policies that concern a promoted version: those in force that cover its release channel, and those
/// by which it was promoted.
#[derive(Clone, Debug, Default)]
pub struct PolicySets {
    /// In force, and covering the channel.
    pub in_force: Policies,
    /// Named by the recorded decision.
    pub recorded: Policies,
}

/// What the answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Bringing a release to the environment.
    Promote,
    /// Bringing an earlier release back.
    Rollback {
        /// The rollback names the version, and so accepts its known findings.
        named: bool,
    },
}

/// One question: the facts, what for, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What for.
    pub action: Action,
    /// When: the database's time.
    pub at: DateTime<Utc>,
    /// Only what concerns this child of the index, where the platform is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<Digest>,
    /// What is known.
    pub facts: Facts,
    /// Of a version that was promoted before: what its decision recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

#[derive(Serialize)]
struct Inputs<'a> {
    decide: u32,
    policies: Vec<&'a Digest>,
    case: &'a Case,
}

impl Case {
    /// The canonical inputs of the decision of this case: policies and findings by their digests.
    pub fn inputs(&self, policies: &Policies) -> Result<Vec<u8>, Failure> {
        let policies = self.covering(policies).map(|(digest, _)| digest).collect();
        serde_json_canonicalizer::to_vec(&Inputs { decide: DECIDE_VERSION, policies, case: self })
            .map_err(|error| Failure::new("writing a decision's inputs as canonical JSON", error))
    }

    /// Blocks that count in the environment now. One on a child of an index stops the whole index,
    /// unless the question is about another child.
    pub(crate) fn blocks_in<'a>(
        &'a self,
        environment: &'a EnvironmentName,
    ) -> impl Iterator<Item = &'a Block> {
        let subject = &self.facts.subject;
        // One index may list the same bytes under two digests: a block is on the bytes.
        let asked = |sha256: &Digest| match &self.child {
            Some(child) => {
                let of = |p: &&Platform| p.sha256 == *sha256;
                subject.platforms.iter().filter(of).any(|p| p.digest == *child)
                    || !subject.platforms.iter().any(|p| of(&p))
            }
            None => true,
        };
        self.facts.blocks.iter().filter(move |block| {
            let there = block.environment.as_ref().is_none_or(|name| name == environment);
            let open = block.until.is_none_or(|until| self.at < until);
            there && open && (block.sha256 == subject.sha256 || asked(&block.sha256))
        })
    }

    /// All open findings in the images in question: at least what some gate denies.
    pub(crate) fn found(&self) -> impl Iterator<Item = &Finding> {
        let images = self.images();
        let of = move |scan: &&Scan| images.iter().any(|(_, sha256)| scan.sha256 == **sha256);
        self.facts
            .scans
            .iter()
            .filter(of)
            .flat_map(|scan| &scan.findings)
            .filter(|finding| finding.suppressed.is_none())
    }

    /// The images that the question concerns, as digest and SHA-256: the one of the platform, or all that a
    /// runtime would run.
    pub(super) fn images(&self) -> Vec<(&Digest, &Digest)> {
        let mut images = self.facts.runnable();
        if let Some(child) = &self.child {
            images.retain(|(digest, _)| *digest == child);
        }
        images
    }

    /// The waiver that accepts the finding in these bytes now, if one does.
    pub(super) fn waiver<'a>(&'a self, finding: &'a Finding, sha256: &'a Digest) -> Option<&'a Waiver> {
        self.waivers_of(finding, sha256).find(|waiver| waiver.counts_at(self.at))
    }

    /// When the last waiver that accepted the finding stopped counting.
    pub(super) fn waiver_end(&self, finding: &Finding, sha256: &Digest) -> Option<DateTime<Utc>> {
        let ended = self.waivers_of(finding, sha256).filter_map(|waiver| {
            waiver.counts_until().filter(|until| waiver.approved_at < *until && *until <= self.at)
        });
        ended.max()
    }

    fn waivers_of<'a>(
        &'a self,
        finding: &'a Finding,
        sha256: &'a Digest,
    ) -> impl Iterator<Item = &'a Waiver> {
        let subject = &self.facts.subject;
        self.facts.waivers.iter().filter(move |waiver| {
            let bytes = waiver.sha256.as_ref().is_none_or(|only| only == sha256 || *only == subject.sha256);
            let names = std::iter::once(&finding.vulnerability).chain(&finding.aliases).map(String::as_str);
            bytes
                && waiver.repositories.matches(subject.repository.as_str())
                && waiver.accepts(names, finding.purl.as_deref())
        })
    }

    /// Within what time an override of the subject is reviewed, by the policies that cover it.
    pub fn override_review(&self, policies: &Policies) -> Span {
        override_review(self.covering(policies).map(|(_, policy)| policy.as_ref()))
    }

    fn covering<'a>(&'a self, policies: &'a Policies) -> impl Iterator<Item = (&'a Digest, &'a Arc<Policy>)> {
        let subject = &self.facts.subject;
        policies.iter().filter(|(_, policy)| policy.covers(&subject.repository, &subject.environment))
    }
}

/// Decides on a promotion or a rollback. A promotion passes when it is not blocked, not held, and every gate
/// of every policy in force that covers the channel holds; without a policy it is denied. A rollback passes
/// when the version may go on running as the candidate that it is.
pub fn decide(policies: &PolicySets, case: &Case) -> Result<Decision, Failure> {
    let id = Digest::sha256(&case.inputs(&policies.in_force)?);
    let (verdict, gates) = match (case.action, &case.recorded) {
        (Action::Rollback { named }, Some(recorded)) => {
            let status = evaluate_running(policies, case, recorded, Position::Candidate { named });
            (status.verdict, status.gates)
        }
        (Action::Promote, _) | (Action::Rollback { .. }, None) => judge(&policies.in_force, case),
    };
    let subject = &case.facts.subject;
    let about = (subject.repository.clone(), subject.environment.clone(), subject.digest.clone());
    Ok(Decision { id, verdict, gates, about })
}

/// May this version enter now? The verdict without a name, for answers that are not recorded.
pub fn judge(policies: &Policies, case: &Case) -> (Verdict, Vec<GateResult>) {
    let mut gates = vec![not_blocked(case), not_held(case)];
    let review = case.override_review(policies);
    let mut covered = false;
    for (_, policy) in case.covering(policies) {
        covered = true;
        gates.extend(policy.gates.iter().map(|gate| look_at(policy, gate, case, review)));
    }
    if !covered {
        gates.push(no_policy(&case.facts));
    }
    (verdict(&gates), gates)
}

fn verdict(gates: &[GateResult]) -> Verdict {
    let mut verdict = Verdict::Allow;
    for gate in gates.iter().filter(|gate| gate.stands_in_the_way()) {
        verdict = match (gate.outcome, verdict) {
            (Outcome::Fail, _) | (_, Verdict::Deny) => Verdict::Deny,
            (Outcome::Wait { until }, Verdict::Defer { until: other }) => {
                Verdict::Defer { until: until.max(other) }
            }
            (Outcome::Wait { until }, Verdict::Allow) => Verdict::Defer { until },
            (Outcome::Pass, verdict) => verdict,
        };
    }
    verdict
}

fn look_at(policy: &Policy, gate: &Gate, case: &Case, review: Span) -> GateResult {
    let found = match gate {
        Gate::SignedBy(_) | Gate::Provenance(_) | Gate::Attestation(_) => {
            origin(gate, case, &Basis::PROMOTION).unwrap_or_else(|| gates::Finding::fail("not evaluated"))
        }
        Gate::Scan(gate) => scanned(gate, case),
        Gate::PromotedIn(gate) => timing::promoted_in(gate, case),
        Gate::Approvals(gate) => approvals(gate, case),
        Gate::MinAge(gate) => timing::min_age(gate, case),
    };
    let found = verified(gate, case, found);
    let terms = gate.terms();
    let early = terms.effective_on.is_some_and(|from| case.at < from);
    let mode = if early && terms.mode == Mode::Enforce { Mode::Warn } else { terms.mode };
    let result = found.result(gate.name(), Some(policy.name.as_str()), mode, terms.solution);
    overridden(result, case, review)
}

/// An override that counts now passes a failed gate of the kinds that may be overridden, unless nobody reviewed
/// it in time. The gate goes on showing why it failed.
fn overridden(mut result: GateResult, case: &Case, review: Span) -> GateResult {
    if !result.stands_in_the_way() || !Override::GATES.contains(&result.gate) {
        return result;
    }
    let of_gate = case.facts.overrides.iter().filter(|one| one.gates.contains(result.gate));
    let overdue: Vec<_> = of_gate.clone().filter(|one| one.is_overdue(review, case.at)).collect();
    // Another override by the same person is no review, whatever became of the first.
    let reviewed = |one: &&Override| overdue.iter().all(|late| late.created_by != one.created_by);
    let in_time: Vec<_> = of_gate.filter(|one| one.counts_at(case.at)).filter(reviewed).collect();
    if let Some(found) = in_time.first() {
        let by = BTreeSet::from([found.created_by.clone()]);
        result.evidence.push(Evidence { kind: EvidenceKind::Override, id: found.id.to_string(), by });
        result.overridden = Some(Overridden {
            id: found.id,
            created_by: found.created_by.clone(),
            reason: found.reason.clone(),
            expires_at: found.expires_at,
        });
    } else if let Some(late) = overdue.first() {
        let (id, by, due) = (late.id, &late.created_by, in_words(late.review_due_at(review)));
        let _ = write!(
            result.message,
            "; override {id} of {by} does not count, nor does another one of theirs, because nobody reviewed it by {due}: \
             another person with the \
             right to override or to administer reviews it: proofmark override review {id}"
        );
    }
    result
}

/// Always on, in no policy's power: blocked bytes do not run.
fn not_blocked(case: &Case) -> GateResult {
    let subject = &case.facts.subject;
    let mut found = gates::Finding::pass("nothing blocks these bytes");
    for block in case.blocks_in(&subject.environment) {
        let what = if block.sha256 == subject.sha256 { "it" } else { "a child of the index" };
        let until = block.until.map(|until| format!(" until {}", in_words(until))).unwrap_or_default();
        found = found.and_fail(format!("{what} is blocked{until} by {}: {}", block.by, block.why));
        found = found.saw(EvidenceKind::Block, &block.id);
    }
    found.result(
        "not_blocked",
        None,
        Mode::Enforce,
        "use another release; whoever blocked it can lift the block",
    )
}

/// Always on for promotions: a hold stops them; one with an end only puts them off.
fn not_held(case: &Case) -> GateResult {
    let mut found = gates::Finding::pass("nothing holds promotions here");
    for hold in case.facts.holds.iter().filter(|hold| hold.until.is_none_or(|until| case.at < until)) {
        let text = format!("promotions are held by {}: {}", hold.by, hold.why);
        found = match hold.until {
            Some(until) => found.and_wait(until, format!("{text} (until {})", in_words(until))),
            None => found.and_fail(text),
        };
        found = found.saw(EvidenceKind::Hold, &hold.id);
    }
    found.result("not_held", None, Mode::Enforce, "wait until the hold ends or is lifted")
}

fn no_policy(facts: &Facts) -> GateResult {
    let subject = &facts.subject;
    let message = format!("no policy covers {} in {}", subject.repository, subject.environment);
    gates::Finding::fail(message).result(
        "policy",
        None,
        Mode::Enforce,
        "put a policy for the environment whose repositories match this one",
    )
}
