//! Bytes in an object store: S3, Google Cloud Storage, Azure.

use super::blob::upload_of;
use super::staged::{Pieces, Staged};
use super::steps::Steps;
use super::store::{Found, Place};
use crate::failure::Failure;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::Method;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A bucket, or what lies below a prefix of it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) multipart: Arc<dyn MultipartStore>,
    signer: Arc<dyn Signer>,
    pub(super) prefix: Path,
    pub(super) steps: Steps,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Objects({}, {})", self.store, self.prefix)
    }
}

impl Objects {
    pub fn new<O: ObjectStore + MultipartStore + Signer>(store: O, prefix: Path) -> Self {
        let store = Arc::new(store);
        Self { store: store.clone(), multipart: store.clone(), signer: store, prefix, steps: Steps::new() }
    }

    /// The same, with URLs for clients made by another.
    pub fn signed_by(self, signer: impl Signer) -> Self {
        Self { signer: Arc::new(signer), ..self }
    }

    pub(super) fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(name.split('/').map(Into::into)).collect()
    }

    /// Whether the store answers.
    pub async fn check(&self) -> Result<(), Failure> {
        match self.store.head(&self.path("probe/none")).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Failure::new("asking the object store", error)),
        }
    }

    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Failure> {
        self.store
            .put(&self.path(name), bytes.into())
            .await
            .map(|_| ())
            .map_err(|error| Failure::new("writing an object", error))
    }

    /// All of a small object; `None` where there is none.
    pub async fn read_small(&self, name: &str) -> Result<Option<Bytes>, Failure> {
        let failed = |error| Failure::new("reading an object", error);
        match self.store.get(&self.path(name)).await {
            Ok(got) => got.bytes().await.map(Some).map_err(failed),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes an object; one that is gone already is a success.
    pub async fn delete(&self, name: &str) -> Result<(), Failure> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Failure::new("deleting an object", error)),
        }
    }

    pub async fn read(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, Failure> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let got = self.store.get_opts(&self.path(key), options).await;
        got.map(object_store::GetResult::into_stream)
            .map_err(|error| Failure::new("reading an object", error))
    }

    /// A URL that gives the object's bytes to whoever has it, for so long.
    pub async fn presign(&self, key: &str, valid: Duration) -> Result<String, Failure> {
        let signed = self.signer.signed_url(Method::GET, &self.path(key), valid).await;
        signed.map(String::from).map_err(|error| Failure::new("signing an object's URL", error))
    }

    /// Begins an upload in parts. The marker is written at once after it, so that a crash never
    /// leaves parts that nobody knows of: a bucket's listing does not show them.
    pub async fn begin(&self, key: &str, marker: &str) -> Result<String, Failure> {
        let id = self
            .multipart
            .create_multipart(&self.path(key))
            .await
            .map_err(|error| Failure::new("beginning a multipart upload", error))?;
        self.put(marker, Bytes::from(id.clone())).await?;
        Ok(id)
    }

    pub async fn put_part(
        &self,
        key: &str,
        id: &str,
        index: usize,
        payload: PutPayload,
    ) -> Result<String, Failure> {
        self.multipart
            .put_part(&self.path(key), &id.to_owned(), index, payload)
            .await
            .map(|part| part.content_id)
            .map_err(|error| Failure::new("writing a part", error))
    }

    /// Makes an object of the parts and the tail. May be repeated: where the parts are gone, the
    /// object is looked for, since its key was never given to anything else.
    pub async fn complete(&self, staged: &Staged) -> Result<String, Failure> {
        let key = staged.parts_key();
        let Pieces::Parts(multipart) = &staged.pieces else {
            return Err(Failure::new(
                "going on with an upload",
                "it was begun in a directory and the storage is an object store now",
            ));
        };
        if let Err(failure) = self.complete_parts(&key, &multipart.id, &multipart.parts, &staged.tail).await {
            match self.store.head(&self.path(&key)).await {
                Ok(object) if object.size == staged.offset_bytes => {}
                Ok(_) | Err(_) => return Err(failure),
            }
        }
        self.delete(&multipart.marker).await?;
        Ok(key)
    }

    async fn complete_parts(
        &self,
        key: &str,
        id: &str,
        parts: &[String],
        tail: &Bytes,
    ) -> Result<(), Failure> {
        let mut parts: Vec<PartId> = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        if !tail.is_empty() {
            let last = self.put_part(key, id, parts.len(), tail.clone().into()).await?;
            parts.push(PartId { content_id: last });
        }
        self.multipart
            .complete_multipart(&self.path(key), &id.to_owned(), parts)
            .await
            .map(|_| ())
            .map_err(|error| Failure::new("completing a multipart upload", error))
    }

    /// Frees the parts, then the marker that announced them.
    pub async fn abort(&self, key: &str, id: &str, marker: &str) -> Result<(), Failure> {
        match self.multipart.abort_multipart(&self.path(key), &id.to_owned()).await {
            Ok(()) | Err(Error::NotFound { .. }) => self.delete(marker).await,
            Err(error) => Err(Failure::new("aborting a multipart upload", error)),
        }
    }

    /// The same, from a marker alone.
    pub async fn abort_announced(&self, marker: &Found) -> Result<(), Failure> {
        let doing = "reading the marker of a multipart upload";
        let Some(upload) = marker.upload else { return Ok(()) };
        let id = match self.store.get(&self.path(&marker.name)).await {
            Err(Error::NotFound { .. }) => return Ok(()),
            got => got.map_err(|error| Failure::new(doing, error))?,
        };
        let id = id.bytes().await.map_err(|error| Failure::new(doing, error))?;
        let id = String::from_utf8(id.to_vec()).map_err(|error| Failure::new(doing, error))?;
        self.abort(&super::blob::key_of_parts(upload), &id, &marker.name).await
    }

    pub fn list(&self) -> BoxStream<'_, Result<Found, Failure>> {
        self.store
            .list(Some(&self.prefix))
            .map_err(|error| Failure::new("listing the object store", error))
            .try_filter_map(|object| std::future::ready(Ok(self.found(&object))))
            .boxed()
    }

    /// `None` for what is not below `blobs/` or `staging/`.
    fn found(&self, object: &ObjectMeta) -> Option<Found> {
        let parts = object.location.prefix_match(&self.prefix)?;
        let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
        let place = match name.split_once('/') {
            Some(("blobs", _)) => Place::Blobs,
            Some(("staging", _)) => Place::Staging,
            Some(_) | None => return None,
        };
        Some(Found {
            upload: upload_of(&name),
            place,
            name,
            size_bytes: object.size,
            modified_at: object.last_modified,
        })
    }
}
