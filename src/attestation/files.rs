//! Statements about a file count for the artifact that is just that file: what builders sign is what
//! `sha256sum` prints, not the manifest that a registry writes of it.
//!
//! Whichever comes first, the statement or the artifact, the other finds it. Only the registry's own manifest of a
//! file is that file: another one around it can say what runs.

use super::statement::Statement;
use super::store::attestations as store;
use crate::content::ParsedManifest;
use crate::failure::Failure;
use crate::names::Digest;
use sqlx::PgConnection;

/// Makes a recorded statement count for the artifacts of the files that it names; returns those for which it
/// counts only now.
pub(super) async fn link(
    connection: &mut PgConnection,
    repository_id: i64,
    id: i64,
    statement: &Statement,
) -> Result<Vec<Digest>, Failure> {
    let files: Vec<Digest> = statement.digests().collect();
    store::link_files(connection, repository_id, id, &files).await
}

/// Makes what was said about a file count for an artifact of it that is pushed only now.
pub async fn link_pushed(
    connection: &mut PgConnection,
    repository_id: i64,
    manifest: &ParsedManifest,
) -> Result<(), Failure> {
    match manifest.file() {
        Some(file) => store::link_pushed(connection, repository_id, &manifest.sha256, &file).await,
        None => Ok(()),
    }
}
