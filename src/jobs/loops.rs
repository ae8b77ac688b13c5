//! The loops of one process, each under supervision: a run that fails or panics is logged, counted and shown,
//! and the job runs again after a delay that grows with each failure.

use super::status::JobStatuses;
use crate::failure::Failure;
use crate::postgres::Wake;
use futures::FutureExt;
use std::any::Any;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long the first runs wait: they would take the first connections, which the first requests wait for.
const FIRST: Duration = Duration::from_millis(250);

/// The first delay after a failure is the job's interval, within these bounds; each further failure doubles it.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// No delay after a failure is longer than this and than the job's interval.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// The loops of one process.
#[derive(Debug, Default)]
pub struct Jobs {
    running: JoinSet<()>,
    stop: CancellationToken,
    statuses: JobStatuses,
}

/// When a job runs.
#[derive(Debug)]
pub struct Schedule {
    /// How long after the end of a run the next one begins.
    interval: Duration,
    may_run_long: bool,
    /// What wakes it earlier, and how long it rests at least.
    wake: Option<(Wake, Duration)>,
}

impl Schedule {
    /// So long after each run; a run is short.
    pub fn every(interval: Duration) -> Self {
        Self { interval, may_run_long: false, wake: None }
    }

    /// A run may take longer than ten intervals.
    #[must_use]
    pub fn may_run_long(self) -> Self {
        Self { may_run_long: true, ..self }
    }

    /// Earlier, when this wakes it, though not before it has rested.
    #[must_use]
    pub fn or_woken(self, wake: Wake, rest: Duration) -> Self {
        Self { wake: Some((wake, rest)), ..self }
    }
}

async fn woken(wake: &mut Option<(Wake, Duration)>) {
    let Some((wake, rest)) = wake else { return pending().await };
    sleep(*rest).await;
    wake.changed().await;
}

/// What became of a run.
enum Ran {
    Succeeded,
    Failed(Failure),
    Panicked(String),
}

impl Jobs {
    /// No loops yet; how they do will be found in `statuses`.
    pub fn new(statuses: JobStatuses) -> Self {
        Self { statuses, ..Self::default() }
    }

    /// Runs the job soon and then again as its schedule says.
    pub fn run<F, R>(&mut self, job: &'static str, schedule: Schedule, run: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failure>> + Send,
    {
        let (stop, statuses) = (self.stop.clone(), self.statuses.clone());
        let Schedule { interval, may_run_long, mut wake } = schedule;
        statuses.register(job, interval, may_run_long);
        self.running.spawn(async move {
            let mut delay = interval.min(FIRST);
            let mut failures = 0;
            loop {
                tokio::select! {
                    () = sleep(delay) => {}
                    // What wakes a job is no reason to try again what has just failed.
                    () = woken(&mut wake), if failures == 0 => {}
                    () = stop.cancelled() => return,
                }
                statuses.started(job);
                let ran = supervised(&run).await;
                failures = report(job, &ran, &statuses);
                delay = if failures == 0 { interval } else { backoff(interval, failures) };
            }
        });
    }

    /// Cancelled when the loops are to end: a long run is dropped then, at a point where a crash may cut it off.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks every loop to end, and waits for the runs in flight.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
    }
}

/// Runs once, and catches a panic. What a run shares with others is behind locks that a panic does not leave
/// half written, or in Postgres, where its transaction is rolled back.
async fn supervised<F, R>(run: &F) -> Ran
where
    F: Fn() -> R,
    R: Future<Output = Result<(), Failure>>,
{
    let ran = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(future) => AssertUnwindSafe(future).catch_unwind().await,
        Err(panic) => Err(panic),
    };
    match ran {
        Ok(Ok(())) => Ran::Succeeded,
        Ok(Err(failure)) => Ran::Failed(failure),
        Err(panic) => Ran::Panicked(panic_message(&*panic)),
    }
}

/// Logs and counts what became of a run. Returns how often in a row the job has failed.
fn report(job: &'static str, ran: &Ran, statuses: &JobStatuses) -> u32 {
    match ran {
        Ran::Succeeded => {
            statuses.succeeded(job);
            0
        }
        Ran::Failed(failure) => {
            tracing::error!(job, error = failure.chain(), "a job failed and will run again");
            metrics::counter!("proofmark_job_failures_total", "job" => job).increment(1);
            statuses.failed(job)
        }
        Ran::Panicked(message) => {
            tracing::error!(job, message, "a job panicked and will run again");
            metrics::counter!("proofmark_job_panics_total", "job" => job).increment(1);
            statuses.failed(job)
        }
    }
}

/// The message of a panic, where it has one.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// The delay after so many failures in a row.
fn backoff(interval: Duration, failures: u32) -> Duration {
    let first = interval.clamp(SHORTEST_BACKOFF, LONGEST_FIRST_BACKOFF);
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    first.saturating_mul(doubled).min(LONGEST_BACKOFF.max(interval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Growing;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_job_that_panics_is_run_again_and_shown_as_failing() {
        let statuses = JobStatuses::default();
        let mut jobs = Jobs::new(statuses.clone());
        let runs = Arc::new(AtomicU32::new(0));
        let (shown, recovered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (counted, seen, go_on, done) = (runs.clone(), statuses.clone(), shown.clone(), recovered.clone());
        jobs.run("panicking", Schedule::every(Duration::from_millis(1)), move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            assert!(run != 0, "before the future");
            let (seen, go_on, done) = (seen.clone(), go_on.clone(), done.clone());
            async move {
                match run {
                    1 => panic!("within the future"),
                    2 => return Err(Failure::new("testing", "it fails")),
                    3 => {
                        assert!(seen.all()[0].failing && seen.all()[0].running);
                        go_on.notify_one();
                    }
                    _ => done.notify_one(),
                }
                Ok(())
            }
        });
        let wait = Duration::from_secs(30);
        tokio::time::timeout(wait, shown.notified()).await.expect("three failures in a row are shown");
        tokio::time::timeout(wait, recovered.notified()).await.expect("it runs again");
        let status = &statuses.all()[0];
        assert!(!status.failing && status.last_succeeded_at.is_some(), "{status:?}");
        jobs.stop().await;
    }

    #[tokio::test]
    async fn a_job_runs_when_it_is_woken_and_rests_before() {
        let (number, ran) = (Growing::default(), Arc::new(Notify::new()));
        let (raised, told) = (number.clone(), ran.clone());
        let mut jobs = Jobs::default();
        let schedule = Schedule::every(Duration::from_hours(1)).or_woken(number.wake(), Duration::ZERO);
        jobs.run("woken", schedule, move || {
            told.notify_one();
            std::future::ready(Ok(()))
        });
        for _ in 0..3 {
            tokio::time::timeout(Duration::from_secs(30), ran.notified()).await.expect("it runs");
            raised.increment();
        }
        jobs.stop().await;
    }

    #[test]
    fn the_delay_grows_with_each_failure_up_to_a_bound() {
        let seconds = Duration::from_secs;
        let delays = |interval, failures: &[u32]| -> Vec<Duration> {
            failures.iter().map(|failures| backoff(interval, *failures)).collect()
        };
        assert_eq!(delays(seconds(2), &[1, 2, 3, 4, 5, 99]), [1, 2, 4, 8, 10, 10].map(seconds));
        assert_eq!(delays(seconds(6 * 3600), &[1, 99]), [1, 6 * 3600].map(seconds));
        assert_eq!(backoff(Duration::ZERO, 1), SHORTEST_BACKOFF);
        assert_eq!(backoff(Duration::from_millis(250), 2), Duration::from_millis(500));
    }
}
