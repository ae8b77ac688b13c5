//! Who runs a job that one replica runs at a time, and where it goes on.

use super::store::leases as store;
use crate::failure::Failure;
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// How long a lease lasts without a batch; a replica that died is replaced after it.
pub(super) const LEASE: Duration = Duration::from_mins(1);

/// When a job is due.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// So long after its last end; zero is never.
    Every(Duration),
    /// Now, whenever it ran.
    Now,
}

/// A job that this replica runs.
#[derive(Debug)]
pub struct Lease {
    name: &'static str,
    holder: Uuid,
}

/// What became of asking for a job.
#[derive(Debug)]
pub enum Taken<S> {
    /// It is ours; the state is that of a run that was cut off, if one was.
    Ours(Lease, Option<S>),
    /// Another replica runs it, or it is not due.
    NotNow,
}

/// How a job stands.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Standing {
    /// Whether some replica runs it now.
    pub running: bool,
    /// Where the run under way, or one that was cut off, goes on and what it has done.
    pub state: Option<Value>,
    /// What the last whole run did.
    pub report: Option<Value>,
    /// When the newest run began.
    pub started_at: Option<DateTime<Utc>>,
    /// When the last whole run ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When somebody asked for a run.
    pub wanted_at: Option<DateTime<Utc>>,
}

/// How the job stands; `None` when it never ran.
pub async fn standing(connection: &mut PgConnection, name: &str) -> Result<Option<Standing>, Failure> {
    store::standing(connection, name).await
}

/// Asks for a run as soon as a replica looks, and says when that was.
pub async fn want(connection: &mut PgConnection, name: &str) -> Result<DateTime<Utc>, Failure> {
    store::want(connection, name).await
}

impl Lease {
    /// Takes the job, if it is due, was asked for or was cut off, and nobody runs it.
    pub async fn take<S: DeserializeOwned>(
        db: &Db,
        name: &'static str,
        due: Due,
    ) -> Result<Taken<S>, Failure> {
        let holder = Uuid::new_v4();
        let mut connection = db.acquire().await?;
        let Some(state) = store::take(&mut connection, name, holder, due).await? else {
            return Ok(Taken::NotNow);
        };
        let lease = Self { name, holder };
        // A state of another version is not gone on with.
        let state = state.and_then(|state| {
            serde_json::from_value(state)
                .inspect_err(|error| tracing::warn!(job = name, %error, "a job begins from its start"))
                .ok()
        });
        Ok(Taken::Ours(lease, state))
    }

    /// Keeps the lease for another while, in the transaction of a batch; `false` when it is lost. First
    /// in the transaction: two holders never do the same batch.
    pub async fn keep(&self, connection: &mut PgConnection) -> Result<bool, Failure> {
        store::keep(connection, self.name, self.holder).await
    }

    /// Saves where the job goes on, in the transaction of the batch that came so far.
    pub async fn save(&self, connection: &mut PgConnection, state: &impl Serialize) -> Result<(), Failure> {
        let state = serde_json::to_value(state).map_err(|error| Failure::new("saving a job", error))?;
        store::save(connection, self.name, self.holder, &state).await
    }

    /// Gives the job back before its end: the next replica goes on.
    pub async fn release(self, connection: &mut PgConnection) -> Result<(), Failure> {
        store::release(connection, self.name, self.holder).await
    }

    /// Ends the run, with what it did.
    pub async fn finish(self, connection: &mut PgConnection, report: &impl Serialize) -> Result<(), Failure> {
        let report = serde_json::to_value(report).map_err(|error| Failure::new("ending a job", error))?;
        store::finish(connection, self.name, self.holder, &report).await
    }
}
