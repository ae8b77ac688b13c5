//! Revocations: from a time on, or altogether. Rows are only added; of several the strictest counts.

use super::signers::{Registered, Signer, SignerRefused, event};
use super::store;
use crate::access::{Administer, Everything, Grant};
use crate::ledger::{self, Kind};
use crate::policy::{Revocation, in_words};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Decisions, Scopes, act, database_time};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// A revocation that was made.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// What trust is judged by.
    pub revocation: Revocation,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A signer, or one of its keys, to be revoked.
#[derive(Clone, Debug)]
pub struct NewRevocation {
    /// The key; all keys that the signer has then, when there is none.
    pub key_id: Option<String>,
    /// What was received from here on is not believed; now when there is none.
    pub at: Option<DateTime<Utc>>,
    /// Nothing is believed, whenever it was received.
    pub compromised: bool,
    /// Why.
    pub reason: String,
}

/// What a revocation changes: of each key of the signer the revocation that was in force, and the one that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The signer.
    pub signer: String,
    /// Its keys by their ids.
    pub keys: BTreeMap<String, (Option<Revocation>, Revocation)>,
}

impl NewRevocation {
    fn check(&self) -> Result<(), SignerRefused> {
        let written = !self.reason.trim().is_empty() && self.reason.chars().count() <= 1000;
        if written { Ok(()) } else { Err(SignerRefused::Reason) }
    }

    /// The identities for which it is stricter than what is in force, if there are any.
    fn targets<'a>(
        &self,
        signer: &'a Signer,
        given: Revocation,
    ) -> Result<Vec<(&'a Registered, Revocation)>, SignerRefused> {
        let named = |one: &&Registered| {
            let id = one.key().map(|key| key.id().as_str());
            self.key_id.as_deref().is_none_or(|wanted| id.is_some_and(|id| id.eq_ignore_ascii_case(wanted)))
        };
        let named: Vec<&Registered> = signer.identities.iter().filter(named).collect();
        if let (Some(key_id), true) = (&self.key_id, named.is_empty()) {
            let has = signer.identities.iter().filter_map(Registered::key).map(|key| key.id().as_str());
            let (signer, has) = (signer.name.clone(), has.collect::<Vec<_>>().join(", "));
            return Err(SignerRefused::UnknownKey { signer, key_id: key_id.clone(), has });
        }
        let stricter = |one: &Registered| {
            let current = one.revocation();
            let then = current.map_or(given, |current| current.and(given));
            (current != Some(then)).then_some(then)
        };
        let targets: Vec<_> = named.iter().filter_map(|one| stricter(one).map(|then| (*one, then))).collect();
        if targets.is_empty() {
            return Err(SignerRefused::NotStricter(in_force(signer, &named)));
        }
        Ok(targets)
    }

    fn given(&self, at: DateTime<Utc>) -> Revocation {
        Revocation { distrusted_from: self.at.unwrap_or(at), compromised: self.compromised }
    }
}

/// What is in force, in words.
fn in_force(signer: &Signer, identities: &[&Registered]) -> String {
    let words = identities.iter().filter_map(|one| {
        let Revocation { distrusted_from, compromised } = one.revocation()?;
        let key = one.key().map(|key| key.id().as_str()).unwrap_or_default();
        let how = if compromised { "compromised, distrusted" } else { "distrusted" };
        Some(format!("key {key} is revoked already: {how} from {}", in_words(distrusted_from)))
    });
    format!("of the signer {} {}", signer.name, words.collect::<Vec<_>>().join("; "))
}

fn effect(signer: &Signer, targets: &[(&Registered, Revocation)]) -> Effect {
    let keys = targets
        .iter()
        .filter_map(|(one, then)| Some((one.key()?.id().as_str().to_owned(), (one.revocation(), *then))));
    Effect { signer: signer.name.clone(), keys: keys.collect() }
}

/// What the revocation would change, if it were made now.
pub async fn would_revoke(
    connection: &mut PgConnection,
    _: &Grant<Administer, Everything>,
    name: &str,
    revocation: &NewRevocation,
) -> Result<Effect, SignerRefused> {
    revocation.check()?;
    let at = database_time(connection).await?;
    let signer = store::signer(connection, name).await?.ok_or(SignerRefused::Unknown)?;
    let targets = revocation.targets(&signer, revocation.given(at))?;
    Ok(effect(&signer, &targets))
}

/// Revokes a signer or one of its keys, from a time on or wholly. Nothing is judged again here: trust is judged on
/// reading. No decision overlooks it once it is answered, and it waits for no evidence that is being recorded.
pub async fn revoke(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    name: &str,
    revocation: &NewRevocation,
) -> Result<(Signer, Effect), SignerRefused> {
    revocation.check()?;
    act(|| async {
        let mut tx = db.begin().await?;
        scopes().lock(&mut tx).await?;
        let signer = store::signer(&mut tx, name).await?.ok_or(SignerRefused::Unknown)?;
        let at = database_time(&mut tx).await?;
        let given = revocation.given(at);
        let targets = revocation.targets(&signer, given)?;
        let effect = effect(&signer, &targets);
        let identities: Vec<i64> = targets.iter().map(|(one, _)| one.id).collect();
        let by = grant.principal().id;
        store::revoke(&mut tx, signer.id, &identities, (given, &revocation.reason), at, by).await?;
        let key_ids: Vec<&String> = effect.keys.keys().collect();
        let facts = json!({"signer": signer.name, "key_ids": key_ids, "distrusted_from": given.distrusted_from,
            "compromised": given.compromised, "reason": revocation.reason});
        queue::reevaluate(&mut tx, &Changed::Signer(signer.name.clone())).await?;
        ledger::append(&mut tx, event(Kind::SignerRevoked, at, grant.principal(), facts)).await?;
        let revoked = store::signer(&mut tx, name).await?.ok_or(SignerRefused::Unknown)?;
        tx.commit().await.map_err(|error| crate::failure::Failure::new("revoking a signer", error))?;
        Ok((revoked, effect))
    })
    .await
}

/// What a revocation locks: decisions, and nothing that waits for evidence.
fn scopes() -> Scopes {
    Scopes::decisions(Decisions::All)
}
