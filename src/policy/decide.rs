//! The one function that decides.

use super::decision::{Decision, Evidence, GateResult, Outcome, Verdict, in_words};
use super::gates::{Finding, approvals, attested, provenance, scanned, signed_by, timing};
use super::{Block, Facts, Gate, Mode, Policy};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which edition of `decide` made a decision. Raised by a change that could give another answer;
/// the inputs name it, so old decisions are never replayed by rules they did not know.
pub const DECIDE_VERSION: u32 = 1;

/// The policies in force, by their digests.
pub type Policies = BTreeMap<Digest, Arc<Policy>>;

/// What the answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Bringing a release to the environment.
    Promote,
    /// Bringing an earlier release back; a hold does not stop it.
    Rollback,
    /// Answering a deployer about a release that was promoted. What runs already keeps its yes for
    /// the grace of a finding, so that restarts do not break.
    Serve {
        /// It is the environment's newest promotion.
        running: bool,
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
    pub(super) fn blocks_in<'a>(
        &'a self,
        environment: &'a EnvironmentName,
    ) -> impl Iterator<Item = &'a Block> {
        let subject = &self.facts.subject;
        let asked = |sha256: &Digest| match &self.child {
            Some(child) => !subject.platforms.iter().any(|p| p.sha256 == *sha256 && p.digest != *child),
            None => true,
        };
        self.facts.blocks.iter().filter(move |block| {
            let there = block.environment.as_ref().is_none_or(|name| name == environment);
            let open = block.until.is_none_or(|until| self.at < until);
            there && open && (block.sha256 == subject.sha256 || asked(&block.sha256))
        })
    }

    fn covering<'a>(&'a self, policies: &'a Policies) -> impl Iterator<Item = (&'a Digest, &'a Arc<Policy>)> {
        let subject = &self.facts.subject;
        policies.iter().filter(|(_, policy)| policy.covers(&subject.repository, &subject.environment))
    }
}

/// Decides: not blocked, not held, and every gate of every policy that covers the lane. Without a
/// policy the answer is no.
pub fn decide(policies: &Policies, case: &Case) -> Result<Decision, Failure> {
    let id = Digest::sha256(&case.inputs(policies)?);
    let (verdict, gates) = judge(policies, case);
    let subject = &case.facts.subject;
    let about = (subject.repository.clone(), subject.environment.clone(), subject.digest.clone());
    Ok(Decision { id, verdict, gates, about })
}

/// The same without a name, for answers that are not recorded.
pub fn judge(policies: &Policies, case: &Case) -> (Verdict, Vec<GateResult>) {
    let mut gates = vec![not_blocked(case)];
    if case.action == Action::Promote {
        gates.push(not_held(case));
    }
    let mut covered = false;
    for (_, policy) in case.covering(policies) {
        covered = true;
        gates.extend(policy.gates.iter().map(|gate| look_at(policy, gate, case)));
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

fn look_at(policy: &Policy, gate: &Gate, case: &Case) -> GateResult {
    let found = match gate {
        Gate::SignedBy(gate) => signed_by(gate, case),
        Gate::Provenance(gate) => provenance(gate, case),
        Gate::Attestation(gate) => attested(gate, case),
        Gate::Scan(gate) => scanned(gate, case),
        Gate::PromotedIn(gate) => timing::promoted_in(gate, case),
        Gate::Approvals(gate) => approvals(gate, case),
        Gate::MinAge(gate) => timing::min_age(gate, case),
    };
    let terms = gate.terms();
    let early = terms.effective_on.is_some_and(|from| case.at < from);
    let mode = if early && terms.mode == Mode::Enforce { Mode::Warn } else { terms.mode };
    found.result(gate.name(), Some(policy.name.as_str()), mode, terms.solution)
}

/// Always on, in no policy's power: blocked bytes do not run.
fn not_blocked(case: &Case) -> GateResult {
    let subject = &case.facts.subject;
    let mut found = Finding::pass("nothing blocks these bytes");
    for block in case.blocks_in(&subject.environment) {
        let what = if block.sha256 == subject.sha256 { "it" } else { "a child of the index" };
        let until = block.until.map(|until| format!(" until {}", in_words(until))).unwrap_or_default();
        found = found.and_fail(format!("{what} is blocked{until} by {}: {}", block.by, block.why));
        found.evidence.insert(Evidence { kind: "block", id: block.id.to_string() });
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
    let mut found = Finding::pass("nothing holds promotions here");
    for hold in case.facts.holds.iter().filter(|hold| hold.until.is_none_or(|until| case.at < until)) {
        let text = format!("promotions are held by {}: {}", hold.by, hold.why);
        found = match hold.until {
            Some(until) => found.and_wait(until, format!("{text} (until {})", in_words(until))),
            None => found.and_fail(text),
        };
        found.evidence.insert(Evidence { kind: "hold", id: hold.id.to_string() });
    }
    found.result("not_held", None, Mode::Enforce, "wait until the hold ends or is lifted")
}

fn no_policy(facts: &Facts) -> GateResult {
    let subject = &facts.subject;
    let message = format!("no policy covers {} in {}", subject.repository, subject.environment);
    Finding::fail(message).result(
        "policy",
        None,
        Mode::Enforce,
        "put a policy for the environment whose repositories match this one",
    )
}
