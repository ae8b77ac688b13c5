//! The worker of the job queue, one on each replica: claims jobs that are due, runs each by the handler of its
//! kind, and tries again later what failed.
//!
//! Every job runs at least once, and again when its worker was killed: handlers must bear it. A handler reads
//! its facts itself, after it was called.

use super::loops::panic_message;
use crate::failure::Failure;
use crate::postgres::Db;
use crate::postgres::queue::{self, AfterFailure, ClaimedJob};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// No delay between attempts is longer.
const LONGEST_DELAY: Duration = Duration::from_hours(1);
/// How often the queue is counted for the metrics.
const COUNTED_EVERY: Duration = Duration::from_secs(10);

type Handler = Arc<dyn Fn(ClaimedJob) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// What handles each kind of job. A worker claims only kinds that it has a handler for, so a replica of an
/// earlier version leaves the others alone.
#[derive(Clone, Default)]
pub struct Handlers(BTreeMap<&'static str, Handler>);

impl Handlers {
    /// With a handler for a kind of job.
    #[must_use]
    pub fn on<F, R>(mut self, kind: &'static str, handle: F) -> Self
    where
        F: Fn(ClaimedJob) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.0.insert(kind, Arc::new(move |job| Box::pin(handle(job))));
        self
    }

    fn kinds(&self) -> Vec<String> {
        self.0.keys().map(|kind| (*kind).to_owned()).collect()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How a worker works.
#[derive(Clone, Copy, Debug)]
pub struct QueueSettings {
    /// Jobs of one claim.
    pub batch: i64,
    /// Jobs that run at once.
    pub concurrent: usize,
    /// How long a claim lasts unless it is renewed, which it is three times in that time.
    pub lease: Duration,
    /// How long one attempt may take.
    pub longest_attempt: Duration,
    /// The delay after the first failure; each further one doubles it.
    pub first_delay: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            batch: 16,
            concurrent: 4,
            lease: Duration::from_mins(1),
            longest_attempt: Duration::from_mins(10),
            first_delay: Duration::from_secs(2),
        }
    }
}

/// The worker.
#[derive(Debug)]
pub struct Worker {
    db: Db,
    handlers: Handlers,
    settings: QueueSettings,
    counted: Mutex<Option<Instant>>,
}

/// Why an attempt failed.
enum Failed {
    Handler(Failure),
    Panicked(String),
    TooLong(Duration),
}

impl Worker {
    /// A worker with its handlers.
    pub fn new(db: Db, handlers: Handlers, settings: QueueSettings) -> Self {
        Self { db, handlers, settings, counted: Mutex::new(None) }
    }

    /// Runs jobs until none is due, and says how many it claimed. Told to stop, it drops the attempts in
    /// flight and gives the jobs back.
    pub async fn run(&self, stop: &CancellationToken) -> Result<u64, Failure> {
        let kinds = self.handlers.kinds();
        let mut claimed = 0;
        while !kinds.is_empty() && !stop.is_cancelled() {
            let claim = Uuid::new_v4();
            let mut tx = self.db.begin().await?;
            let jobs = queue::claim(&mut tx, &kinds, claim, self.settings.lease, self.settings.batch).await?;
            // Also where none was claimed: some may have been found dead.
            tx.commit().await.map_err(|error| Failure::new("claiming jobs", error))?;
            if jobs.is_empty() {
                break;
            }
            claimed += jobs.len() as u64;
            tokio::select! {
                done = self.run_all(claim, jobs) => done?,
                () = self.renew(claim) => {}
                () = stop.cancelled() => queue::release(&mut *self.db.acquire().await?, claim).await?,
            }
        }
        self.count().await?;
        Ok(claimed)
    }

    /// Renews the claim for as long as it is polled: a failure is tried again, and another worker takes the
    /// jobs when none succeeds within the lease.
    async fn renew(&self, claim: Uuid) {
        loop {
            sleep(self.settings.lease / 3).await;
            let renewed =
                async { queue::renew(&mut *self.db.acquire().await?, claim, self.settings.lease).await };
            if let Err(failure) = renewed.await {
                tracing::warn!(error = failure.chain(), "a claim of jobs was not renewed");
            }
        }
    }

    /// Runs every job of a claim, whatever becomes of the others.
    async fn run_all(&self, claim: Uuid, jobs: Vec<ClaimedJob>) -> Result<(), Failure> {
        let running = stream::iter(jobs).map(|job| self.run_one(claim, job));
        let ended: Vec<_> = running.buffer_unordered(self.settings.concurrent).collect().await;
        ended.into_iter().collect()
    }

    /// Runs one job and records what became of it. Where that is not recorded, the job runs again when its
    /// claim has ended.
    async fn run_one(&self, claim: Uuid, job: ClaimedJob) -> Result<(), Failure> {
        let failed = self.attempt(job.clone()).await;
        let mut connection = self.db.acquire().await?;
        let Some(failed) = failed else {
            let ours = queue::succeed(&mut connection, &job, claim).await?;
            count(&job, if ours { "succeeded" } else { "lost" });
            return Ok(());
        };
        let (message, result) = match failed {
            Failed::Handler(failure) => (failure.chain(), "failed"),
            Failed::Panicked(message) => (format!("the handler panicked: {message}"), "panicked"),
            Failed::TooLong(limit) => {
                (format!("the attempt took longer than {} s", limit.as_secs()), "failed")
            }
        };
        let delay = delay(self.settings.first_delay, job.attempts);
        let after = queue::fail(&mut connection, &job, claim, &message, delay).await?;
        let (id, kind, key, attempts) = (job.id, &job.kind, &job.key, job.attempts);
        match after {
            AfterFailure::Retried => {
                tracing::warn!(
                    id,
                    kind,
                    key,
                    attempts,
                    error = message,
                    "a queued job failed and will run again"
                );
                count(&job, result);
            }
            AfterFailure::Dead => {
                tracing::error!(id, kind, key, attempts, error = message, "a queued job failed too often");
                count(&job, result);
                count(&job, "dead");
            }
            AfterFailure::NotOurs => count(&job, "lost"),
        }
        Ok(())
    }

    /// One attempt, in a task of its own: a panic ends that task and nothing else.
    async fn attempt(&self, job: ClaimedJob) -> Option<Failed> {
        let Some(handler) = self.handlers.0.get(job.kind.as_str()).cloned() else {
            return Some(Failed::Handler(Failure::new("running a job", "no handler for its kind")));
        };
        let running = AbortOnDropHandle::new(tokio::spawn(async move { handler(job).await }));
        match timeout(self.settings.longest_attempt, running).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(failure))) => Some(Failed::Handler(failure)),
            Ok(Err(error)) => Some(match error.try_into_panic() {
                Ok(panic) => Failed::Panicked(panic_message(&*panic)),
                Err(error) => Failed::Handler(Failure::new("running a job", error)),
            }),
            Err(_) => Some(Failed::TooLong(self.settings.longest_attempt)),
        }
    }

    /// Sets the gauges, from time to time.
    async fn count(&self) -> Result<(), Failure> {
        let last = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < COUNTED_EVERY) {
            return Ok(());
        }
        let mut connection = self.db.acquire().await?;
        let dead = queue::dead(&mut connection).await?;
        for kind in self.handlers.0.keys() {
            let jobs = dead.iter().find(|count| count.kind == *kind).map_or(0, |count| count.jobs);
            #[allow(clippy::cast_precision_loss, reason = "a number of rows")]
            metrics::gauge!("proofmark_queue_dead_jobs", "kind" => *kind).set(jobs as f64);
        }
        let late = queue::oldest_due_seconds(&mut connection).await?;
        metrics::gauge!("proofmark_queue_oldest_due_seconds").set(late);
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }
}

fn count(job: &ClaimedJob, result: &'static str) {
    let labels = [("kind", job.kind.clone()), ("result", result.to_owned())];
    metrics::counter!("proofmark_queue_attempts_total", &labels).increment(1);
}

/// The delay before the next attempt.
fn delay(first: Duration, attempts: i32) -> Duration {
    let doubled = 2_u32.saturating_pow(u32::try_from(attempts - 1).unwrap_or(0));
    first.saturating_mul(doubled).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_with_each_attempt_up_to_an_hour() {
        let second = Duration::from_secs(1);
        let delays = [1, 2, 3, 10, 13, 99].map(|attempts| delay(second, attempts).as_secs());
        assert_eq!(delays, [1, 2, 4, 512, 3600, 3600]);
    }
}
