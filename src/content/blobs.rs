//! Blobs of a repository: linked, found, mounted, let go of.
//!
//! A manifest refers to its blobs through its own repository's link. What a push, a mount or a HEAD
//! has answered for is protected for the grace period: until then nobody collects it.

use super::store::blobs as store;
use super::uploads::UploadRefused;
use super::{quotas, repository};
use crate::access::{Delete, Grant, Pull, Push};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::Digest;
use crate::postgres::{Db, Generation, act, agreed_time, constraint, refusal};
use crate::storage::{
    ByteStream, Checked, Described, Location, OwnRoom, PIECE_BYTES, PieceDigests, Store, StoredBlob,
    TouchedPieces,
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde_json::json;
use sqlx::PgConnection;
use std::ops::Range;
use std::time::Duration;

/// A blob as a repository has it.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// Where they lie.
    pub location: Location,
    /// Whether ranges of it are checked by the digests of its pieces. Those that an earlier version stored have none
    /// until they are read whole.
    pub has_pieces: bool,
}

/// What linking changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The repository did not have the blob before.
    pub new_to_repository: bool,
    /// The blob's row refers to the bytes that were given; otherwise the registry has them already,
    /// and the ones that were given are nobody's.
    pub bytes_taken: bool,
}

/// Why a repository keeps a blob.
#[derive(Debug)]
pub enum BlobRefused {
    /// The repository has no such blob.
    Unknown,
    /// Manifests of the repository need it.
    Used {
        /// Some of them.
        manifests: Vec<Digest>,
    },
    /// A fault of ours.
    Failed(Failure),
}

refusal!(BlobRefused);

impl From<Failure> for BlobRefused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How often a protection is renewed at the most, however often it is asked for.
const RENEW_EVERY: Duration = Duration::from_hours(1);

/// Makes a stored blob part of a repository, in the caller's transaction, and protects it for the
/// grace period. Idempotent. Who links several does so in the order of their digests.
pub async fn link(
    connection: &mut PgConnection,
    repository_id: i64,
    blob: &StoredBlob,
    grace: Duration,
) -> Result<Linked, Failure> {
    // A link that is there needs no lock on the blob's row, which all repositories share.
    if protect(connection, repository_id, blob.digest(), grace).await? {
        return Ok(Linked { new_to_repository: false, bytes_taken: false });
    }
    let bytes_taken = loop {
        let inserted = store::insert(connection, blob).await?;
        if inserted {
            break true;
        }
        // The row that was in the way may be collected before it can be locked.
        match store::lock(connection, blob.digest()).await? {
            None => {}
            Some(true) => break false,
            Some(false) => break store::heal(connection, blob).await?,
        }
    };
    let new_to_repository = store::insert_link(connection, repository_id, blob.digest(), grace).await?;
    Ok(Linked { new_to_repository, bytes_taken })
}

/// Protects a blob of the repository for the grace period; `false` when it is not there. Writes at
/// most hourly.
pub async fn protect(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
    grace: Duration,
) -> Result<bool, Failure> {
    let enough = grace.saturating_sub(RENEW_EVERY.min(grace / 2));
    match store::is_protected(connection, repository_id, digest, enough).await? {
        None => Ok(false),
        Some(true) => Ok(true),
        Some(false) => store::renew(connection, repository_id, digest, grace).await,
    }
}

/// How many bytes a blob of the repository has; `None` when it is not there.
pub async fn size(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<u64>, Failure> {
    store::size(connection, repository_id, digest).await
}

/// A blob of the repository, with where its bytes lie.
pub async fn find(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Blob>, Failure> {
    store::find(connection, repository_id, digest).await
}

impl Blob {
    /// Its bytes as a stream, which ends in an error if they are not those of its digest. `found` gets the
    /// result, with the digests of its pieces where none are stored yet.
    pub async fn read<F>(&self, store: &Store, found: F) -> Result<ByteStream, Failure>
    where
        F: FnOnce(Checked) + Send + 'static,
    {
        let wants_pieces = !self.has_pieces && matches!(self.location, Location::Object(_));
        store.read_checked(self.described(), wants_pieces, found).await
    }

    /// A range of its bytes that is not empty, checked by the digests of its pieces, where it has them. `found` is
    /// called for damage. It is read where the blob lies now: somebody may have pushed a damaged one again since it
    /// was found.
    pub async fn read_range<F>(
        &self,
        db: &Db,
        store: &Store,
        range: Range<u64>,
        found: F,
    ) -> Result<ByteStream, Failure>
    where
        F: FnOnce(Checked) + Send + 'static,
    {
        if !self.has_pieces && matches!(self.location, Location::Object(_)) {
            return store.read(&self.location, range).await;
        }
        let touched = TouchedPieces::of(&range, self.size_bytes);
        let (location, digests) = match &self.location {
            location @ Location::Inline(_) => (location.clone(), PieceDigests::new(Vec::new())),
            Location::Object(_) => {
                let found = store::pieces(&mut *db.acquire().await?, &self.digest, &touched.digests).await?;
                found.ok_or_else(|| {
                    Failure::new("reading a part of a blob", "its bytes were replaced or deleted meanwhile")
                })?
            }
        };
        let described = Described { location: &location, ..self.described() };
        store.read_range_checked(described, range, digests, found).await
    }

    /// Memory that a range of it takes while it is read: the piece that is checked, and the one that goes out.
    pub fn range_memory_bytes(&self, range: &Range<u64>) -> u64 {
        match self.location {
            Location::Object(_) if self.has_pieces => {
                let touched = TouchedPieces::of(range, self.size_bytes).bytes;
                (touched.end - touched.start).min(2 * PIECE_BYTES)
            }
            Location::Object(_) | Location::Inline(_) => 0,
        }
    }

    fn described(&self) -> Described<'_> {
        Described { digest: &self.digest, size_bytes: self.size_bytes, location: &self.location }
    }

    /// Its bytes in memory, where there is room for them; `None` when they are more than `limit_bytes`.
    pub async fn read_whole(
        &self,
        store: &Store,
        room: &OwnRoom,
        limit_bytes: u64,
    ) -> Result<Option<Bytes>, Failure> {
        if self.size_bytes > limit_bytes {
            return Ok(None);
        }
        let mut taken = room.take();
        let full = taken.grow(self.size_bytes).await;
        full.map_err(|full| Failure::new("holding a blob in memory", full))?;
        let mut read = BytesMut::new();
        // Who reads it is refused; what is done about damage is for downloads and fsck.
        let mut stream = self.read(store, |_| ()).await?;
        while let Some(chunk) = stream.next().await {
            read.extend_from_slice(&chunk.map_err(|error| Failure::new("reading a blob", error))?);
        }
        Ok(Some(taken.hold(read.freeze())))
    }
}

/// How many blobs are known to be damaged, which are unknown to clients until they are pushed again.
pub async fn damaged_blobs(connection: &mut PgConnection) -> Result<i64, Failure> {
    store::damaged(connection).await
}

/// Keeps the digests of the pieces of a blob that has none.
pub async fn keep_pieces(db: &Db, blob: &Blob, pieces: &PieceDigests) -> Result<(), Failure> {
    match &blob.location {
        Location::Object(key) => {
            store::keep_pieces(&mut *db.acquire().await?, &blob.digest, key, pieces).await
        }
        Location::Inline(_) => Ok(()),
    }
}

/// Makes a blob of one repository part of another without its bytes travelling; `None` when the
/// source does not have it.
pub async fn mount(
    db: &Db,
    target: &Grant<Push>,
    source: &Grant<Pull>,
    digest: &Digest,
    grace: Duration,
) -> Result<Option<()>, UploadRefused> {
    act(|| try_mount(db, target, source, digest, grace)).await
}

async fn try_mount(
    db: &Db,
    target: &Grant<Push>,
    source: &Grant<Pull>,
    digest: &Digest,
    grace: Duration,
) -> Result<Option<()>, UploadRefused> {
    let mut tx = db.begin().await?;
    let Some(from) = repository(&mut tx, source.repository()).await? else { return Ok(None) };
    let Some(size_bytes) = store::size(&mut tx, from.id, digest).await? else { return Ok(None) };
    let into = super::ensure_repository(&mut tx, target).await?;
    if !protect(&mut tx, into.id, digest, grace).await? {
        if store::lock(&mut tx, digest).await? != Some(true) {
            return Ok(None);
        }
        store::insert_link(&mut tx, into.id, digest, grace).await?;
        if let Some(over) = quotas::over_quota(&mut tx, &into, size_bytes).await? {
            return Err(UploadRefused::OverQuota(over));
        }
        let event = Event {
            kind: Kind::BlobPushed,
            at: agreed_time(&mut tx).await?,
            principal: target.principal(),
            repository: Some((into.id, target.repository())),
            environment: None,
            digest: Some(digest),
            facts: json!({"size_bytes": size_bytes, "mounted_from": source.repository()}),
            // Answers are about manifests, which name no blob before it is here.
            changes: vec![],
        };
        ledger::append(&mut tx, event).await?;
    }
    tx.commit().await.map_err(Failure::from)?;
    Ok(Some(()))
}

/// Lets go of a blob, for this repository only. Its row and bytes stay for the others; those that no
/// repository has go with the next collection.
pub async fn delete(db: &Db, grant: &Grant<Delete>, digest: &Digest) -> Result<(), BlobRefused> {
    act(|| try_delete(db, grant, digest)).await
}

async fn try_delete(db: &Db, grant: &Grant<Delete>, digest: &Digest) -> Result<(), BlobRefused> {
    let mut tx = db.begin().await?;
    let Some(repository) = repository(&mut tx, grant.repository()).await? else {
        return Err(BlobRefused::Unknown);
    };
    match store::delete_link(&mut tx, repository.id, digest).await {
        Ok(true) => {}
        Ok(false) => return Err(BlobRefused::Unknown),
        Err(error) if constraint(&error) == Some("a_manifest_has_its_blobs") => {
            drop(tx);
            let mut connection = db.pool().acquire().await.map_err(Failure::from)?;
            let manifests = store::manifests_using(&mut connection, repository.id, digest).await?;
            return Err(BlobRefused::Used { manifests });
        }
        Err(error) => return Err(Failure::new("letting go of a blob", error).into()),
    }
    let event = Event {
        kind: Kind::BlobDeleted,
        at: agreed_time(&mut tx).await?,
        principal: grant.principal(),
        repository: Some((repository.id, grant.repository())),
        environment: None,
        digest: Some(digest),
        facts: json!({}),
        changes: vec![Generation::repository(grant.repository())],
    };
    ledger::append(&mut tx, event).await?;
    Ok(tx.commit().await.map_err(Failure::from)?)
}
