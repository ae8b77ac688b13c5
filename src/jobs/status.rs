//! How the jobs of this process do: when each ran, and whether it keeps failing.

use crate::clock;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A job that has not succeeded for so many of its intervals is overdue.
const MISSED_INTERVALS: u32 = 10;
/// No job is overdue earlier: the shortest intervals are a fraction of a second.
const SHORTEST_OVERDUE: Duration = Duration::from_secs(30);
/// A job that has failed so often in a row keeps failing.
const FAILURES_IN_A_ROW: u32 = 3;

/// How one job does, as `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// The job.
    pub job: &'static str,
    /// Whether it runs now.
    pub running: bool,
    /// When it was started last.
    pub last_started_at: Option<DateTime<Utc>>,
    /// When it succeeded last.
    pub last_succeeded_at: Option<DateTime<Utc>>,
    /// How often in a row it has failed or panicked.
    pub consecutive_failures: u32,
    /// Whether it keeps failing.
    pub failing: bool,
    /// Whether it has not succeeded for ten of its intervals.
    pub overdue: bool,
}

/// How the jobs of this process do. Cheap to clone; every clone is the same.
#[derive(Clone, Debug, Default)]
pub struct JobStatuses(Arc<Mutex<BTreeMap<&'static str, Entry>>>);

#[derive(Debug)]
struct Entry {
    interval: Duration,
    may_run_long: bool,
    running: bool,
    last_started_at: Option<DateTime<Utc>>,
    last_succeeded_at: Option<DateTime<Utc>>,
    /// The last success, or the registration before the first one.
    succeeded: Instant,
    consecutive_failures: u32,
}

impl JobStatuses {
    /// Every job, by name.
    pub fn all(&self) -> Vec<JobStatus> {
        self.entries().iter().map(|(job, entry)| entry.status(job)).collect()
    }

    /// A job that is about to run for the first time. One that may run long is not overdue while it runs.
    pub(super) fn register(&self, job: &'static str, interval: Duration, may_run_long: bool) {
        metrics::gauge!("proofmark_job_consecutive_failures", "job" => job).set(0);
        metrics::counter!("proofmark_job_panics_total", "job" => job).absolute(0);
        let entry = Entry {
            interval,
            may_run_long,
            running: false,
            last_started_at: None,
            last_succeeded_at: None,
            succeeded: Instant::now(),
            consecutive_failures: 0,
        };
        self.entries().insert(job, entry);
    }

    pub(super) fn started(&self, job: &'static str) {
        if let Some(entry) = self.entries().get_mut(job) {
            entry.running = true;
            entry.last_started_at = Some(clock::now());
        }
    }

    pub(super) fn succeeded(&self, job: &'static str) {
        let now = clock::now();
        if let Some(entry) = self.entries().get_mut(job) {
            entry.running = false;
            entry.last_succeeded_at = Some(now);
            entry.succeeded = Instant::now();
            entry.consecutive_failures = 0;
        }
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of this epoch are far below 2^53")]
        let seconds = now.timestamp_millis() as f64 / 1000.0;
        metrics::gauge!("proofmark_job_last_success_timestamp_seconds", "job" => job).set(seconds);
        metrics::gauge!("proofmark_job_consecutive_failures", "job" => job).set(0);
    }

    /// Returns how often in a row the job has failed.
    pub(super) fn failed(&self, job: &'static str) -> u32 {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(job) else { return 1 };
        entry.running = false;
        entry.consecutive_failures = entry.consecutive_failures.saturating_add(1);
        metrics::gauge!("proofmark_job_consecutive_failures", "job" => job).set(entry.consecutive_failures);
        entry.consecutive_failures
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<&'static str, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn status(&self, job: &'static str) -> JobStatus {
        let allowed = (self.interval * MISSED_INTERVALS).max(SHORTEST_OVERDUE);
        let excused = self.running && self.may_run_long;
        JobStatus {
            job,
            running: self.running,
            last_started_at: self.last_started_at,
            last_succeeded_at: self.last_succeeded_at,
            consecutive_failures: self.consecutive_failures,
            failing: self.consecutive_failures >= FAILURES_IN_A_ROW,
            overdue: !excused && self.succeeded.elapsed() > allowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(interval: Duration, since_success: Duration) -> Entry {
        Entry {
            interval,
            may_run_long: false,
            running: false,
            last_started_at: None,
            last_succeeded_at: None,
            succeeded: Instant::now().checked_sub(since_success).unwrap(),
            consecutive_failures: 0,
        }
    }

    #[test]
    fn a_job_is_overdue_after_ten_intervals_and_never_before_half_a_minute() {
        let seconds = Duration::from_secs;
        for (interval, since_success, overdue) in [
            (Duration::from_millis(250), seconds(29), false),
            (Duration::from_millis(250), seconds(31), true),
            (seconds(60), seconds(590), false),
            (seconds(60), seconds(610), true),
        ] {
            let mut entry = entry(interval, since_success);
            assert_eq!(entry.status("a").overdue, overdue, "{interval:?} {since_success:?}");
            (entry.running, entry.may_run_long) = (true, true);
            assert!(!entry.status("a").overdue, "it runs, and may run long");
            entry.may_run_long = false;
            assert_eq!(entry.status("a").overdue, overdue, "it hangs");
        }
    }

    #[test]
    fn three_failures_in_a_row_are_shown_until_the_next_success() {
        let statuses = JobStatuses::default();
        statuses.register("a", Duration::from_mins(1), false);
        let failing = || statuses.all()[0].failing;
        for failures in 1..=3 {
            assert!(!failing());
            statuses.started("a");
            assert_eq!(statuses.failed("a"), failures);
        }
        assert!(failing());
        statuses.succeeded("a");
        assert!(!failing());
        assert_eq!(statuses.all()[0].consecutive_failures, 0);
    }
}
