//! Why content did not change.

use super::OverQuota;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Tag};
use crate::postgres::refusal;
use chrono::{DateTime, Utc};
use std::fmt;

/// Why a manifest or its tags were not stored; nothing of the push was.
#[derive(Debug, thiserror::Error)]
pub enum PushRefused {
    /// Blobs that this repository does not have.
    #[error("the repository has no such blob: {}", listed(.0))]
    BlobsUnknown(Vec<Digest>),
    /// Manifests that the index lists and this repository does not have.
    #[error("the repository has no such manifest: {}", listed(.0))]
    ChildrenUnknown(Vec<Digest>),
    /// A descriptor's size is not that of the bytes it names.
    #[error("{digest} has {actual_bytes} bytes, the manifest says {declared_bytes}")]
    SizeDiffers {
        /// Of what.
        digest: Digest,
        /// What the manifest says.
        declared_bytes: i64,
        /// What it is.
        actual_bytes: i64,
    },
    /// The same bytes as a manifest and as an index's entry of another kind: runtimes would run what
    /// was never looked at.
    #[error(
        "{digest} is a manifest, and the index {index} lists it as something else: list it with its own media type"
    )]
    ListedAsBlob {
        /// The manifest.
        digest: Digest,
        /// The index.
        index: Digest,
    },
    /// Indexes in indexes, too many levels of them.
    #[error("indexes nest deeper than {0} levels")]
    NestedTooDeep(i32),
    /// A write-once name that is held for another digest.
    #[error("the tag {tag} is write-once and names {current}{}", if *.hidden { "; it was deleted, and its name stays reserved for that digest" } else { "" })]
    TagTaken {
        /// The tag.
        tag: Tag,
        /// What it names, for ever.
        current: Digest,
        /// Whether it was deleted.
        hidden: bool,
    },
    /// More than the repository may hold.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

refusal!(PushRefused);
refusal!(DeleteRefused);
refusal!(ReserveRefused);

/// Why names were not reserved; none of them was.
#[derive(Debug, thiserror::Error)]
pub enum ReserveRefused {
    /// There is no such repository.
    #[error("there is no such repository")]
    Unknown,
    /// It is held for another digest.
    #[error("the tag {tag} names {current}, or is held for it")]
    Taken {
        /// The tag.
        tag: Tag,
        /// What it is held for, or where it floats now.
        current: Digest,
        /// Whether it was deleted.
        hidden: bool,
    },
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why something was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteRefused {
    /// There is nothing of this name.
    #[error("there is no such manifest or tag")]
    Unknown,
    /// Something needs it.
    #[error("it is held by {}", listed(.0))]
    Held(Vec<Holder>),
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What holds a manifest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A pin: promoted, deployed, a rollback candidate.
    Pin {
        /// Why it was pinned.
        reason: String,
        /// Until when, if not for good.
        until: Option<DateTime<Utc>>,
    },
    /// An index lists it.
    Index(Digest),
    /// It says something about, or is a part of, another manifest that is pinned.
    BelongsTo {
        /// The pinned one.
        digest: Digest,
        /// Why that was pinned.
        reason: String,
        /// Until when, if not for good.
        until: Option<DateTime<Utc>>,
    },
    /// It is the version that is current in an environment.
    Current {
        /// The environment.
        environment: EnvironmentName,
    },
    /// A row of another room refers to it; the constraint says which.
    Reference(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin { reason, until: None } => f.write_str(reason),
            Self::Pin { reason, until: Some(until) } => {
                write!(f, "{reason} until {}", until.to_rfc3339())
            }
            Self::Index(digest) => write!(f, "the index {digest}"),
            Self::BelongsTo { digest, reason, until: None } => write!(f, "{digest}, {reason}"),
            Self::BelongsTo { digest, reason, until: Some(until) } => {
                write!(f, "{digest}, {reason} until {}", until.to_rfc3339())
            }
            Self::Current { environment } => write!(f, "{environment}, where it is the current version"),
            Self::Reference(constraint) => write!(f, "a rule ({})", constraint.replace('_', " ")),
        }
    }
}

/// A few of them in one sentence.
fn listed<T: fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<String> = items.iter().take(SHOWN).map(T::to_string).collect();
    if items.len() > SHOWN {
        text.push(format!("and {} more", items.len() - SHOWN));
    }
    text.join(", ")
}
