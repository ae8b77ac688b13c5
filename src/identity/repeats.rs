//! Requests that a client repeats because it never saw the answer: each is kept under the key it
//! chose, per principal, with the digest of what it asked.

use super::store::repeats as store;
use crate::access::Principal;
use crate::failure::Failure;
use crate::names::Digest;
use crate::postgres::Db;

/// Whose turn it is.
#[derive(Debug)]
pub enum Claim {
    /// The request is new: do it, then `keep` the answer or `release` the key.
    New,
    /// It was answered: the status and the body.
    Answered(u16, Vec<u8>),
    /// It is being done right now.
    Running,
    /// The key was used for something else.
    Other,
}

/// Claims the key for a request. A claim whose holder vanished is given to the next after a minute.
pub async fn claim(db: &Db, principal: &Principal, key: &str, request: &Digest) -> Result<Claim, Failure> {
    let mut connection = db.pool().acquire().await?;
    if store::claim(&mut connection, principal.id, key, request).await? {
        return Ok(Claim::New);
    }
    let Some(row) = store::find(&mut connection, principal.id, key).await? else {
        return Ok(Claim::Running);
    };
    Ok(match (row.request_sha256 == request.hex(), row.status, row.response) {
        (false, _, _) => Claim::Other,
        (true, Some(status), Some(response)) => {
            Claim::Answered(u16::try_from(status).unwrap_or(200), response)
        }
        (true, _, _) => Claim::Running,
    })
}

/// Keeps the answer for a day.
pub async fn keep(
    db: &Db,
    principal: &Principal,
    key: &str,
    status: u16,
    response: &[u8],
) -> Result<(), Failure> {
    let status = i16::try_from(status).unwrap_or(200);
    store::keep(&mut *db.pool().acquire().await?, principal.id, key, status, response).await
}

/// Lets go of a key whose request did nothing, so that it can be tried again.
pub async fn release(db: &Db, principal: &Principal, key: &str) -> Result<(), Failure> {
    store::release(&mut *db.pool().acquire().await?, principal.id, key).await
}
