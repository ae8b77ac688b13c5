//! What a policy would change for what runs, before it is put in force.

use super::Refused;
use super::evaluate::{self, Evaluated};
use super::lane::environment_id;
use super::store::releases as store;
use crate::access::{Administer, Grant, Lane};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName, Tag};
use crate::policy::{Policies, Policy, PolicySets, Position, Status, evaluate_running, reasons};
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use std::sync::Arc;
use utoipa::ToSchema;

/// Release channels of each class that an answer names; the others are counted.
const NAMED: usize = 100;

/// Names read at once.
const CHANNELS: i64 = 1000;

/// What happens to one release channel.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Consequence {
    /// The repository.
    pub repository: RepositoryName,
    /// The current version.
    pub digest: Digest,
    /// Its version.
    pub version: Option<Tag>,
    /// When it ends, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<DateTime<Utc>>,
    /// Why.
    pub reasons: Vec<String>,
}

/// Release channels of one class: how many, and the first of those that the caller may see.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Class {
    /// How many.
    pub count: usize,
    /// At most the first 100, by name.
    pub channels: Vec<Consequence>,
}

/// What a policy would change for what runs now.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Consequences {
    /// Release channels with a current version that the policy covers, or covered.
    pub evaluated: usize,
    /// What ends at once.
    pub ends_now: Class,
    /// What ends at a known time, if nothing else changes.
    pub ends_later: Class,
    /// What is newly at risk.
    pub put_at_risk: Class,
    /// What goes on running and would newly not be promoted today.
    pub would_not_be_promoted_today: Class,
    /// What is no longer at risk, or would newly be promoted today.
    pub relieved: Class,
}

impl Class {
    fn add(&mut self, shown: bool, consequence: impl FnOnce() -> Consequence) {
        self.count += 1;
        if shown && self.channels.len() < NAMED {
            self.channels.push(consequence());
        }
    }
}

/// Simulates a policy on one snapshot, for all of the environment that the caller may see.
pub async fn simulate(
    db: &Db,
    grant: &Grant<Administer, EnvironmentName>,
    policy: &Policy,
    sees: impl Fn(&RepositoryName) -> bool,
) -> Result<Consequences, Refused> {
    let mut snapshot = db.snapshot().await?;
    let environment = grant.scope();
    let environment_id = environment_id(&mut snapshot, environment).await?;
    Ok(consequences(&mut snapshot, environment_id, environment, policy, sees).await?)
}

/// The same on a connection that is given, under whatever locks it holds.
pub(super) async fn consequences(
    connection: &mut PgConnection,
    environment_id: i64,
    environment: &EnvironmentName,
    policy: &Policy,
    sees: impl Fn(&RepositoryName) -> bool,
) -> Result<Consequences, Failure> {
    let new = (policy.digest()?, Arc::new(policy.clone()));
    let (mut all, mut after) = (Consequences::default(), String::new());
    loop {
        let names = store::channels(connection, environment_id, &after, CHANNELS).await?;
        let Some(last) = names.last() else { return Ok(all) };
        after = last.to_string();
        for repository in names {
            let shown = sees(&repository);
            let lane = Lane { repository, environment: environment.clone() };
            if let Some(current) = evaluate::current_with(connection, &lane, policy).await? {
                compare(&mut all, &lane.repository, &current, &new, shown);
            }
        }
    }
}

fn compare(
    all: &mut Consequences,
    repository: &RepositoryName,
    current: &Evaluated,
    (digest, new): &(Digest, Arc<Policy>),
    shown: bool,
) {
    let subject = &current.case.facts.subject;
    let before = &current.policies.in_force;
    let replaced = before.iter().find(|(_, policy)| policy.name == new.name).map(|(digest, _)| digest);
    let covers = new.covers(&subject.repository, &subject.environment);
    if replaced == Some(digest) || (replaced.is_none() && !covers) {
        return;
    }
    all.evaluated += 1;
    let mut in_force: Policies = before.clone();
    if let Some(replaced) = replaced {
        in_force.remove(replaced);
    }
    if covers {
        in_force.insert(digest.clone(), Arc::clone(new));
    }
    let policies = PolicySets { in_force, recorded: current.policies.recorded.clone() };
    let at = |time: DateTime<Utc>, policies: &PolicySets| {
        let mut case = current.case.clone();
        case.at = time;
        evaluate_running(policies, &case, &current.promotion.recorded, Position::Current)
    };
    let now = at(current.case.at, &policies);
    let consequence = |ends_at, reasons| Consequence {
        repository: repository.clone(),
        digest: current.promotion.manifest.clone(),
        version: current.promotion.version.clone(),
        ends_at,
        reasons,
    };
    let ends = |status: &Status| status.ended_by.iter().any(|one| !current.status.ended_by.contains(one));
    if ends(&now) {
        all.ends_now.add(shown, || consequence(Some(current.case.at), reasons(&now.gates)));
        return;
    }
    if let Some((end, why)) = first_end(new, current, &now, |time| at(time, &policies)) {
        all.ends_later.add(shown, || consequence(Some(end), why));
    }
    let risks = |status: &Status| -> Vec<String> {
        status.at_risk.iter().map(|risk| format!("{}: {}", risk.gate, risk.message)).collect()
    };
    let told = |status: &Status| -> Vec<String> {
        let told = status.would_not_be_promoted_today.iter();
        told.map(|one| format!("{}: {}", one.gate, one.message)).collect()
    };
    let newly = |now: Vec<String>, then: &[String]| -> Vec<String> {
        now.into_iter().filter(|one| !then.contains(one)).collect()
    };
    let more = newly(risks(&now), &risks(&current.status));
    let refused = newly(told(&now), &told(&current.status));
    let less =
        [newly(risks(&current.status), &risks(&now)), newly(told(&current.status), &told(&now))].concat();
    if !more.is_empty() {
        all.put_at_risk.add(shown, || consequence(None, more));
    }
    if !refused.is_empty() {
        all.would_not_be_promoted_today.add(shown, || consequence(None, refused));
    }
    if !less.is_empty() {
        all.relieved.add(shown, || consequence(None, less));
    }
}

/// When the version first ends by the policy and did not before: by the end of a grace, or when a gate
/// begins to count for what runs.
fn first_end(
    new: &Policy,
    current: &Evaluated,
    now: &Status,
    at: impl Fn(DateTime<Utc>) -> Status,
) -> Option<(DateTime<Utc>, Vec<String>)> {
    // What ends anyway by then is no consequence of the policy.
    let known = current.status.at_risk.iter().filter_map(|risk| risk.ends_at).min();
    let graces = now.at_risk.iter().filter_map(|risk| risk.ends_at);
    let dates = new.gates.iter().filter_map(crate::policy::Gate::enforced_on_running_from);
    let comes = |time: &DateTime<Utc>| *time > current.case.at && known.is_none_or(|known| *time < known);
    let mut times: Vec<DateTime<Utc>> = graces.chain(dates).filter(comes).collect();
    times.sort();
    times.into_iter().find_map(|time| {
        let status = at(time);
        let ends = status.ended_by.iter().any(|one| !current.status.ended_by.contains(one));
        ends.then(|| (time, reasons(&status.gates)))
    })
}
