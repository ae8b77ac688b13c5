//! Scan runs: who scanned what, when, with which database, and the set of findings it came to.

use crate::access::Principal;
use crate::evidence::{Aspect, BoundBy, Candidate, Scope};
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName, ScannerName};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use sqlx::types::Json;
use std::collections::BTreeSet;
use utoipa::ToSchema;

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
    /// What it looked at.
    pub scope: &'a Scope,
    /// By what the report names what was scanned.
    pub bound_by: Option<BoundBy>,
    /// By what its scans are kept: an image's configuration, or the bytes.
    pub scanned_as: &'a str,
    /// Whether it is a container image.
    pub is_image: bool,
    /// The artifact that keeps the raw report.
    pub report: &'a Digest,
    /// The signed statement that is the report.
    pub attestation_id: Option<i64>,
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
/// The function `count_scan` makes it count for each aspect that it looked at, and writes
/// `vulnerabilities_known`: each vulnerability that is new for the image, since now. A policy's grace counts
/// from there, so it does not begin again with every scan, and stays whichever run is the newest.
pub async fn record(connection: &mut PgConnection, run: &NewRun<'_>) -> Result<Recorded, Failure> {
    let failed = |error| Failure::new("recording a scan", error);
    let aspects: Vec<&str> = run.scope.aspects().into_iter().map(Aspect::as_str).collect();
    let new = sqlx::query_scalar!(
        r#"insert into scan_runs(repository_id, manifest, sha256, scanner, scanner_version, database_updated_at,
             scanned_at, finding_set, report, received_by, received_at, scope, bound_by,
             attestation_id, image, aspects, filter, is_image)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
           on conflict do nothing returning id"#,
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
        json!(run.scope),
        run.bound_by.map(BoundBy::as_str),
        run.attestation_id,
        run.scanned_as,
        &aspects as &[&str],
        run.scope.filter(),
        run.is_image,
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(failed)?;
    if let Some(id) = new {
        // A report counts by itself, and a statement for each signer whose signature came with it first.
        sqlx::query!(
            "select count_scan($1, s.signer_id) from (
               select null::bigint as signer_id where $2::bigint is null
               union all
               select i.signer_id from attestation_signatures i where i.attestation_id = $2 and i.counts_from = $2) s",
            id,
            run.attestation_id,
        )
        .fetch_all(connection)
        .await
        .map_err(failed)?;
        return Ok(Recorded::New(id));
    }
    let known = sqlx::query_scalar!(
        "select id from scan_runs
         where repository_id = $1 and scanner = $3 and attestation_id is not distinct from $4
           and case when $4::bigint is null then report = $2 else image = $5 end",
        run.repository_id,
        run.report as &Digest,
        run.scanner as &ScannerName,
        run.attestation_id,
        run.scanned_as,
    )
    .fetch_one(connection)
    .await
    .map_err(failed)?;
    Ok(Recorded::Known(known))
}

/// Signers with a revocation that is not settled yet.
pub async fn unsettled(connection: &mut PgConnection) -> Result<Vec<i64>, Failure> {
    sqlx::query_scalar!("select distinct signer_id from scan_revocations_unsettled order by signer_id")
        .fetch_all(connection)
        .await
        .map_err(|error| Failure::new(SETTLING, error))
}

/// The revocations of the signer that are not settled yet.
pub async fn revocations(connection: &mut PgConnection, signer_id: i64) -> Result<Vec<i64>, Failure> {
    sqlx::query_scalar!(
        "select revocation_id from scan_revocations_unsettled where signer_id = $1",
        signer_id
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(SETTLING, error))
}

/// Takes back what the signer's next runs behind this one count for, where they count no more; the last of them.
pub async fn settle(
    connection: &mut PgConnection,
    signer_id: i64,
    behind: i64,
    limit: i32,
) -> Result<Option<i64>, Failure> {
    sqlx::query_scalar!("select settle_signed_scans($1, $2, $3)", signer_id, behind, limit)
        .fetch_one(connection)
        .await
        .map_err(|error| Failure::new(SETTLING, error))
}

/// These revocations are settled.
pub async fn settled(connection: &mut PgConnection, revocations: &[i64]) -> Result<(), Failure> {
    sqlx::query!("delete from scan_revocations_unsettled where revocation_id = any($1)", revocations)
        .execute(connection)
        .await
        .map_err(|error| Failure::new(SETTLING, error))?;
    Ok(())
}

const SETTLING: &str = "settling which signed scans count";

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
    /// What it looked at; not known of runs that were recorded before it was read.
    pub scope: Option<Json<Scope>>,
    /// By what the report names what was scanned.
    pub bound_by: Option<String>,
    /// The aspects for which no newer run took its place.
    pub current_for: Vec<String>,
    /// The artifact that keeps the raw report.
    pub report: Digest,
    /// Who sent it.
    pub received_by: String,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// The envelope of the signed statement that is the report, where it is one.
    pub statement: Option<Digest>,
    /// Why it was retracted, if it was.
    pub retraction: Option<Json<Retraction>>,
}

/// That a run was retracted.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Retraction {
    /// Why.
    pub reason: String,
    /// Who retracted it.
    pub retracted_by: String,
    /// When.
    pub retracted_at: DateTime<Utc>,
}

/// Retracts a run of the repository; says whether it was not before. Runs whose place it took count again.
pub async fn retract(
    connection: &mut PgConnection,
    run: i64,
    reason: &str,
    principal: &Principal,
    at: DateTime<Utc>,
) -> Result<bool, Failure> {
    let failed = |error| Failure::new("retracting a scan", error);
    let new = sqlx::query!(
        "insert into scan_retractions(run_id, reason, retracted_by, retracted_at) values ($1, $2, $3, $4)
         on conflict do nothing",
        run,
        reason,
        principal.id,
        at,
    )
    .execute(&mut *connection)
    .await
    .map_err(failed)?
    .rows_affected()
        == 1;
    if new {
        sqlx::query!("select discount_scan($1)", run).execute(connection).await.map_err(failed)?;
    }
    Ok(new)
}

/// The repository of a run.
pub async fn repository_of(
    connection: &mut PgConnection,
    run: i64,
) -> Result<Option<RepositoryName>, Failure> {
    sqlx::query_scalar!(
        r#"select r.name as "name: RepositoryName" from scan_runs s join repositories r on r.id = s.repository_id
           where s.id = $1"#,
        run,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("looking for a scan", error))
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
             s.finding_set as "finding_set: Digest", f.counts, s.scope as "scope: Json<Scope>", s.bound_by,
             array(select distinct c.aspect from scan_coverage c where c.run_id = s.id and c.is_current order by 1)
               as "current_for!", s.report as "report: Digest", p.name as received_by, s.received_at,
             (select a.envelope from attestations a where a.id = s.attestation_id) as "statement: Digest",
             (select json_build_object('reason', x.reason, 'retracted_at', x.retracted_at, 'retracted_by', (
                select w.name from principals w where w.id = x.retracted_by))
              from scan_retractions x where x.run_id = s.id) as "retraction: Json<Retraction>"
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

/// What a report posted for a manifest may be about: the manifest itself, and of an index its images at every
/// depth, documents beside them left out. The manifest comes first.
pub async fn candidates(
    connection: &mut PgConnection,
    repository_id: i64,
    manifest: &Digest,
) -> Result<Vec<Candidate>, Failure> {
    let rows = sqlx::query!(
        r#"with recursive family(digest, platform, depth) as (
             select $2::text collate "C", null::text collate "C", 0
             union
             select c.child, coalesce(c.platform, f.platform), f.depth + 1
             from family f join manifest_children c on c.repository_id = $1 and c.manifest = f.digest
             where f.depth < 4
           )
           select m.digest as "digest!: Digest", m.sha256 as "sha256!: Digest", m.sha512 as "sha512!: Digest",
             scanned_as(m) as "scanned_as!", is_container_image(m) as "is_image!", m.config_digest as "config: Digest",
             -- What its configuration states makes an image of what an index lists as a document.
             case when f.platform ~ '^unknown[(/]' then coalesce(m.platform, f.platform)
               else coalesce(f.platform, m.platform) end as platform,
             exists (select from manifest_children c
                     where c.repository_id = $1 and c.manifest = m.digest) as "is_index!"
           from family f join manifests m on m.repository_id = $1 and m.digest = f.digest
           order by f.depth, m.digest"#,
        repository_id,
        manifest as &Digest,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading what a scan may be about", error))?;
    let candidates = rows.into_iter().map(|row| Candidate {
        config: row.config.filter(|_| row.is_image),
        scanned_as: row.scanned_as,
        is_image: row.is_image,
        digest: row.digest,
        sha256: row.sha256,
        sha512: row.sha512,
        file: None,
        platform: row.platform.and_then(|text| text.parse().ok()),
        is_index: row.is_index,
    });
    Ok(candidates.collect())
}

/// Whether one of these runs, or of those that one of these attestations made, counts for what was promoted in its
/// repository.
pub async fn are_of_promoted(
    connection: &mut PgConnection,
    runs: &[i64],
    attestations: &[i64],
) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select exists (
             select from scan_runs s
             where (s.id = any($1) or s.attestation_id = any($2))
               and exists (select from scan_coverage c where c.run_id = s.id and c.is_trusted)
               and was_promoted(s.repository_id, s.image, '-infinity')) as "promoted!""#,
        runs,
        attestations,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for what was scanned and promoted", error))
}

/// Those of the digests that are indexes of the repository which list this manifest: a scanner that was given an
/// index names the index.
pub async fn indexes_among(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[&Digest],
    manifest: &Digest,
) -> Result<BTreeSet<Digest>, Failure> {
    let found = sqlx::query_scalar!(
        r#"select manifest as "manifest: Digest" from manifest_children
           where repository_id = $1 and manifest = any($2) and child = $3"#,
        repository_id,
        digests as &[&Digest],
        manifest as &Digest,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for an index", error))?;
    Ok(found.into_iter().collect())
}

/// The manifests whose scans are kept by this name, at most a thousand.
pub async fn scanned_alike(
    connection: &mut PgConnection,
    repository_id: i64,
    scanned_as: &str,
) -> Result<Vec<(Digest, Digest)>, Failure> {
    let rows = sqlx::query!(
        r#"select digest as "digest: Digest", sha256 as "sha256: Digest" from manifests m
           where repository_id = $1 and (config_digest = substr($2, 8) or sha256 = $2) and scanned_as(m) = $2
           limit 1000"#,
        repository_id,
        scanned_as,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for manifests of one image", error))?;
    Ok(rows.into_iter().map(|row| (row.digest, row.sha256)).collect())
}

/// By what the scans of a run are kept, and who recorded it.
pub async fn scanned_as(connection: &mut PgConnection, run: i64) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(r#"select distinct image from scan_coverage where run_id = $1"#, run,)
        .fetch_all(connection)
        .await
        .map_err(|error| Failure::new("looking for what a scan counts for", error))
}
