//! Each gate against the facts.

mod approvals;
pub(super) mod origin;
pub(super) mod scanned;
mod threshold;
pub(super) mod timing;

pub(super) use approvals::approvals;
pub(super) use origin::{Basis, origin, verified};
pub(super) use scanned::scanned;

use super::{Evidence, EvidenceKind, GateResult, Mode, Outcome, WaivedFinding};
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

/// What looking at the facts found, before the policy's terms are laid on it.
pub(super) struct Finding {
    outcome: Outcome,
    messages: Vec<String>,
    warnings: BTreeSet<String>,
    waived: BTreeSet<WaivedFinding>,
    pub(super) evidence: BTreeSet<Evidence>,
}

impl Finding {
    pub(super) fn pass(message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Pass,
            messages: vec![message.into()],
            warnings: BTreeSet::new(),
            waived: BTreeSet::new(),
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

    /// Adds a warning, which refuses nothing.
    pub(super) fn and_warn(mut self, message: impl Into<String>) -> Self {
        self.warnings.insert(message.into());
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

    /// What it said, without its outcome.
    fn reopened(self) -> Self {
        Self { outcome: Outcome::Pass, messages: Vec::new(), ..self }
    }

    /// Both: what `other` says is put behind this prefix.
    fn and(mut self, prefix: &str, other: Self) -> Self {
        self.warnings.extend(other.warnings);
        self.waived.extend(other.waived);
        self.evidence.extend(other.evidence);
        let message = format!("{prefix}{}", other.messages.join("; "));
        match other.outcome {
            Outcome::Pass => self,
            Outcome::Fail => self.and_fail(message),
            Outcome::Wait { until } => self.and_wait(until, message),
        }
    }

    pub(super) fn passes(&self) -> bool {
        self.outcome == Outcome::Pass
    }

    pub(super) fn message(&self) -> String {
        self.messages.join("; ")
    }

    fn drop_pass(&mut self) {
        if self.outcome == Outcome::Pass {
            self.messages.clear();
        }
    }

    pub(super) fn waive(&mut self, finding: WaivedFinding) {
        let id = finding.waiver.to_string();
        self.evidence.insert(Evidence { kind: EvidenceKind::Waiver, id, by: BTreeSet::new() });
        self.waived.insert(finding);
    }

    pub(super) fn saw(mut self, kind: EvidenceKind, id: &impl ToString) -> Self {
        self.evidence.insert(Evidence { kind, id: id.to_string(), by: BTreeSet::new() });
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
            waived: self.waived.into_iter().collect(),
            overridden: None,
            evidence: self.evidence.into_iter().collect(),
            solution,
        }
    }
}

/// Names in a sentence.
fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}
