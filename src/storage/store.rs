//! The store and what can be asked of it.

use super::blob::StoredBlob;
use super::files::{Files, segments};
use super::objects::Objects;
use super::staged::{Pieces, Staged};
use super::steps::Steps;
use super::{INLINE_BYTES, WriteRefused, open};
use crate::failure::Failure;
use crate::names::{Algorithm, Digest};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use std::fmt::Display;
use std::time::Duration;
use uuid::Uuid;

/// A directory or an object store that holds large bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Files(Files),
    Objects(Objects),
}

/// Something that lies in the store.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name; for a blob the object key.
    pub name: String,
    /// Whether it is a blob's bytes or of an upload under way.
    pub place: Place,
    /// The upload that wrote it; `None` when it is none of ours.
    pub upload: Option<Uuid>,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// When it was last written.
    pub modified_at: DateTime<Utc>,
}

/// Where something lies in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Whole blobs.
    Blobs,
    /// What uploads under way keep.
    Staging,
}

impl Store {
    /// Opens `file:///dir`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`,
    /// tries what it needs of it and says in the log what it can do.
    pub async fn open(url: &str) -> Result<Self, Failure> {
        Ok(Self { kind: open::open(url).await? })
    }

    /// Whether the store answers.
    pub async fn check(&self) -> Result<(), Failure> {
        match &self.kind {
            Kind::Files(files) => files.check().await,
            Kind::Objects(objects) => objects.check().await,
        }
    }

    /// Stores bytes that are in memory; small ones cost nothing until their row is written.
    pub async fn hold(&self, bytes: Bytes, algorithm: Algorithm) -> Result<StoredBlob, Failure> {
        if bytes.len() <= INLINE_BYTES {
            return Ok(StoredBlob::inline(Digest::of(algorithm, &bytes), bytes));
        }
        let size_bytes = bytes.len() as u64;
        let body = stream::iter([Ok::<_, String>(bytes)]);
        self.write(body, algorithm, size_bytes, Some(size_bytes)).await.map_err(|refused| match refused {
            WriteRefused::Failed(failure) => failure,
            WriteRefused::TooLarge { .. } | WriteRefused::Interrupted(_) => {
                Failure::new("storing bytes", "a body in memory neither grows nor breaks off")
            }
        })
    }

    /// Stores a body of at most `limit_bytes` while it comes in. A crash leaves bytes without a row;
    /// so does a caller who drops the blob without linking it (see [`Store::discard`]).
    pub async fn write<S, E>(
        &self,
        body: S,
        algorithm: Algorithm,
        limit_bytes: u64,
        declared_bytes: Option<u64>,
    ) -> Result<StoredBlob, WriteRefused>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Display,
    {
        if declared_bytes.is_some_and(|bytes| bytes > limit_bytes) {
            return Err(WriteRefused::TooLarge { limit_bytes });
        }
        let mut staged = Staged::new(Uuid::new_v4(), algorithm);
        if let Err(refused) = self.append(&mut staged, Uuid::new_v4(), body, limit_bytes).await {
            self.abandon(&staged).await;
            return Err(refused);
        }
        Ok(self.finish(&staged).await?)
    }

    /// Takes back a blob that was stored and will not be linked.
    pub async fn discard(&self, blob: StoredBlob) {
        if let super::Location::Object(key) = blob.location()
            && let Err(failure) = self.delete(key).await
        {
            tracing::warn!(error = failure.chain(), key, "an object is left to the sweep");
        }
    }

    /// Removes what an upload staged, as well as it goes; the sweep takes the rest.
    pub async fn abandon(&self, staged: &Staged) {
        if let Err(failure) = self.try_abandon(staged).await {
            tracing::warn!(error = failure.chain(), upload = %staged.upload, "staged bytes are left to the sweep");
        }
    }

    async fn try_abandon(&self, staged: &Staged) -> Result<(), Failure> {
        match (&self.kind, &staged.pieces) {
            (Kind::Files(files), Pieces::None | Pieces::Files(_)) => {
                for segment in segments(staged)? {
                    files.delete(&segment.name).await?;
                }
                Ok(())
            }
            (Kind::Objects(objects), Pieces::Parts(multipart)) => {
                objects.abort(&staged.parts_key(), &multipart.id, &multipart.marker).await
            }
            (Kind::Objects(_), Pieces::None | Pieces::Files(_)) | (Kind::Files(_), Pieces::Parts(_)) => {
                Ok(())
            }
        }
    }

    /// Removes an object by its key; one that is gone already is a success.
    pub async fn delete(&self, key: &str) -> Result<(), Failure> {
        match &self.kind {
            Kind::Files(files) => files.delete(key).await,
            Kind::Objects(objects) => objects.delete(key).await,
        }
    }

    /// Removes what the sweep found. Of an upload in parts the object store frees the parts too.
    pub async fn remove(&self, found: &Found) -> Result<(), Failure> {
        match (&self.kind, found.place) {
            (Kind::Objects(objects), Place::Staging) => objects.abort_announced(found).await,
            (Kind::Files(_) | Kind::Objects(_), Place::Blobs) | (Kind::Files(_), Place::Staging) => {
                self.delete(&found.name).await
            }
        }
    }

    /// Everything that lies in the store, for the sweep and for fsck.
    pub fn list(&self) -> BoxStream<'_, Result<Found, Failure>> {
        match &self.kind {
            Kind::Files(files) => stream::once(files.directories())
                .map_ok(|names| stream::iter(names.into_iter().map(Ok)))
                .try_flatten()
                .and_then(|directory| files.list(directory))
                .map_ok(|found| stream::iter(found.into_iter().map(Ok)))
                .try_flatten()
                .boxed(),
            Kind::Objects(objects) => objects.list(),
        }
    }

    /// A URL under which the object store itself gives the bytes to whoever has it, for so long; `None`
    /// for what the store does not hold as an object.
    pub async fn redirect(
        &self,
        location: &super::Location,
        valid: Duration,
    ) -> Result<Option<String>, Failure> {
        match (&self.kind, location) {
            (Kind::Objects(objects), super::Location::Object(key)) => {
                objects.presign(key, valid).await.map(Some)
            }
            (Kind::Files(_), _) | (_, super::Location::Inline(_)) => Ok(None),
        }
    }

    /// Whether clients can be sent to the store itself.
    pub fn can_redirect(&self) -> bool {
        matches!(self.kind, Kind::Objects(_))
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn steps(&self) -> &Steps {
        match &self.kind {
            Kind::Files(files) => &files.steps,
            Kind::Objects(objects) => &objects.steps,
        }
    }

    /// Less than this waits in Postgres until more has come.
    pub(super) fn least_piece_bytes(&self) -> usize {
        match &self.kind {
            Kind::Files(_) => INLINE_BYTES + 1,
            Kind::Objects(_) => super::parts::LEAST_PART_BYTES,
        }
    }
}
