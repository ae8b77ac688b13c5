//! Promote: one transaction from the locks to the event.

use super::lane::{Allowance, EnteredLane, Judged, Place};
use super::refusals;
use super::store::promotions as store;
use super::summary::{self, Summarized};
use super::{PromotionRow, Reason, Refused};
use crate::access::{Grant, Lane, Principal, Promote, Pull, SomeLane};
use crate::content;
use crate::failure::Failure;
use crate::keys::Keys;
use crate::ledger::{self, Kind};
use crate::names::{Digest, Tag};
use crate::policy::{Action, Decision, EvidenceKind, Gate, Recorded};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Generation, act};
use chrono::{DateTime, Utc};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// What is to be promoted.
#[derive(Clone, Debug)]
pub enum What {
    /// A manifest.
    Digest(Digest),
    /// A write-once tag.
    Version(Tag),
}

/// A promotion that is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What.
    pub what: What,
    /// Why.
    pub reason: Reason,
    /// For how long its summary will be valid.
    pub validity: Duration,
}

/// A promotion that was made.
#[derive(Debug)]
pub struct Promoted {
    /// Its id.
    pub id: i64,
    /// What was promoted.
    pub digest: Digest,
    /// By which version it is known.
    pub version: Option<Tag>,
    /// The decision that allowed it.
    pub decision: Decision,
    /// The signed verification summary, a DSSE envelope.
    pub summary: Vec<u8>,
    /// Until when the summary is valid.
    pub valid_until: DateTime<Utc>,
    /// The event.
    pub event_id: i64,
    /// When: the time of the decision.
    pub at: DateTime<Utc>,
    /// What the promoter should know: a newer version is replaced.
    pub warnings: Vec<String>,
}

/// What a promotion or a rollback writes, beside what its decision says.
pub(super) struct Writing<'a> {
    pub kind: Kind,
    pub version: Option<Tag>,
    pub reason: &'a Reason,
    pub validity: Duration,
    pub recorded: Recorded,
    /// The promotion that a rollback goes back to.
    pub target: Option<i64>,
}

/// Promotes, or says why not. Locks the lane, keeps the manifest, gathers the facts, decides, and
/// records the decision whatever it is; a yes then signs the summary, pins the manifest, and writes
/// the promotion with its event. A crash before the commit leaves nothing, not even a decision.
pub async fn promote(
    db: &Db,
    keys: &Keys,
    grant: &Grant<Promote, Lane>,
    asked: &Asked,
) -> Result<Promoted, Refused> {
    act(|| attempt(db, keys, grant, asked)).await
}

async fn attempt(
    db: &Db,
    keys: &Keys,
    grant: &Grant<Promote, Lane>,
    asked: &Asked,
) -> Result<Promoted, Refused> {
    let mut tx = db.begin().await?;
    let place = Place::find(&mut tx, grant.scope()).await?;
    let mut lane = EnteredLane::enter(&mut tx, place).await?;
    let (digest, version) = find(&mut lane, &asked.what).await?;
    let mut lane = lane.lock([&digest]).await?;
    lane.keep(&digest).await?;
    let judged = lane.judge(&digest).await?;
    let by = grant.principal();
    let place = lane.place().clone();
    let newer = store::newer_than(lane.connection(), &place, &digest).await?;
    let outcome = match lane.allow(judged) {
        Ok(allowance) => {
            let recorded = allowance.judged().recorded();
            let (reason, validity) = (&asked.reason, asked.validity);
            let kind = Kind::PromotionAllowed;
            let writing = Writing { kind, version, reason, validity, recorded, target: None };
            let mut done = write(allowance, keys, by, writing).await?;
            done.warnings.extend(newer.map(|newer| older_than(&newer)));
            Ok(done)
        }
        Err(no) => {
            let (mut lane, mut judged) = *no;
            refusals::record(&mut lane, by, &digest, &mut judged).await?;
            Err(Refused::Denied(Box::new(judged.decision)))
        }
    };
    tx.commit().await?;
    outcome
}

pub(super) fn older_than(newer: &store::Newer) -> String {
    let version = newer.version.as_ref().map_or(String::new(), |version| format!("{version} "));
    format!(
        "it is older than {version}({}), which it replaces; a rollback is the way back that holds the channel",
        newer.manifest
    )
}

/// The manifest, and the version it is known by.
pub(super) async fn find(lane: &mut EnteredLane<'_>, what: &What) -> Result<(Digest, Option<Tag>), Refused> {
    let repository_id = lane.place().repository_id;
    match what {
        What::Digest(digest) => {
            let version = store::version_of(lane.connection(), repository_id, digest).await?;
            Ok((digest.clone(), version))
        }
        What::Version(tag) => {
            let digest = store::digest_of(lane.connection(), repository_id, tag).await?;
            let digest = digest.ok_or_else(|| Refused::UnknownArtifact(tag.to_string()))?;
            Ok((digest, Some(tag.clone())))
        }
    }
}

/// Writes what the allowance allows: summary, pin, event, and the promotion that names them all.
/// The event comes before the row only because the row refers to it; nobody waits on either.
pub(super) async fn write(
    mut allowance: Allowance<'_>,
    keys: &Keys,
    by: &Principal,
    writing: Writing<'_>,
) -> Result<Promoted, Failure> {
    let Writing { kind, version, reason, validity, recorded, target } = writing;
    allowance.record_decision(by.id).await?;
    let place = allowance.place().clone();
    let (digest, at) = (allowance.yes().digest().clone(), allowance.judged().case.at);
    let decision = allowance.judged().decision.clone();
    // Under the locks that a newer trust file waits for: a key that it revoked signs nothing more.
    keys.follow(allowance.connection()).await?;
    let file = store::file_of(allowance.connection(), place.repository_id, &digest).await?;
    let judged = allowance.judged();
    let of = Summarized {
        case: &judged.case,
        release: &judged.release,
        recorded: &recorded,
        policies: if target.is_some() { &judged.policies.recorded } else { &judged.policies.in_force },
        version: version.as_ref(),
        file: file.as_ref(),
        renewed: false,
    };
    let (summary, valid_until) = summary::sign(keys, &of, validity)?;
    let pinned = content::promoted_to(&place.environment);
    content::pin(allowance.connection(), place.repository_id, &digest, &pinned, None).await?;
    pin_evidence(&mut allowance, &place).await?;
    let mut facts = json!({
        "decision": decision.id,
        "policies": recorded.policies,
        "summary": Digest::sha256(&summary),
        "valid_until": valid_until,
        "version": version,
        "reason": reason.as_str(),
    });
    if let Some(accepted) = &recorded.accepted {
        facts["accepted_findings"] = json!(accepted.vulnerabilities);
    }
    let event = place.event(kind, at, by, &digest, facts);
    if ends_by_time(allowance.judged()) {
        // It looks when that is.
        queue::reevaluate(allowance.tx(), &Changed::Bytes(digest.clone())).await?;
    }
    let event_id = ledger::append(allowance.tx(), event).await?.id;
    let row = store::NewPromotion {
        place: &place,
        digest: &digest,
        sha256: allowance.judged().case.facts.subject.sha256.clone(),
        version: version.as_ref(),
        decision: &decision.id,
        kind: if kind == Kind::RolledBack { "rollback" } else { "promote" },
        reason: reason.as_str(),
        summary: &summary,
        valid_until,
        event_id,
        by: by.id,
        at,
        recorded: serde_json::to_value(&recorded)
            .map_err(|error| Failure::new("recording a promotion's evidence", error))?,
        target,
    };
    let store::Inserted { id, first } = store::insert(allowance.connection(), row).await?;
    if first {
        // The environment has one more release channel.
        allowance.tx().raise([Generation::environment(&place.environment)]);
    }
    let warnings = Vec::new();
    Ok(Promoted { id, digest, version, decision, summary, valid_until, event_id, at, warnings })
}

/// Whether time alone may end the version: the end of a waiver, of the grace that a rollback gives, or a gate that
/// begins to count for what runs.
fn ends_by_time(judged: &Judged) -> bool {
    let gates = judged.policies.in_force.values().flat_map(|policy| &policy.gates);
    matches!(judged.case.action, Action::Rollback { .. })
        || !judged.case.facts.waivers.is_empty()
        || gates.filter_map(Gate::enforced_on_running_from).any(|from| from > judged.case.at)
}

/// The manifests that carry the statements which the gates believed stay too: some refer to another
/// manifest than the one that was promoted, and would not be held with it.
async fn pin_evidence(allowance: &mut Allowance<'_>, place: &Place) -> Result<(), Failure> {
    let judged = allowance.judged();
    let evidence = judged.decision.gates.iter().flat_map(|gate| &gate.evidence);
    let seen: BTreeSet<&str> =
        evidence.filter(|one| one.kind == EvidenceKind::Attestation).map(|one| one.id.as_str()).collect();
    let believed = judged.case.facts.attestations.iter().filter(|one| seen.contains(one.envelope.as_str()));
    let ids: Vec<i64> = believed.map(|one| one.id).collect();
    let pinned = format!("evidence of a promotion to {}", place.environment);
    for carrier in store::carriers(allowance.connection(), place.repository_id, &ids).await? {
        content::pin(allowance.connection(), place.repository_id, &carrier, &pinned, None).await?;
    }
    Ok(())
}

/// Promotions of the repository, the newest first, older than `before`.
pub async fn promotions(
    db: &Db,
    grant: &Grant<Pull, SomeLane>,
    environment: Option<&crate::names::EnvironmentName>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<PromotionRow>, Failure> {
    let mut connection = db.acquire().await?;
    store::list(&mut connection, &grant.scope().0, environment, before, limit).await
}
