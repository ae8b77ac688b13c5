//! The lease of a session: who may write to it now.

use super::{UploadRefused, Uploads};
use crate::access::{Grant, Push};
use crate::content::store::uploads as store;
use crate::failure::Failure;
use crate::storage::Staged;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use uuid::Uuid;

/// How long a writer's lease lasts without being renewed, and how often it is.
pub(in crate::content) const LEASE: Duration = Duration::from_secs(30);
const RENEW_EVERY: Duration = Duration::from_secs(10);

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
    /// Takes the lease, if the session is where the body begins and nobody writes to it.
    pub(super) async fn claim(
        &self,
        grant: &Grant<Push>,
        id: Uuid,
        start: Option<u64>,
    ) -> Result<Held, UploadRefused> {
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
    pub(super) async fn save(&self, held: &Held, lease: Lease) -> Result<(), UploadRefused> {
        let mut connection = self.db.pool().acquire().await.map_err(Failure::from)?;
        let kept = matches!(lease, Lease::Kept);
        if store::save(&mut connection, held.id, held.token, &held.staged, kept).await? {
            return Ok(());
        }
        // Somebody else holds the session now; these bytes were never its.
        Err(UploadRefused::OutOfOrder { offset_bytes: held.staged.offset_bytes() })
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
