//! Each gate against the facts.

mod approvals;
mod origin;
mod scanned;
pub(super) mod timing;

pub(super) use approvals::approvals;
pub(super) use origin::{attested, provenance, signed_by};
pub(super) use scanned::scanned;

use super::{Evidence, GateResult, Mode, Outcome};
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

/// What looking at the facts found, before the policy's terms are laid on it.
pub(super) struct Finding {
    outcome: Outcome,
    messages: Vec<String>,
    warnings: BTreeSet<String>,
    pub(super) evidence: BTreeSet<Evidence>,
}

impl Finding {
    pub(super) fn pass(message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Pass,
            messages: vec![message.into()],
            warnings: BTreeSet::new(),
            evidence: BTreeSet::new(),
        }
    }

    pub(super) fn fail(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, ..Self::pass(message) }
    }

    /// Worsens it; what a pass said falls away.
    pub(super) fn and_fail(mut self, message: impl Into<String>) -> Self {
        self.drop_pass();
        self.outcome = Outcome::Fail;
        self.messages.push(message.into());
        self
    }

    /// Puts it off, at least until then, unless it fails anyway.
    pub(super) fn and_wait(mut self, until: DateTime<Utc>, message: impl Into<String>) -> Self {
        self.drop_pass();
        self.outcome = match self.outcome {
            Outcome::Pass => Outcome::Wait { until },
            Outcome::Wait { until: other } => Outcome::Wait { until: until.max(other) },
            Outcome::Fail => Outcome::Fail,
        };
        self.messages.push(message.into());
        self
    }

    fn drop_pass(&mut self) {
        if self.outcome == Outcome::Pass {
            self.messages.clear();
        }
    }

    fn warn(&mut self, message: impl Into<String>) {
        self.warnings.insert(message.into());
    }

    fn saw(mut self, kind: &'static str, id: &impl ToString) -> Self {
        self.evidence.insert(Evidence { kind, id: id.to_string() });
        self
    }

    pub(super) fn result(
        self,
        gate: &'static str,
        policy: Option<&str>,
        mode: Mode,
        solution: &str,
    ) -> GateResult {
        let solution = (self.outcome != Outcome::Pass).then(|| solution.to_owned());
        GateResult {
            gate,
            policy: policy.map(str::to_owned),
            mode,
            outcome: self.outcome,
            message: self.messages.join("; "),
            warnings: self.warnings.into_iter().collect(),
            evidence: self.evidence.into_iter().collect(),
            solution,
        }
    }
}

/// Names in a sentence.
fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}
