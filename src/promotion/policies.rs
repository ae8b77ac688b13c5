//! Policies: every version kept, one of each name in force.

use super::lane::environment_id;
use super::store::policies as store;
use super::{Reason, Refused};
use crate::access::{Administer, Grant};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, EnvironmentName};
use crate::policy::{Policy, PolicyName};
use crate::postgres::{Db, Scopes, act, database_time};
use serde::Serialize;
use serde_json::json;
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
    /// What it names that is not there yet, such as a signer.
    pub warnings: Vec<String>,
}

/// Puts a policy in force in place of the version before it, under the environment's exclusive
/// scope: decisions that began earlier end first, later ones see it. The version in force again is
/// no change.
pub async fn put_policy(
    db: &Db,
    grant: &Grant<Administer, EnvironmentName>,
    policy: &Policy,
    source: &str,
) -> Result<PutPolicy, Refused> {
    act(|| async {
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
        let unknown = store::unknown_signers(&mut tx, &policy.signers()).await?;
        let warnings = unknown.iter().map(|name| format!("no signer {name} is registered")).collect();
        let before = store::in_force(&mut tx, environment_id, name.as_str()).await?;
        let changed = before.as_ref() != Some(&digest);
        if changed {
            let at = database_time(&mut tx).await?;
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
            };
            ledger::append(&mut tx, event).await?;
        }
        tx.commit().await?;
        Ok(PutPolicy { digest, name, environment: environment.clone(), changed, warnings })
    })
    .await
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
        let at = database_time(&mut tx).await?;
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
        };
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
