//! Rows of principals, and of those that are disabled.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// A principal as it is shown.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PrincipalRow {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Tokens of it that hold.
    pub tokens: i64,
    /// Open grants of it, those of its tokens among them.
    pub grants: i64,
    /// When it was disabled.
    pub disabled_at: Option<DateTime<Utc>>,
    /// Why.
    pub disabled_reason: Option<String>,
}

macro_rules! rows {
    ($rest:literal, $($argument:tt)*) => {
        sqlx::query_as!(
            PrincipalRow,
            r#"with now as materialized (select decision_time() as at)
               select p.id, p.name, p.created_at,
                 (select count(*) from tokens t, now where t.principal_id = p.id
                    and coalesce(t.ended_at > now.at, true) and coalesce(t.expires_at > now.at, true)) as "tokens!",
                 (select count(*) from grants g where g.principal_id = p.id and g.ended_at is null) as "grants!",
                 d.disabled_at as "disabled_at?", d.reason as "disabled_reason?"
               from principals p left join principals_disabled d on d.principal_id = p.id
               "# + $rest,
            $($argument)*
        )
    };
}

pub async fn find(connection: &mut PgConnection, id: i64) -> sqlx::Result<Option<PrincipalRow>> {
    rows!("where p.id = $1", id,).fetch_optional(connection).await
}

pub async fn list(
    connection: &mut PgConnection,
    name: Option<&str>,
    after: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<PrincipalRow>> {
    rows!(
        "where ($1::text is null or p.name = $1) and ($2::bigint is null or p.id > $2) order by p.id limit $3",
        name,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Disables it; whether it was not.
pub async fn disable(
    connection: &mut PgConnection,
    id: i64,
    reason: &str,
    by: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "insert into principals_disabled(principal_id, reason, disabled_by, disabled_at) values ($1, $2, $3, $4)
         on conflict do nothing",
        id,
        reason,
        by,
        at
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Enables it; whether it was disabled.
pub async fn enable(connection: &mut PgConnection, id: i64) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from principals_disabled where principal_id = $1", id);
    Ok(done.execute(connection).await?.rows_affected() == 1)
}

/// Ends its tokens that have not ended yet.
pub async fn end_tokens(
    connection: &mut PgConnection,
    id: i64,
    by: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "update tokens set ended_at = $3, ended_by = $2
         where principal_id = $1 and coalesce(ended_at > $3, true) returning id",
        id,
        by,
        at
    )
    .fetch_all(connection)
    .await
}

/// Ends its grants, those of its tokens among them.
pub async fn end_grants(
    connection: &mut PgConnection,
    id: i64,
    by: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar!(
        "update grants set ended_at = $3, ended_by = $2 where principal_id = $1 and ended_at is null returning id",
        id,
        by,
        at
    )
    .fetch_all(connection)
    .await
}
