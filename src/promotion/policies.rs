//! Policies: every version kept, one of each name in force.

use super::lane::environment_id;
use super::simulate::{self, Consequences, Naming};
use super::store::policies as store;
use super::{Reason, Refused};
use crate::access::{Administer, Grant};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::policy::{Gate, Policy, PolicyName};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Generation, Scopes, act, agreed_time};
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use utoipa::ToSchema;

pub use store::PolicyRow;

/// A policy that was put.
#[derive(Debug, Serialize, ToSchema)]
pub struct PutPolicy {
    /// The name of this version.
    pub digest: Digest,
    /// The policy's name.
    pub name: PolicyName,
    /// Its environment.
    pub environment: EnvironmentName,
    /// Whether it changed anything.
    pub changed: bool,
    /// What it names that is not there yet, such as a signer, and what is probably not meant.
    pub warnings: Vec<String>,
    /// What it changes for what runs now.
    pub consequences: Consequences,
}

/// Puts a policy in force in place of the version before it, under the environment's exclusive
/// scope: decisions that began earlier end first, later ones see it. The version in force again is
/// no change. Where a gate counts for what runs from a time in the past, the caller confirms the number of
/// versions that it ends; that number is compared again under the lock.
pub async fn put_policy(
    db: &Db,
    grant: &Grant<Administer, EnvironmentName>,
    policy: &Policy,
    source: &str,
    ends: Option<usize>,
    sees: impl Fn(&RepositoryName) -> bool,
) -> Result<PutPolicy, Refused> {
    let before_the_lock = simulate::simulate(db, grant, policy, &Naming::default(), &sees).await?;
    // There is no next page of what is in force.
    let before_the_lock = Consequences { next: None, ..before_the_lock };
    act(|| async {
        let consequences = before_the_lock.clone();
        let digest = policy.digest()?;
        let name = policy.name.clone();
        let mut tx = db.begin().await?;
        let environment = grant.scope();
        let environment_id = environment_id(&mut tx, environment).await?;
        Scopes::environment(environment_id).lock(&mut tx).await?;
        for earlier in policy.earlier_environments() {
            if super::store::environments::find(&mut tx, earlier).await?.is_none() {
                return Err(Refused::PolicyDoesNotFit(format!(
                    "promoted_in: there is no environment {earlier}"
                )));
            }
        }
        let mut warnings = warnings(&mut tx, policy).await?;
        let before = store::in_force(&mut tx, environment_id, name.as_str()).await?;
        let changed = before.as_ref() != Some(&digest);
        if changed {
            let at = agreed_time(&mut tx).await?;
            let dated = |from| from <= at;
            if consequences.ends_now.count > 0
                || policy.gates.iter().filter_map(Gate::enforced_on_running_from).any(dated)
            {
                let ended = simulate::ends_now(&mut tx, environment_id, environment, policy).await?;
                if ended > 0 && ends != Some(ended) {
                    return Err(Refused::PolicyEndsRunning(ended));
                }
            }
            let by = grant.principal();
            store::end(&mut tx, environment_id, name.as_str(), at, by.id).await?;
            store::insert(&mut tx, environment_id, policy, &digest, source, at, by.id).await?;
            let event = Event {
                kind: Kind::PolicyChanged,
                at,
                principal: by,
                repository: None,
                environment: Some((environment_id, environment)),
                digest: Some(&digest),
                facts: json!({"name": name, "before": before}),
                changes: vec![Generation::environment(environment)],
            };
            let Consequences { ends_now, ends_later, relieved, .. } = &consequences;
            if [ends_now, ends_later, relieved].into_iter().any(|class| class.count > 0) {
                queue::reevaluate(&mut tx, &Changed::Environment(environment.clone())).await?;
            }
            ledger::append(&mut tx, event).await?;
        }
        tx.commit().await?;
        if consequences.ends_now.count > 0 {
            warnings.push(format!("{} running versions end at once", consequences.ends_now.count));
        }
        if consequences.ends_later.count > 0 {
            warnings.push(format!("{} running versions end later", consequences.ends_later.count));
        }
        let told = consequences.would_not_be_promoted_today.count;
        if told > 0 {
            warnings.push(format!("{told} running versions go on, and would not be promoted today"));
        }
        Ok(PutPolicy { digest, name, environment: environment.clone(), changed, warnings, consequences })
    })
    .await
}

/// What the policy names that is not there, and what is probably not meant.
async fn warnings(connection: &mut PgConnection, policy: &Policy) -> Result<Vec<String>, Failure> {
    let mut warnings = policy.warnings();
    let unknown = store::unknown_signers(connection, &policy.signers()).await?;
    warnings.extend(unknown.iter().map(|name| format!("no signer {name} is registered")));
    let approvers = policy.approvers();
    if !approvers.is_empty() {
        let known = store::approvers(connection).await?;
        let nobody = approvers.into_iter().filter(|pattern| !known.iter().any(|name| pattern.matches(name)));
        warnings.extend(nobody.map(|pattern| format!("approvals: nobody who may approve matches {pattern}")));
    }
    Ok(warnings)
}

/// What to tell who would put the policy in force.
pub async fn policy_warnings(db: &Db, policy: &Policy) -> Result<Vec<String>, Failure> {
    warnings(&mut *db.acquire().await?, policy).await
}

/// Ends a policy. Where no other covers a repository, nothing is allowed there from now on.
pub async fn end_policy(
    db: &Db,
    grant: &Grant<Administer, EnvironmentName>,
    name: &PolicyName,
    reason: &Reason,
) -> Result<(), Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let environment = grant.scope();
        let environment_id = environment_id(&mut tx, environment).await?;
        Scopes::environment(environment_id).lock(&mut tx).await?;
        let at = agreed_time(&mut tx).await?;
        let by = grant.principal();
        let ended = store::end(&mut tx, environment_id, name.as_str(), at, by.id).await?;
        let Some(digest) = ended else { return Err(Refused::Unknown) };
        let event = Event {
            kind: Kind::PolicyChanged,
            at,
            principal: by,
            repository: None,
            environment: Some((environment_id, environment)),
            digest: Some(&digest),
            facts: json!({"name": name, "ended": true, "reason": reason.as_str()}),
            changes: vec![Generation::environment(environment)],
        };
        queue::reevaluate(&mut tx, &Changed::Environment(environment.clone())).await?;
        ledger::append(&mut tx, event).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Versions of policies, the newest first: those in force, or all of them with `history`.
pub async fn policies(
    db: &Db,
    environment: Option<&EnvironmentName>,
    history: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<PolicyRow>, Failure> {
    store::list(&mut *db.acquire().await?, environment, history, before, limit).await
}
