//! Rows of `idempotency_keys`.

use crate::failure::Failure;
use crate::names::Digest;
use sqlx::PgConnection;

/// A key that was used.
pub struct Row {
    /// Hexadecimal.
    pub request_sha256: String,
    pub status: Option<i16>,
    pub response: Option<Vec<u8>>,
}

/// Claims the key, and lets go of a few that are older than a day.
pub async fn claim(
    connection: &mut PgConnection,
    principal_id: i64,
    key: &str,
    request: &Digest,
) -> Result<bool, Failure> {
    let taken = sqlx::query!(
        r#"with old as (
             delete from idempotency_keys where ctid = any(array(
               select ctid from idempotency_keys where created_at < clock_timestamp() - interval '1 day'
               order by created_at limit 10 for update skip locked)))
           insert into idempotency_keys(principal_id, key, request_sha256) values ($1, $2, decode($3, 'hex'))
           on conflict (principal_id, key) do update set created_at = clock_timestamp()
             where idempotency_keys.status is null
               and idempotency_keys.request_sha256 = excluded.request_sha256
               and idempotency_keys.created_at < clock_timestamp() - interval '1 minute'"#,
        principal_id,
        key,
        request.hex(),
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("claiming an idempotency key", error))?;
    Ok(taken.rows_affected() == 1)
}

/// A key that was used.
pub async fn find(
    connection: &mut PgConnection,
    principal_id: i64,
    key: &str,
) -> Result<Option<Row>, Failure> {
    sqlx::query_as!(
        Row,
        r#"select encode(request_sha256, 'hex') as "request_sha256!", status, response
           from idempotency_keys where principal_id = $1 and key = $2"#,
        principal_id,
        key,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading an idempotency key", error))
}

/// Keeps the answer.
pub async fn keep(
    connection: &mut PgConnection,
    principal_id: i64,
    key: &str,
    status: i16,
    response: &[u8],
) -> Result<(), Failure> {
    sqlx::query!(
        "update idempotency_keys set status = $3, response = $4 where principal_id = $1 and key = $2",
        principal_id,
        key,
        status,
        response,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("keeping an answer", error))?;
    Ok(())
}

/// Lets go of a key that has no answer.
pub async fn release(connection: &mut PgConnection, principal_id: i64, key: &str) -> Result<(), Failure> {
    sqlx::query!(
        "delete from idempotency_keys where principal_id = $1 and key = $2 and status is null",
        principal_id,
        key,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("letting go of an idempotency key", error))?;
    Ok(())
}
