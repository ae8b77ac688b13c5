//! What a promotion would decide now. Takes no lock and records nothing.

use super::facts::{self, Wanted};
use super::promote::older_than;
use super::store::promotions as store;
use super::{Refused, What, lane::Place};
use crate::access::{Grant, Lane, Pull};
use crate::names::{Digest, Tag};
use crate::policy::{Action, Case, GateResult, Verdict, judge, reasons, warnings};
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// The decision that a promotion would have now.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRun {
    /// The decision.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What would be promoted.
    pub digest: Digest,
    /// By which version it is known.
    pub version: Option<Tag>,
    /// Every gate.
    pub gates: Vec<GateResult>,
    /// Why not.
    pub reasons: Vec<String>,
    /// What would be allowed with a warning.
    pub warnings: Vec<String>,
    /// When it was evaluated: the database's time.
    pub evaluated_at: DateTime<Utc>,
}

/// Decides without deciding: for everybody who may pull in the environment.
pub async fn dry_run(db: &Db, grant: &Grant<Pull, Lane>, what: &What) -> Result<DryRun, Refused> {
    let mut snapshot = db.snapshot().await?;
    let lane = grant.scope();
    let place = Place::find(&mut snapshot, lane).await?;
    let (digest, version) = match what {
        What::Digest(digest) => {
            let version = store::version_of(&mut snapshot, place.repository_id, digest).await?;
            (digest.clone(), version)
        }
        What::Version(tag) => {
            let digest = store::digest_of(&mut snapshot, place.repository_id, tag).await?;
            (digest.ok_or_else(|| Refused::UnknownArtifact(tag.to_string()))?, Some(tag.clone()))
        }
    };
    let Lane { repository, environment } = lane;
    let wanted = Wanted { repository, environment, digest: Some(&digest), promotion: None, also: None };
    let gathered = facts::gather_for_promotion(&mut snapshot, wanted).await?;
    let gathered = gathered.ok_or_else(|| Refused::UnknownArtifact(digest.to_string()))?;
    let newer = store::newer_than(&mut snapshot, &place, &digest).await?;
    let case = Case {
        action: Action::Promote,
        at: gathered.now,
        child: None,
        facts: gathered.facts,
        recorded: None,
    };
    let (verdict, gates) = judge(&gathered.policies.in_force, &case);
    let warnings = warnings(&gates).into_iter().chain(newer.map(|newer| older_than(&newer))).collect();
    let (reasons, evaluated_at) = (reasons(&gates), case.at);
    Ok(DryRun { verdict, digest, version, gates, reasons, warnings, evaluated_at })
}
