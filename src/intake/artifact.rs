//! Putting a file: bytes of any size become a one-layer OCI artifact that every OCI tool reads.

use super::file::PutFile;
use super::push::{PushManifest, enter, push_within};
use crate::access::{Grant, Push};
use crate::content::{self, Holding, OverQuota, ParsedManifest, PushRefused, Repository, Usage, blobs};
use crate::failure::Failure;
use crate::names::{Algorithm, Digest, Hasher, Tag};
use crate::postgres::{Db, Scopes, act, refusal};
use crate::storage::{Store, StoredBlob, WriteRefused};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use sqlx::PgConnection;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where files are put, and what bounds them.
#[derive(Clone, Copy, Debug)]
pub struct Shelf<'a> {
    /// The database.
    pub db: &'a Db,
    /// The object store.
    pub store: &'a Store,
    /// Bytes of a file at the most.
    pub blob_bytes: u64,
    /// How long a pushed blob is protected.
    pub blob_grace: Duration,
}

/// An artifact that is there now.
#[derive(Clone, Debug)]
pub struct PutArtifact {
    /// The manifest's digest.
    pub digest: Digest,
    /// The file's digest.
    pub content: Digest,
    /// The file's bytes.
    pub size_bytes: u64,
}

/// Why a file was not put; nothing of it can be found.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactRefused {
    /// The version is held for another artifact.
    #[error("the version {version} is {current}{}", if *.hidden { ", deleted; it stays reserved for that digest" } else { "" })]
    VersionTaken {
        /// The version.
        version: Tag,
        /// What it names, for ever.
        current: Digest,
        /// Whether it was deleted.
        hidden: bool,
    },
    /// A version is a write-once tag, and the repository's rules let this one move.
    #[error("{0} floats by the rules of this repository; a version is a name that never moves")]
    VersionFloats(Tag),
    /// The bytes are not those that were announced.
    #[error("the body has the digest {actual}, not {said}")]
    WrongDigest {
        /// What was announced.
        said: Digest,
        /// What came.
        actual: Digest,
    },
    /// More bytes than the limit.
    #[error("a file may have {limit_bytes} bytes at the most")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// More than the repository may hold.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// The body ended before its end.
    #[error("the body broke off: {0}")]
    Interrupted(String),
    /// An index lists the bytes of the artifact's manifest as something else.
    #[error(
        "{manifest}, the artifact's manifest, is listed by the index {index} as something else: delete that"
    )]
    ListedAsBlob {
        /// The manifest.
        manifest: Digest,
        /// The index.
        index: Digest,
    },
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Puts a file. A version that is taken is refused before the body is read, as far as the request
/// alone can tell that it is another artifact, and again in the transaction. Bytes first: a refusal
/// or a crash after them leaves an object that the sweep takes.
pub async fn put_artifact<S, E>(
    shelf: Shelf<'_>,
    grant: &Grant<Push>,
    file: &PutFile,
    body: S,
) -> Result<PutArtifact, ArtifactRefused>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Display,
{
    let stored = before_body(shelf.db, grant, file).await?;
    // What is there already takes no more room.
    let quota = if stored.is_some() { None } else { usage(shelf.db, grant).await? };
    let limit_bytes = stored.as_ref().map_or(shelf.blob_bytes, |same| same.size_bytes.min(shelf.blob_bytes));
    let limit_bytes = quota.map_or(limit_bytes, |quota| quota.left_bytes().min(limit_bytes));
    let sha512 = Arc::new(Mutex::new(file.wants_sha512().then(|| Hasher::new(Algorithm::Sha512))));
    let hashing = Arc::clone(&sha512);
    let body = body.inspect(move |chunk| {
        let mut hasher = hashing.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(hasher), Ok(bytes)) = (hasher.as_mut(), chunk) {
            hasher.update(bytes);
        }
    });
    let written = shelf.store.write(body, Algorithm::Sha256, limit_bytes, file.declared_bytes).await;
    let blob = written.map_err(|refused| match (refused, stored) {
        (WriteRefused::TooLarge { .. }, Some(same)) => same.refusal(),
        (WriteRefused::TooLarge { limit_bytes }, None) => {
            match quota.filter(|quota| quota.left_bytes() == limit_bytes) {
                Some(quota) => quota.over().into(),
                None => ArtifactRefused::TooLarge { limit_bytes },
            }
        }
        (WriteRefused::Interrupted(why), _) => ArtifactRefused::Interrupted(why),
        (WriteRefused::Failed(failure), _) => failure.into(),
    })?;
    let sha512 = sha512.lock().unwrap_or_else(PoisonError::into_inner).take().map(Hasher::finish);
    if let Err(refused) = file.check(blob.digest(), sha512.as_ref()) {
        shelf.store.discard(blob).await;
        return Err(refused);
    }
    store(shelf, grant, file, blob).await
}

/// What the repository holds, if there is a quota on it.
async fn usage(db: &Db, grant: &Grant<Push>) -> Result<Option<Usage>, Failure> {
    content::usage(&mut *db.acquire().await?, grant.repository(), None).await
}

/// What a taken version names: an artifact that the body may still turn out to be.
struct Same {
    version: Tag,
    current: Digest,
    size_bytes: u64,
}

impl Same {
    fn refusal(self) -> ArtifactRefused {
        ArtifactRefused::VersionTaken { version: self.version, current: self.current, hidden: false }
    }
}

/// What is known before the body: a version that floats or names another artifact is refused.
async fn before_body(db: &Db, grant: &Grant<Push>, file: &PutFile) -> Result<Option<Same>, ArtifactRefused> {
    let Some(version) = &file.version else { return Ok(None) };
    let mut connection = db.pool().acquire().await.map_err(Failure::from)?;
    let found = content::repository(&mut connection, grant.repository()).await?;
    let Some(repository) = found else { return Ok(None) };
    let Some((current, hidden)) = taken(&mut connection, &repository, version).await? else {
        return Ok(None);
    };
    let Some(there) = content::manifest(&mut connection, repository.id, &current).await? else {
        // It was deleted with its manifest: only the bytes can tell.
        return Ok(None);
    };
    match file.could_be(&there)? {
        Some(size_bytes) => Ok(Some(Same { version: version.clone(), current, size_bytes })),
        None => Err(ArtifactRefused::VersionTaken { version: version.clone(), current, hidden }),
    }
}

/// What holds the version, and whether it was deleted.
async fn taken(
    connection: &mut PgConnection,
    repository: &Repository,
    version: &Tag,
) -> Result<Option<(Digest, bool)>, ArtifactRefused> {
    match content::holding(connection, repository, version).await? {
        Holding::Free => Ok(None),
        Holding::Floating => Err(ArtifactRefused::VersionFloats(version.clone())),
        Holding::Held { current, hidden } => Ok(Some((current, hidden))),
    }
}

/// Links the bytes and pushes the manifest, in one transaction, tried once more when Postgres says
/// that it lost a race. Bytes that nobody's row took are removed.
async fn store(
    shelf: Shelf<'_>,
    grant: &Grant<Push>,
    file: &PutFile,
    blob: StoredBlob,
) -> Result<PutArtifact, ArtifactRefused> {
    let manifest = file.manifest(blob.digest(), blob.size_bytes())?;
    let put = PutArtifact {
        digest: manifest.digest.clone(),
        content: blob.digest().clone(),
        size_bytes: blob.size_bytes(),
    };
    match act(|| attempt(shelf, grant, file, &blob, &manifest)).await {
        Ok(true) => Ok(put),
        Ok(false) => {
            shelf.store.discard(blob).await;
            Ok(put)
        }
        // Whether a commit that failed happened is not known: those bytes are the sweep's to judge.
        Err(ArtifactRefused::Failed(failure)) => Err(failure.into()),
        Err(refused) => {
            shelf.store.discard(blob).await;
            Err(refused)
        }
    }
}

/// One transaction; says whether the blob's row took the bytes.
async fn attempt(
    shelf: Shelf<'_>,
    grant: &Grant<Push>,
    file: &PutFile,
    blob: &StoredBlob,
    manifest: &ParsedManifest,
) -> Result<bool, ArtifactRefused> {
    let mut tx = shelf.db.begin().await?;
    let push = PushManifest { manifest: manifest.clone(), tags: file.version.iter().cloned().collect() };
    let repository = enter(&mut tx, grant, |id| push.with_names(id, Scopes::push(id))).await?;
    if let Some(version) = &file.version {
        taken(&mut tx, &repository, version).await?;
    }
    // In the order of their digests, as every push does.
    let mut linked = false;
    for part in in_order(blob, &StoredBlob::empty_json()) {
        let done = blobs::link(&mut tx, repository.id, part, shelf.blob_grace).await?;
        linked |= done.bytes_taken && part.digest() == blob.digest();
    }
    push_within(&mut tx, grant, &repository, &push).await?;
    tx.commit().await.map_err(|error| Failure::new("putting an artifact", error))?;
    Ok(linked)
}

fn in_order<'a>(a: &'a StoredBlob, b: &'a StoredBlob) -> [&'a StoredBlob; 2] {
    if a.digest() < b.digest() { [a, b] } else { [b, a] }
}

refusal!(ArtifactRefused);

impl From<PushRefused> for ArtifactRefused {
    fn from(refused: PushRefused) -> Self {
        match refused {
            PushRefused::TagTaken { tag, current, hidden } => {
                Self::VersionTaken { version: tag, current, hidden }
            }
            PushRefused::OverQuota(over) => Self::OverQuota(over),
            PushRefused::ListedAsBlob { digest, index } => Self::ListedAsBlob { manifest: digest, index },
            PushRefused::Failed(failure) => Self::Failed(failure),
            // The manifest is our own, and its blobs are linked in the same transaction.
            refused @ (PushRefused::BlobsUnknown(_)
            | PushRefused::ChildrenUnknown(_)
            | PushRefused::SizeDiffers { .. }
            | PushRefused::NestedTooDeep(_)) => {
                Self::Failed(Failure::new("pushing the manifest of a file", refused))
            }
        }
    }
}
