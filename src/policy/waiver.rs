//! Waivers and overrides: people accept a finding, or pass a failed gate, for a reason and for a time.

use crate::names::{Digest, Pattern};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Why a finding is accepted. The first two words are those of VEX documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaiverStatus {
    /// The vulnerability does not affect the artifact; a justification says why.
    NotAffected,
    /// The scanner reported what is not there.
    FalsePositive,
    /// The risk is known and accepted until a time.
    AcceptedRisk,
}

/// An approved waiver whose scope contains the subject. Ended and expired ones are kept among the facts,
/// because the grace of a finding counts again from the end of a waiver that covered it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Waiver {
    /// The waiver's id.
    pub id: i64,
    /// The repositories in which it counts.
    pub repositories: Pattern,
    /// The SHA-256 of the only bytes for which it counts; all bytes when there is none.
    pub sha256: Option<Digest>,
    /// The vulnerabilities that it accepts, by name or alias.
    pub vulnerabilities: BTreeSet<String>,
    /// The package URL for which it counts; every package when there is none.
    pub package: Option<String>,
    /// Why the finding is accepted.
    pub status: WaiverStatus,
    /// The reason in words.
    pub reason: String,
    /// Who proposed it.
    pub created_by: String,
    /// The other person, who approved it.
    pub approved_by: String,
    /// From when on it counts.
    pub approved_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
    /// When somebody ended it.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Waiver {
    /// When it stops counting: at its expiry or its end, whichever comes first.
    pub fn counts_until(&self) -> Option<DateTime<Utc>> {
        match (self.expires_at, self.ended_at) {
            (Some(expires), Some(ended)) => Some(expires.min(ended)),
            (one, other) => one.or(other),
        }
    }

    /// Whether it counts at this time.
    pub fn counts_at(&self, at: DateTime<Utc>) -> bool {
        self.approved_at <= at && self.counts_until().is_none_or(|until| at < until)
    }

    /// Whether it accepts a finding with these names (the vulnerability and its aliases) in this package.
    pub fn accepts<'a>(&self, mut names: impl Iterator<Item = &'a str>, purl: Option<&str>) -> bool {
        names.any(|name| self.vulnerabilities.contains(name))
            && self.package.as_deref().is_none_or(|package| Some(package) == purl)
    }
}

/// An override that somebody created for the subject in its environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Override {
    /// The override's id.
    pub id: i64,
    /// The gates that it passes, by their names in a policy.
    pub gates: BTreeSet<String>,
    /// The reason in words.
    pub reason: String,
    /// Who created it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
    /// When somebody ended it.
    pub ended_at: Option<DateTime<Utc>>,
    /// The other person, who reviewed it.
    pub reviewed_by: Option<String>,
}

impl Override {
    /// The gates that an override may pass: never a signature or provenance, and no block.
    pub const GATES: [&'static str; 5] = ["attestation", "scan", "promoted_in", "approvals", "min_age"];

    /// Whether it counts at this time.
    pub fn counts_at(&self, at: DateTime<Utc>) -> bool {
        at < self.expires_at && self.ended_at.is_none_or(|ended| at < ended)
    }
}
