//! Referrers: the manifests of a repository that name another as their subject.

use super::store::referrers as store;
use crate::failure::Failure;
use crate::names::{Digest, MediaType};
use serde_json::Value;
use sqlx::PgConnection;

/// A manifest that refers to the one that was asked about.
#[derive(Clone, Debug)]
pub struct Referrer {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its own bytes.
    pub size_bytes: i64,
    /// `artifactType`; of an image without one, its config's type.
    pub artifact_type: Option<MediaType>,
    /// Its annotations.
    pub annotations: Option<Value>,
}

/// A page of what refers to the subject, by digest after `last`; the subject need not be there.
pub async fn referrers(
    connection: &mut PgConnection,
    repository_id: i64,
    subject: &Digest,
    artifact_type: Option<&str>,
    last: &str,
    limit: i64,
) -> Result<Vec<Referrer>, Failure> {
    store::page(connection, repository_id, subject, artifact_type, last, limit).await
}
