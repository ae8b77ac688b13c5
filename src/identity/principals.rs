//! Principals: who there is, and who may not come any more; the last administrator stays.

use super::store;
use super::tokens::Refused;
use crate::access::{
    Action, Administer, Authority, Binding, Everything, Grant, Place, Principal, PrincipalId,
};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::postgres::{Db, Generation, Tx, act, agreed_time, database_time};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

pub use store::principals::PrincipalRow;

/// Whether there was an administrator before a change. It is made under a lock that every change of rights takes, so
/// that of two changes that together leave nobody one is refused.
pub(super) struct Administrators {
    there_were: bool,
}

impl Administrators {
    /// Before the change.
    pub async fn lock(tx: &mut Tx) -> Result<Self, Refused> {
        store::grants::raise_generation(tx).await?;
        Ok(Self { there_were: store::grants::an_administrator_remains(tx).await? })
    }

    /// After it: refused where it leaves none. Where there was none before, it takes nothing away.
    pub async fn remain(self, tx: &mut Tx) -> Result<(), Refused> {
        if self.there_were && !store::grants::an_administrator_remains(tx).await? {
            return Err(Refused::LastAdministrator);
        }
        Ok(())
    }
}

/// What ended with a principal.
#[derive(Debug)]
pub struct Disabled {
    /// The principal.
    pub principal: PrincipalRow,
    /// Tokens that ended.
    pub tokens: Vec<Uuid>,
    /// Grants that ended.
    pub grants: Vec<i64>,
}

/// Disables a principal, in a transaction that holds every decision alone: its tokens and grants end, and it gets no
/// other until it is enabled.
pub async fn disable(
    tx: &mut Tx,
    by: &Principal,
    id: PrincipalId,
    reason: &str,
) -> Result<Disabled, Refused> {
    let administrators = Administrators::lock(tx).await?;
    // After the lock: a token or grant that ended meanwhile did so before.
    let at = database_time(tx).await?;
    let principal = store::principals::find(tx, id).await?.ok_or(Refused::Unknown)?;
    if id == super::service().id || principal.name == "anonymous" {
        return Err(Refused::BuiltIn);
    }
    if !store::principals::disable(tx, id, reason, by.id, at).await? {
        return Err(Refused::DisabledAlready(principal.name));
    }
    let tokens = store::principals::end_tokens(tx, id, by.id, at).await?;
    let grants = store::principals::end_grants(tx, id, by.id, at).await?;
    administrators.remain(tx).await?;
    let facts = json!({ "disabled": id, "name": principal.name, "reason": reason, "tokens": tokens, "grants": grants });
    ledger::append(tx, event(Kind::PrincipalDisabled, at, by, id, facts)).await?;
    let principal = store::principals::find(tx, id).await?.ok_or(Refused::Unknown)?;
    Ok(Disabled { principal, tokens, grants })
}

/// Whether the principal is disabled.
pub async fn is_disabled(db: &Db, id: PrincipalId) -> Result<bool, Failure> {
    Ok(store::tokens::is_disabled(&mut *db.acquire().await?, id).await?)
}

/// Enables a principal that was disabled and has no open approval: it can be given tokens and grants again, and has none yet.
pub async fn enable(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    id: PrincipalId,
    reason: &str,
) -> Result<PrincipalRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        store::grants::raise_generation(&mut tx).await?;
        let at = agreed_time(&mut tx).await?;
        let principal = store::principals::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        if !store::principals::enable(&mut tx, id).await? {
            return Err(Refused::NotDisabled(principal.name));
        }
        let facts = json!({ "enabled": id, "name": principal.name, "reason": reason });
        ledger::append(&mut tx, event(Kind::PrincipalEnabled, at, grant.principal(), id, facts)).await?;
        let principal = store::principals::find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(principal)
    })
    .await
}

/// A page of the principals, by id; or the one of this name.
pub async fn principals(
    db: &Db,
    _grant: &Grant<Administer, Everything>,
    name: Option<&str>,
    after: Option<PrincipalId>,
    limit: i64,
) -> Result<Vec<PrincipalRow>, Failure> {
    Ok(store::principals::list(&mut *db.acquire().await?, name, after, limit).await?)
}

/// What allows an action: the principal's own grants, or those of a token.
#[derive(Debug)]
pub struct Allowed {
    /// The grant.
    pub grant: i64,
    /// Its role, repositories and environments.
    pub binding: Binding,
    /// The token that it belongs to; the principal's own when there is none.
    pub token: Option<Uuid>,
}

/// The principal of this name, and the grants by which it may do the action there.
pub async fn allowed_by(
    db: &Db,
    _grant: &Grant<Administer, Everything>,
    principal: &str,
    action: Action,
    place: Place<'_>,
) -> Result<Option<(PrincipalRow, Vec<Allowed>)>, Failure> {
    let mut connection = db.acquire().await?;
    let found = store::principals::list(&mut connection, Some(principal), None, 1).await?.into_iter().next();
    let Some(found) = found else { return Ok(None) };
    let rows = store::grants::live(&mut connection, found.id).await?;
    let who = Principal { id: found.id, name: found.name.clone() };
    let allows = |one: &Allowed| Authority::new(who.clone(), vec![one.binding.clone()]).allows(action, place);
    Ok(Some((found, rows.into_iter().filter(allows).collect())))
}

fn event(kind: Kind, at: DateTime<Utc>, by: &Principal, of: PrincipalId, facts: Value) -> Event<'_> {
    let changes = vec![Generation::rights(of)];
    Event { kind, at, principal: by, repository: None, environment: None, digest: None, facts, changes }
}

/// Tokens that were used since it was last written, and when.
#[derive(Debug, Default)]
pub struct Uses(BTreeMap<Uuid, DateTime<Utc>>);

impl Uses {
    /// Tokens that are remembered until they are written; the use of others is not noted meanwhile.
    const MAX: usize = 100_000;

    /// Notes a use.
    pub fn note(&mut self, token: Uuid, at: DateTime<Utc>) {
        if self.0.len() < Self::MAX || self.0.contains_key(&token) {
            self.0.insert(token, at);
        }
    }

    /// Writes them.
    pub async fn write(self, db: &Db) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (tokens, at): (Vec<Uuid>, Vec<DateTime<Utc>>) = self.0.into_iter().unzip();
        Ok(store::tokens::note_uses(&mut *db.acquire().await?, &tokens, &at).await?)
    }
}
