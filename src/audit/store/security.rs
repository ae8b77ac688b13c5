//! Rows of `security_events`.

use crate::audit::{SecurityEventKind, SecurityQuestion};
use crate::failure::Failure;
use crate::names::RepositoryName;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

/// A record to be written.
pub struct NewSecurityEvent {
    pub kind: &'static str,
    pub principal_id: Option<i64>,
    pub token_id: Option<Uuid>,
    pub client_address: Option<String>,
    pub action: Option<&'static str>,
    pub repository: Option<RepositoryName>,
    pub count: i64,
    pub first_at: DateTime<Utc>,
    pub last_at: DateTime<Utc>,
}

/// Security events of one kind that a principal or an address caused within a minute, at one replica.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SecurityEventRow {
    /// Its number.
    pub id: i64,
    /// `authentication.failed`, `access.refused`, `audit.read` or `audit.exported`.
    pub kind: String,
    /// Who asked; null where no credential held.
    pub principal: Option<String>,
    /// The principal's number in events.
    pub principal_id: Option<i64>,
    /// The token that was shown last.
    pub token_id: Option<Uuid>,
    /// The address that it came from last; a range where many were counted together, null where too many were.
    pub client_address: Option<String>,
    /// What was to be done.
    pub action: Option<String>,
    /// On what, where the caller could see it.
    pub repository: Option<String>,
    /// How many times.
    pub count: i64,
    /// When the first happened.
    pub first_at: DateTime<Utc>,
    /// When the last happened.
    pub last_at: DateTime<Utc>,
}

/// Writes records.
pub async fn insert(connection: &mut PgConnection, rows: &[NewSecurityEvent]) -> Result<(), Failure> {
    let columns =
        |text: fn(&NewSecurityEvent) -> Option<&str>| rows.iter().map(text).map(|t| t.map(str::to_owned));
    sqlx::query!(
        "insert into security_events(kind, principal_id, token_id, client_address, action, repository, count,
                                     first_at, last_at)
         select * from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[],
                              $7::bigint[], $8::timestamptz[], $9::timestamptz[])",
        &rows.iter().map(|row| row.kind.to_owned()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.principal_id).collect::<Vec<_>>() as &[Option<i64>],
        &rows.iter().map(|row| row.token_id).collect::<Vec<_>>() as &[Option<Uuid>],
        &columns(|row| row.client_address.as_deref()).collect::<Vec<_>>() as &[Option<String>],
        &columns(|row| row.action).collect::<Vec<_>>() as &[Option<String>],
        &columns(|row| row.repository.as_ref().map(RepositoryName::as_str)).collect::<Vec<_>>()
            as &[Option<String>],
        &rows.iter().map(|row| row.count).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.first_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.last_at).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await
    .map(|_| ())
    .map_err(|error| Failure::new("writing security events", error))
}

/// The newest, at most `limit`.
pub async fn page(
    connection: &mut PgConnection,
    question: &SecurityQuestion,
    limit: i64,
) -> Result<Vec<SecurityEventRow>, Failure> {
    sqlx::query_as!(
        SecurityEventRow,
        r#"select s.id, s.kind, p.name as "principal?", s.principal_id, s.token_id, s.client_address, s.action,
                  s.repository, s.count, s.first_at, s.last_at
           from security_events s left join principals p on p.id = s.principal_id
           where ($1::bigint is null or s.id < $1)
             and ($2::text is null or s.kind = $2)
             and ($3::text is null or s.principal_id = (select id from principals where name = $3))
             and ($4::timestamptz is null or s.last_at >= $4)
             and ($5::timestamptz is null or s.first_at < $5)
           order by s.id desc limit $6"#,
        question.before,
        question.kind.map(SecurityEventKind::as_str),
        question.principal,
        question.since,
        question.until,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading security events", error))
}

/// Deletes those whose last is older.
pub async fn delete_before(connection: &mut PgConnection, before: DateTime<Utc>) -> Result<u64, Failure> {
    sqlx::query!("delete from security_events where last_at < $1", before)
        .execute(connection)
        .await
        .map(|done| done.rows_affected())
        .map_err(|error| Failure::new("deleting security events", error))
}

/// Deletes the oldest of a kind beyond the newest `most`.
pub async fn delete_beyond(connection: &mut PgConnection, kind: &str, most: i64) -> Result<u64, Failure> {
    sqlx::query!(
        "delete from security_events where kind = $1 and id <=
           (select id from security_events where kind = $1 order by id desc offset $2 limit 1)",
        kind,
        most
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected())
    .map_err(|error| Failure::new("deleting security events", error))
}
