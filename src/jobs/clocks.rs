//! Whether the clocks of the database and of this service agree, as the requests and the jobs look at it.

use crate::failure::Failure;
use crate::postgres::{Clocks, Db};
use tokio::sync::watch;

/// What the last measurement said. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClockWatch(watch::Sender<bool>);

impl Default for ClockWatch {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl ClockWatch {
    /// Measures; a change is logged once. If Postgres does not answer, the last measurement still counts.
    pub async fn measure(&self, db: &Db) -> Result<(), Failure> {
        let clocks = Clocks::read(&mut *db.acquire().await?).await?;
        let seconds = clocks.difference().num_seconds();
        let differed = self.0.send_replace(clocks.differ());
        if clocks.differ() && !differed {
            tracing::error!(
                seconds,
                "the clocks of Postgres and of this service differ: only blocks, holds and revocations are \
                 written, and jobs that delete or sign do not run"
            );
        } else if differed && !clocks.differ() {
            tracing::info!(seconds, "the clocks of Postgres and of this service agree again");
        }
        Ok(())
    }

    /// Whether they differ too much to write anything but blocks, holds and revocations.
    pub fn differ(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until they differ.
    pub async fn until_they_differ(&self) {
        // The sender is in `self`, so this does not fail.
        let _ = self.0.subscribe().wait_for(|differ| *differ).await;
    }
}
