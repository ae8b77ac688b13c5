//! Waking on the sequencer's notification, as soon as any replica has sequenced events.

use super::read::size;
use super::sequencer::CHANNEL;
use crate::failure::Failure;
use crate::postgres::{Db, Growing};
use sqlx::postgres::{PgListener, PgPoolOptions};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long one look at the connection lasts before it is tried.
const LISTENED: Duration = Duration::from_secs(10);
/// How long Postgres may take to answer on the connection.
const ANSWERED: Duration = Duration::from_secs(5);

/// Listens on a connection of its own, and raises the log's position. Nothing depends on it to be right:
/// whoever waits for the log also polls.
#[derive(Debug)]
pub struct LogListener {
    position: Growing,
    open: Mutex<Option<PgListener>>,
}

impl LogListener {
    /// Not connected yet.
    pub fn new(position: Growing) -> Self {
        Self { position, open: Mutex::new(None) }
    }

    /// Listens for a while, on the connection of the call before if there is one. Fails when the connection
    /// is lost; the next call opens another.
    pub async fn listen(&self, db: &Db) -> Result<(), Failure> {
        let mut open = self.open.lock().await;
        let mut listener = match open.take() {
            Some(listener) => listener,
            None => self.connect(db).await?,
        };
        match timeout(LISTENED, self.receive(&mut listener)).await {
            Ok(failure) => return Err(failure),
            // A connection whose other end vanished without a word would be waited on for ever.
            Err(_) => answers(&mut listener).await?,
        }
        *open = Some(listener);
        Ok(())
    }

    async fn connect(&self, db: &Db) -> Result<PgListener, Failure> {
        let failed = |error| Failure::new("listening to the log", error);
        let options = db.pool().connect_options().as_ref().clone();
        // Of its own, so that it takes no connection from requests and none limits its life.
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let pool = pool.connect_with(options).await.map_err(failed)?;
        let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
        listener.listen(CHANNEL).await.map_err(failed)?;
        // What was sequenced before is not notified any more.
        self.position.raise(size(&mut *db.acquire().await?).await?);
        Ok(listener)
    }

    /// Receives until the connection is lost.
    async fn receive(&self, listener: &mut PgListener) -> Failure {
        loop {
            match listener.try_recv().await {
                Ok(Some(notification)) => {
                    if let Ok(size) = notification.payload().parse() {
                        self.position.raise(size);
                    }
                }
                Ok(None) => return Failure::new("listening to the log", "the connection was lost"),
                Err(error) => return Failure::new("listening to the log", error),
            }
        }
    }
}

async fn answers(listener: &mut PgListener) -> Result<(), Failure> {
    let answered = timeout(ANSWERED, sqlx::query("select 1").execute(listener)).await;
    let answered = answered.map_err(|slow| Failure::new("listening to the log", slow))?;
    answered.map(|_| ()).map_err(|error| Failure::new("listening to the log", error))
}
