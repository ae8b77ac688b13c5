//! The pool and its transactions.

use super::local::Restarts;
use super::tx::{Kept, Tx};
use super::wake::{Growing, Wake};
use crate::failure::Failure;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use std::str::FromStr;
use std::time::Duration;

/// The database that holds everything but large bytes.
#[derive(Clone, Debug)]
pub struct Db {
    pool: PgPool,
    /// Connections for what stops something, which the rest never takes.
    reserve: PgPool,
    kept: Option<Kept>,
    /// Grows with each commit of this process.
    commits: Growing,
}

/// How to reach it.
#[derive(Clone, Debug)]
pub struct Options {
    /// A Postgres URL.
    pub url: String,
    /// Maximum number of connections.
    pub max_connections: u32,
    /// Further connections for what stops something ([`with_reserve`]), opened when they are needed.
    pub reserved_connections: u32,
    /// How long a statement may run; `None` is without a limit.
    pub statement_time: Option<Duration>,
    /// How long a request waits for a free connection.
    pub acquire_timeout: Duration,
    /// When the private Postgres last went away; a given one does not tell.
    pub restarts: Option<Restarts>,
}

impl Options {
    /// A server that does not tell when it restarts, without a reserve or a limit on statements.
    pub fn new(url: String, max_connections: u32, acquire_timeout: Duration) -> Self {
        let (reserved_connections, statement_time, restarts) = (0, None, None);
        Self { url, max_connections, reserved_connections, statement_time, acquire_timeout, restarts }
    }

    fn pool(&self, max_connections: u32) -> PgPoolOptions {
        let statement_time = self.statement_time.map_or(0, |time| time.as_millis());
        let session = format!("{SESSION}; set statement_timeout = {statement_time}");
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(self.acquire_timeout)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move {
                    sqlx::raw_sql(sqlx::AssertSqlSafe(session)).execute(connection).await.map(|_| ())
                })
            })
            .after_release(|connection, _| {
                // What a large document needed would otherwise stay with each connection that carried one.
                connection.shrink_buffers();
                Box::pin(async { Ok(true) })
            });
        let Some(restarts) = self.restarts.clone() else { return pool };
        // Connections to a Postgres that has died are thrown away before a request meets them.
        pool.before_acquire(move |_, connection| {
            let usable = restarts.allow(connection.age);
            Box::pin(async move { Ok(usable) })
        })
    }
}

tokio::task_local! {
    static FROM_THE_RESERVE: ();
}

/// The future with connections from the reserve, so that it waits for nothing that others do with theirs: for what
/// stops something.
pub fn with_reserve<F: Future>(future: F) -> impl Future<Output = F::Output> {
    FROM_THE_RESERVE.scope((), future)
}

/// The future with connections from where the current task has them, for what this one spawns: asked now, since the
/// task that runs the future has no such place.
pub fn with_same_connections<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let from_the_reserve = takes_from_the_reserve();
    async move { if from_the_reserve { with_reserve(future).await } else { future.await } }
}

/// Whether the current task has connections from the reserve: it stops something.
pub fn takes_from_the_reserve() -> bool {
    FROM_THE_RESERVE.try_with(|()| ()).is_ok()
}

pub(super) static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Whether all migrations of this binary, and no others, were applied. A role that may not change the schema can tell.
async fn is_up_to_date(connection: &mut PgConnection) -> bool {
    let applied = sqlx::query_as::<_, (i64, Vec<u8>)>(
        "select version, checksum from _sqlx_migrations where success order by version",
    );
    let Ok(applied) = applied.fetch_all(connection).await else { return false };
    let wanted = MIGRATOR.iter().map(|migration| (migration.version, migration.checksum.as_ref()));
    wanted.eq(applied.iter().map(|(version, checksum)| (*version, checksum.as_slice())))
}

/// What Postgres does where a replica's host dies or freezes without a word: the locks of its transactions are free
/// when it does not answer for half a minute, or does not go on with one. Whoever waits for a lock holds a
/// connection, and is told to come back before all of them wait.
///
/// Every statement reads a few rows by an index: compiling one would take longer than running it.
const SESSION: &str = "set jit = off; set lock_timeout = '20s'; set idle_in_transaction_session_timeout = '30s';
                       set tcp_keepalives_idle = 15; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3;
                       set tcp_user_timeout = '30s'";

/// Begins a transaction that reads one snapshot.
const SNAPSHOT: &str = "begin isolation level repeatable read read only";

impl Db {
    /// Opens a pool; fails when the server does not answer.
    pub async fn connect(options: &Options) -> Result<Self, Failure> {
        let connect = PgConnectOptions::from_str(&options.url)
            .map_err(|error| Failure::new("reading DATABASE_URL", error))?
            .application_name("proofmark");
        let reserve = options.reserved_connections;
        let reserve = (reserve > 0).then(|| options.pool(reserve).connect_lazy_with(connect.clone()));
        let pool = options
            .pool(options.max_connections)
            .connect_with(connect)
            .await
            .map_err(|error| Failure::new("connecting to Postgres", error))?;
        let reserve = reserve.unwrap_or_else(|| pool.clone());
        Ok(Self { pool, reserve, kept: None, commits: Growing::default() })
    }

    /// This database for one act whose commit waits in `kept`, so that its caller writes one more
    /// row with it. An act may commit once.
    #[must_use]
    pub fn keeping(&self, kept: &Kept) -> Self {
        Self { kept: Some(kept.clone()), ..self.clone() }
    }

    /// Brings the schema up to date, under a lock so that several replicas may start at once.
    pub async fn migrate(&self) -> Result<(), Failure> {
        let migrating = |error| Failure::new("migrating the database", error);
        // However long another replica's migration takes.
        let mut connection = self.acquire().await?.detach();
        sqlx::raw_sql("set lock_timeout = 0; set statement_timeout = 0").execute(&mut connection).await?;
        if !is_up_to_date(&mut connection).await {
            MIGRATOR.run(&mut connection).await.map_err(migrating)?;
        }
        connection.close().await.map_err(Failure::from)
    }

    /// The pool, for a single statement that needs no transaction.
    pub fn pool(&self) -> &PgPool {
        if takes_from_the_reserve() { &self.reserve } else { &self.pool }
    }

    /// A connection for single statements that need no transaction around them.
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, Failure> {
        self.pool()
            .acquire()
            .await
            .map_err(|error| Failure::new("waiting for a connection to Postgres", error))
    }

    /// Begins a READ COMMITTED transaction.
    pub async fn begin(&self) -> Result<Tx, Failure> {
        let pool = self.pool().clone();
        let open = to_its_end(async move { pool.begin().await }).await?;
        let open = open.map_err(|error| Failure::new("beginning a transaction", error))?;
        Ok(Tx::new(open, self.kept.clone(), self.commits.clone()))
    }

    /// Wakes after commits of this process: what follows from them may be looked for.
    pub fn commits(&self) -> Wake {
        self.commits.wake()
    }

    /// Begins a transaction that reads one snapshot, taken at its first statement, and writes nothing. It
    /// ends when it is dropped.
    pub async fn snapshot(&self) -> Result<Tx, Failure> {
        let pool = self.pool().clone();
        let open = to_its_end(async move { pool.begin_with(SNAPSHOT).await }).await?;
        let open = open.map_err(|error| Failure::new("beginning a snapshot", error))?;
        Ok(Tx::new(open, self.kept.clone(), self.commits.clone()))
    }

    /// The same, where a connection is free now.
    pub(super) async fn free_snapshot(&self) -> Result<Option<Tx>, Failure> {
        let pool = self.pool().clone();
        let open = to_its_end(async move { pool.try_begin_with(SNAPSHOT).await }).await?;
        let open = open.map_err(|error| Failure::new("beginning a snapshot", error))?;
        Ok(open.map(|open| Tx::new(open, self.kept.clone(), self.commits.clone())))
    }

    /// Closes the pool, waiting for connections in use.
    pub async fn close(&self) {
        self.pool.close().await;
        self.reserve.close().await;
    }
}

/// Runs on when its caller is dropped, as it is when a client goes away: sqlx takes a transaction for open only
/// when BEGIN was answered, and a connection whose BEGIN was dropped before would come back to the pool within a
/// transaction, with whatever snapshot that has.
async fn to_its_end<T: Send + 'static>(
    begin: impl Future<Output = T> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(begin).await.map_err(|error| Failure::new("beginning a transaction", error))
}

/// The name of the constraint that a statement broke, if that is why it failed. Constraint names
/// are sentences, and a room turns the ones it knows into refusals.
pub fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::constraint)
}
