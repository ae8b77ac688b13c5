//! The end of an upload: from staged bytes to a blob.

use super::INLINE_BYTES;
use super::blob::{Location, StoredBlob, key_of};
use super::objects::Objects;
use super::pieces::PieceHasher;
use super::staged::{Pieces, Staged};
use super::store::{Kind, Store};
use crate::failure::Failure;
use crate::names::{Digest, Hasher};
use futures::StreamExt;

/// Why an upload did not become a blob.
#[derive(Debug)]
pub enum FinishRefused {
    /// Its bytes have another digest.
    WrongDigest {
        /// The one they have.
        actual: Digest,
    },
    /// A fault of ours.
    Failed(Failure),
}

impl From<Failure> for FinishRefused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Store {
    /// Makes a blob of an upload. May be repeated after a crash, by any replica, from the same state:
    /// what was done already is found done.
    pub async fn finish(&self, staged: &Staged) -> Result<StoredBlob, Failure> {
        let digest = staged.hashing.whole.clone().finish();
        self.place(staged, digest).await
    }

    /// The same, when the bytes have this digest. Of another algorithm than the one that ran while
    /// the bytes came in, they are read again.
    pub async fn finish_as(&self, staged: &Staged, digest: &Digest) -> Result<StoredBlob, FinishRefused> {
        if digest.algorithm() == staged.algorithm() {
            let actual = staged.hashing.whole.clone().finish();
            if actual != *digest {
                return Err(FinishRefused::WrongDigest { actual });
            }
            return Ok(self.place(staged, actual).await?);
        }
        let mut hasher = Hasher::new(digest.algorithm());
        match (self.kind(), &staged.pieces) {
            (_, Pieces::None) => hasher.update(&staged.tail),
            (Kind::Files(files), Pieces::Files(_) | Pieces::Parts(_)) => {
                // A finish that was cut off after its rename left the bytes under the key.
                match files.rehash(staged, hasher.clone()).await {
                    Ok(done) => hasher = done,
                    Err(_) if files.path(&key_of(digest, staged.upload)).exists() => {
                        return Ok(self.place(staged, digest.clone()).await?);
                    }
                    Err(failure) => return Err(failure.into()),
                }
            }
            (Kind::Objects(objects), Pieces::Files(_) | Pieces::Parts(_)) => {
                // Parts can be read only when they are an object.
                let key = objects.complete(staged).await?;
                hasher = self.hash_object(key, staged.offset_bytes, hasher).await?;
            }
        }
        let actual = hasher.finish();
        if actual == *digest {
            return Ok(self.place(staged, actual).await?);
        }
        if let Kind::Objects(objects) = self.kind() {
            objects.delete(&staged.parts_key()).await?;
        }
        Err(FinishRefused::WrongDigest { actual })
    }

    async fn place(&self, staged: &Staged, digest: Digest) -> Result<StoredBlob, Failure> {
        let size_bytes = staged.offset_bytes;
        let key = match (&staged.pieces, self.kind()) {
            (Pieces::None, _) if staged.tail.len() <= INLINE_BYTES => {
                return Ok(StoredBlob::inline(digest, staged.tail.clone()));
            }
            (Pieces::None, Kind::Objects(objects)) => put_whole(objects, staged, &digest).await?,
            (Pieces::Files(_) | Pieces::Parts(_), Kind::Objects(objects)) => objects.complete(staged).await?,
            (Pieces::None | Pieces::Files(_) | Pieces::Parts(_), Kind::Files(files)) => {
                files.finish(staged, &digest).await?
            }
        };
        let pieces = staged.hashing.pieces.clone().map(PieceHasher::finish);
        Ok(StoredBlob::object(digest, size_bytes, key, pieces))
    }

    async fn hash_object(&self, key: String, size_bytes: u64, mut hasher: Hasher) -> Result<Hasher, Failure> {
        let failed = |error| Failure::new("reading an object again", error);
        let mut bytes = self.read(&Location::Object(key), 0..size_bytes).await?;
        while let Some(chunk) = bytes.next().await {
            hasher.update(&chunk.map_err(failed)?);
        }
        Ok(hasher)
    }
}

async fn put_whole(objects: &Objects, staged: &Staged, digest: &Digest) -> Result<String, Failure> {
    let key = key_of(digest, staged.upload);
    objects.put(&key, staged.tail.clone()).await?;
    Ok(key)
}
