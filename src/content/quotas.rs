//! Quotas: how many bytes a repository may hold, its blobs, its manifests and what its open sessions took in.
//!
//! Whoever brings something new looks at the end of its transaction, after taking the repository's
//! quota for itself: of two pushes that fit alone and not together one is refused. A repository
//! without a quota pays for none of it. Evidence that the registry attaches itself is counted and
//! never refused: a scan must be able to say no.

use super::Repository;
use super::store::quotas as store;
use crate::failure::Failure;
use crate::names::RepositoryName;
use sqlx::PgConnection;
use uuid::Uuid;

/// A push that would bring more than the repository may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the repository may hold {quota_bytes} bytes and holds {used_bytes}; delete something, or ask an \
     administrator for more"
)]
pub struct OverQuota {
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
        OverQuota { quota_bytes: self.quota_bytes, used_bytes: self.used_bytes }
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
    let holds_bytes = store::used(connection, repository.id).await?;
    let used_bytes = holds_bytes.saturating_sub(new_bytes);
    Ok((holds_bytes > quota_bytes).then_some(OverQuota { quota_bytes, used_bytes }))
}
