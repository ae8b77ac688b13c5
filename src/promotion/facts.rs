//! Facts as `policy` wants them, out of the one statement that gathers them.

use super::store::{facts as store, policies};
use crate::failure::Failure;
use crate::names::{Digest, MediaType};
use crate::policy::{Facts, Policies, Policy, Scan, Subject};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::sync::{Arc, LazyLock};

pub(super) use store::{InForce, Promotion, Wanted};

/// Everything that one statement saw.
pub(super) struct Gathered {
    /// The database's time when it saw it.
    pub now: DateTime<Utc>,
    pub facts: Facts,
    pub in_force: Vec<InForce>,
    /// The lane's newest promotion, or the one that was asked for.
    pub promotion: Option<Promotion>,
    pub papers: Papers,
}

/// What nothing is judged by: it is shown beside an answer, or signed into one.
pub(super) struct Papers {
    pub sha512: Digest,
    pub media_type: MediaType,
    pub summary: Option<Vec<u8>>,
    pub leaf: Option<Vec<u8>>,
}

/// Gathers the facts about a manifest, or about a promotion of the lane.
pub(super) async fn gather(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> Result<Option<Gathered>, Failure> {
    let Some(row) = store::gather(connection, wanted).await? else { return Ok(None) };
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
            digest: row.digest,
            sha256: row.sha256,
            pushed_at: row.pushed_at,
            authors: row.authors.0,
            platforms: row.platforms.0,
        },
        blocks: row.blocks.0,
        holds: row.holds.0,
        attestations: row.attestations.0,
        scans: scans.collect(),
        stays: row.stays.0,
        approvals: row.approvals.0,
    };
    Ok(Some(Gathered {
        now: row.now,
        facts,
        in_force: row.policies.0,
        promotion: row.promotion.map(|json| json.0),
        papers: Papers {
            sha512: row.sha512,
            media_type: row.media_type,
            summary: row.summary,
            leaf: row.leaf,
        },
    }))
}

/// Parsed policies by their digest: a document never changes, so neither does an entry.
static PARSED: LazyLock<moka::future::Cache<Digest, Arc<Policy>>> =
    LazyLock::new(|| moka::future::Cache::new(1024));

/// The documents of the policies in force that cover the subject's repository.
pub(super) async fn policies(
    connection: &mut PgConnection,
    gathered: &Gathered,
) -> Result<Policies, Failure> {
    let repository = gathered.facts.subject.repository.as_str();
    let covering = gathered
        .in_force
        .iter()
        .filter(|policy| policy.repositories.iter().any(|pattern| pattern.matches(repository)));
    documents(connection, covering.map(|policy| policy.digest.clone()).collect()).await
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
