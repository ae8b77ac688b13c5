//! Quotas: how many bytes a repository may hold, its blobs, its manifests and what its open sessions took in; and how
//! many of evidence, envelopes and scan reports as received.
//!
//! Whoever brings something new looks at the end of its transaction, after taking the repository's
//! quota for itself: of two pushes that fit alone and not together one is refused. A repository
//! without a quota pays for none of it. Evidence that the registry attaches itself counts in the quota and is refused
//! by its own quota only, which every repository has.

use super::Repository;
use super::store::quotas as store;
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A push that would bring more than the repository may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the repository may hold {quota_bytes} bytes{of} and holds {used_bytes}; delete something, or ask an \
     administrator for more",
    of = if *.of_evidence { " of evidence (evidence_quota_bytes)" } else { "" }
)]
pub struct OverQuota {
    /// Whether it is the quota of evidence.
    pub of_evidence: bool,
    /// What it may hold.
    pub quota_bytes: u64,
    /// What it holds without this push.
    pub used_bytes: u64,
}

/// What a repository with a quota holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What it may hold.
    pub quota_bytes: u64,
    /// What it holds.
    pub used_bytes: u64,
}

impl Usage {
    /// How much more it may hold.
    pub fn left_bytes(self) -> u64 {
        self.quota_bytes.saturating_sub(self.used_bytes)
    }

    /// The refusal of what does not fit.
    pub fn over(self) -> OverQuota {
        OverQuota { of_evidence: false, quota_bytes: self.quota_bytes, used_bytes: self.used_bytes }
    }
}

/// What the repository holds with all open sessions but this one, if there is a quota on it: for bounding a body while
/// it comes.
pub async fn usage(
    connection: &mut PgConnection,
    name: &RepositoryName,
    session: Option<Uuid>,
) -> Result<Option<Usage>, Failure> {
    store::usage(connection, name, session).await
}

/// Looks whether what this transaction brought fits; `None` is a yes. Late in the transaction, before
/// its event: from here on other pushes of this repository that bring something new wait.
pub async fn over_quota(
    connection: &mut PgConnection,
    repository: &Repository,
    new_bytes: u64,
) -> Result<Option<OverQuota>, Failure> {
    let Some(quota_bytes) = repository.quota_bytes.map(i64::unsigned_abs) else { return Ok(None) };
    store::lock(connection, repository.id).await?;
    let holds_bytes = store::used(connection, repository.id).await?.bytes;
    let used_bytes = holds_bytes.saturating_sub(new_bytes);
    Ok((holds_bytes > quota_bytes).then_some(OverQuota { of_evidence: false, quota_bytes, used_bytes }))
}

/// The evidence quota of a repository with a quota of its own, where nobody set one: this part of the quota, and at
/// least so many bytes.
const EVIDENCE_PART: u64 = 10;
const LEAST_EVIDENCE_BYTES: u64 = 64 << 20;

/// Bytes of evidence that a repository with these quotas may hold; `unbounded` is for one without any.
fn evidence_quota(quota_bytes: Option<u64>, own: Option<u64>, unbounded: u64) -> u64 {
    let of_quota = quota_bytes.map(|bytes| (bytes / EVIDENCE_PART).max(LEAST_EVIDENCE_BYTES));
    own.or(of_quota).unwrap_or(unbounded)
}

/// Counts these documents, blobs that manifests of the repository carry, as evidence; each once. Returns the bytes of
/// those that are new.
pub async fn count_evidence(
    connection: &mut PgConnection,
    repository_id: i64,
    documents: &BTreeMap<Digest, u64>,
) -> Result<u64, Failure> {
    store::count_evidence(connection, repository_id, documents).await
}

/// Looks whether the evidence that this transaction brought fits; `None` is a yes. As the last thing of the
/// transaction: from here on other acts that bring evidence to this repository wait.
pub async fn over_evidence_quota(
    connection: &mut PgConnection,
    repository_id: i64,
    unbounded: u64,
    new_bytes: u64,
) -> Result<Option<OverQuota>, Failure> {
    store::lock_evidence(connection, repository_id).await?;
    let holds_bytes = store::used(connection, repository_id).await?.evidence_bytes;
    let (quota_bytes, own) = store::quotas(connection, repository_id).await?;
    let quota_bytes = evidence_quota(quota_bytes, own, unbounded);
    let used_bytes = holds_bytes.saturating_sub(new_bytes);
    Ok((holds_bytes > quota_bytes).then_some(OverQuota { of_evidence: true, quota_bytes, used_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_evidence_quota_is_the_own_one_or_a_tenth_of_the_quota_or_that_of_the_service() {
        let quota = |quota_bytes, own| evidence_quota(quota_bytes, own, 7);
        assert_eq!(quota(None, None), 7);
        assert_eq!(quota(None, Some(3)), 3);
        assert_eq!(quota(Some(10_000_000_000), None), 1_000_000_000);
        assert_eq!(quota(Some(10_000), None), 64 << 20);
        assert_eq!(quota(Some(10_000), Some(0)), 0);
    }
}
