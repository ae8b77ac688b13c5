//! Requests that a client repeats because it never saw the answer: each is kept under the key it
//! chose, per principal, with the digest of what it asked.

use super::store::repeats as store;
use crate::access::Principal;
use crate::failure::Failure;
use crate::names::Digest;
use sqlx::PgConnection;

/// What a key was used for.
#[derive(Debug)]
pub enum Earlier {
    /// This very request: the status and the body of its answer.
    Answered(u16, Vec<u8>),
    /// Another request.
    Other,
}

/// A request under its client's key.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// Who asks; keys are each principal's own.
    pub principal: Principal,
    /// The key.
    pub key: String,
    /// The digest of what is asked: method, target and body.
    pub request: Digest,
}

/// What the key was used for before.
pub async fn earlier(connection: &mut PgConnection, keyed: &Keyed) -> Result<Option<Earlier>, Failure> {
    let row = store::find(connection, keyed.principal.id, &keyed.key).await?;
    Ok(row.map(|row| {
        if row.request_sha256 == keyed.request.hex() {
            Earlier::Answered(u16::try_from(row.status).unwrap_or(200), row.response)
        } else {
            Earlier::Other
        }
    }))
}

/// Deletes some of the keys that are older than a day.
pub async fn forget(connection: &mut PgConnection) -> Result<(), Failure> {
    store::forget(connection).await
}

/// Keeps the answer for a day, in the transaction of what was done: both are there or neither. `false`
/// when the key is taken: the caller then rolls the transaction back. Waits for a concurrent transaction that
/// has inserted the same key.
pub async fn keep(
    transaction: &mut PgConnection,
    keyed: &Keyed,
    status: u16,
    response: &[u8],
) -> Result<bool, Failure> {
    let status = i16::try_from(status).unwrap_or(200);
    store::keep(transaction, keyed.principal.id, &keyed.key, &keyed.request, status, response).await
}
