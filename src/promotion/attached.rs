//! What belongs to a manifest by its tag, as cosign 2 and clients without referrers keep it: signatures,
//! attestations, an SBOM, an index of referrers.
//!
//! Every caller with the right to push may give such a tag to anything, so the tag alone shows nothing: an image
//! under it would be in the view without a promotion.

use super::store::views as store;
use crate::access::Lane;
use crate::content::blobs::Blob;
use crate::content::{self, AttachedTag, OCI_INDEX, Texts, document_layers};
use crate::failure::Failure;
use crate::names::{Digest, Tag};
use crate::postgres::Db;
use crate::storage::Store;
use sqlx::PgConnection;

/// What views are read with.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a> {
    /// Postgres.
    pub db: &'a Db,
    /// The object store, for documents that lie in it.
    pub store: &'a Store,
    /// Which blobs are known to be text.
    pub texts: &'a Texts,
    /// Bytes of the layers of one document.
    pub document_bytes: u64,
}

/// Tags of one manifest that are looked at.
const MAX_TAGS: i64 = 8;

/// A manifest that a tag attaches to another one.
pub(super) struct Attached {
    pub subject: Digest,
    /// Layers that must turn out to be text.
    pub unread: Vec<Blob>,
}

impl Views<'_> {
    /// What the manifest belongs to by the tags that name it now, as far as it is a document.
    pub(super) async fn attached(
        &self,
        connection: &mut PgConnection,
        lane: &Lane,
        digest: &Digest,
    ) -> Result<Vec<Attached>, Failure> {
        let tags = store::subjects_by_tag(connection, lane, digest, MAX_TAGS).await?;
        let mut attached = Vec::with_capacity(tags.len());
        for (tag, subject) in tags {
            if let Some(unread) = self.document(connection, lane, &tag, digest, &subject).await? {
                attached.push(Attached { subject, unread });
            }
        }
        Ok(attached)
    }

    /// The layers to be read of a manifest that is made like a document under this tag; `None` if it is not: an image
    /// with layers of other media types, an index of other things than referrers.
    pub(super) async fn document(
        &self,
        connection: &mut PgConnection,
        lane: &Lane,
        tag: &Tag,
        digest: &Digest,
        subject: &Digest,
    ) -> Result<Option<Vec<Blob>>, Failure> {
        let Some(repository) = content::repository(connection, &lane.repository).await? else {
            return Ok(None);
        };
        let Some(manifest) = content::manifest(connection, repository.id, digest).await? else {
            return Ok(None);
        };
        if manifest.media_type.as_str() == OCI_INDEX {
            let is_fallback = AttachedTag::read(tag).is_some_and(|tag| tag.is_fallback);
            let only = is_fallback
                && store::lists_only_referrers(connection, repository.id, digest, subject).await?;
            return Ok(only.then(Vec::new));
        }
        match document_layers(&manifest)? {
            Some(layers) => self.texts.unread(connection, repository.id, layers, self.document_bytes).await,
            None => Ok(None),
        }
    }

    /// Whether the layers are text, so that nothing in them can run. No connection should be held meanwhile.
    pub(super) async fn are_text(&self, unread: &[Blob]) -> Result<bool, Failure> {
        self.texts.are_text(self.store, unread).await
    }
}
