//! Rows of `holds`.

use super::end_row;
use crate::access::Rank;
use crate::exceptions::target::Target;
use crate::exceptions::{NewHold, Origin};
use crate::failure::Failure;
use crate::names::{EnvironmentName, RepositoryName};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A hold as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct HoldRow {
    /// Its id.
    pub id: i64,
    /// The repository that is held; every one when null.
    pub repository: Option<RepositoryName>,
    /// The environment that is held; every one when null.
    pub environment: Option<EnvironmentName>,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
    /// Who holds.
    pub by: String,
    /// Since when.
    pub at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether somebody asked for it, or a rollback left it.
    pub origin: Origin,
    /// The rank of the role it was placed with; the same or a higher one lifts it.
    #[schema(value_type = String)]
    pub rank: Rank,
}

/// Rows as they are shown: those that the rest of the statement asks for.
macro_rules! rows {
    ($rest:literal, $($argument:tt)*) => {
        sqlx::query_as!(
            HoldRow,
            r#"select h.id, r.name as "repository?: RepositoryName", e.name as "environment?: EnvironmentName",
                 h.why as reason, h.until, w.name as by, h.at, h.ended_at,
                 h.origin as "origin: Origin", h.rank as "rank: Rank"
               from holds h left join repositories r on r.id = h.repository_id
               left join environments e on e.id = h.environment_id join principals w on w.id = h.by
               "# + $rest,
            $($argument)*
        )
    };
}

/// Ends what ran out by itself, as of when it did: open rows are what decisions read.
pub async fn end_expired(
    connection: &mut PgConnection,
    target: &Target,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    sqlx::query!(
        r#"update holds set ended_at = until
           where repository_id is not distinct from $1 and environment_id is not distinct from $2
             and ended_at is null and until <= $3"#,
        target.repository_id(),
        target.environment_id(),
        at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("ending holds that ran out", error))?;
    Ok(())
}

/// Writes a hold.
pub async fn insert(
    connection: &mut PgConnection,
    target: &Target,
    new: &NewHold,
    rank: Rank,
    at: DateTime<Utc>,
    by: i64,
) -> Result<i64, Failure> {
    sqlx::query_scalar!(
        r#"insert into holds(repository_id, environment_id, why, until, by, at, origin, rank)
           values ($1, $2, $3, $4, $5, $6, $7, $8) returning id"#,
        target.repository_id(),
        target.environment_id(),
        new.reason.as_str(),
        new.until,
        by,
        at,
        new.origin.as_str(),
        rank as Rank,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("placing a hold", error))
}

/// Whether an open hold of this scope that a rollback left is there.
pub async fn is_kept_back(connection: &mut PgConnection, target: &Target) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select exists (select from holds
             where repository_id is not distinct from $1 and environment_id is not distinct from $2
               and ended_at is null and until is null and origin = 'rollback') as "there!""#,
        target.repository_id(),
        target.environment_id(),
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for the hold of a rollback", error))
}

/// Ends it, if it is open and of this scope; whether it did.
pub async fn end(
    connection: &mut PgConnection,
    target: &Target,
    id: i64,
    at: DateTime<Utc>,
    by: i64,
) -> Result<bool, Failure> {
    Ok(end_row!(connection, "holds", "id", target, id, at, by)?.is_some())
}

/// One hold.
pub async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<HoldRow>, Failure> {
    rows!("where h.id = $1", id,)
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new("reading a hold", error))
}

/// Holds that stop promotions of the repository, in the environment, or both, the newest first; all of them where
/// neither is named. A hold on everything of the other kind stops them too.
pub async fn list(
    connection: &mut PgConnection,
    repository: Option<&RepositoryName>,
    environment: Option<&EnvironmentName>,
    ended: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<HoldRow>, Failure> {
    rows!(
        "where (h.repository_id is null or $1::text is null or r.name = $1)
             and (h.environment_id is null or $2::text is null or e.name = $2)
             and ($3 or h.ended_at is null and (h.until is null or h.until > (select decision_time())))
             and ($4::bigint is null or h.id < $4)
           order by h.id desc limit $5",
        repository as Option<&RepositoryName>,
        environment as Option<&EnvironmentName>,
        ended,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing holds", error))
}
