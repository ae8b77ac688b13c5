//! Rows of `attestations_waiting`.

use crate::failure::Failure;
use sqlx::PgConnection;

const READING: &str = "reading what waits for a signer";

/// Notes that a key which is registered later may have signed it.
pub async fn insert(connection: &mut PgConnection, id: i64) -> Result<(), Failure> {
    sqlx::query!("insert into attestations_waiting(attestation_id) values ($1) on conflict do nothing", id)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("recording what waits for a signer", error))?;
    Ok(())
}

/// What waits, and how long its bytes are.
pub struct Length {
    pub id: i64,
    pub bytes: i32,
}

/// A page of what waits, by id.
pub async fn page(connection: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<Length>, Failure> {
    sqlx::query_as!(
        Length,
        r#"select a.id, octet_length(e.body) as "bytes!"
           from attestations_waiting w join attestations a on a.id = w.attestation_id
           join envelopes e on e.digest = a.envelope
           where w.attestation_id > $1 order by w.attestation_id limit $2"#,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(READING, error))
}

/// An envelope that waits for a key.
pub struct Waiting {
    pub id: i64,
    pub media_type: String,
    pub body: Vec<u8>,
    pub beside: Option<String>,
}

/// The envelopes of these attestations.
pub async fn envelopes(connection: &mut PgConnection, ids: &[i64]) -> Result<Vec<Waiting>, Failure> {
    sqlx::query_as!(
        Waiting,
        "select a.id, e.media_type, e.body, a.beside
         from attestations a join envelopes e on e.digest = a.envelope where a.id = any($1)",
        ids,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(READING, error))
}

/// These wait for no other key.
pub async fn delete(connection: &mut PgConnection, ids: &[i64]) -> Result<(), Failure> {
    sqlx::query!("delete from attestations_waiting where attestation_id = any($1)", ids)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("recording what waits for no signer", error))?;
    Ok(())
}
