//! Statements about a file count for the artifact that is just that file: what builders sign is what
//! `sha256sum` prints, not the manifest that a registry wraps around it.
//!
//! Whichever comes first, the statement or the artifact, the other finds it. An image of one layer is
//! not its layer: its config says what runs.

use super::statement::Statement;
use super::store::attestations as store;
use crate::content::{self, Manifest, ParsedManifest};
use crate::failure::Failure;
use crate::names::Digest;
use sqlx::PgConnection;

/// The artifacts that are just a file which the statement names, each with that file.
pub(super) async fn named(
    connection: &mut PgConnection,
    repository_id: i64,
    statement: &Statement,
) -> Result<Vec<(Manifest, Digest)>, Failure> {
    let digests: Vec<Digest> = statement.digests().collect();
    content::artifacts_of_files(connection, repository_id, &digests).await
}

/// Makes a recorded statement count for the artifacts of the files that it names; returns those for which it
/// counts only now.
pub(super) async fn link(
    connection: &mut PgConnection,
    repository_id: i64,
    id: i64,
    statement: &Statement,
) -> Result<Vec<Digest>, Failure> {
    let found = named(connection, repository_id, statement).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let (artifacts, files): (Vec<Digest>, Vec<Digest>) =
        found.into_iter().map(|(manifest, file)| (manifest.sha256, file)).unzip();
    store::insert_files(connection, repository_id, id, &artifacts, &files).await
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
