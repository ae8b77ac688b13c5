//! Whose store it is. One object beside the blobs names the registry, so that none takes another's store for
//! its own, nor the empty place where its own is not mounted.

use super::store::{Kind, Store};
use crate::failure::Failure;
use bytes::Bytes;

/// The object's name, and what stands in it is the owner's.
const NAME: &str = "registry";

impl Store {
    /// Whose it is; `None` where no registry has begun to use it.
    pub async fn owner(&self) -> Result<Option<String>, Failure> {
        let read = match self.kind() {
            Kind::Files(files) => files.read_small(NAME).await?.map(Bytes::from),
            Kind::Objects(objects) => objects.read_small(NAME).await?,
        };
        Ok(read.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// Makes it this owner's, durably.
    pub async fn belong_to(&self, owner: &str) -> Result<(), Failure> {
        let line = format!("{owner}\n");
        match self.kind() {
            Kind::Files(files) => files.write_small(NAME, line).await,
            Kind::Objects(objects) => objects.put(NAME, line.into()).await,
        }
    }
}
