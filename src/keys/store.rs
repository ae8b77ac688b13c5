//! The registry's identity, and its trust files.

use super::trust::Names;
use crate::failure::Failure;
use crate::postgres::Scopes;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Maximum versions that are read: the first file after so many starts a registry of its own.
const MAX_VERSIONS: i64 = 10_000;

/// What the database has.
pub(super) struct Stored {
    pub(super) names: Names,
    /// When the registry began.
    pub(super) began: DateTime<Utc>,
    /// Trust files in the order of their versions, as they came.
    pub(super) documents: Vec<Vec<u8>>,
    /// Keys that a build before trust files registered.
    pub(super) registered: Vec<RegisteredKey>,
}

/// A key of before trust files.
pub(super) struct RegisteredKey {
    pub(super) key_id: String,
    pub(super) role: String,
    pub(super) valid_from: DateTime<Utc>,
}

/// One replica writes the identity and a trust file; the others wait and then read them.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), Failure> {
    Scopes::signers().lock(connection).await
}

/// What was written at the first start and since, if there was one.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Option<Stored>, Failure> {
    let failed = |error| Failure::new("reading the registry's identity", error);
    let identity =
        sqlx::query!("select verifier_id, log_origin, public_name, created_at from registry_identity")
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
    let Some(identity) = identity else { return Ok(None) };
    let registered =
        sqlx::query_as!(RegisteredKey, "select key_id, role, valid_from from registry_keys order by key_id")
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
    Ok(Some(Stored {
        names: Names {
            public_name: identity.public_name,
            verifier_id: identity.verifier_id,
            log_origin: identity.log_origin,
        },
        began: identity.created_at,
        documents: documents(connection, 0).await?,
        registered,
    }))
}

/// Trust files after a version, in order.
pub(super) async fn documents(connection: &mut PgConnection, after: u32) -> Result<Vec<Vec<u8>>, Failure> {
    sqlx::query_scalar!(
        "select document from trust_files where version > $1 order by version limit $2",
        version(after)?,
        MAX_VERSIONS,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading the registry's trust files", error))
}

/// What the registry is called as a verifier of artifacts, once that was written.
pub async fn verifier_id(connection: &mut PgConnection) -> Result<Option<String>, Failure> {
    sqlx::query_scalar!("select verifier_id from registry_identity")
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new("reading the registry's identity", error))
}

/// Writes the identity: once for ever, since the row is unique and never changes. When that was.
pub(super) async fn write_identity(
    connection: &mut PgConnection,
    names: &Names,
) -> Result<DateTime<Utc>, Failure> {
    sqlx::query_scalar!(
        "insert into registry_identity(verifier_id, log_origin, public_name) values ($1, $2, $3) returning created_at",
        names.verifier_id,
        names.log_origin,
        names.public_name,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("writing the registry's identity", error))
}

/// Adds a trust file.
pub(super) async fn write_file(
    connection: &mut PgConnection,
    of: u32,
    document: &[u8],
) -> Result<(), Failure> {
    sqlx::query!("insert into trust_files(version, document) values ($1, $2)", version(of)?, document)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("writing a trust file", error))?;
    Ok(())
}

fn version(version: u32) -> Result<i32, Failure> {
    i32::try_from(version).map_err(|error| Failure::new("numbering a trust file", error))
}
