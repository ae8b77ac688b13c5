//! Promotions that were refused for want of approvals, and what each still waits for.

use super::dry_run::dry_run;
use super::store::pending as store;
use super::{Refused, What};
use crate::access::{Grant, Lane, Pull};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName, Tag};
use crate::policy::{GateResult, Outcome};
use crate::postgres::Db;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// How long ago a refused promotion may have been requested.
const REQUESTED_WITHIN: TimeDelta = TimeDelta::days(30);

/// Refused promotions that are read for one list.
const READ: i64 = 5000;

/// A version that waits for approvals.
#[derive(Debug, Serialize, ToSchema)]
pub struct PendingApproval {
    /// The repository.
    pub repository: RepositoryName,
    /// Where it was to be promoted.
    pub environment: EnvironmentName,
    /// What was to be promoted.
    pub digest: Digest,
    /// Its version.
    pub version: Option<Tag>,
    /// Who requested the promotion last.
    pub requested_by: String,
    /// When.
    pub requested_at: DateTime<Utc>,
    /// The gates that wait for approvals, with what they have.
    pub waits_for: Vec<GateResult>,
    /// The other gates that stand in the way now.
    pub also_refused_by: Vec<GateResult>,
}

/// Promotions of the last 30 days that were refused for want of approvals, were not made since, and would be
/// refused for that now; the newest request first, at most so many. Only channels for which `may` gives a
/// grant are evaluated and shown.
pub async fn pending_approvals(
    db: &Db,
    repository: Option<&RepositoryName>,
    environment: Option<&EnvironmentName>,
    limit: usize,
    may: impl Fn(&Lane) -> Option<Grant<Pull, Lane>>,
) -> Result<Vec<PendingApproval>, Failure> {
    let mut connection = db.acquire().await?;
    let requested = store::refused(&mut connection, repository, environment, REQUESTED_WITHIN, READ).await?;
    drop(connection);
    let (mut pending, mut evaluated) = (Vec::new(), 0);
    for row in requested {
        let lane = Lane { repository: row.repository, environment: row.environment };
        let Some(grant) = may(&lane) else { continue };
        if evaluated == limit {
            break;
        }
        evaluated += 1;
        let now = match dry_run(db, &grant, &What::Digest(row.digest.clone())).await {
            Ok(now) => now,
            Err(Refused::Failed(failure)) => return Err(failure),
            // The manifest was deleted.
            Err(_) => continue,
        };
        let refusing = now.gates.into_iter().filter(GateResult::stands_in_the_way);
        let (waits_for, also_refused_by): (Vec<_>, Vec<_>) =
            refusing.partition(|gate| gate.gate == "approvals" && gate.outcome == Outcome::Fail);
        if waits_for.is_empty() {
            continue;
        }
        pending.push(PendingApproval {
            repository: lane.repository,
            environment: lane.environment,
            digest: row.digest,
            version: now.version,
            requested_by: row.by,
            requested_at: row.at,
            waits_for,
            also_refused_by,
        });
    }
    Ok(pending)
}
