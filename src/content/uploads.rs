//! Uploads: from the bytes of a request to a blob of a repository.
//!
//! A session lives in Postgres (offset, hash state, what the store holds), so any replica takes the
//! next chunk. Whoever writes to it holds its lease: claimed by compare-and-swap before the first
//! byte, renewed while bytes come, named in everything that is staged. Finishing may be repeated:
//! the state is saved before the bytes move to their place, and the blob's row, its link, its event
//! and the end of the session are one transaction.

use super::store::uploads as store;
use super::{blobs, ensure_repository};
use crate::access::{Grant, Push};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Algorithm, Digest};
use crate::postgres::{Db, database_time};
use crate::storage::{FinishRefused, Staged, Store, StoredBlob, WriteRefused};
use bytes::Bytes;
use futures::Stream;
use serde_json::json;
use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;
use uuid::Uuid;

/// Takes uploads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Uploads {
    pub(super) db: Db,
    pub(super) store: Store,
    bounds: Bounds,
    slots: Arc<Semaphore>,
}

/// What uploads may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a blob.
    pub blob_bytes: u64,
    /// Bodies at the same time.
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

/// Why an upload was not taken.
#[derive(Debug)]
pub enum UploadRefused {
    /// There is no such session in this repository.
    Unknown,
    /// The body does not begin where the session is, or somebody else is writing to it.
    OutOfOrder {
        /// Where the session is.
        offset_bytes: u64,
    },
    /// The blob would have more bytes than this.
    TooLarge {
        /// The most that would be accepted.
        limit_bytes: u64,
    },
    /// The body has another length than it said.
    WrongLength {
        /// What it said.
        declared_bytes: u64,
    },
    /// The body ended before its end; what came of a session's is kept.
    Interrupted(String),
    /// The bytes have another digest than they should.
    WrongDigest {
        /// The one they have.
        actual: Digest,
    },
    /// As many bodies as the service takes are being taken.
    Busy,
    /// The principal has as many open sessions as it may.
    TooManySessions {
        /// The most that it may have.
        limit: u32,
    },
    /// A fault of ours.
    Failed(Failure),
}

impl From<Failure> for UploadRefused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How long a writer's lease lasts without being renewed, and how often it is.
pub(super) const LEASE: Duration = Duration::from_secs(30);
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// A session whose lease this writer holds.
struct Held {
    id: Uuid,
    token: Uuid,
    staged: Staged,
}

impl Uploads {
    /// Uploads into this database and store.
    pub fn new(db: Db, store: Store, bounds: Bounds) -> Self {
        Self { db, store, bounds, slots: Arc::new(Semaphore::new(bounds.concurrent)) }
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
        store::offset(&mut connection, grant.repository(), id).await?.ok_or(UploadRefused::Unknown)
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
        let slot = self.slot()?;
        let uploads = self.clone();
        to_its_end(async move {
            let mut held = uploads.claim(&grant, id, incoming.start).await?;
            uploads.take(&mut held, incoming).await?;
            uploads.save(&held, Lease::Released).await?;
            drop(slot);
            Ok(held.staged.offset_bytes())
        })
        .await
    }

    /// Adds the last body, if there is one, and makes the session a blob of the repository. Bytes of
    /// another digest end the session.
    pub async fn finish<S, E>(
        &self,
        grant: Grant<Push>,
        id: Uuid,
        incoming: Option<Incoming<S>>,
        digest: Digest,
    ) -> Result<StoredBlob, UploadRefused>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
        E: Display + Send,
    {
        let slot = self.slot()?;
        let uploads = self.clone();
        to_its_end(async move {
            let start = incoming.as_ref().and_then(|incoming| incoming.start);
            let mut held = uploads.claim(&grant, id, start).await?;
            if let Some(incoming) = incoming {
                uploads.take(&mut held, incoming).await?;
                // Before anything moves: a finish that is cut off is repeated from here.
                uploads.save(&held, Lease::Kept).await?;
            }
            let finished = uploads.holding(&held, uploads.store.finish_as(&held.staged, &digest)).await?;
            drop(slot);
            match finished {
                Ok(blob) => uploads.commit(&grant, blob, Some(&held)).await,
                Err(FinishRefused::WrongDigest { actual }) => {
                    uploads.forget(&held).await?;
                    Err(UploadRefused::WrongDigest { actual })
                }
                Err(FinishRefused::Failed(failure)) => Err(uploads.release(&held, failure.into()).await),
            }
        })
        .await
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
        let slot = self.slot()?;
        let uploads = self.clone();
        to_its_end(async move {
            let Incoming { body, declared_bytes, .. } = incoming;
            let limit_bytes = uploads.bounds.blob_bytes;
            let blob = uploads.store.write(body, digest.algorithm(), limit_bytes, declared_bytes).await?;
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

    /// A place among the bodies that are taken at the same time; held while one comes in.
    pub fn slot(&self) -> Result<OwnedSemaphorePermit, UploadRefused> {
        self.slots.clone().try_acquire_owned().map_err(|_| UploadRefused::Busy)
    }

    async fn claim(&self, grant: &Grant<Push>, id: Uuid, start: Option<u64>) -> Result<Held, UploadRefused> {
        let token = Uuid::new_v4();
        let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
        let claimed = store::claim(&mut connection, grant.repository(), id, token, start).await?;
        match claimed {
            Some(staged) => Ok(Held { id, token, staged }),
            None => Err(match store::offset(&mut connection, grant.repository(), id).await? {
                Some(offset_bytes) => UploadRefused::OutOfOrder { offset_bytes },
                None => UploadRefused::Unknown,
            }),
        }
    }

    /// Takes a body in. After a refusal the lease is released, and the session is where it was, or
    /// where an interrupted body left it.
    async fn take<S, E>(&self, held: &mut Held, incoming: Incoming<S>) -> Result<(), UploadRefused>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Display,
    {
        let Incoming { declared_bytes, body, .. } = incoming;
        let before = held.staged.offset_bytes();
        let room = self.bounds.blob_bytes.saturating_sub(before);
        if declared_bytes.is_some_and(|bytes| bytes > room) {
            let refused = UploadRefused::TooLarge { limit_bytes: self.bounds.blob_bytes };
            return Err(self.release(held, refused).await);
        }
        let limit_bytes = before + declared_bytes.unwrap_or(room);
        let mut staged = held.staged.clone();
        let taking = self.store.append(&mut staged, held.token, body, limit_bytes);
        match self.holding(held, taking).await? {
            Ok(()) => {
                held.staged = staged;
                let came = held.staged.offset_bytes() - before;
                match declared_bytes.filter(|declared| *declared != came) {
                    None => Ok(()),
                    Some(declared_bytes) => {
                        self.save(held, Lease::Released).await?;
                        Err(UploadRefused::WrongLength { declared_bytes })
                    }
                }
            }
            Err(WriteRefused::Interrupted(why)) => {
                held.staged = staged;
                self.save(held, Lease::Released).await?;
                Err(UploadRefused::Interrupted(why))
            }
            Err(WriteRefused::TooLarge { .. }) => {
                let refused = match declared_bytes {
                    Some(declared_bytes) => UploadRefused::WrongLength { declared_bytes },
                    None => UploadRefused::TooLarge { limit_bytes: self.bounds.blob_bytes },
                };
                Err(self.release(held, refused).await)
            }
            Err(WriteRefused::Failed(failure)) => Err(self.release(held, failure.into()).await),
        }
    }

    /// Does the work while the lease is renewed beside it. When the lease turns out to be lost the
    /// work is dropped: what it staged is named by nobody.
    async fn holding<T>(&self, held: &Held, work: impl Future<Output = T>) -> Result<T, UploadRefused> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(RENEW_EVERY) => {
                    if let Some(refused) = self.renew(held).await {
                        return Err(refused);
                    }
                }
            }
        }
    }

    /// A database that does not answer for a moment does not end an upload: saving decides.
    async fn renew(&self, held: &Held) -> Option<UploadRefused> {
        let renewed = match self.db.pool().acquire().await {
            Ok(mut connection) => store::renew(&mut connection, held.id, held.token).await,
            Err(error) => Err(error.into()),
        };
        match renewed {
            Ok(true) => None,
            Ok(false) => Some(UploadRefused::OutOfOrder { offset_bytes: held.staged.offset_bytes() }),
            Err(failure) => {
                tracing::warn!(error = failure.chain(), upload = %held.id, "a lease was not renewed");
                None
            }
        }
    }

    async fn save(&self, held: &Held, lease: Lease) -> Result<(), UploadRefused> {
        let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
        let kept = matches!(lease, Lease::Kept);
        if store::save(&mut connection, held.id, held.token, &held.staged, kept).await? {
            return Ok(());
        }
        // Somebody else holds the session now; these bytes were never its.
        Err(UploadRefused::OutOfOrder { offset_bytes: held.staged.offset_bytes() })
    }

    /// Gives the lease back and passes the refusal on. A lease that cannot be given back ends soon.
    async fn release(&self, held: &Held, refused: UploadRefused) -> UploadRefused {
        let released = match self.db.pool().acquire().await {
            Ok(mut connection) => store::release(&mut connection, held.id, held.token).await,
            Err(error) => Err(error.into()),
        };
        if let Err(failure) = released {
            tracing::warn!(error = failure.chain(), upload = %held.id, "a lease is left to end by itself");
        }
        refused
    }

    /// Ends a session: first its row, then what it staged.
    async fn forget(&self, held: &Held) -> Result<(), UploadRefused> {
        let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
        if store::delete(&mut connection, held.id, held.token).await? {
            self.store.abandon(&held.staged).await;
        }
        Ok(())
    }

    /// The blob's row, its link, the end of the session and the event, in one transaction.
    async fn commit(
        &self,
        grant: &Grant<Push>,
        blob: StoredBlob,
        held: Option<&Held>,
    ) -> Result<StoredBlob, UploadRefused> {
        let committed = match self.try_commit(grant, &blob, held).await {
            Err(UploadRefused::Failed(failure)) if failure.is_transient() => {
                self.try_commit(grant, &blob, held).await
            }
            committed => committed,
        };
        match committed {
            Ok(linked) => {
                if !linked.bytes_taken {
                    // The registry has these bytes already, under another key.
                    self.store.discard(blob.clone()).await;
                }
                Ok(blob)
            }
            Err(refused) => match held {
                Some(held) => Err(self.release(held, refused).await),
                None => Err(refused),
            },
        }
    }

    async fn try_commit(
        &self,
        grant: &Grant<Push>,
        blob: &StoredBlob,
        held: Option<&Held>,
    ) -> Result<blobs::Linked, UploadRefused> {
        let mut tx = self.db.begin().await?;
        let repository = ensure_repository(&mut tx, grant).await?;
        let linked = blobs::link(&mut tx, repository.id, blob, self.bounds.blob_grace).await?;
        if let Some(held) = held
            && !store::delete(&mut tx, held.id, held.token).await?
        {
            return Err(UploadRefused::OutOfOrder { offset_bytes: held.staged.offset_bytes() });
        }
        if linked.new_to_repository {
            let event = Event {
                kind: Kind::BlobPushed,
                at: database_time(&mut tx).await?,
                principal: grant.principal(),
                repository: Some((repository.id, grant.repository())),
                environment: None,
                digest: Some(blob.digest()),
                facts: json!({"size_bytes": blob.size_bytes()}),
            };
            ledger::append(&mut tx, event).await?;
        }
        tx.commit().await.map_err(Failure::from)?;
        Ok(linked)
    }
}

/// What becomes of a lease when a state is saved.
enum Lease {
    Kept,
    Released,
}

impl From<WriteRefused> for UploadRefused {
    fn from(refused: WriteRefused) -> Self {
        match refused {
            WriteRefused::TooLarge { limit_bytes } => Self::TooLarge { limit_bytes },
            WriteRefused::Interrupted(why) => Self::Interrupted(why),
            WriteRefused::Failed(failure) => Self::Failed(failure),
        }
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
