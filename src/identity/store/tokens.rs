//! Rows of tokens and principals.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// A token as listings show it: never its secret.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct TokenRow {
    /// The token's id.
    pub id: Uuid,
    /// The principal it speaks for.
    pub principal: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub ended_at: Option<DateTime<Utc>>,
}

/// What authentication needs of a token.
pub struct Live {
    pub id: Uuid,
    pub principal_id: i64,
    pub principal: String,
    pub secret_sha256: Vec<u8>,
    pub expires_at: Option<DateTime<Utc>>,
    pub valid: bool,
}

/// The principal's id, made when it is new.
pub async fn principal(connection: &mut PgConnection, name: &str) -> sqlx::Result<(i64, bool)> {
    let made = sqlx::query_scalar!(
        "insert into principals(name) values ($1) on conflict do nothing returning id",
        name
    )
    .fetch_optional(&mut *connection)
    .await?;
    match made {
        Some(id) => Ok((id, true)),
        None => Ok((
            sqlx::query_scalar!("select id from principals where name = $1", name)
                .fetch_one(connection)
                .await?,
            false,
        )),
    }
}

/// A token, made at the time of its event.
pub async fn insert(
    connection: &mut PgConnection,
    id: Uuid,
    principal_id: i64,
    secret_sha256: &[u8],
    created_by: i64,
    at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into tokens(id, principal_id, secret_sha256, created_by, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6)",
        id,
        principal_id,
        secret_sha256,
        created_by,
        at,
        expires_at
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn by_secret(connection: &mut PgConnection, secret_sha256: &[u8]) -> sqlx::Result<Option<Live>> {
    sqlx::query_as!(
        Live,
        r#"select t.id, t.principal_id, p.name as principal, t.secret_sha256, t.expires_at,
                  t.ended_at is null and (t.expires_at is null or t.expires_at > (select decision_time())) as "valid!"
           from tokens t join principals p on p.id = t.principal_id where t.secret_sha256 = $1"#,
        secret_sha256
    )
    .fetch_optional(connection)
    .await
}

pub async fn by_id(connection: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Live>> {
    sqlx::query_as!(
        Live,
        r#"select t.id, t.principal_id, p.name as principal, t.secret_sha256, t.expires_at,
                  t.ended_at is null and (t.expires_at is null or t.expires_at > (select decision_time())) as "valid!"
           from tokens t join principals p on p.id = t.principal_id where t.id = $1"#,
        id
    )
    .fetch_optional(connection)
    .await
}

/// Tokens in the order in which they were made, which is that of their ids.
pub async fn list(
    connection: &mut PgConnection,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<TokenRow>> {
    sqlx::query_as!(
        TokenRow,
        r#"select t.id, p.name as principal, t.created_at, t.expires_at, t.ended_at
           from tokens t join principals p on p.id = t.principal_id
           where $1::uuid is null or t.id > $1 order by t.id limit $2"#,
        after,
        limit
    )
    .fetch_all(connection)
    .await
}

/// Ends the token; `None` when there is no such token that is still open.
pub async fn end(
    connection: &mut PgConnection,
    id: Uuid,
    by: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"update tokens t set ended_at = $3, ended_by = $2 from principals p
           where t.id = $1 and t.ended_at is null and p.id = t.principal_id returning p.name"#,
        id,
        by,
        at
    )
    .fetch_optional(connection)
    .await
}
