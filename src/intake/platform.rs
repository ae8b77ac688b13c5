//! What a pushed image runs on, read from its config before the push's transaction.

use super::carried::Reading;
use crate::access::{Grant, Push};
use crate::content::{self, ParsedManifest, blobs, config_fits, platform_of_config};
use crate::failure::Failure;
use crate::names::Digest;
use crate::postgres::Db;
use bytes::Bytes;

/// Bytes of a config that is read; a long history has some ten thousand.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The manifest with the platform that its config states. A config that is missing is the push's to
/// refuse; one that cannot be read leaves the platform unknown and never fails the push.
pub(super) async fn with_platform(
    db: &Db,
    reading: Reading<'_>,
    grant: &Grant<Push>,
    manifest: &ParsedManifest,
) -> ParsedManifest {
    let mut manifest = manifest.clone();
    if let Some(config) = manifest.image_config() {
        let read = read(db, reading, grant, config).await.unwrap_or_else(|failure| {
            tracing::warn!(error = failure.chain(), %config, "the platform of an image is not known");
            None
        });
        if let Some(config) = read {
            let layers = manifest.layers().unwrap_or_default();
            manifest.platform = platform_of_config(&config);
            manifest.config_fits = config_fits(&config, &layers);
        }
    }
    manifest
}

async fn read(
    db: &Db,
    reading: Reading<'_>,
    grant: &Grant<Push>,
    config: &Digest,
) -> Result<Option<Bytes>, Failure> {
    let mut connection = db.acquire().await?;
    let Some(repository) = content::repository(&mut connection, grant.repository()).await? else {
        return Ok(None);
    };
    let found = blobs::find(&mut connection, repository.id, config).await?;
    drop(connection);
    let Some(blob) = found else { return Ok(None) };
    blob.read_whole(reading.store, reading.room, MAX_CONFIG_BYTES).await
}
