//! Decisions: a verdict with the outcome of every gate.

use super::Mode;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No.
    Deny,
    /// Not before this time, if nothing else changes.
    Defer {
        /// When to ask again.
        until: DateTime<Utc>,
    },
}

impl Verdict {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Defer { .. } => "defer",
        }
    }
}

/// How a gate came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It will hold at this time, if nothing else changes.
    Wait {
        /// When.
        until: DateTime<Utc>,
    },
}

/// What a gate looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct Evidence {
    /// `attestation`, `scan`, `approval`, `promotion`, `block`, `hold`.
    pub kind: &'static str,
    /// Its id or digest.
    pub id: String,
}

/// One gate's part of a decision. Messages name times, never ages, so that they change only when
/// the facts do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GateResult {
    /// The gate's name.
    pub gate: &'static str,
    /// The policy that demands it; nothing for the gates that always hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What its failing does.
    pub mode: Mode,
    /// How it came out.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Why.
    pub message: String,
    /// What holds for now but will not for ever.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What it looked at.
    pub evidence: Vec<Evidence>,
    /// What would mend it, when it does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solution: Option<String>,
}

/// A verdict, every gate's outcome, and the digest of all inputs. Made only by `decide`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Decision {
    /// The digest of the inputs.
    pub id: Digest,
    /// The answer.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Every gate.
    pub gates: Vec<GateResult>,
    #[serde(skip)]
    pub(super) about: (RepositoryName, EnvironmentName, Digest),
}

/// A yes as a value: this decision allowed this digest of this repository in this environment.
#[derive(Clone, Debug)]
pub struct Yes {
    decision: Digest,
    repository: RepositoryName,
    environment: EnvironmentName,
    digest: Digest,
}

impl Decision {
    /// The yes, if that is the answer. The one place that makes one.
    pub fn yes(&self) -> Option<Yes> {
        match self.verdict {
            Verdict::Allow => {
                let (repository, environment, digest) = self.about.clone();
                Some(Yes { decision: self.id.clone(), repository, environment, digest })
            }
            Verdict::Deny | Verdict::Defer { .. } => None,
        }
    }

    /// Why not.
    pub fn reasons(&self) -> Vec<String> {
        reasons(&self.gates)
    }

    /// What was allowed with a warning.
    pub fn warnings(&self) -> Vec<String> {
        warnings(&self.gates)
    }
}

/// Why not: the messages of the gates that stand in the way.
pub fn reasons(gates: &[GateResult]) -> Vec<String> {
    gates.iter().filter(|gate| gate.stands_in_the_way()).map(GateResult::sentence).collect()
}

/// What holds for now but will not for ever, and what is missed by gates that only warn.
pub fn warnings(gates: &[GateResult]) -> Vec<String> {
    let missed = gates.iter().filter(|gate| gate.mode == Mode::Warn && gate.outcome != Outcome::Pass);
    let soon = gates.iter().flat_map(|gate| gate.warnings.iter().map(|w| format!("{}: {w}", gate.gate)));
    missed.map(GateResult::sentence).chain(soon).collect()
}

/// A time in a message, written as everywhere in our JSON.
pub fn in_words(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

impl GateResult {
    /// Whether it keeps the answer from being yes.
    pub fn stands_in_the_way(&self) -> bool {
        self.mode == Mode::Enforce && self.outcome != Outcome::Pass
    }

    fn sentence(&self) -> String {
        format!("{}: {}", self.gate, self.message)
    }
}

impl Yes {
    /// The decision.
    pub fn decision(&self) -> &Digest {
        &self.decision
    }

    /// The repository it is for.
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// The environment it is for.
    pub fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    /// The manifest it is for.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}
