//! Rows of `overrides`.

use super::end_row;
use crate::exceptions::target::Target;
use crate::exceptions::{NewOverride, Origin, OverrideFilter};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Reference, RepositoryName, Tag};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// How far an override has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum OverrideState {
    /// It counts.
    InForce,
    /// Its time is over.
    Expired,
    /// Somebody revoked it.
    Ended,
}

impl OverrideState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Expired => "expired",
            Self::Ended => "ended",
        }
    }
}

/// An override as it is shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OverrideRow {
    /// Its id.
    pub id: i64,
    /// How far it has come.
    pub state: OverrideState,
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
    /// The environment in which it counts.
    pub environment: EnvironmentName,
    /// The gates that it passes.
    pub gates: Vec<String>,
    /// Why.
    pub reason: String,
    /// Who created it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
    /// The other person, who reviewed it; null until then.
    pub reviewed_by: Option<String>,
    /// When.
    pub reviewed_at: Option<DateTime<Utc>>,
    /// Until when another person reviews it, by the policies in force; null once it is reviewed.
    pub review_due_at: Option<DateTime<Utc>>,
    /// Whether that time is over: until it is reviewed, it counts for no new promotion.
    pub review_overdue: bool,
    /// Who revoked it.
    pub ended_by: Option<String>,
    /// When.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether somebody asked for it.
    pub origin: Origin,
}

/// Rows as they are shown: those that the rest of the statement asks for.
macro_rules! rows {
    ($rest:literal, $($argument:tt)*) => {
        sqlx::query_as!(
            OverrideRow,
            r#"select o.id, o.state as "state!: OverrideState", r.name as "repository: RepositoryName",
                 o.manifest as "digest: Digest", e.name as "environment: EnvironmentName", o.gates, o.reason,
                 c.name as created_by, o.created_at, o.expires_at, v.name as "reviewed_by?", o.reviewed_at,
                 null::timestamptz as review_due_at, false as "review_overdue!",
                 z.name as "ended_by?", o.ended_at, o.origin as "origin: Origin"
               from (select *, case when ended_at is not null then 'ended'
                                    when expires_at <= (select decision_time()) then 'expired'
                                    else 'in_force' end as state from overrides) o
               join repositories r on r.id = o.repository_id join environments e on e.id = o.environment_id
               join principals c on c.id = o.created_by
               left join principals v on v.id = o.reviewed_by left join principals z on z.id = o.ended_by
               "# + $rest,
            $($argument)*
        )
    };
}

/// Writes an override of a manifest, named by digest or by an immutable tag; `None` when the repository has no
/// such manifest.
pub async fn insert(
    connection: &mut PgConnection,
    target: &Target,
    new: &NewOverride,
    at: DateTime<Utc>,
    by: i64,
) -> Result<Option<i64>, Failure> {
    let (digest, version) = match &new.artifact {
        Reference::Digest(digest) => (Some(digest), None),
        Reference::Tag(version) => (None, Some(version)),
    };
    let gates: Vec<String> = new.gates.iter().cloned().collect();
    sqlx::query_scalar!(
        r#"insert into overrides(repository_id, manifest, sha256, environment_id, gates, reason, created_by,
             created_at, expires_at)
           select m.repository_id, m.digest, m.sha256, $4, $5, $6, $7, $8, $9 from manifests m
           where m.repository_id = $1 and m.digest = coalesce($2, (
             select t.digest from tags t where t.repository_id = $1 and t.name = $3
               and not exists (select from tags_hidden h where h.repository_id = $1 and h.name = $3)))
           returning id"#,
        target.repository_id(),
        digest as Option<&Digest>,
        version as Option<&Tag>,
        target.environment_id(),
        &gates,
        new.reason.as_str(),
        by,
        at,
        new.expires_at,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("writing an override", error))
}

/// What decides whether an override can be reviewed.
pub struct Given {
    pub created_by: i64,
    pub reviewed: bool,
}

/// Whether somebody is an author of what the override is for: pushed it or a part of it, in whichever repository.
pub async fn is_author(connection: &mut PgConnection, id: i64, principal: i64) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select coalesce(is_author($2, bytes_below(o.repository_id, o.sha256)), false) as "is_author!"
           from overrides o where o.id = $1"#,
        id,
        principal,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for the authors of what an override is for", error))
}

/// The same, kept as it is until the end of the transaction.
pub async fn lock(connection: &mut PgConnection, id: i64) -> Result<Option<Given>, Failure> {
    sqlx::query_as!(
        Given,
        r#"select created_by, reviewed_at is not null as "reviewed!" from overrides where id = $1 for no key update"#,
        id,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading an override to review it", error))
}

/// Writes who reviewed it.
pub async fn review(
    connection: &mut PgConnection,
    id: i64,
    at: DateTime<Utc>,
    by: i64,
) -> Result<(), Failure> {
    sqlx::query!("update overrides set reviewed_at = $2, reviewed_by = $3 where id = $1", id, at, by)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("reviewing an override", error))?;
    Ok(())
}

/// Ends it, if it is open and of this release channel: the manifest it was created for.
pub async fn end(
    connection: &mut PgConnection,
    target: &Target,
    id: i64,
    at: DateTime<Utc>,
    by: i64,
) -> Result<Option<Digest>, Failure> {
    end_row!(connection, "overrides", "manifest as \"manifest: Digest\"", target, id, at, by)
}

/// One override.
pub async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<OverrideRow>, Failure> {
    rows!("where o.id = $1", id,)
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new("reading an override", error))
}

/// Overrides, the newest first.
pub async fn list(
    connection: &mut PgConnection,
    filter: &OverrideFilter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<OverrideRow>, Failure> {
    rows!(
        "where ($1::text is null or r.name = $1) and ($2::text is null or e.name = $2)
             and ($3::text is null or o.state = $3)
             and ($4::bool is null or (o.reviewed_at is not null) = $4)
             and ($5::bigint is null or o.id < $5)
           order by o.id desc limit $6",
        filter.repository.as_ref() as Option<&RepositoryName>,
        filter.environment.as_ref() as Option<&EnvironmentName>,
        filter.state.map(OverrideState::as_str),
        filter.reviewed,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing overrides", error))
}
