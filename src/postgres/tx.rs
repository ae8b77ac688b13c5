//! Transactions, and those that their caller ends.

use super::generations::{self, Generation};
use super::wake::Growing;
use sqlx::{Error, PgConnection, Postgres, Transaction};
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// A READ COMMITTED transaction; dropping it rolls back.
#[derive(Debug)]
pub struct Tx {
    open: Transaction<'static, Postgres>,
    raised: BTreeSet<Generation>,
    kept: Option<Kept>,
    commits: Growing,
}

/// The transaction of an act that is done and not committed yet: whoever asked for the act writes
/// what belongs to it and commits, or drops both.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<Option<Tx>>>);

impl Tx {
    pub(super) fn new(open: Transaction<'static, Postgres>, kept: Option<Kept>, commits: Growing) -> Self {
        Self { open, raised: BTreeSet::new(), kept, commits }
    }

    /// Raises these generations when it commits: what it writes can change answers that depend on them.
    pub fn raise(&mut self, generations: impl IntoIterator<Item = Generation>) {
        self.raised.extend(generations);
    }

    /// Raises the generations and commits; in an act that is kept, leaves that to its caller.
    pub async fn commit(mut self) -> Result<(), Error> {
        let Some(kept) = self.kept.take() else {
            generations::raise(&mut self.open, &self.raised).await?;
            self.open.commit().await?;
            self.commits.increment();
            return Ok(());
        };
        let mut place = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            return Err(Error::Protocol("an act that is kept commits once".to_owned()));
        }
        *place = Some(self);
        Ok(())
    }
}

impl Kept {
    /// The act's transaction, if it wrote one.
    pub fn take(&self) -> Option<Tx> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Deref for Tx {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.open
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.open
    }
}
