//! The sweep: takes what uploads left behind. Safe on every replica at any time.

use super::Uploads;
use crate::content::store::uploads as store;
use crate::failure::Failure;
use crate::postgres::database_time;
use crate::storage::Found;
use chrono::TimeDelta;
use futures::TryStreamExt;
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// How far the clocks of Postgres and of a store differ.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(1);

/// Names that are asked about at a time.
const BATCH: usize = 500;

impl Uploads {
    /// Ends sessions that nobody has written to for so long, and frees what they staged. Returns how
    /// many. The lease keeps two replicas, or a client that comes back, from each other.
    pub async fn sweep_sessions(&self, idle: Duration) -> Result<u64, Failure> {
        let mut connection = self.db.pool().acquire().await?;
        let mut ended = 0;
        let token = Uuid::new_v4();
        while let Some((id, staged)) = store::claim_expired(&mut connection, token, idle).await? {
            // The row first: a crash now leaves bytes without a session, for the other sweep.
            if store::delete(&mut connection, id, token).await? {
                ended += 1;
                match staged {
                    Ok(staged) => self.store.abandon(&staged).await,
                    Err(failure) => tracing::warn!(error = failure.chain(), upload = %id, "bytes are left"),
                }
            }
        }
        Ok(ended)
    }

    /// Deletes bytes in the store that no blob's row and no open session needs and that are older
    /// than the grace. Returns how many objects.
    ///
    /// A row or a session can only come to need bytes that were written just before it, so what is
    /// old and unneeded stays unneeded. Files that are none of ours are left alone, and so is what is older
    /// than the registry: its rows may come yet, out of a backup.
    pub async fn sweep_store(&self, grace: Duration) -> Result<u64, Failure> {
        let Some(began) = self.began else { return Ok(0) };
        let after = began - CLOCKS_DIFFER;
        let mut connection = self.db.pool().acquire().await?;
        let age = TimeDelta::from_std(grace).map_err(|error| Failure::new("reading the grace", error))?;
        let before = database_time(&mut connection).await? - age;
        drop(connection);
        let mut listed = self.store.list();
        let (mut batch, mut deleted) = (HashMap::with_capacity(BATCH), 0);
        while let Some(found) = listed.try_next().await? {
            if let Some(upload) = found.upload.filter(|_| (after..before).contains(&found.modified_at)) {
                batch.insert(found.name.clone(), (upload, found));
            }
            if batch.len() >= BATCH {
                deleted += self.delete_unneeded(std::mem::take(&mut batch)).await?;
            }
        }
        Ok(deleted + self.delete_unneeded(batch).await?)
    }

    async fn delete_unneeded(&self, mut batch: HashMap<String, (Uuid, Found)>) -> Result<u64, Failure> {
        let (names, uploads): (Vec<String>, Vec<Uuid>) =
            batch.iter().map(|(name, (upload, _))| (name.clone(), *upload)).unzip();
        let mut connection = self.db.pool().acquire().await?;
        let unneeded = store::unneeded(&mut connection, &names, &uploads).await?;
        drop(connection);
        let mut deleted = 0;
        for name in unneeded {
            if let Some((_, found)) = batch.remove(&name) {
                match self.store.remove(&found).await {
                    Ok(()) => {
                        tracing::info!(name, bytes = found.size_bytes, "swept bytes that nobody needs");
                        deleted += 1;
                    }
                    Err(failure) if failure.is_overloaded() => return Err(failure),
                    // What the store does not let go of stands in no other's way.
                    Err(failure) => tracing::warn!(error = failure.chain(), name, "bytes are left"),
                }
            }
        }
        Ok(deleted)
    }
}
