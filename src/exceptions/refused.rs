//! Why an exception was not made, changed or ended.

use super::reason::InvalidReason;
use crate::access::{Action, Rank};
use crate::failure::Failure;
use crate::names::{EnvironmentName, RepositoryName};
use crate::postgres::refusal;
use chrono::{DateTime, Utc};

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
    /// No open exception of this id.
    #[error("there is nothing open of this id")]
    Unknown,
    /// The end lies before the beginning.
    #[error("until must lie in the future")]
    UntilIsPast,
    /// Parts that do not fit together, or a limit that is exceeded.
    #[error("{0}")]
    Invalid(String),
    /// A gate that no override passes.
    #[error(
        "{gate} cannot be overridden: an override passes {may}; it never passes a block, signed_by or provenance"
    )]
    NotOverridable {
        /// The gate.
        gate: String,
        /// The gates that can be overridden.
        may: String,
    },
    /// It expired or ended.
    #[error("{0}")]
    NotOpen(String),
    /// A waiver is approved once.
    #[error("waiver {0} is approved already")]
    AlreadyApproved(i64),
    /// An override is reviewed once.
    #[error("override {0} is reviewed already")]
    AlreadyReviewed(i64),
    /// The second person is the first.
    #[error("a waiver is approved by another person than the one who created it")]
    ApproverIsCreator,
    /// The second person made what the waiver is about.
    #[error(
        "a waiver is not approved by an author of the artifact: one who pushed it or a part of it, in whichever repository"
    )]
    ApproverIsAuthor,
    /// The second person is the first.
    #[error("an override is reviewed by another person than the one who created it")]
    ReviewerIsCreator,
    /// The second person made what the override is for.
    #[error(
        "an override is not reviewed by an author of the artifact: one who pushed it or a part of it, in whichever \
         repository"
    )]
    ReviewerIsAuthor,
    /// It was placed with a higher rank.
    #[error(
        "this {} was placed with the rank {needed}: the same rank or a higher one lifts it (promoter < security < \
         admin), and yours here is {held}",
        action.as_str()
    )]
    RankTooLow {
        /// The right that placed it, which is called as it is: to block, or to hold.
        action: Action,
        /// Its rank.
        needed: Rank,
        /// The caller's, in its scope.
        held: Rank,
    },
    /// Not a reason.
    #[error(transparent)]
    Reason(#[from] InvalidReason),
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

refusal!(Refused);

impl Refused {
    /// Refuses an `until` that is over.
    pub(super) fn until_is_past(until: Option<DateTime<Utc>>, at: DateTime<Utc>) -> Result<(), Self> {
        if until.is_some_and(|until| until <= at) { Err(Self::UntilIsPast) } else { Ok(()) }
    }
}

impl Refused {
    /// Refuses to lift what was placed with a higher rank.
    pub(super) fn rank_is_too_low(action: Action, needed: Rank, held: Rank) -> Result<(), Self> {
        if needed > held { Err(Self::RankTooLow { action, needed, held }) } else { Ok(()) }
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}
