//! Rows of `blocks`.

use super::end_row;
use crate::access::Rank;
use crate::exceptions::target::Target;
use crate::exceptions::{NewBlock, Origin, block_counts};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A block as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct BlockRow {
    /// Its id.
    pub id: i64,
    /// Where it was placed. Null, like the reason, who placed it and where else it counts, for those who may not see
    /// that repository.
    pub repository: Option<RepositoryName>,
    /// The manifest.
    pub digest: Digest,
    /// The SHA-256 of the blocked bytes.
    pub sha256: Digest,
    /// Where it counts; everywhere when null.
    pub environment: Option<EnvironmentName>,
    /// Why.
    pub reason: Option<String>,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
    /// Who placed it.
    pub by: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether somebody asked for it, or a rollback left it.
    pub origin: Origin,
    /// The rank of the role it was placed with; the same or a higher one lifts it.
    #[schema(value_type = String)]
    pub rank: Rank,
    /// Patterns of the repositories where it counts beside its own: where its author had the right to block when it
    /// was placed.
    pub repositories: Option<Vec<Pattern>>,
}

impl BlockRow {
    /// Whether it counts in the repository.
    pub fn counts_in(&self, repository: &RepositoryName) -> bool {
        let is_own = self.repository.as_ref() == Some(repository);
        block_counts(is_own, self.repositories.as_deref().unwrap_or_default(), repository)
    }

    /// What whoever may not see where it was placed is shown: that the bytes are blocked, where and
    /// until when.
    #[must_use]
    pub fn from_elsewhere(self) -> Self {
        Self { repository: None, reason: None, by: None, repositories: None, ..self }
    }
}

/// Rows as they are shown: those that the rest of the statement asks for.
macro_rules! rows {
    ($rest:literal, $($argument:tt)*) => {
        sqlx::query_as!(
            BlockRow,
            r#"select b.id, r.name as "repository?: RepositoryName", b.manifest as "digest: Digest",
                 b.sha256 as "sha256: Digest", e.name as "environment?: EnvironmentName", b.why as "reason?", b.until,
                 w.name as "by?", b.at, b.ended_at,
                 b.origin as "origin: Origin", b.rank as "rank: Rank",
                 b.repositories as "repositories?: Vec<Pattern>"
               from blocks b join repositories r on r.id = b.repository_id
               left join environments e on e.id = b.environment_id join principals w on w.id = b.by
               "# + $rest,
            $($argument)*
        )
    };
}

/// Ends what ran out by itself, as of when it did: open rows are what decisions read.
pub async fn end_expired(
    connection: &mut PgConnection,
    target: &Target,
    digests: &[Digest],
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    sqlx::query!(
        r#"update blocks b set ended_at = b.until from manifests m
           where m.repository_id = $1 and m.digest = any($2) and b.sha256 = m.sha256 and b.ended_at is null
             and b.until <= $3"#,
        target.repository_id(),
        digests as &[Digest],
        at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("ending blocks that ran out", error))?;
    Ok(())
}

/// Who places blocks, and how widely they count.
pub struct Placing<'a> {
    /// The principal.
    pub by: i64,
    /// The rank of its role.
    pub rank: Rank,
    /// Where they count beside their own repository.
    pub reach: &'a [Pattern],
}

/// Blocks the bytes of those manifests that the repository has, unless just this block of them is open; the ids of the
/// blocks that are new.
pub async fn insert_missing(
    connection: &mut PgConnection,
    target: &Target,
    (digests, new): (&[Digest], &NewBlock),
    placing: &Placing<'_>,
    at: DateTime<Utc>,
) -> Result<Vec<i64>, Failure> {
    sqlx::query_scalar!(
        r#"insert into blocks(repository_id, manifest, sha256, environment_id, why, until, by, at, rank, repositories)
           select repository_id, digest, sha256, $3, $4, $5, $6, $7, $8, $9 from manifests m
           where repository_id = $1 and digest = any($2) and not exists (
             select from blocks b
             where b.sha256 = m.sha256 and b.ended_at is null and b.repository_id = m.repository_id
               and b.manifest = m.digest and b.environment_id is not distinct from $3 and b.why = $4
               and b.until is not distinct from $5 and b.by = $6 and b.rank = $8 and b.repositories = $9)
           returning id"#,
        target.repository_id(),
        digests as &[Digest],
        target.environment_id(),
        new.reason.as_str(),
        new.until,
        placing.by,
        at,
        placing.rank as Rank,
        placing.reach as &[Pattern],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("placing blocks", error))
}

/// The open blocks that [`insert_missing`] placed or found, the older first.
pub async fn placed(
    connection: &mut PgConnection,
    target: &Target,
    (digests, new): (&[Digest], &NewBlock),
    placing: &Placing<'_>,
) -> Result<Vec<BlockRow>, Failure> {
    rows!(
        "where b.repository_id = $1 and b.manifest = any($2) and b.ended_at is null
             and b.environment_id is not distinct from $3 and b.why = $4 and b.until is not distinct from $5
             and b.by = $6 and b.rank = $7 and b.repositories = $8
             and b.sha256 in (select m.sha256 from manifests m where m.repository_id = $1 and m.digest = any($2))
           order by b.id",
        target.repository_id(),
        digests as &[Digest],
        target.environment_id(),
        new.reason.as_str(),
        new.until,
        placing.by,
        placing.rank as Rank,
        placing.reach as &[Pattern],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading blocks", error))
}

/// Ends it, if it is open and was placed in this scope: the manifest it was placed on.
pub async fn end(
    connection: &mut PgConnection,
    target: &Target,
    id: i64,
    at: DateTime<Utc>,
    by: i64,
) -> Result<Option<Digest>, Failure> {
    end_row!(connection, "blocks", "manifest as \"manifest: Digest\"", target, id, at, by)
}

/// One block.
pub async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<BlockRow>, Failure> {
    rows!("where b.id = $1", id,)
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new("reading a block", error))
}

/// Blocks of the repository, the newest first: those that were placed there, and those that were placed elsewhere on
/// bytes that are there too, whether or not they count there.
pub async fn list(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    ended: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<BlockRow>, Failure> {
    rows!(
        "where ($2 or b.ended_at is null and (b.until is null or b.until > (select decision_time()))) and ($3::bigint is null or b.id < $3)
             and (r.name = $1 or exists (select from repositories o join manifests m on m.repository_id = o.id
                                         where o.name = $1 and m.sha256 = b.sha256))
           order by b.id desc limit $4",
        repository as &RepositoryName,
        ended,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing blocks", error))
}
