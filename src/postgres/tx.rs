//! Transactions, and those that their caller ends.

use super::db::Db;
use super::generations::{self, Generation};
use super::wake::Growing;
use crate::failure::Failure;
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

    /// More transactions that read the snapshot of this one, at most so many: as many as there are free connections,
    /// since nobody waits for one while holding another. Each has its own connection, and reads on when this one has
    /// ended.
    pub async fn shared_with(&mut self, db: &Db, count: usize) -> Result<Vec<Self>, Failure> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let failed = |error| Failure::new("sharing a snapshot", error);
        let exporting = sqlx::query_scalar!(r#"select pg_export_snapshot() as "id!""#);
        let id = exporting.fetch_one(&mut *self.open).await.map_err(failed)?;
        let mut others = Vec::new();
        while others.len() < count {
            let Some(mut other) = db.free_snapshot().await? else { break };
            // No parameter can stand here; the id is Postgres's own.
            let import = format!("set transaction snapshot '{}'", id.replace('\'', "''"));
            sqlx::raw_sql(sqlx::AssertSqlSafe(import)).execute(&mut *other.open).await.map_err(failed)?;
            others.push(other);
        }
        Ok(others)
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
