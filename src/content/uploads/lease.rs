//! The lease of a session: who may write to it now.
//!
//! Whoever writes renews its lease, so one that is renewed is that of a writer that lives: a second writer
//! is told at once, or as soon as that shows, that it is out of order. One that is not renewed is that of a
//! service that died: a client that comes back to it is not out of order and could do nothing about it if
//! it were told so, for it is at the right offset. It waits until the lease ends, and goes on.

use super::{UploadRefused, Uploads};
use crate::access::{Grant, Push};
use crate::content::store::uploads::{self as store, Saved};
use crate::content::{Usage, quotas};
use crate::failure::Failure;
use crate::storage::Staged;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use store::Standing;
use uuid::Uuid;

/// How long a writer's lease lasts without being renewed, and how often it is.
pub(in crate::content) const LEASE: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How often one that waits for a lease looks at it again.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A session whose lease this writer holds.
pub(super) struct Held {
    pub id: Uuid,
    pub token: Uuid,
    pub staged: Staged,
}

/// What becomes of a lease when a state is saved.
pub(super) enum Lease {
    Kept,
    Released,
}

impl Uploads {
    /// Takes the lease, if the session is where the body begins and nobody writes to it. Waits for a lease
    /// to end that nobody renews.
    pub(super) async fn claim(
        &self,
        grant: &Grant<Push>,
        id: Uuid,
        start: Option<u64>,
    ) -> Result<Held, UploadRefused> {
        let token = Uuid::new_v4();
        let mut before: Option<Standing> = None;
        loop {
            let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
            // Who waited for somebody goes on where that one stood still, and never behind what it wrote.
            let start = start.or(before.as_ref().map(|before| before.offset_bytes));
            if let Some(staged) = store::claim(&mut connection, grant, id, token, start).await? {
                return Ok(Held { id, token, staged });
            }
            let Some(now) = store::standing(&mut connection, grant, id).await? else {
                return Err(UploadRefused::Unknown);
            };
            drop(connection);
            let elsewhere = start.is_some_and(|start| start != now.offset_bytes);
            // Of a body that does not say where it begins: somebody wrote until a moment ago.
            let behind = start.is_none() && now.is_free();
            if elsewhere || behind || before.as_ref().is_some_and(|before| now.shows_a_writer(before)) {
                return Err(UploadRefused::OutOfOrder { offset_bytes: now.offset_bytes });
            }
            before.get_or_insert(now);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Does the work while the lease is renewed beside it. When the lease turns out to be lost the
    /// work is dropped: what it staged is named by nobody.
    pub(super) async fn holding<T>(
        &self,
        held: &Held,
        work: impl Future<Output = T>,
    ) -> Result<T, UploadRefused> {
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

    /// Saves how far the session has come.
    pub(super) async fn save(
        &self,
        grant: &Grant<Push>,
        held: &Held,
        lease: Lease,
    ) -> Result<(), UploadRefused> {
        let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
        let kept = matches!(lease, Lease::Kept);
        match store::save(&mut connection, held.id, held.token, &held.staged, kept).await? {
            Saved::Yes => Ok(()),
            // Somebody else holds the session now; these bytes were never its.
            Saved::Lost => Err(UploadRefused::OutOfOrder { offset_bytes: held.staged.offset_bytes() }),
            Saved::Over => {
                let usage = quotas::usage(&mut connection, grant.repository(), Some(held.id)).await?;
                drop(connection);
                // It is where it was before these bytes.
                let over = usage.unwrap_or(Usage { quota_bytes: 0, used_bytes: 0 }).over();
                Err(self.release(held, UploadRefused::OverQuota(over)).await)
            }
        }
    }

    /// Gives the lease back and passes the refusal on. A lease that cannot be given back ends soon.
    pub(super) async fn release(&self, held: &Held, refused: UploadRefused) -> UploadRefused {
        let released = match self.db.pool().acquire().await {
            Ok(mut connection) => store::release(&mut connection, held.id, held.token).await,
            Err(error) => Err(error.into()),
        };
        if let Err(failure) = released {
            tracing::warn!(error = failure.chain(), upload = %held.id, "a lease is left to end by itself");
        }
        refused
    }

    /// After a fault: the session stays where it was. One whose bytes the store has lost never comes to an
    /// end, so it is over, and the client begins again.
    pub(super) async fn give_up(&self, held: &Held, failure: Failure) -> UploadRefused {
        if !failure.is_of_a_lost_upload() {
            return self.release(held, failure.into()).await;
        }
        tracing::warn!(error = failure.chain(), upload = %held.id, "an upload is lost: its client begins again");
        match self.forget(held).await {
            Ok(()) => UploadRefused::Unknown,
            Err(refused) => refused,
        }
    }

    /// Ends a session: first its row, then what it staged.
    pub(super) async fn forget(&self, held: &Held) -> Result<(), UploadRefused> {
        let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
        if store::delete(&mut connection, held.id, held.token).await? {
            self.store.abandon(&held.staged).await;
        }
        Ok(())
    }
}
