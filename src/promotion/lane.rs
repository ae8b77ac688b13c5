//! One lane, a repository in an environment: found by name, then locked.

use super::Refused;
use super::facts::{self, Release};
use super::store::{decisions, environments, policies, promotions};
use crate::access::{Lane, Principal};
use crate::content;
use crate::failure::Failure;
use crate::ledger::{Event, Kind};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::policy::{Action, Case, Decision, Mode, PolicySets, Recorded, RecordedGate, Yes, decide};
use crate::postgres::{Generation, Scopes, Tx, agreed_time};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A lane with its row ids.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub repository_id: i64,
    pub repository: RepositoryName,
    pub environment_id: i64,
    pub environment: EnvironmentName,
}

impl Place {
    pub async fn find(connection: &mut PgConnection, lane: &Lane) -> Result<Self, Refused> {
        let repository_id = repository_id(connection, &lane.repository).await?;
        let environment_id = environment_id(connection, &lane.environment).await?;
        let Lane { repository, environment } = lane.clone();
        Ok(Self { repository_id, repository, environment_id, environment })
    }

    /// An event that changes what holds in this lane.
    pub fn event<'a>(
        &'a self,
        kind: Kind,
        at: DateTime<Utc>,
        principal: &'a Principal,
        digest: &'a Digest,
        facts: Value,
    ) -> Event<'a> {
        Event {
            kind,
            at,
            principal,
            repository: Some((self.repository_id, &self.repository)),
            environment: Some((self.environment_id, &self.environment)),
            digest: Some(digest),
            facts,
            changes: vec![Generation::channel(&self.repository, &self.environment)],
        }
    }
}

pub(super) async fn repository_id(
    connection: &mut PgConnection,
    name: &RepositoryName,
) -> Result<i64, Refused> {
    let found = content::repository(connection, name).await?;
    found.map(|repository| repository.id).ok_or_else(|| Refused::UnknownRepository(name.clone()))
}

pub(super) async fn environment_id(
    connection: &mut PgConnection,
    name: &EnvironmentName,
) -> Result<i64, Refused> {
    let found = environments::find(connection, name).await?;
    found.ok_or_else(|| Refused::UnknownEnvironment(name.clone()))
}

/// A lane that nothing else is promoted in meanwhile, and whose repository and environment stay as they are.
pub(super) struct EnteredLane<'tx> {
    tx: &'tx mut Tx,
    place: Place,
}

/// A lane with every lock of a decision: what would turn a yes into a no waits for it.
pub(super) struct LockedLane<'tx> {
    tx: &'tx mut Tx,
    place: Place,
}

/// A decision with all it was made of.
pub(super) struct Judged {
    pub case: Case,
    pub policies: PolicySets,
    pub decision: Decision,
    pub release: Arc<Release>,
}

/// A yes that still holds: the decision was made from facts that were gathered in this very
/// transaction, under its locks. It borrows the transaction, so it cannot outlive them, and what
/// writes a promotion takes it as an argument.
pub struct Allowance<'tx> {
    lane: LockedLane<'tx>,
    judged: Judged,
    yes: Yes,
}

impl<'tx> EnteredLane<'tx> {
    /// Waits for its scopes. The locks are statements of their own: the next one sees everything
    /// that was committed before they were given. Which lanes the policies look at is read when no
    /// policy of the environment can change any more.
    pub async fn enter(tx: &'tx mut Tx, place: Place) -> Result<Self, Failure> {
        let Place { repository_id, environment_id, .. } = place;
        Scopes::promote(repository_id, environment_id).lock(tx).await?;
        let earlier = policies::earlier_environments(tx, environment_id).await?;
        Scopes::lanes(repository_id, environment_id, &earlier).lock(tx).await?;
        Ok(Self { tx, place })
    }

    pub fn connection(&mut self) -> &mut PgConnection {
        self.tx
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Waits until nobody else becomes an author of a candidate, and then for the decisions, which blocks, holds
    /// and revocations take alone: from here on nothing is waited for but the end of one of these.
    pub async fn lock<'a>(
        self,
        candidates: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<LockedLane<'tx>, Failure> {
        let Self { tx, place } = self;
        Scopes::candidates(place.repository_id, candidates).lock(tx).await?;
        Scopes::deciding(place.repository_id, place.environment_id).lock(tx).await?;
        Ok(LockedLane { tx, place })
    }
}

impl<'tx> LockedLane<'tx> {
    pub fn connection(&mut self) -> &mut PgConnection {
        self.tx
    }

    pub fn tx(&mut self) -> &mut Tx {
        self.tx
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Keeps the manifest of a candidate until the end of the transaction: nobody deletes it.
    pub async fn keep(&mut self, digest: &Digest) -> Result<(), Refused> {
        let there = promotions::keep_manifest(self.tx, self.place.repository_id, digest).await?;
        if there { Ok(()) } else { Err(Refused::UnknownArtifact(digest.to_string())) }
    }

    /// Gathers the facts now and decides on a promotion. The time is read after the locks.
    pub async fn judge(&mut self, digest: &Digest) -> Result<Judged, Refused> {
        let place = &self.place;
        let (repository, environment) = (&place.repository, &place.environment);
        let wanted =
            facts::Wanted { repository, environment, digest: Some(digest), promotion: None, also: None };
        let now = agreed_time(self.tx).await?;
        let gathered = facts::gather_for_promotion(self.tx, wanted).await?;
        let gathered = gathered.ok_or_else(|| Refused::UnknownArtifact(digest.to_string()))?;
        judged(gathered, Action::Promote, now)
    }

    /// The same for a rollback to what was promoted by this promotion.
    pub async fn judge_rollback(&mut self, promotion: i64, named: bool) -> Result<Judged, Refused> {
        let place = &self.place;
        let (repository, environment) = (&place.repository, &place.environment);
        let wanted =
            facts::Wanted { repository, environment, digest: None, promotion: Some(promotion), also: None };
        let now = agreed_time(self.tx).await?;
        let gathered = facts::gather(self.tx, wanted).await?.ok_or(Refused::Unknown)?;
        judged(gathered, Action::Rollback { named }, now)
    }

    /// The yes, if that is the decision; the lane and the decision back if it is not.
    pub fn allow(self, judged: Judged) -> Result<Allowance<'tx>, Box<(Self, Judged)>> {
        match judged.decision.yes() {
            Some(yes) => Ok(Allowance { lane: self, judged, yes }),
            None => Err(Box::new((self, judged))),
        }
    }
}

fn judged(gathered: facts::Gathered, action: Action, now: DateTime<Utc>) -> Result<Judged, Refused> {
    let now = now.max(gathered.now);
    let facts::Gathered { facts, policies, release, .. } = gathered;
    let recorded = match action {
        Action::Promote => None,
        Action::Rollback { .. } => release.promotion.as_ref().map(|promotion| promotion.recorded.clone()),
    };
    let case = Case { action, at: now, child: None, facts, recorded };
    let decision = decide(&policies, &case)?;
    Ok(Judged { case, policies, decision, release })
}

impl Judged {
    /// What the promotion stands on from now on: of a rollback, what was recorded for the version before.
    pub fn recorded(&self) -> Recorded {
        let decision = self.decision.id.clone();
        if let Some(recorded) = &self.case.recorded {
            return Recorded { decision, accepted: None, ..recorded.clone() };
        }
        let denied: BTreeSet<String> =
            self.case.found().map(|finding| finding.vulnerability.clone()).collect();
        let of_policies = self.decision.gates.iter().filter_map(|gate| Some((gate.policy.clone()?, gate)));
        let gates = of_policies.map(|(policy, gate)| {
            let passed = gate.mode == Mode::Enforce && !gate.stands_in_the_way();
            RecordedGate {
                policy,
                gate: gate.gate.to_owned(),
                passed,
                evidence: gate.evidence.iter().filter(|_| passed).cloned().collect(),
                overridden: gate.overridden.as_ref().map(|one| one.id),
                overridden_findings: match gate.overridden {
                    Some(_) if gate.gate == "scan" => denied.clone(),
                    Some(_) | None => BTreeSet::new(),
                },
            }
        });
        let policies = self.policies.in_force.keys().cloned().collect();
        Recorded { decision, policies, gates: gates.collect(), accepted: None }
    }
}

impl Allowance<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.lane.tx
    }

    pub(super) fn tx(&mut self) -> &mut Tx {
        self.lane.tx
    }

    /// Records the decision that it rests on.
    pub(super) async fn record_decision(&mut self, by: i64) -> Result<(), Failure> {
        decisions::insert(self.lane.tx, &self.judged, by).await
    }

    pub(super) fn place(&self) -> &Place {
        &self.lane.place
    }

    pub(super) fn judged(&self) -> &Judged {
        &self.judged
    }

    /// What was allowed.
    pub fn yes(&self) -> &Yes {
        &self.yes
    }
}
