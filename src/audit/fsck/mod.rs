//! The audit of the whole house: every row against its bytes, every object against a row, the log
//! against itself, every promotion against its decision, every row that decides something against the events
//! that made and ended it, every event against the rows that keep what it tells of.
//!
//! Runs beside a service that works: what comes and goes meanwhile is no violation, because each
//! rule reads one snapshot or looks again before it complains. Memory stays bounded: rows come in
//! pages, bytes in chunks. Where it has come to is saved after each page, so that an audit of days goes
//! on where it was cut off; and it may be told how many bytes a second it reads.

mod bytes;
mod events;
mod facts;
mod log;
mod promotions;
mod rows;
mod trust;

pub(super) use bytes::is_whole;

use super::Repair;
use crate::failure::Failure;
use crate::postgres::Db;
use crate::storage::Store;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

/// Something that should hold and does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Where it was seen.
    pub step: Step,
    /// What is wrong, with the names of what it is wrong with.
    pub what: String,
    /// What would set it right, if anything here can.
    pub repair: Option<Repair>,
}

/// What the audit looks at, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Names against manifests and against their history.
    #[default]
    Tags,
    /// What repositories hold against what is counted.
    Usage,
    /// Manifests: their bytes, and what they need.
    Manifests,
    /// Blobs that lie in their rows.
    SmallBlobs,
    /// Blobs in the object store, read whole.
    Objects,
    /// What lies in the object store and belongs to no row.
    Store,
    /// Envelopes, decisions and policies against their digests.
    Documents,
    /// Attestations against their envelopes: signatures, subjects, facts.
    Attestations,
    /// Sets of findings against their digests.
    Findings,
    /// Promotions against their decisions and events.
    Promotions,
    /// Rows that decide something against the events that made and ended them.
    Facts,
    /// The log: its indices.
    Log,
    /// Trust files: that each follows the one before it, and which events made them.
    Trust,
    /// Every event: its place in the log, its copy in columns, and the rows that keep what it tells of.
    Events,
}

const STEPS: [Step; 14] = [
    Step::Tags,
    Step::Usage,
    Step::Manifests,
    Step::SmallBlobs,
    Step::Objects,
    Step::Store,
    Step::Documents,
    Step::Attestations,
    Step::Findings,
    Step::Promotions,
    Step::Facts,
    Step::Log,
    Step::Trust,
    Step::Events,
];

/// Where an audit goes on, with what it has found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The step.
    pub step: Step,
    /// Behind this row of it; from its beginning when empty.
    pub last: String,
    /// What was found so far.
    pub report: Report,
}

/// What looking at a row counts for in what is read in a second: a page of the database.
pub const ROW_BYTES: u64 = 8192;

/// Violations that are kept; more are counted.
const MAX_VIOLATIONS: usize = 1000;

/// What the audit found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What is wrong, at most a thousand; empty is well.
    pub violations: Vec<Violation>,
    /// How many more there are.
    pub more_violations: u64,
    /// Things looked at.
    pub checked: u64,
    /// Bytes read and hashed.
    pub bytes: u64,
    /// Objects that no row and no upload under way needs: a crash leaves them, the sweep takes them.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// The names of some.
    pub some_orphans: Vec<String>,
}

impl Report {
    /// Whether everything holds.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// How an audit runs.
pub struct Run<'a> {
    /// Where it begins.
    pub from: Checkpoint,
    /// Bytes that it reads and hashes in a second at the most; each row that it looks at counts as
    /// [`ROW_BYTES`] more.
    pub bytes_per_second: Option<u64>,
    /// Told after each page how far it is; what it does with it is its own.
    pub came_to: &'a (dyn Fn(&Checkpoint) -> Result<(), Failure> + Send + Sync),
}

/// The audit under way.
struct Audit<'a> {
    db: &'a Db,
    store: &'a Store,
    run: Run<'a>,
    began: Instant,
    /// What was read in this run, not in those before it, as its rate counts it.
    read_bytes: u64,
}

/// Audits everything from the beginning, as fast as it goes. Changes nothing.
pub async fn fsck(db: &Db, store: &Store) -> Result<Report, Failure> {
    let run = Run { from: Checkpoint::default(), bytes_per_second: None, came_to: &|_| Ok(()) };
    fsck_from(db, store, run).await
}

/// Audits from a checkpoint to the end. Changes nothing.
pub async fn fsck_from(db: &Db, store: &Store, run: Run<'_>) -> Result<Report, Failure> {
    let first = run.from.step;
    let mut audit = Audit { db, store, run, began: Instant::now(), read_bytes: 0 };
    for step in STEPS.into_iter().filter(|step| *step >= first) {
        if step != first {
            audit.run.from.step = step;
            audit.run.from.last.clear();
        }
        match step {
            Step::Tags => audit.tags().await?,
            Step::Usage => audit.usage().await?,
            Step::Manifests => audit.manifests().await?,
            Step::SmallBlobs => audit.small_blobs().await?,
            Step::Objects => audit.objects().await?,
            Step::Store => audit.orphans().await?,
            Step::Documents => audit.documents().await?,
            Step::Attestations => audit.attestations().await?,
            Step::Findings => audit.findings().await?,
            Step::Promotions => audit.promotions().await?,
            Step::Facts => audit.facts().await?,
            Step::Log => audit.log().await?,
            Step::Trust => audit.trust().await?,
            Step::Events => audit.events().await?,
        }
    }
    Ok(audit.run.from.report)
}

impl Audit<'_> {
    /// The row that a page begins behind.
    fn last(&self) -> String {
        self.run.from.last.clone()
    }

    /// The same as a row id; ids begin at 1.
    fn last_id(&self) -> i64 {
        self.run.from.last.parse().unwrap_or_default()
    }

    /// The same as a name or digest in a repository.
    fn last_in_repository(&self) -> (i64, String) {
        let (repository_id, name) = self.run.from.last.split_once('/').unwrap_or(("0", ""));
        (repository_id.parse().unwrap_or_default(), name.to_owned())
    }

    fn violation(&mut self, what: String) {
        self.repairable(what, None);
    }

    fn repairable(&mut self, what: String, repair: Option<Repair>) {
        let step = self.run.from.step;
        let report = &mut self.run.from.report;
        if report.violations.len() < MAX_VIOLATIONS {
            report.violations.push(Violation { step, what, repair });
        } else {
            report.more_violations += 1;
        }
    }

    /// Counts what was looked at, and rests when it was read too fast.
    async fn looked(&mut self, things: u64, bytes: u64) {
        self.run.from.report.checked += things;
        self.run.from.report.bytes += bytes;
        self.read_bytes += bytes + things * ROW_BYTES;
        if let Some(rate) = self.run.bytes_per_second.filter(|rate| *rate > 0) {
            let due = Duration::from_millis(self.read_bytes.saturating_mul(1000) / rate);
            tokio::time::sleep_until(self.began + due).await;
        }
    }

    /// Says that everything up to this row is done.
    fn came_to(&mut self, last: String) -> Result<(), Failure> {
        self.run.from.last = last;
        (self.run.came_to)(&self.run.from)
    }
}
