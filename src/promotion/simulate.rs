//! What a policy would change for what runs, before it is put in force.

use super::Refused;
use super::evaluate::{self, Evaluated};
use super::facts;
use super::lane::environment_id;
use super::store::releases as store;
use crate::access::{Administer, Grant, Lane};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName, Tag};
use crate::policy::{
    Policies, Policy, PolicySets, Position, Status, Verdict, evaluate_running, in_words, reasons,
};
use crate::postgres::{Db, Tx};
use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use serde::Serialize;
use sqlx::PgConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::task::AbortOnDropHandle;
use utoipa::ToSchema;

/// Names read at once.
const CHANNELS: i64 = 1000;

/// Connections that read one snapshot, where so many are free.
const CONNECTIONS: usize = 4;

/// Release channels that one connection takes at a time.
const TAKEN: usize = 50;

/// Which release channels an answer names; all are counted.
#[derive(Clone, Debug)]
pub struct Naming {
    /// Those behind this repository, by name; all where it is empty.
    pub after: String,
    /// So many of each class.
    pub limit: usize,
}

impl Default for Naming {
    fn default() -> Self {
        Self { after: String::new(), limit: 100 }
    }
}

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

/// Release channels of one class: how many, and those that the answer names.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Class {
    /// How many.
    pub count: usize,
    /// Those of the page that the caller may see, by name.
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
    /// The cursor of the next page: the classes name what happens to the repositories up to this name. None
    /// where nothing more is to be named.
    pub next: Option<RepositoryName>,
}

impl Consequences {
    fn classes(&mut self) -> [&mut Class; 5] {
        let Self { ends_now, ends_later, put_at_risk, would_not_be_promoted_today, relieved, .. } = self;
        [ends_now, ends_later, put_at_risk, would_not_be_promoted_today, relieved]
    }

    /// Counts all, and names a page. The changes are in the order of the repositories' names.
    fn of(changes: Vec<Changes>, naming: &Naming, sees: impl Fn(&RepositoryName) -> bool) -> Self {
        let mut all = Self { evaluated: changes.len(), ..Self::default() };
        for Changes(changes) in changes {
            for (class, change) in all.classes().into_iter().zip(changes) {
                let Some(consequence) = change else { continue };
                class.count += 1;
                // One more than is named tells that another page follows.
                let full = class.channels.len() > naming.limit;
                if !full
                    && consequence.repository.as_str() > naming.after.as_str()
                    && sees(&consequence.repository)
                {
                    class.channels.push(consequence);
                }
            }
        }
        let limit = naming.limit;
        let full = all.classes().into_iter().filter(|class| class.channels.len() > limit);
        all.next =
            full.filter_map(|class| class.channels.get(limit - 1)).map(|one| one.repository.clone()).min();
        if let Some(next) = all.next.clone() {
            for class in all.classes() {
                class.channels.retain(|one| one.repository <= next);
            }
        }
        all
    }
}

/// What happens to one release channel, by class in the order of [`Consequences`].
#[derive(Debug, Default)]
struct Changes([Option<Consequence>; 5]);

/// Simulates a policy on one snapshot, for all of the environment; names what the caller may see.
pub async fn simulate(
    db: &Db,
    grant: &Grant<Administer, EnvironmentName>,
    policy: &Policy,
    naming: &Naming,
    sees: impl Fn(&RepositoryName) -> bool,
) -> Result<Consequences, Refused> {
    let mut snapshot = db.snapshot().await?;
    let environment = grant.scope();
    let environment_id = environment_id(&mut snapshot, environment).await?;
    let work = Arc::new(Work::new(&mut snapshot, environment_id, environment, policy).await?);
    let others = work.repositories.len().div_ceil(TAKEN).clamp(1, CONNECTIONS) - 1;
    let others = snapshot.shared_with(db, others).await?;
    let others = others.into_iter().map(|mut other: Tx| {
        let work = Arc::clone(&work);
        AbortOnDropHandle::new(tokio::spawn(async move { work.run(&mut other).await }))
    });
    let others: Vec<_> = others.collect();
    let mut changes = work.run(&mut snapshot).await?;
    for found in try_join_all(others).await.map_err(|error| Failure::new("simulating a policy", error))? {
        changes.extend(found?);
    }
    changes.sort_unstable_by_key(|(at, _)| *at);
    Ok(Consequences::of(changes.into_iter().map(|(_, changes)| changes).collect(), naming, sees))
}

/// How many versions that run the policy ends at once, under whatever locks the connection holds.
pub(super) async fn ends_now(
    connection: &mut PgConnection,
    environment_id: i64,
    environment: &EnvironmentName,
    policy: &Policy,
) -> Result<usize, Failure> {
    let work = Work::new(connection, environment_id, environment, policy).await?;
    let changes = work.run(connection).await?;
    Ok(changes.iter().filter(|(_, Changes([ends_now, ..]))| ends_now.is_some()).count())
}

/// The release channels of an environment, which several connections take one after another.
struct Work {
    environment: EnvironmentName,
    repositories: Vec<RepositoryName>,
    taken: AtomicUsize,
    policy: Arc<Policy>,
    digest: Digest,
}

impl Work {
    async fn new(
        connection: &mut PgConnection,
        environment_id: i64,
        environment: &EnvironmentName,
        policy: &Policy,
    ) -> Result<Self, Failure> {
        let mut repositories = Vec::new();
        let mut after = String::new();
        loop {
            let names = store::channels(connection, environment_id, &after, CHANNELS).await?;
            let Some(last) = names.last() else { break };
            after = last.to_string();
            repositories.extend(names);
        }
        let (taken, policy, digest) = (AtomicUsize::new(0), Arc::new(policy.clone()), policy.digest()?);
        Ok(Self { environment: environment.clone(), repositories, taken, policy, digest })
    }

    /// Takes release channels until none is left; what happens to each, with its place in the list.
    async fn run(&self, connection: &mut PgConnection) -> Result<Vec<(usize, Changes)>, Failure> {
        let mut found = Vec::new();
        loop {
            let begin = self.taken.fetch_add(TAKEN, Ordering::Relaxed);
            let end = (begin + TAKEN).min(self.repositories.len());
            let Some(taken) = self.repositories.get(begin..end) else { return Ok(found) };
            facts::remember_newest(connection, &self.environment, taken).await?;
            for (at, repository) in (begin..).zip(taken) {
                let lane = Lane { repository: repository.clone(), environment: self.environment.clone() };
                let running = evaluate::running_with(connection, &lane, &self.policy).await?;
                let current = running.current.and_then(|one| compare(&one, &self.digest, &self.policy));
                let ended = running.ended.and_then(|one| compare(&one, &self.digest, &self.policy));
                let changes = match (current, ended) {
                    // Of a version that does not run only its return is a change.
                    (Some(Changes(mut changes)), Some(Changes([.., returns]))) => {
                        let [.., relieved] = &mut changes;
                        *relieved = returns.or(relieved.take());
                        Some(Changes(changes))
                    }
                    (current, ended) => current.or(ended),
                };
                found.extend(changes.map(|changes| (at, changes)));
            }
        }
    }
}

/// What the policy changes for the version; nothing where it neither covers nor covered it, or is in force.
fn compare(current: &Evaluated, digest: &Digest, new: &Arc<Policy>) -> Option<Changes> {
    let subject = &current.case.facts.subject;
    let before = &current.policies.in_force;
    let replaced = before.iter().find(|(_, policy)| policy.name == new.name).map(|(digest, _)| digest);
    let covers = new.covers(&subject.repository, &subject.environment);
    if replaced == Some(digest) || (replaced.is_none() && !covers) {
        return None;
    }
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
        repository: subject.repository.clone(),
        digest: current.promotion.manifest.clone(),
        version: current.promotion.version.clone(),
        ends_at,
        reasons,
    };
    let mut changes = Changes::default();
    let some = |reasons: Vec<String>| (!reasons.is_empty()).then(|| consequence(None, reasons));
    if current.status.verdict == Verdict::Deny && !current.is_partly_blocked() {
        let Changes([.., relieved]) = &mut changes;
        let returns = now.verdict == Verdict::Allow;
        *relieved = some(returns.then(|| "it may run again".to_owned()).into_iter().collect());
        return Some(changes);
    }
    let Changes([ends_now, ends_later, put_at_risk, not_today, relieved]) = &mut changes;
    let ends = |status: &Status| status.ended_by.iter().any(|one| !current.status.ended_by.contains(one));
    if ends(&now) {
        *ends_now = Some(consequence(Some(current.case.at), reasons(&now.gates)));
        return Some(changes);
    }
    *ends_later = first_end(new, current, &now, |time| at(time, &policies))
        .map(|(end, why)| consequence(Some(end), why));
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
    let (before, after) = (&current.status, &now);
    *put_at_risk = some(newly(risks(after), &risks(before)));
    *not_today = some(newly(told(after), &told(before)));
    let less =
        [newly(risks(before), &risks(after)), newly(told(before), &told(after)), longer(before, after)];
    *relieved = some(less.concat());
    Some(changes)
}

/// That the version ends later than before, or no more.
fn longer(before: &Status, after: &Status) -> Vec<String> {
    let end = |status: &Status| status.at_risk.iter().filter_map(|risk| risk.ends_at).min();
    let words = match (end(before), end(after)) {
        (Some(before), None) => format!("it ends no more at {}", in_words(before)),
        (Some(before), Some(after)) if after > before => {
            format!("it ends at {}, not at {}", in_words(after), in_words(before))
        }
        (Some(_), Some(_)) | (None, _) => return Vec::new(),
    };
    vec![words]
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
    let waivers = current.case.facts.waivers.iter().filter_map(|waiver| waiver.expires_at);
    let mut times: Vec<DateTime<Utc>> = graces.chain(dates).chain(waivers).filter(comes).collect();
    times.sort();
    times.into_iter().find_map(|time| {
        let status = at(time);
        let ends = status.ended_by.iter().any(|one| !current.status.ended_by.contains(one));
        ends.then(|| (time, reasons(&status.gates)))
    })
}
