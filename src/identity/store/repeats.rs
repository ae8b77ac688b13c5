//! Rows of `idempotency_keys`.

use crate::failure::Failure;
use crate::names::Digest;
use sqlx::PgConnection;

/// A key that was used.
pub struct Row {
    /// Hexadecimal.
    pub request_sha256: String,
    pub status: i16,
    pub response: Vec<u8>,
}

/// Lets go of a few keys that are older than a day.
pub async fn forget(connection: &mut PgConnection) -> Result<(), Failure> {
    sqlx::query!(
        r#"delete from idempotency_keys where ctid = any(array(
             select ctid from idempotency_keys where created_at < clock_timestamp() - interval '1 day'
             order by created_at limit 10 for update skip locked))"#
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("letting go of idempotency keys", error))?;
    Ok(())
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

/// Keeps the answer; `false` when the key is taken.
pub async fn keep(
    connection: &mut PgConnection,
    principal_id: i64,
    key: &str,
    request: &Digest,
    status: i16,
    response: &[u8],
) -> Result<bool, Failure> {
    let kept = sqlx::query!(
        "insert into idempotency_keys(principal_id, key, request_sha256, status, response)
         values ($1, $2, decode($3, 'hex'), $4, $5) on conflict do nothing",
        principal_id,
        key,
        request.hex(),
        status,
        response,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("keeping an answer", error))?;
    Ok(kept.rows_affected() == 1)
}
