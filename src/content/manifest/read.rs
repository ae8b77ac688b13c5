//! Finding manifests, by digest and by tag.

use super::file::file_of;
use super::parse::{self, TITLE};
use crate::access::{Grant, PrincipalId, Pull};
use crate::content::store::{manifests as store, tags};
use crate::failure::Failure;
use crate::names::{Digest, MediaType, Reference};
use crate::postgres::Db;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use moka::future::Cache;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// A manifest as it is stored.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The digest it was pushed under.
    pub digest: Digest,
    /// Its bytes' SHA-256.
    pub sha256: Digest,
    /// Its bytes' SHA-512.
    pub sha512: Digest,
    /// Its media type, exactly as pushed.
    pub media_type: MediaType,
    /// `artifactType`, where it says one.
    pub artifact_type: Option<MediaType>,
    /// The config's media type, of an image.
    pub config_media_type: Option<MediaType>,
    /// What it refers to, there or not.
    pub subject: Option<Digest>,
    /// Its own bytes.
    pub size_bytes: i64,
    /// With its config and layers; of an index, with its children.
    pub total_size_bytes: i64,
    /// The exact bytes.
    pub body: Bytes,
    /// Who pushed it first.
    pub pushed_by: PrincipalId,
    /// When.
    pub pushed_at: DateTime<Utc>,
}

/// A layer of a stored manifest.
#[derive(Clone, Debug)]
pub struct StoredLayer {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size_bytes: i64,
    /// Its media type.
    pub media_type: MediaType,
    /// Its annotations; only those that are text.
    pub annotations: BTreeMap<String, String>,
}

impl StoredLayer {
    /// The file's name, where its annotations say one.
    pub fn title(&self) -> Option<&str> {
        self.annotations.get(TITLE).map(String::as_str)
    }
}

impl Manifest {
    /// Its layers in order; an index has none.
    pub fn layers(&self) -> Result<Vec<StoredLayer>, Failure> {
        parse::layers(&self.body).map_err(|error| Failure::new("reading a stored manifest", error))
    }

    /// The file, where this is the manifest that the registry writes of one.
    pub fn file(&self) -> Result<Option<Digest>, Failure> {
        Ok(file_of(&self.body, self.artifact_type.as_ref(), &self.layers()?))
    }
}

/// A manifest that was found in a repository, without its bytes.
#[derive(Clone, Debug)]
pub struct Found {
    /// The repository's row id.
    pub repository_id: i64,
    /// The digest it is stored under.
    pub digest: Digest,
    /// Its media type, exactly as pushed.
    pub media_type: MediaType,
    /// Its own bytes.
    pub size_bytes: i64,
}

/// The manifest of this digest, with its bytes.
pub async fn manifest(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Manifest>, Failure> {
    store::read(connection, repository_id, digest).await
}

/// The digest under which the repository has the manifest of these bytes; the one that is given may be
/// their SHA-256 or their SHA-512.
pub async fn known(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Digest>, Failure> {
    tags::known(connection, repository_id, digest).await
}

/// What the reference names in the grant's repository: one indexed query, asked each time, so that
/// a delete is seen by the next request.
pub async fn find(
    connection: &mut PgConnection,
    grant: &Grant<Pull>,
    reference: &Reference,
) -> Result<Option<Found>, Failure> {
    match reference {
        Reference::Digest(digest) => tags::find_digest(connection, grant.repository(), digest).await,
        Reference::Tag(tag) => tags::find_tag(connection, grant.repository(), tag).await,
    }
}

/// Bytes of manifests by digest, in memory and bounded. Content cannot change; who may see it in
/// which repository is never answered from here.
#[derive(Clone, Debug)]
pub struct Bodies(Cache<Digest, Bytes>);

impl Bodies {
    /// A cache of this many bytes.
    pub fn new(max_bytes: u64) -> Self {
        let weigh = |digest: &Digest, body: &Bytes| {
            u32::try_from(body.len() + digest.as_str().len() + 64).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(max_bytes).weigher(weigh).build())
    }

    /// The bytes of a manifest that was just found; `None` when it has gone since.
    pub async fn body(&self, db: &Db, found: &Found) -> Result<Option<Bytes>, Failure> {
        if let Some(body) = self.0.get(&found.digest).await {
            return Ok(Some(body));
        }
        let mut connection = db.acquire().await?;
        let body = store::body(&mut connection, found.repository_id, &found.digest).await?;
        if let Some(body) = &body {
            self.0.insert(found.digest.clone(), body.clone()).await;
        }
        Ok(body)
    }
}
