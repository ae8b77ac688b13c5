//! Rows of tokens and principals.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// A token as listings show it: never its secret.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct TokenRow {
    /// The token's id.
    pub id: Uuid,
    /// The principal it speaks for.
    pub principal: String,
    /// Whether it has grants of its own, and none of its principal's.
    pub has_grants: bool,
    /// The networks from which it may be used; null is everywhere.
    pub addresses: Option<Vec<String>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was used last, to some minutes.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked, or when it ends since another took its place.
    pub ended_at: Option<DateTime<Utc>>,
}

/// What authentication needs of a token.
pub struct Live {
    pub id: Uuid,
    pub principal_id: i64,
    pub principal: String,
    pub secret_sha256: Vec<u8>,
    pub has_grants: bool,
    pub addresses: Option<Vec<String>>,
    /// When it ends, by itself or since another took its place.
    pub ends_at: Option<DateTime<Utc>>,
    /// Whether another took its place.
    pub is_replaced: bool,
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

/// A token to write.
pub struct NewRow<'a> {
    pub id: Uuid,
    pub principal_id: i64,
    pub secret_sha256: [u8; 32],
    pub has_grants: bool,
    pub addresses: Option<&'a [String]>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// A token, made at the time of its event.
pub async fn insert(
    connection: &mut PgConnection,
    new: &NewRow<'_>,
    created_by: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into tokens(id, principal_id, secret_sha256, created_by, created_at, expires_at, has_grants, addresses)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        new.id,
        new.principal_id,
        &new.secret_sha256[..],
        created_by,
        at,
        new.expires_at,
        new.has_grants,
        new.addresses
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes when tokens were used.
pub async fn note_uses(
    connection: &mut PgConnection,
    tokens: &[Uuid],
    at: &[DateTime<Utc>],
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into token_uses(token_id, used_at) select * from unnest($1::uuid[], $2::timestamptz[]) order by 1
         on conflict (token_id) do update set used_at = greatest(token_uses.used_at, excluded.used_at)",
        tokens,
        at
    )
    .execute(connection)
    .await?;
    Ok(())
}

macro_rules! live {
    ($condition:literal, $argument:expr) => {
        sqlx::query_as!(
            Live,
            r#"select t.id, t.principal_id, p.name as principal, t.secret_sha256, t.has_grants, t.addresses,
                 least(t.expires_at, t.ended_at) as ends_at, t.ended_at is not null as "is_replaced!",
                 token_is_live(t) as "valid!"
               from tokens t join principals p on p.id = t.principal_id where "#
                + $condition,
            $argument
        )
    };
}

pub async fn by_secret(connection: &mut PgConnection, secret_sha256: &[u8]) -> sqlx::Result<Option<Live>> {
    live!("t.secret_sha256 = $1", secret_sha256).fetch_optional(connection).await
}

pub async fn by_id(connection: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Live>> {
    live!("t.id = $1", id).fetch_optional(connection).await
}

/// Tokens in the order in which they were made, which is that of their ids.
pub async fn list(
    connection: &mut PgConnection,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<TokenRow>> {
    sqlx::query_as!(
        TokenRow,
        r#"select t.id, p.name as principal, t.has_grants, t.addresses, t.created_at,
                  (select u.used_at from token_uses u where u.token_id = t.id) as last_used_at, t.expires_at, t.ended_at
           from tokens t join principals p on p.id = t.principal_id
           where $1::uuid is null or t.id > $1 order by t.id limit $2"#,
        after,
        limit
    )
    .fetch_all(connection)
    .await
}

/// Ends a token that holds or will end, at this time; its principal. `None` when there is no such token, or
/// it ends before that.
pub async fn end(
    connection: &mut PgConnection,
    id: Uuid,
    by: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        r#"update tokens set ended_at = $3, ended_by = $2
           where id = $1 and coalesce(ended_at > $3, true) returning principal_id"#,
        id,
        by,
        at
    )
    .fetch_optional(connection)
    .await
}

/// A token that ends soon.
pub struct Ending {
    pub id: Uuid,
    pub principal_id: i64,
    pub principal: String,
    pub ends_at: DateTime<Utc>,
}

/// Tokens that hold, end by themselves before this time and were not announced; at most `limit`.
pub async fn ending(
    connection: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<Ending>> {
    sqlx::query_as!(
        Ending,
        r#"select t.id, t.principal_id, p.name as principal, t.expires_at as "ends_at!"
           from tokens t join principals p on p.id = t.principal_id
           where t.expires_at > (select decision_time()) and t.expires_at < $1 and t.ended_at is null
             and not exists (select from token_ends_announced a where a.token_id = t.id)
           order by t.id limit $2"#,
        before,
        limit
    )
    .fetch_all(connection)
    .await
}

/// Notes that the end of a token is announced; whether it was not.
pub async fn announce(connection: &mut PgConnection, id: Uuid, at: DateTime<Utc>) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "insert into token_ends_announced(token_id, announced_at) values ($1, $2) on conflict do nothing",
        id,
        at
    );
    Ok(done.execute(connection).await?.rows_affected() == 1)
}

/// How many tokens that nobody has replaced hold and end by themselves before this time.
pub async fn count_ending(connection: &mut PgConnection, before: DateTime<Utc>) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from tokens
           where expires_at > (select decision_time()) and expires_at < $1 and ended_at is null"#,
        before
    )
    .fetch_one(connection)
    .await
}

/// How long the token was made to live; `None` for one without an end.
pub async fn life(connection: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<TimeDelta>> {
    let ends = sqlx::query!("select created_at, expires_at from tokens where id = $1", id)
        .fetch_one(connection)
        .await?;
    Ok(ends.expires_at.map(|end| end - ends.created_at))
}

/// Whether the principal was disabled.
pub async fn is_disabled(connection: &mut PgConnection, principal_id: i64) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from principals_disabled where principal_id = $1) as "is!""#,
        principal_id
    )
    .fetch_one(connection)
    .await
}
