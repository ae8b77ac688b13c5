//! Scan runs: who scanned what, when, with which database, and the set of findings it came to.

use crate::access::Principal;
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName, ScannerName};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sqlx::PgConnection;

/// A run to record.
#[derive(Clone, Debug)]
pub struct NewRun<'a> {
    /// The repository's row.
    pub repository_id: i64,
    /// The manifest that was scanned.
    pub manifest: &'a Digest,
    /// Its bytes' SHA-256.
    pub sha256: &'a Digest,
    /// Who scanned.
    pub scanner: &'a ScannerName,
    /// Its version.
    pub scanner_version: &'a str,
    /// How new its database was.
    pub database_updated_at: Option<DateTime<Utc>>,
    /// When it ran, as it says.
    pub scanned_at: Option<DateTime<Utc>>,
    /// What it found; stored before.
    pub finding_set: &'a Digest,
    /// The artifact that keeps the raw report.
    pub report: &'a Digest,
    /// Who sent it.
    pub principal: &'a Principal,
    /// The database's time, after the locks.
    pub at: DateTime<Utc>,
}

/// How far a scanner's clock may be ahead of the database's.
pub const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);

impl NewRun<'_> {
    /// A time of the run that no clock can have shown yet. The newest run counts, so what claims a
    /// later day would count until that day; and taken as now it would make an old scan a new one.
    pub fn impossible_time(&self) -> Option<DateTime<Utc>> {
        let times = [self.scanned_at, self.database_updated_at];
        times.into_iter().flatten().find(|time| *time > self.at + CLOCK_SKEW)
    }
}

/// A recorded run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A new one.
    New(i64),
    /// The same report was recorded before.
    Known(i64),
}

impl Recorded {
    /// The run's id.
    pub fn id(self) -> i64 {
        match self {
            Self::New(id) | Self::Known(id) => id,
        }
    }
}

/// Records a run, unless this report of this scanner is recorded already. A time that lies in the
/// future, within [`CLOCK_SKEW`], is taken as now: nothing may look newer than it can be.
///
/// With the row the trigger `scan_runs_note_vulnerabilities` writes `vulnerabilities_known`: each
/// vulnerability that is new for the bytes, since now. A policy's grace counts from there, so it does
/// not begin again with every scan, and stays whichever run is the newest.
pub async fn record(connection: &mut PgConnection, run: &NewRun<'_>) -> Result<Recorded, Failure> {
    let failed = |error| Failure::new("recording a scan", error);
    let new = sqlx::query_scalar!(
        r#"insert into scan_runs(repository_id, manifest, sha256, scanner, scanner_version, database_updated_at,
             scanned_at, finding_set, report, received_by, received_at)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
           on conflict on constraint a_report_is_recorded_once do nothing returning id"#,
        run.repository_id,
        run.manifest as &Digest,
        run.sha256 as &Digest,
        run.scanner as &ScannerName,
        run.scanner_version,
        run.database_updated_at.map(|time| time.min(run.at)),
        run.scanned_at.map_or(run.at, |time| time.min(run.at)),
        run.finding_set as &Digest,
        run.report as &Digest,
        run.principal.id,
        run.at,
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(failed)?;
    if let Some(id) = new {
        return Ok(Recorded::New(id));
    }
    let known = sqlx::query_scalar!(
        "select id from scan_runs where repository_id = $1 and report = $2 and scanner = $3",
        run.repository_id,
        run.report as &Digest,
        run.scanner as &ScannerName,
    )
    .fetch_one(connection)
    .await
    .map_err(failed)?;
    Ok(Recorded::Known(known))
}

/// A run as it is shown.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id.
    pub id: i64,
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest that was scanned.
    pub manifest: Digest,
    /// Who scanned.
    pub scanner: ScannerName,
    /// Its version.
    pub scanner_version: String,
    /// How new its database was.
    pub database_updated_at: Option<DateTime<Utc>>,
    /// When it ran.
    pub scanned_at: DateTime<Utc>,
    /// The digest of its findings.
    pub finding_set: Digest,
    /// Open findings by severity.
    pub counts: Value,
    /// The artifact that keeps the raw report.
    pub report: Digest,
    /// Who sent it.
    pub received_by: String,
    /// When it came.
    pub received_at: DateTime<Utc>,
}

/// Repositories, by row: those that the caller may see.
#[derive(Clone, Debug)]
pub enum Among {
    /// All of them.
    Everything,
    /// These.
    These(Vec<i64>),
}

impl Among {
    pub(super) fn ids(&self) -> Option<&[i64]> {
        match self {
            Self::Everything => None,
            Self::These(ids) => Some(ids),
        }
    }
}

/// Which runs are asked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// Of these repositories.
    pub among: Among,
    /// Of this manifest, by any digest of its bytes.
    pub digest: Option<Digest>,
    /// By this scanner.
    pub scanner: Option<ScannerName>,
    /// Older than this run.
    pub before: Option<i64>,
    /// At the most.
    pub limit: i64,
}

/// Runs, the newest first.
pub async fn list(connection: &mut PgConnection, question: &Question) -> Result<Vec<Run>, Failure> {
    sqlx::query_as!(
        Run,
        r#"select s.id, r.name as "repository: RepositoryName", s.manifest as "manifest: Digest",
             s.scanner as "scanner: ScannerName", s.scanner_version, s.database_updated_at, s.scanned_at,
             s.finding_set as "finding_set: Digest", f.counts, s.report as "report: Digest",
             p.name as received_by, s.received_at
           from scan_runs s
             join repositories r on r.id = s.repository_id
             join finding_sets f on f.digest = s.finding_set
             join principals p on p.id = s.received_by
           where ($1::bigint[] is null or s.repository_id = any($1))
             and ($2::text is null or s.manifest = $2 or s.sha256 = $2)
             and ($3::text is null or s.scanner = $3)
             and ($4::bigint is null or s.id < $4)
           order by s.id desc limit $5"#,
        question.among.ids(),
        question.digest.as_ref() as Option<&Digest>,
        question.scanner.as_ref() as Option<&ScannerName>,
        question.before,
        question.limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing scans", error))
}

/// One run of a repository.
pub async fn run(connection: &mut PgConnection, repository_id: i64, id: i64) -> Result<Option<Run>, Failure> {
    let among = Among::These(vec![repository_id]);
    let question =
        Question { among, digest: None, scanner: None, before: Some(id.saturating_add(1)), limit: 1 };
    let newest = list(connection, &question).await?.pop();
    Ok(newest.filter(|run| run.id == id))
}

/// Whether one of the digests is an index of the repository that lists this manifest: a scanner that
/// was given the index names the index.
pub async fn names_an_index_of(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
    manifest: &Digest,
) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select exists(select from manifest_children
             where repository_id = $1 and manifest = any($2) and child = $3) as "listed!""#,
        repository_id,
        digests as &[Digest],
        manifest as &Digest,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for an index", error))
}
