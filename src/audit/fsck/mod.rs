//! The audit of the whole house: every row against its bytes, every object against a row, the log
//! against itself, every promotion against its decision.
//!
//! Runs beside a service that works: what comes and goes meanwhile is no violation, because each
//! rule reads one snapshot or looks again before it complains. Memory stays bounded: rows come in
//! pages, bytes in chunks.

mod bytes;
mod log;
mod promotions;

use crate::attestation;
use crate::content;
use crate::failure::Failure;
use crate::postgres::Db;
use crate::storage::Store;
use serde::Serialize;

/// Something that should hold and does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Where it was seen.
    pub step: Step,
    /// What is wrong, with the names of what it is wrong with.
    pub what: String,
}

/// What the audit looks at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Tags, manifests and small blobs.
    Content,
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
    /// The log: every event, its place and its copy in columns.
    Log,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Which.
    pub step: Step,
    /// Things looked at.
    pub checked: u64,
    /// Bytes read and hashed.
    pub bytes: u64,
}

/// Violations that are kept; more are counted.
const MAX_VIOLATIONS: usize = 1000;

/// What the audit found.
#[derive(Clone, Debug, Default, Serialize)]
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

/// The audit under way.
struct Audit<'a> {
    db: &'a Db,
    store: &'a Store,
    tell: &'a (dyn Fn(Progress) + Send + Sync),
    report: Report,
}

/// Audits everything, and tells how far it has come. Changes nothing.
pub async fn fsck(
    db: &Db,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Report, Failure> {
    let mut audit = Audit { db, store, tell: progress, report: Report::default() };
    audit.content().await?;
    audit.objects().await?;
    audit.orphans().await?;
    audit.documents().await?;
    audit.attestations().await?;
    audit.findings().await?;
    audit.promotions().await?;
    audit.log().await?;
    Ok(audit.report)
}

impl Audit<'_> {
    async fn content(&mut self) -> Result<(), Failure> {
        match content::check_content(&mut *self.db.acquire().await?).await {
            Ok(violations) => {
                for what in violations {
                    self.violation(Step::Content, what);
                }
            }
            // A manifest that is no JSON any more stops the statement, not the audit.
            Err(failure) => self.violation(Step::Content, failure.chain()),
        }
        self.looked(Step::Content, 1, 0);
        Ok(())
    }

    async fn attestations(&mut self) -> Result<(), Failure> {
        let violations = attestation::check_attestations(&mut *self.db.acquire().await?).await?;
        for what in violations {
            self.violation(Step::Attestations, what);
        }
        self.looked(Step::Attestations, 1, 0);
        Ok(())
    }

    fn violation(&mut self, step: Step, what: String) {
        if self.report.violations.len() < MAX_VIOLATIONS {
            self.report.violations.push(Violation { step, what });
        } else {
            self.report.more_violations += 1;
        }
    }

    fn looked(&mut self, step: Step, things: u64, bytes: u64) {
        self.report.checked += things;
        self.report.bytes += bytes;
        (self.tell)(Progress { step, checked: self.report.checked, bytes: self.report.bytes });
    }
}
