//! Uploads: from the bytes of a request to a blob of a repository.
//!
//! A session lives in Postgres (offset, hash state, what the store holds), so any replica takes the
//! next chunk of the principal that opened it; nobody else writes under its name, or learns of it.
//! Whoever writes to a session holds its lease: claimed by compare-and-swap before the first
//! byte, renewed while bytes come, named in everything that is staged. Finishing may be repeated:
//! the state is saved before the bytes move to their place, and the blob's row, its link, its event
//! and the end of the session are one transaction.

mod lease;
mod refused;
mod room;
mod sweep;

pub(super) use lease::LEASE;
pub use refused::UploadRefused;

use super::store::uploads as store;
use super::{blobs, ensure_repository, quotas, repository};
use crate::access::{Grant, Push};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Algorithm, Digest};
use crate::postgres::{Db, act, database_time};
use crate::shares::{Shares, Taken};
use crate::storage::{FinishRefused, Staged, Store, StoredBlob, WriteRefused};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::Stream;
use lease::{Held, Lease};
use serde_json::json;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;
use tracing::Instrument;
use uuid::Uuid;

/// Takes uploads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Uploads {
    pub(super) db: Db,
    pub(super) store: Store,
    bounds: Bounds,
    slots: Shares,
    /// When the registry began.
    began: Option<DateTime<Utc>>,
}

/// What uploads may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a blob.
    pub blob_bytes: u64,
    /// Bodies at the same time; of one principal at most half as many.
    pub concurrent: usize,
    /// Open sessions of one principal.
    pub sessions_per_principal: u32,
    /// How long a pushed blob is protected.
    pub blob_grace: Duration,
}

/// A body with what is known of it before it comes.
#[derive(Debug)]
pub struct Incoming<S> {
    /// The offset that the client says it begins at.
    pub start: Option<u64>,
    /// How many bytes it says there are.
    pub declared_bytes: Option<u64>,
    /// The bytes.
    pub body: S,
}

impl Uploads {
    /// Uploads into this database and store, of a registry that began then.
    pub fn new(db: Db, store: Store, bounds: Bounds, began: Option<DateTime<Utc>>) -> Self {
        Self { db, store, bounds, slots: Shares::halves(bounds.concurrent), began }
    }

    /// Opens a session.
    pub async fn start(&self, grant: &Grant<Push>, algorithm: Algorithm) -> Result<Uuid, UploadRefused> {
        let staged = Staged::new(Uuid::new_v4(), algorithm);
        let limit = self.bounds.sessions_per_principal;
        let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
        if store::insert(&mut connection, grant, &staged, limit).await? {
            Ok(staged.upload())
        } else {
            Err(UploadRefused::TooManySessions { limit })
        }
    }

    /// How many bytes a session has taken.
    pub async fn offset(&self, grant: &Grant<Push>, id: Uuid) -> Result<u64, UploadRefused> {
        let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
        let standing = store::standing(&mut connection, grant, id).await?;
        standing.map(|standing| standing.offset_bytes).ok_or(UploadRefused::Unknown)
    }

    /// Ends a session and forgets its bytes.
    pub async fn cancel(&self, grant: &Grant<Push>, id: Uuid) -> Result<(), UploadRefused> {
        let held = self.claim(grant, id, None).await?;
        self.forget(&held).await
    }

    /// Adds a body to a session and says how many bytes it has now. A client that goes away leaves
    /// every byte that came; a service that dies leaves the session as it was.
    pub async fn append<S, E>(
        &self,
        grant: Grant<Push>,
        id: Uuid,
        incoming: Incoming<S>,
    ) -> Result<u64, UploadRefused>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
        E: Display + Send,
    {
        let slot = self.slot(&grant)?;
        let uploads = self.clone();
        to_its_end(async move {
            let mut held = uploads.claim(&grant, id, incoming.start).await?;
            uploads.take(&grant, &mut held, incoming).await?;
            uploads.save(&grant, &held, Lease::Released).await?;
            drop(slot);
            Ok(held.staged.offset_bytes())
        })
        .await
    }

    /// Adds the last body, if there is one, and makes the session a blob of the repository. Bytes of
    /// another digest end the session. A client whose answer was lost may ask again: what is over and left
    /// the blob behind is done.
    pub async fn finish<S, E>(
        &self,
        grant: Grant<Push>,
        id: Uuid,
        incoming: Option<Incoming<S>>,
        digest: Digest,
    ) -> Result<(), UploadRefused>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
        E: Display + Send,
    {
        let slot = self.slot(&grant)?;
        let uploads = self.clone();
        to_its_end(async move {
            let start = incoming.as_ref().and_then(|incoming| incoming.start);
            let mut held = match uploads.claim(&grant, id, start).await {
                Err(UploadRefused::Unknown) => return uploads.was_finished(&grant, &digest).await,
                claimed => claimed?,
            };
            if let Some(incoming) = incoming {
                uploads.take(&grant, &mut held, incoming).await?;
                // Before anything moves: a finish that is cut off is repeated from here.
                if !held.staged.stays_in_postgres() {
                    uploads.save(&grant, &held, Lease::Kept).await?;
                }
            }
            let finished = uploads.holding(&held, uploads.store.finish_as(&held.staged, &digest)).await?;
            drop(slot);
            match finished {
                Ok(blob) => uploads.commit(&grant, blob, Some(&held)).await.map(|_| ()),
                Err(FinishRefused::WrongDigest { actual }) => {
                    uploads.forget(&held).await?;
                    Err(UploadRefused::WrongDigest { actual })
                }
                Err(FinishRefused::Failed(failure)) => Err(uploads.give_up(&held, failure).await),
            }
        })
        .await
    }

    /// Whether the blob is there and protected again, as after the finish that made it.
    async fn was_finished(&self, grant: &Grant<Push>, digest: &Digest) -> Result<(), UploadRefused> {
        let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
        let Some(home) = repository(&mut connection, grant.repository()).await? else {
            return Err(UploadRefused::Unknown);
        };
        let there = blobs::protect(&mut connection, home.id, digest, self.bounds.blob_grace).await?;
        if there { Ok(()) } else { Err(UploadRefused::Unknown) }
    }

    /// Stores a whole body as a blob of the repository, in one request.
    pub async fn store<S, E>(
        &self,
        grant: Grant<Push>,
        incoming: Incoming<S>,
        digest: Digest,
    ) -> Result<StoredBlob, UploadRefused>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
        E: Display + Send,
    {
        let slot = self.slot(&grant)?;
        let uploads = self.clone();
        to_its_end(async move {
            let Incoming { body, declared_bytes, .. } = incoming;
            let room = uploads.room(&grant, None, declared_bytes).await?;
            let written = uploads.store.write(body, digest.algorithm(), room.bytes(), declared_bytes).await;
            let blob = written.map_err(|refused| room.explain(refused))?;
            drop(slot);
            if *blob.digest() != digest {
                let actual = blob.digest().clone();
                uploads.store.discard(blob).await;
                return Err(UploadRefused::WrongDigest { actual });
            }
            uploads.commit(&grant, blob, None).await
        })
        .await
    }

    /// One of the slots for bodies that come in at the same time.
    pub fn slot(&self, grant: &Grant<Push>) -> Result<Taken, UploadRefused> {
        self.slots.try_take_one(grant.principal().id).ok_or(UploadRefused::Busy)
    }

    /// Takes a body in. After a refusal the lease is released, and the session is where it was, or
    /// where an interrupted body left it.
    async fn take<S, E>(
        &self,
        grant: &Grant<Push>,
        held: &mut Held,
        incoming: Incoming<S>,
    ) -> Result<(), UploadRefused>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Display,
    {
        let Incoming { declared_bytes, body, .. } = incoming;
        if held.staged.is_cut_too_small() {
            return Err(self.release(held, UploadRefused::CutTooSmall).await);
        }
        let before = held.staged.offset_bytes();
        let room = match self.room(grant, Some(held), declared_bytes).await {
            Ok(room) => room,
            Err(failure) => return Err(self.release(held, failure.into()).await),
        };
        if declared_bytes.is_some_and(|bytes| bytes > room.bytes()) {
            return Err(self.release(held, room.refusal()).await);
        }
        let limit_bytes = before + declared_bytes.unwrap_or(room.bytes());
        let mut staged = held.staged.clone();
        let taking = self.store.append(&mut staged, held.token, body, limit_bytes);
        match self.holding(held, taking).await? {
            Ok(()) => {
                held.staged = staged;
                let came = held.staged.offset_bytes() - before;
                match declared_bytes.filter(|declared| *declared != came) {
                    None => Ok(()),
                    Some(declared_bytes) => {
                        self.save(grant, held, Lease::Released).await?;
                        Err(UploadRefused::WrongLength { declared_bytes })
                    }
                }
            }
            Err(WriteRefused::Interrupted(why)) => {
                held.staged = staged;
                self.save(grant, held, Lease::Released).await?;
                Err(UploadRefused::Interrupted(why))
            }
            Err(WriteRefused::TooLarge { .. }) => {
                let refused = match declared_bytes {
                    Some(declared_bytes) => UploadRefused::WrongLength { declared_bytes },
                    None => room.refusal(),
                };
                Err(self.release(held, refused).await)
            }
            Err(WriteRefused::Failed(failure)) => Err(self.give_up(held, failure).await),
        }
    }

    /// The blob's row, its link, the end of the session and the event, in one transaction.
    async fn commit(
        &self,
        grant: &Grant<Push>,
        blob: StoredBlob,
        held: Option<&Held>,
    ) -> Result<StoredBlob, UploadRefused> {
        match act(|| self.try_commit(grant, &blob, held)).await {
            Ok(linked) => {
                metrics::counter!("proofmark_blobs_pushed_total").increment(1);
                metrics::counter!("proofmark_blob_bytes_pushed_total").increment(blob.size_bytes());
                if !linked.bytes_taken {
                    // The registry has these bytes already, under another key.
                    self.store.discard(blob.clone()).await;
                }
                Ok(blob)
            }
            Err(refused) => {
                if let Some(held) = held {
                    return Err(self.release(held, refused).await);
                }
                if matches!(refused, UploadRefused::OverQuota(_)) {
                    self.store.discard(blob).await;
                }
                Err(refused)
            }
        }
    }

    async fn try_commit(
        &self,
        grant: &Grant<Push>,
        blob: &StoredBlob,
        held: Option<&Held>,
    ) -> Result<blobs::Linked, UploadRefused> {
        let mut tx = self.db.begin().await?;
        let home = ensure_repository(&mut tx, grant).await?;
        let linked = blobs::link(&mut tx, home.id, blob, self.bounds.blob_grace).await?;
        if let Some(held) = held
            && !store::delete(&mut tx, held.id, held.token).await?
        {
            return Err(UploadRefused::OutOfOrder { offset_bytes: held.staged.offset_bytes() });
        }
        if linked.new_to_repository {
            if let Some(over) = quotas::over_quota(&mut tx, &home, blob.size_bytes()).await? {
                return Err(UploadRefused::OverQuota(over));
            }
            let event = Event {
                kind: Kind::BlobPushed,
                at: database_time(&mut tx).await?,
                principal: grant.principal(),
                repository: Some((home.id, grant.repository())),
                environment: None,
                digest: Some(blob.digest()),
                facts: json!({"size_bytes": blob.size_bytes()}),
                // Answers are about manifests, which name no blob before it is here.
                changes: vec![],
            };
            ledger::append(&mut tx, event).await?;
        }
        tx.commit().await.map_err(Failure::from)?;
        Ok(linked)
    }
}

/// Runs the work to its end even when the client goes away and its request is dropped: the body then
/// breaks off, and the work saves what came and gives its lease back.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, UploadRefused>> + Send + 'static,
) -> Result<T, UploadRefused> {
    let running = tokio::spawn(work.in_current_span());
    running.await.map_err(|error| Failure::new("taking an upload", error))?
}
