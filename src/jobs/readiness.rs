//! Whether the service is ready, and what an operator should look at though it is.

use super::status::{JobStatus, JobStatuses};
use crate::content::blobs;
use crate::failure::Failure;
use crate::postgres::{Clocks, Db, MAX_CLOCK_DIFFERENCE, queue};
use crate::storage::Store;
use chrono::TimeDelta;
use serde::Serialize;
use std::time::Duration;

/// The database's clock may be so far behind the newest event.
const BEHIND: TimeDelta = TimeDelta::seconds(5);

/// Whether requests should come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadyStatus {
    /// All is well.
    Ready,
    /// Requests are answered, and something is wrong that an operator should look at.
    Degraded,
    /// Requests would fail, or would be decided at a wrong time.
    Unavailable,
}

/// One thing that is wrong. It says nothing that only some may know: anybody may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyReason {
    /// A stable word.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// The worst of it.
    pub status: ReadyStatus,
    /// What is wrong; empty when nothing is.
    pub reasons: Vec<ReadyReason>,
    /// The jobs of this replica.
    pub jobs: Vec<JobStatus>,
}

/// How long Postgres may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

impl Readiness {
    /// Asks Postgres, the object store and the jobs of this replica, which adds what it knows of itself.
    pub async fn of(
        db: &Db,
        store: &Store,
        statuses: &JobStatuses,
        own: impl IntoIterator<Item = ReadyReason>,
    ) -> Self {
        let jobs = statuses.all();
        let mut reasons: Vec<_> = jobs.iter().filter_map(job_reason).collect();
        // A Postgres that is frozen keeps the connection open and says nothing.
        let facts = tokio::time::timeout(ANSWERS_WITHIN, facts(db)).await;
        let facts =
            facts.unwrap_or_else(|late| Err(Failure::new("asking Postgres whether it answers", late)));
        match facts {
            Ok((clocks, dead)) => {
                reasons.extend(clock_reasons(clocks));
                reasons.extend(dead);
            }
            Err(failure) => {
                tracing::warn!(error = failure.chain(), "not ready: Postgres does not answer");
                let reason = ReadyReason::new("postgres-unavailable", "Postgres does not answer");
                reasons.push((ReadyStatus::Unavailable, reason));
            }
        }
        if let Err(failure) = store.check().await {
            tracing::warn!(error = failure.chain(), "not ready: the object store does not answer");
            let reason = ReadyReason::new("storage-unavailable", "the object store does not answer");
            reasons.push((ReadyStatus::Unavailable, reason));
        }
        reasons.extend(own.into_iter().map(|reason| (ReadyStatus::Degraded, reason)));
        let status = reasons.iter().map(|(status, _)| *status).max().unwrap_or(ReadyStatus::Ready);
        Self { status, reasons: reasons.into_iter().map(|(_, reason)| reason).collect(), jobs }
    }
}

impl ReadyReason {
    /// The service's role in Postgres owns what it works on.
    pub fn unlimited_role() -> Self {
        let message = "the service's role in Postgres owns its database, schema, tables or functions, so that who has \
                       its credentials may change everything: set PROOFMARK_MIGRATION_DATABASE_URL to the owner's URL and DATABASE_URL to another \
                       role's";
        Self::new("database-role-unlimited", message)
    }

    /// The start or the last reload could not use these files; a reload left what was read before.
    pub fn unused_files(what: &[&str]) -> Self {
        let what = what.join(", ");
        Self::new(
            "reload-failed",
            format!("the start or the last reload could not use {what}; the log says why"),
        )
    }

    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

type Found = (ReadyStatus, ReadyReason);

async fn facts(db: &Db) -> Result<(Clocks, Vec<Found>), Failure> {
    let mut connection = db.acquire().await?;
    let clocks = Clocks::read(&mut connection).await?;
    let dead = queue::dead(&mut connection).await?;
    let dead = dead.iter().map(|count| {
        let message = format!("{} queued jobs of the kind {} failed too often", count.jobs, count.kind);
        (ReadyStatus::Degraded, ReadyReason::new("dead-jobs", message))
    });
    let damaged = Some(blobs::damaged_blobs(&mut connection).await?).filter(|damaged| *damaged > 0);
    let damaged = damaged.map(|number| {
        let message =
            format!("the bytes of {number} blobs are damaged; push them again (`proofmark fsck` names them)");
        (ReadyStatus::Degraded, ReadyReason::new("damaged-blobs", message))
    });
    Ok((clocks, dead.chain(damaged).collect()))
}

fn job_reason(status: &JobStatus) -> Option<Found> {
    let job = status.job;
    let reason = if status.failing {
        let times = status.consecutive_failures;
        ReadyReason::new("job-failing", format!("the job {job} failed {times} times in a row"))
    } else if status.overdue {
        ReadyReason::new("job-overdue", format!("the job {job} has not succeeded for ten of its intervals"))
    } else {
        return None;
    };
    Some((ReadyStatus::Degraded, reason))
}

/// A clock that is behind the events stands still for decisions; one that is far from the service's own is set
/// wrong, or the service's is.
fn clock_reasons(clocks: Clocks) -> Vec<Found> {
    let mut found = Vec::new();
    if clocks.differ() {
        let message = format!(
            "the clocks of Postgres and of this service differ by {} s; the limit is {} s: only blocks, holds and \
             revocations are written",
            clocks.difference().num_seconds(),
            MAX_CLOCK_DIFFERENCE.num_seconds(),
        );
        found.push((ReadyStatus::Unavailable, ReadyReason::new("clocks-differ", message)));
    }
    let behind = clocks.newest_event.map(|newest| newest - clocks.database);
    if let Some(behind) = behind.filter(|behind| *behind > BEHIND) {
        let seconds = behind.num_seconds();
        let message = format!("Postgres's clock is {seconds} s behind the newest event; the limit is 5 s");
        found.push((ReadyStatus::Degraded, ReadyReason::new("clock-behind", message)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn clocks_that_are_behind_degrade_and_clocks_that_differ_make_unavailable() {
        let service = clock::now();
        let at = |seconds: i64| service + TimeDelta::seconds(seconds);
        for (database, newest, codes, status) in [
            (0, None, vec![], None),
            (60, Some(65), vec![], None),
            (-60, Some(-70), vec![], None),
            (0, Some(6), vec!["clock-behind"], Some(ReadyStatus::Degraded)),
            (61, Some(0), vec!["clocks-differ"], Some(ReadyStatus::Unavailable)),
            (-61, Some(-61), vec!["clocks-differ"], Some(ReadyStatus::Unavailable)),
            (-90, Some(0), vec!["clocks-differ", "clock-behind"], Some(ReadyStatus::Unavailable)),
        ] {
            let clocks = Clocks { database: at(database), service, newest_event: newest.map(at) };
            let found = clock_reasons(clocks);
            assert_eq!(found.iter().map(|(_, reason)| reason.code).collect::<Vec<_>>(), codes);
            assert_eq!(found.iter().map(|(status, _)| *status).max(), status, "{found:?}");
        }
    }
}
