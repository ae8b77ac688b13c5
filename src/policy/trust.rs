//! Trust in a signature, judged on reading: that a key signed never changes, whether it counts does.

use crate::names::{Pattern, RepositoryName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A registered signer's key signed the statement, with what the key is believed for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signature {
    /// The signer's name.
    pub signer: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo, hex.
    pub key_id: String,
    /// Repositories it is believed for.
    pub repositories: BTreeSet<Pattern>,
    /// Predicate types it is believed for.
    pub predicate_types: BTreeSet<Pattern>,
    /// From when its statements count, by the time they were received.
    pub valid_from: DateTime<Utc>,
    /// Until when.
    pub valid_until: Option<DateTime<Utc>>,
    /// Whether it was revoked.
    pub revocation: Option<Revocation>,
    /// Of a result: it came with pushes only, never through `POST /api/v1/attestations`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pushed: bool,
    /// Of a FAILED: when it last came through `POST /api/v1/attestations`, if that was after the first receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated_at: Option<DateTime<Utc>>,
}

/// A signer was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revocation {
    /// What was received at or after this time does not count.
    pub distrusted_from: DateTime<Utc>,
    /// Nothing counts, whenever it was received.
    pub compromised: bool,
}

impl Revocation {
    /// Both: the stricter of each.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            distrusted_from: self.distrusted_from.min(other.distrusted_from),
            compromised: self.compromised || other.compromised,
        }
    }
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// The key is compromised.
    #[error("its key is compromised")]
    Compromised,
    /// Received after the key was revoked.
    #[error("its key was revoked before the statement was received")]
    Revoked,
    /// Received outside of the key's validity.
    #[error("its key was not valid when the statement was received")]
    NotValidThen,
    /// The signer is not believed for this repository.
    #[error("it is not registered for this repository")]
    OtherRepositories,
    /// The signer is not believed for this predicate type.
    #[error("it is not registered for this predicate type")]
    OtherPredicates,
}

impl Signature {
    /// Whether the signature counts for a statement of this type, received then, in this repository.
    pub fn trusted_for(
        &self,
        repository: &RepositoryName,
        predicate_type: &str,
        received_at: DateTime<Utc>,
    ) -> Result<(), Untrusted> {
        if let Some(revocation) = self.revocation {
            if revocation.compromised {
                return Err(Untrusted::Compromised);
            }
            if received_at >= revocation.distrusted_from {
                return Err(Untrusted::Revoked);
            }
        }
        self.registered_for(repository, predicate_type, received_at)
    }

    /// Whether a revocation takes it back: nothing of a compromised key counts, and of another one nothing that was
    /// received later than it is trusted.
    pub fn is_withdrawn(&self, received_at: DateTime<Utc>) -> bool {
        self.revocation.is_some_and(|one| one.compromised || one.distrusted_from <= received_at)
    }

    /// Whether the signature counted when it was received. A FAILED and what a scan found go on counting by this:
    /// neither a stolen key nor its revocation clears them.
    pub fn was_trusted_for(
        &self,
        repository: &RepositoryName,
        predicate_type: &str,
        received_at: DateTime<Utc>,
    ) -> Result<(), Untrusted> {
        if self.revocation.is_some_and(|revocation| received_at >= revocation.distrusted_from) {
            return Err(Untrusted::Revoked);
        }
        self.registered_for(repository, predicate_type, received_at)
    }

    /// The same, whatever was revoked: whether the key was valid then, and its signer is believed for this.
    pub fn registered_for(
        &self,
        repository: &RepositoryName,
        predicate_type: &str,
        received_at: DateTime<Utc>,
    ) -> Result<(), Untrusted> {
        if received_at < self.valid_from || self.valid_until.is_some_and(|until| received_at >= until) {
            return Err(Untrusted::NotValidThen);
        }
        if !self.repositories.iter().any(|pattern| pattern.matches(repository.as_str())) {
            return Err(Untrusted::OtherRepositories);
        }
        if !self.predicate_types.iter().any(|pattern| pattern.matches(predicate_type)) {
            return Err(Untrusted::OtherPredicates);
        }
        Ok(())
    }
}
