//! Decisions: a verdict with the outcome of every gate.

use super::{Mode, Risk};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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

/// A kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the word itself")]
pub enum EvidenceKind {
    Attestation,
    Scan,
    Approval,
    Promotion,
    Block,
    Hold,
    Waiver,
    Override,
}

impl EvidenceKind {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attestation => "attestation",
            Self::Scan => "scan",
            Self::Approval => "approval",
            Self::Promotion => "promotion",
            Self::Block => "block",
            Self::Hold => "hold",
            Self::Waiver => "waiver",
            Self::Override => "override",
        }
    }
}

/// What a gate looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// What it is.
    pub kind: EvidenceKind,
    /// Its id or digest.
    pub id: String,
    /// Whose signature or approval counted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub by: BTreeSet<String>,
}

/// A finding that the gate denies and that a waiver accepts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct WaivedFinding {
    /// The vulnerability.
    pub vulnerability: String,
    /// The package.
    pub package: String,
    /// The waiver's id.
    pub waiver: i64,
    /// Until when the waiver counts.
    pub expires_at: Option<DateTime<Utc>>,
}

/// An override that passes a failed gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Overridden {
    /// The override's id.
    pub id: i64,
    /// Who created it.
    pub created_by: String,
    /// Its reason.
    pub reason: String,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
}

/// A named, dated risk of a version that goes on running.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct AtRisk {
    /// What kind of risk.
    pub reason: Risk,
    /// The gate that finds it.
    pub gate: &'static str,
    /// The policy that demands the gate.
    pub policy: Option<String>,
    /// The risk in words.
    pub message: String,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// When the version ends, if nothing else changes; nothing where no end is set.
    pub ends_at: Option<DateTime<Utc>>,
    /// What shows it.
    pub evidence: Vec<Evidence>,
}

/// A gate that would refuse the version if it were promoted today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct NotToday {
    /// The gate.
    pub gate: &'static str,
    /// The policy that demands it.
    pub policy: Option<String>,
    /// Why it would refuse.
    pub message: String,
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
    /// Findings that it denies and that waivers accept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<WaivedFinding>,
    /// The override that passes it although it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overridden: Option<Overridden>,
    /// What it looked at.
    pub evidence: Vec<Evidence>,
    /// What would solve it, when it does not hold.
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
    let overridden = gates.iter().filter_map(|gate| {
        let by = gate.overridden.as_ref()?;
        Some(format!(
            "{} (passed by override {} of {}: {})",
            gate.sentence(),
            by.id,
            by.created_by,
            by.reason
        ))
    });
    let waived = gates.iter().flat_map(|gate| {
        gate.waived.iter().map(|one| {
            let until = one.expires_at.map(|at| format!(" until {}", in_words(at))).unwrap_or_default();
            format!(
                "{}: {} in {} is waived{until} (waiver {})",
                gate.gate, one.vulnerability, one.package, one.waiver
            )
        })
    });
    missed.map(GateResult::sentence).chain(soon).chain(overridden).chain(waived).collect()
}

/// A time in a message, written as everywhere in our JSON.
pub fn in_words(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

impl GateResult {
    /// Whether it keeps the answer from being yes.
    pub fn stands_in_the_way(&self) -> bool {
        self.mode == Mode::Enforce && self.outcome != Outcome::Pass && self.overridden.is_none()
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
