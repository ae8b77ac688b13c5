//! What fsck reads: pages by key, never one long snapshot over bytes.

use crate::failure::Failure;
use sqlx::PgConnection;

pub(super) mod bytes;
pub(super) mod facts;
pub(super) mod kept;
pub(super) mod log;
pub(super) mod promotions;
pub(super) mod repairs;

/// Lets the statements of this transaction run as they are planned, whatever they are thought to cost.
pub(super) async fn do_not_compile(connection: &mut PgConnection) -> Result<(), Failure> {
    sqlx::query!("set local jit = off")
        .execute(connection)
        .await
        .map_err(|error| Failure::new("beginning to audit a page", error))?;
    Ok(())
}
