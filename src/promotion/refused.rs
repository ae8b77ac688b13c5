//! What a caller of this room can act on.

use super::refusals::MAX_A_MINUTE;
use crate::exceptions::InvalidReason;
use crate::failure::Failure;
use crate::names::{EnvironmentName, RepositoryName};
use crate::policy::{Decision, InvalidPolicy};
use crate::postgres::refusal;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No repository of this name.
    #[error("there is no repository {0}")]
    UnknownRepository(RepositoryName),
    /// No environment of this name.
    #[error("there is no environment {0}; an administrator makes it with PUT /api/v1/environments")]
    UnknownEnvironment(EnvironmentName),
    /// No manifest of this digest or version.
    #[error("there is no artifact {0} in the repository; name it by digest, or by a write-once tag")]
    UnknownArtifact(String),
    /// No open fact of this id.
    #[error("there is nothing open of this id")]
    Unknown,
    /// Not a reason.
    #[error(transparent)]
    Reason(#[from] InvalidReason),
    /// Not a policy.
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
    /// A policy that names what is not there.
    #[error("{0}")]
    PolicyDoesNotFit(String),
    /// A gate of the policy counts for what runs from a time in the past, and so ends versions that run.
    #[error(
        "the policy ends {0} running versions at once; confirm with ends={0} (command line: --ends {0}), or set enforce_on_running_from to a later time"
    )]
    PolicyEndsRunning(usize),
    /// The policy says no, or not yet.
    #[error("{}", summarise(.0))]
    Denied(Box<Decision>),
    /// So many promotions of the caller were refused within a minute.
    #[error(
        "{} promotions of this caller were refused within a minute, each for another reason; try again in a minute",
        MAX_A_MINUTE
    )]
    TooManyRefusals,
    /// There is nothing to go back to.
    #[error("there is no earlier version to go back to{}{}", if .0.is_empty() { "" } else { ": " }, .0.join("; "))]
    NothingToGoBackTo(Vec<String>),
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

refusal!(Refused);

fn summarise(decision: &Decision) -> String {
    format!("the decision is {}: {}", decision.verdict.as_str(), decision.reasons().join("; "))
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}
