//! Rows of `approvals`.

use super::end_row;
use crate::exceptions::target::Target;
use crate::exceptions::{NewApproval, Origin};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// An approval as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApprovalRow {
    /// Its id.
    pub id: i64,
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
    /// For which environment.
    pub environment: EnvironmentName,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
    /// Who approved.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether somebody asked for it, or a rollback left it.
    pub origin: Origin,
}

/// Rows as they are shown: those that the rest of the statement asks for.
macro_rules! rows {
    ($rest:literal, $($argument:tt)*) => {
        sqlx::query_as!(
            ApprovalRow,
            r#"select a.id, r.name as "repository: RepositoryName", a.manifest as "digest: Digest",
                 e.name as "environment: EnvironmentName", a.why as reason, a.until, w.name as by, a.at, a.ended_at,
                 a.origin as "origin: Origin"
               from approvals a join repositories r on r.id = a.repository_id
               join environments e on e.id = a.environment_id join principals w on w.id = a.by
               "# + $rest,
            $($argument)*
        )
    };
}

/// Ends what ran out by itself, as of when it did: open rows are what decisions read.
pub async fn end_expired(
    connection: &mut PgConnection,
    lane: &Target,
    digest: &Digest,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    sqlx::query!(
        r#"update approvals a set ended_at = a.until from manifests m
           where m.repository_id = $1 and m.digest = $2 and a.repository_id = $1 and a.sha256 = m.sha256
             and a.environment_id = $3 and a.ended_at is null and a.until <= $4"#,
        lane.repository_id(),
        digest as &Digest,
        lane.environment_id(),
        at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("ending approvals that ran out", error))?;
    Ok(())
}

/// Approves the bytes of a manifest; `None` when the repository has no such manifest.
pub async fn insert(
    connection: &mut PgConnection,
    lane: &Target,
    new: &NewApproval,
    at: DateTime<Utc>,
    by: i64,
) -> Result<Option<i64>, Failure> {
    sqlx::query_scalar!(
        r#"insert into approvals(repository_id, manifest, sha256, environment_id, why, until, by, at)
           select repository_id, digest, sha256, $3, $4, $5, $6, $7 from manifests
           where repository_id = $1 and digest = $2 returning id"#,
        lane.repository_id(),
        &new.digest as &Digest,
        lane.environment_id(),
        new.reason.as_str(),
        new.until,
        by,
        at,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("giving an approval", error))
}

/// An open approval.
pub struct Open {
    pub id: i64,
    pub repository: RepositoryName,
    pub environment: EnvironmentName,
}

/// The open approvals of somebody.
pub async fn open_of(connection: &mut PgConnection, principal: i64) -> Result<Vec<Open>, Failure> {
    sqlx::query_as!(
        Open,
        r#"select a.id, r.name as "repository: RepositoryName", e.name as "environment: EnvironmentName"
           from approvals a join repositories r on r.id = a.repository_id
           join environments e on e.id = a.environment_id
           where a.by = $1 and a.ended_at is null and coalesce(a.until > (select decision_time()), true)
           order by a.id"#,
        principal,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for the open approvals of a principal", error))
}

/// Ends it, if it is open: the manifest it was given for.
pub async fn end(
    connection: &mut PgConnection,
    target: &Target,
    id: i64,
    at: DateTime<Utc>,
    by: i64,
) -> Result<Option<Digest>, Failure> {
    end_row!(connection, "approvals", "manifest as \"manifest: Digest\"", target, id, at, by)
}

/// One approval.
pub async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<ApprovalRow>, Failure> {
    rows!("where a.id = $1", id,)
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new("reading an approval", error))
}

/// Approvals of the repository, the newest first.
pub async fn list(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    ended: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<ApprovalRow>, Failure> {
    rows!(
        "where r.name = $1 and ($2 or a.ended_at is null and (a.until is null or a.until > (select decision_time()))) and ($3::bigint is null or a.id < $3)
           order by a.id desc limit $4",
        repository as &RepositoryName,
        ended,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing approvals", error))
}
