//! Facts as `policy` wants them. What never changes is remembered; what may have changed is gathered
//! in one statement at every question.

use super::store::{facts as store, holds, policies, releases};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::policy::{Facts, Policies, Policy, Scan, Subject};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

pub(super) use releases::{Promotion, Release};
pub(super) use store::Wanted;

/// Everything that is known about a release when it is judged.
pub(super) struct Gathered {
    /// The database's time when it saw the facts.
    pub now: DateTime<Utc>,
    pub facts: Facts,
    /// The policies in force in the environment.
    pub in_force: Vec<Digest>,
    /// Its bytes are the present ones of the lane: no other bytes were promoted since.
    pub present: bool,
    pub release: Arc<Release>,
}

/// The newest releases of lanes, as they were last seen. A release never changes; that it is still the
/// newest is asked with the facts, by the digest of its decision, which pins where, when and on what
/// it was made. So an entry that is out of date, or of another database, is a miss and never an answer.
static NEWEST: LazyLock<moka::sync::Cache<(RepositoryName, EnvironmentName), Arc<Release>>> =
    LazyLock::new(|| {
        moka::sync::Cache::builder()
            .max_capacity(NEWEST_BYTES)
            .weigher(|_, release: &Arc<Release>| release.size_bytes().try_into().unwrap_or(u32::MAX))
            .build()
    });

/// Memory for the newest releases: some 15,000 lanes.
const NEWEST_BYTES: u64 = 64 << 20;

/// Gathers the facts about a manifest that is to be promoted, under the locks of its lane: with the holds,
/// which stop promotions only; without the times since when what a scan found is known, which give grace
/// only to what runs.
pub(super) async fn gather_for_promotion(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> Result<Option<Gathered>, Failure> {
    let Some(release) = releases::find(connection, wanted).await? else { return Ok(None) };
    let holds = holds::stopping(connection, &release).await?;
    let row = store::gather(connection, &release).await?;
    let mut gathered = gathered(wanted, Arc::new(release), row);
    gathered.facts.holds = holds;
    let scans = std::mem::take(&mut gathered.facts.scans).into_iter();
    gathered.facts.scans = scans.map(|scan| Scan { known_since: BTreeMap::new(), ..scan }).collect();
    Ok(Some(gathered))
}

/// Gathers the facts about the newest promotion of the lane, or about an earlier one.
pub(super) async fn gather(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> Result<Option<Gathered>, Failure> {
    if wanted.promotion.is_some() {
        let Some(release) = releases::find(connection, wanted).await? else { return Ok(None) };
        let row = store::gather(connection, &release).await?;
        return Ok(Some(gathered(wanted, Arc::new(release), row)));
    }
    let lane = (wanted.repository.clone(), wanted.environment.clone());
    if let Some(release) = NEWEST.get(&lane) {
        let row = store::gather(connection, &release).await?;
        if is_newest(&release, &row) {
            return Ok(Some(gathered(wanted, release, row)));
        }
    }
    while let Some(release) = releases::find(connection, wanted).await? {
        let row = store::gather(connection, &release).await?;
        // Otherwise another one was promoted between the two statements.
        if is_newest(&release, &row) {
            let release = Arc::new(release);
            NEWEST.insert(lane, Arc::clone(&release));
            return Ok(Some(gathered(wanted, release, row)));
        }
    }
    Ok(None)
}

fn is_newest(release: &Release, row: &store::Row) -> bool {
    release.promotion.as_ref().map(|promotion| &promotion.decision) == row.newest.as_ref()
}

fn gathered(wanted: Wanted<'_>, release: Arc<Release>, row: store::Row) -> Gathered {
    let scans = row.scans.0.into_iter().map(|run| Scan {
        id: run.id,
        sha256: run.sha256,
        scanner: run.scanner,
        scanned_at: run.scanned_at,
        database_updated_at: run.database_updated_at,
        report: run.report,
        finding_set: run.finding_set,
        findings: run.findings,
        known_since: run.known_since,
    });
    let facts = Facts {
        subject: Subject {
            repository: wanted.repository.clone(),
            environment: wanted.environment.clone(),
            digest: release.digest.clone(),
            sha256: release.sha256.clone(),
            pushed_at: release.pushed_at,
            authors: row.authors.0,
            platforms: release.platforms.0.clone(),
        },
        blocks: row.blocks.0,
        holds: BTreeSet::new(),
        attestations: row.attestations.0,
        scans: scans.collect(),
        stays: row.stays.0,
        approvals: row.approvals.0,
    };
    let present = row.present.as_ref() == Some(&release.sha256);
    Gathered { now: row.now, facts, in_force: row.policies, present, release }
}

/// Parsed policies by their digest: a document never changes, so neither does an entry.
static PARSED: LazyLock<moka::future::Cache<Digest, Arc<Policy>>> =
    LazyLock::new(|| moka::future::Cache::new(1024));

/// The documents of the policies in force that cover the subject's lane.
pub(super) async fn policies(
    connection: &mut PgConnection,
    gathered: &Gathered,
) -> Result<Policies, Failure> {
    let subject = &gathered.facts.subject;
    let mut found = documents(connection, gathered.in_force.clone()).await?;
    found.retain(|_, policy| policy.covers(&subject.repository, &subject.environment));
    Ok(found)
}

/// The documents with these digests.
pub(super) async fn documents(
    connection: &mut PgConnection,
    wanted: Vec<Digest>,
) -> Result<Policies, Failure> {
    let mut found = Policies::new();
    let mut missing = Vec::new();
    for digest in wanted {
        match PARSED.get(&digest).await {
            Some(policy) => {
                found.insert(digest, policy);
            }
            None => missing.push(digest),
        }
    }
    if !missing.is_empty() {
        for (digest, body) in policies::bodies(connection, &missing).await? {
            if Digest::sha256(&body) != digest {
                return Err(Failure::new("reading a stored policy", format!("{digest} has other content")));
            }
            let policy = Arc::new(Policy::from_canonical(&body)?);
            PARSED.insert(digest.clone(), Arc::clone(&policy)).await;
            found.insert(digest, policy);
        }
    }
    Ok(found)
}
