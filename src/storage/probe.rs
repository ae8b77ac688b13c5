//! What an object store can do, tried at start: a store that would lose or mix up bytes is refused then,
//! and not met at the first large upload.

use super::objects::Objects;
use crate::failure::Failure;
use bytes::Bytes;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode};
use uuid::Uuid;

const DOING: &str = "trying the object store (does it exist, and may we write, read and delete there?)";

fn failed(error: Error) -> Failure {
    Failure::new(DOING, error)
}

fn unsafe_store(why: &str) -> Failure {
    Failure::new(DOING, format!("{why}: blobs would not be safe in it"))
}

impl Objects {
    /// Tries what the service relies on, and says what else the store can do. What it writes lies below
    /// `probe/`, which nothing else reads, and is deleted again.
    pub async fn probe(&self) -> Result<(), Failure> {
        let path = self.path(&format!("probe/{}", Uuid::new_v4()));
        let conditional_put = self.probe_objects(&path).await?;
        let path = self.path(&format!("probe/{}", Uuid::new_v4()));
        let changed_parts = self.probe_parts(&path).await?;
        self.store.delete(&path).await.map_err(failed)?;
        tracing::info!(
            store = %self.store, prefix = %self.prefix, ranges = "yes", multipart = "yes", changed_parts,
            conditional_put, "the object store answers; nothing here relies on conditional puts"
        );
        Ok(())
    }

    /// Whole objects: what was written is read back, in ranges, and is gone when it was deleted. Says what
    /// becomes of a conditional put.
    async fn probe_objects(&self, path: &Path) -> Result<&'static str, Failure> {
        let content = Bytes::from(path.to_string());
        self.store.put(path, content.clone().into()).await.map_err(failed)?;
        let read = self.store.get_range(path, 1..content.len() as u64).await.map_err(failed)?;
        if read != content.slice(1..) {
            return Err(unsafe_store("it gave back other bytes than were written"));
        }
        let again = self.store.put_opts(path, content.into(), PutMode::Create.into()).await;
        let conditional_put = match again {
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => "yes",
            Err(_) => "refused",
            Ok(_) => "ignored",
        };
        self.store.delete(path).await.map_err(failed)?;
        match self.store.head(path).await {
            Err(Error::NotFound { .. }) => Ok(conditional_put),
            Err(error) => Err(failed(error)),
            Ok(_) => Err(unsafe_store("an object that was deleted is still there")),
        }
    }

    /// Uploads in parts: a part that was written again, as by a writer that lost its lease, must never
    /// take the place of the one that is named; and aborting what is complete must leave the object.
    async fn probe_parts(&self, path: &Path) -> Result<&'static str, Failure> {
        let (named, late) = (Bytes::from_static(b"named"), Bytes::from_static(b"late!"));
        let id = self.multipart.create_multipart(path).await.map_err(failed)?;
        let part = self.multipart.put_part(path, &id, 0, named.clone().into()).await.map_err(failed)?;
        let changed = self.multipart.put_part(path, &id, 0, late.clone().into()).await.map_err(failed)?;
        let told_apart = match self.complete_with(path, &id, part).await {
            Ok(()) if self.whole(path).await? == named => "kept",
            Ok(()) => return Err(unsafe_store("it completed an upload with another part than was named")),
            Err(_) => "refused",
        };
        if told_apart == "refused" {
            self.complete_with(path, &id, changed).await.map_err(failed)?;
            if self.whole(path).await? != late {
                return Err(unsafe_store("it completed an upload to other bytes than its part's"));
            }
        }
        // Some say that there is no such upload any more, which is as good.
        let _ = self.multipart.abort_multipart(path, &id).await;
        if self.store.head(path).await.map_err(failed)?.size != named.len() as u64 {
            return Err(unsafe_store("aborting an upload that is complete changed its object"));
        }
        let id = self.multipart.create_multipart(path).await.map_err(failed)?;
        self.multipart.abort_multipart(path, &id).await.map_err(failed)?;
        Ok(told_apart)
    }

    async fn complete_with(&self, path: &Path, id: &String, part: PartId) -> Result<(), Error> {
        self.multipart.complete_multipart(path, id, vec![part]).await.map(|_| ())
    }

    async fn whole(&self, path: &Path) -> Result<Bytes, Failure> {
        self.store.get(path).await.map_err(failed)?.bytes().await.map_err(failed)
    }
}
