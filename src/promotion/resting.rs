//! What runs and rests on a signer, and what a revocation of it ends.

use super::evaluate::{self, Evaluated, Part};
use super::store::{promotions, summaries};
use crate::access::{Everything, Grant, Lane, Revoke};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName, Tag};
use crate::policy::{EvidenceKind, Position, Status, Verdict, evaluate_running, reasons};
use crate::postgres::Db;
use crate::trust::Effect;
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// Versions that an answer names; all are counted.
const NAMED: usize = 100;

/// What a revocation does to a version that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// It ends: known-good, verify and views no longer give it.
    Ends,
    /// It runs on, and is at risk.
    AtRisk,
    /// It runs on, and would not be promoted today.
    WouldNotBePromotedToday,
    /// It runs on.
    Nothing,
}

/// A version that runs and rests on the signer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RestingVersion {
    /// The repository.
    pub repository: RepositoryName,
    /// The environment.
    pub environment: EnvironmentName,
    /// The version.
    pub digest: Digest,
    /// Its name.
    pub version: Option<Tag>,
    /// The gates that statements by the revoked keys satisfied when it was promoted.
    pub gates: BTreeSet<String>,
    /// What the revocation does to it.
    pub consequence: Consequence,
    /// Why.
    pub reasons: Vec<String>,
}

/// What runs and rests on a signer. Which findings of signed scans count is not part of it: what scans change shows in
/// the evaluations that follow the revocation.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Resting {
    /// How many versions.
    pub count: usize,
    /// How many of them end.
    pub ends: usize,
    /// The first 100, those that end first.
    pub versions: Vec<RestingVersion>,
}

/// The versions that run and rest on the keys that are revoked, or are to be, each as it was evaluated before and as
/// it is after: by the evaluation that every interface asks. Read in one snapshot.
pub async fn resting_on(db: &Db, _: &Grant<Revoke, Everything>, effect: &Effect) -> Result<Resting, Failure> {
    let mut snapshot = db.snapshot().await?;
    let mut found = Vec::new();
    let mut lanes = BTreeMap::new();
    for signer in effect.signers() {
        for lane in summaries::resting_on(&mut snapshot, signer).await? {
            lanes.insert((lane.repository.clone(), lane.environment.clone()), lane);
        }
    }
    for lane in lanes.into_values() {
        if let Some(running) = running_before(&mut snapshot, &lane, effect).await? {
            found.extend(compare(&lane, &running, effect));
        }
    }
    let ends = found.iter().filter(|one| one.consequence == Consequence::Ends).count();
    let count = found.len();
    found.sort_by(|one, other| {
        let key = |one: &RestingVersion| (one.consequence, one.repository.clone(), one.environment.clone());
        key(one).cmp(&key(other))
    });
    found.truncate(NAMED);
    Ok(Resting { count, ends, versions: found })
}

/// When a revocation is assumed.
#[derive(Clone, Copy)]
enum When {
    Before,
    After,
}

/// The version's status with the revocations of these keys as they were, or as they are then.
fn status(version: &Evaluated, effect: &Effect, when: When, position: Position) -> Status {
    let mut case = version.case.clone();
    let attestations = std::mem::take(&mut case.facts.attestations).into_iter();
    case.facts.attestations = attestations
        .map(|mut attestation| {
            let signatures = std::mem::take(&mut attestation.signatures).into_iter();
            attestation.signatures = signatures
                .map(|mut signature| {
                    if let Some((before, after)) = effect.of(&signature.signer, &signature.key_id) {
                        signature.revocation = match when {
                            When::Before => before,
                            When::After => Some(after),
                        };
                    }
                    signature
                })
                .collect();
            attestation
        })
        .collect();
    evaluate_running(&version.policies, &case, &version.promotion.recorded, position)
}

/// The version that ran in the channel before the revocation.
async fn running_before(
    connection: &mut PgConnection,
    lane: &Lane,
    effect: &Effect,
) -> Result<Option<Evaluated>, Failure> {
    let position = Position::Current;
    let newest = evaluate::promoted(connection, lane, None, Part::Whole, Some(position)).await?;
    let Some(Ok(newest)) = newest else { return Ok(None) };
    let ran = |version: &Evaluated, position| {
        status(version, effect, When::Before, position).verdict == Verdict::Allow
    };
    if ran(&newest, position) || newest.is_partly_blocked() {
        return Ok(Some(newest));
    }
    let (before, max) = (Some(newest.promotion.id), evaluate::MAX_CANDIDATES);
    for earlier in promotions::earlier(connection, &lane.repository, &lane.environment, before, max).await? {
        let position = Position::Candidate { named: false };
        let found =
            evaluate::promoted(connection, lane, Some(earlier.promotion), Part::Whole, Some(position))
                .await?;
        if let Some(Ok(found)) = found
            && ran(&found, position)
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Nothing for a version that does not rest on the keys.
fn compare(lane: &Lane, running: &Evaluated, effect: &Effect) -> Option<RestingVersion> {
    let position = Position::Current;
    let (before, after) =
        (status(running, effect, When::Before, position), status(running, effect, When::After, position));
    let signed = |envelope: &str| {
        let attestations = &running.case.facts.attestations;
        let recorded = attestations.iter().find(|one| one.envelope.as_str() == envelope);
        recorded
            .is_none_or(|one| one.signatures.iter().any(|one| effect.of(&one.signer, &one.key_id).is_some()))
    };
    let gates = running.promotion.recorded.gates.iter().filter(|gate| {
        gate.evidence.iter().any(|one| {
            let by = effect.signers().into_iter().any(|signer| one.by.contains(signer));
            one.kind == EvidenceKind::Attestation && by && signed(&one.id)
        })
    });
    let gates: BTreeSet<String> = gates.map(|gate| gate.gate.clone()).collect();
    let newly = |after: Vec<String>, before: &[String]| -> Vec<String> {
        after.into_iter().filter(|one| !before.contains(one)).collect()
    };
    let risks = |status: &Status| -> Vec<String> {
        status.at_risk.iter().map(|risk| format!("{}: {}", risk.gate, risk.message)).collect()
    };
    let told = |status: &Status| -> Vec<String> {
        let told = status.would_not_be_promoted_today.iter();
        told.map(|one| format!("{}: {}", one.gate, one.message)).collect()
    };
    let ended = reasons(&after.gates);
    let (risk, not_today) = (newly(risks(&after), &risks(&before)), newly(told(&after), &told(&before)));
    let ends = after.ended_by.iter().any(|one| !before.ended_by.contains(one));
    let (consequence, reasons) = if ends {
        (Consequence::Ends, ended)
    } else if !risk.is_empty() {
        (Consequence::AtRisk, risk)
    } else if !not_today.is_empty() {
        (Consequence::WouldNotBePromotedToday, not_today)
    } else {
        (Consequence::Nothing, Vec::new())
    };
    let rests = !gates.is_empty() || consequence != Consequence::Nothing;
    rests.then(|| RestingVersion {
        repository: lane.repository.clone(),
        environment: lane.environment.clone(),
        digest: running.promotion.manifest.clone(),
        version: running.promotion.version.clone(),
        gates,
        consequence,
        reasons,
    })
}
