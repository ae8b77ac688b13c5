//! Giving roles to principals and taking them back.

use super::principals::Administrators;
use super::store;
use super::tokens::Refused;
use crate::access::{Action, Administer, Binding, Everything, Grant, PrincipalId, Role};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{EnvironmentName, Pattern};
use crate::postgres::{Db, Decisions, Generation, Scopes, act, agreed_time, database_time};
use chrono::{DateTime, Utc};
use serde_json::json;

/// A role given to a principal.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct GrantRow {
    /// The grant's id.
    pub id: i64,
    /// Who was given it; `anonymous` opens the repositories to everybody.
    pub principal: String,
    /// The role.
    pub role: Role,
    /// The repositories it covers.
    pub repositories: Pattern,
    /// The environments it covers; null is all.
    pub environments: Option<Vec<EnvironmentName>>,
    /// The token that it was made with and ends with; the principal's own when null.
    pub token: Option<uuid::Uuid>,
    /// When it was given.
    pub created_at: DateTime<Utc>,
    /// When it was taken back.
    pub ended_at: Option<DateTime<Utc>>,
}

/// A grant that is there now.
#[derive(Clone, Copy, Debug)]
pub enum Given {
    /// It was given.
    New(i64),
    /// It was there.
    Known(i64),
}

/// Gives a role to a principal, which is made when it is new. What it holds already is that grant. The
/// public can be given no more than `reader`.
pub async fn give(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    principal: &str,
    binding: &Binding,
) -> Result<Given, Refused> {
    super::tokens::check_principal(principal)?;
    if principal == "anonymous" && binding.role != Role::Reader {
        return Err(Refused::PublicOnlyReads);
    }
    act(|| async {
        let mut tx = db.begin().await?;
        let (principal_id, _) = store::tokens::principal(&mut tx, principal).await?;
        let by = grant.principal().id;
        store::grants::raise_generation(&mut tx).await?;
        // After the lock on the generation, which disabling a principal takes too.
        if store::tokens::is_disabled(&mut tx, principal_id).await? {
            return Err(Refused::Disabled(principal.to_owned()));
        }
        let at = agreed_time(&mut tx).await?;
        let Some(id) = store::grants::insert(&mut tx, (principal_id, None), binding, by, at).await? else {
            let known = store::grants::find(&mut tx, principal_id, binding).await?;
            return known.map(Given::Known).ok_or(Refused::Unknown);
        };
        let facts = json!({ "grant": id, "to": principal_id, "to_name": principal, "role": binding.role,
            "repositories": binding.repositories, "environments": binding.environments });
        ledger::append(&mut tx, event(Kind::GrantGiven, at, grant, principal_id, facts)).await?;
        tx.commit().await?;
        Ok(Given::New(id))
    })
    .await
}

/// Takes a role back. With the right to approve its holder's approvals end to count, so it locks all decisions: no
/// promotion is decided with them once this is answered.
pub async fn take_back(db: &Db, grant: &Grant<Administer, Everything>, id: i64) -> Result<(), Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let role = store::grants::role(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        if role.includes(Action::Approve) {
            Scopes::decisions(Decisions::All).lock(&mut tx).await?;
        }
        let administrators = Administrators::lock(&mut tx).await?;
        let at = database_time(&mut tx).await?;
        let ended = store::grants::end(&mut tx, id, grant.principal().id, at).await?;
        let principal_id = ended.ok_or(Refused::Unknown)?;
        administrators.remain(&mut tx).await?;
        let facts = json!({ "grant": id });
        ledger::append(&mut tx, event(Kind::GrantEnded, at, grant, principal_id, facts)).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// A page of the grants, ended ones included.
pub async fn grants(
    db: &Db,
    _grant: &Grant<Administer, Everything>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<GrantRow>, Failure> {
    let mut connection = db.acquire().await?;
    Ok(store::grants::list(&mut connection, after, limit).await?)
}

fn event(
    kind: Kind,
    at: DateTime<Utc>,
    grant: &Grant<Administer, Everything>,
    of: PrincipalId,
    facts: serde_json::Value,
) -> Event<'_> {
    Event {
        kind,
        at,
        principal: grant.principal(),
        repository: None,
        environment: None,
        digest: None,
        facts,
        changes: vec![Generation::rights(of)],
    }
}
