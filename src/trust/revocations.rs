//! Revocations: from a time on, or altogether. Rows are only added; of several the strictest counts.

use super::signers::{Registered, Signer, SignerRefused, event};
use super::store;
use crate::access::{Everything, Grant, Principal, Revoke};
use crate::failure::Failure;
use crate::identity;
use crate::ledger::{self, Kind};
use crate::policy::{Revocation, in_words};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Decisions, Scopes, Tx, act, database_time};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// A revocation that was made.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// What trust is decided by.
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

/// What a revocation changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The signer that was named.
    pub signer: String,
    /// Signers with their keys, by the keys' ids: the revocation that was in force, and the one that is. A key that an
    /// earlier version registered for several signers is revoked for each of them.
    pub keys: BTreeMap<(String, String), (Option<Revocation>, Revocation)>,
}

impl Effect {
    /// The revocations of this key as this signer's.
    pub fn of(&self, signer: &str, key_id: &str) -> Option<(Option<Revocation>, Revocation)> {
        self.keys.get(&(signer.to_owned(), key_id.to_owned())).copied()
    }

    /// The signers whose keys are revoked.
    pub fn signers(&self) -> BTreeSet<&str> {
        self.keys.keys().map(|(signer, _)| signer.as_str()).collect()
    }

    /// The keys that are revoked.
    pub fn key_ids(&self) -> BTreeSet<&str> {
        self.keys.keys().map(|(_, key_id)| key_id.as_str()).collect()
    }

    /// The other signers that have the same keys.
    pub fn others(&self) -> BTreeSet<&str> {
        self.signers().into_iter().filter(|signer| *signer != self.signer).collect()
    }
}

/// What is to be revoked of a signer.
struct Target {
    signer_id: i64,
    signer: String,
    identity_id: i64,
    key_id: Option<String>,
    before: Option<Revocation>,
    then: Revocation,
}

impl NewRevocation {
    fn check(&self) -> Result<(), SignerRefused> {
        let written = !self.reason.trim().is_empty() && self.reason.chars().count() <= 1000;
        if written { Ok(()) } else { Err(SignerRefused::Reason) }
    }

    /// The identities of the signer that it names.
    fn named<'a>(&self, signer: &'a Signer) -> Result<Vec<&'a Registered>, SignerRefused> {
        let named = |one: &&Registered| {
            self.key_id.as_deref().is_none_or(|wanted| {
                one.key().is_some_and(|key| key.id().as_str().eq_ignore_ascii_case(wanted))
            })
        };
        let named: Vec<&Registered> = signer.identities.iter().filter(named).collect();
        if let (Some(key_id), true) = (&self.key_id, named.is_empty()) {
            let has = signer.identities.iter().filter_map(Registered::key).map(|key| key.id().as_str());
            let (signer, has) = (signer.name.clone(), has.collect::<Vec<_>>().join(", "));
            return Err(SignerRefused::UnknownKey { signer, key_id: key_id.clone(), has });
        }
        Ok(named)
    }

    /// The identities that it names, and those of other signers with the same key, for which it is stricter than what
    /// is in force, if there are any.
    async fn targets(
        &self,
        connection: &mut PgConnection,
        signer: &Signer,
        given: Revocation,
    ) -> Result<Vec<Target>, SignerRefused> {
        let named = self.named(signer)?;
        let key_ids: BTreeSet<&str> =
            named.iter().filter_map(|one| one.key()).map(|key| key.id().as_str()).collect();
        let mut targets: Vec<Target> = named.iter().filter_map(|one| stricter(signer, one, given)).collect();
        for other in others_with(connection, signer, &key_ids).await? {
            let same = |one: &&Registered| one.key().is_some_and(|key| key_ids.contains(key.id().as_str()));
            targets
                .extend(other.identities.iter().filter(same).filter_map(|one| stricter(&other, one, given)));
        }
        if targets.is_empty() {
            return Err(SignerRefused::NotStricter(in_force(signer, &named)));
        }
        Ok(targets)
    }

    fn given(&self, at: DateTime<Utc>) -> Revocation {
        Revocation { distrusted_from: self.at.unwrap_or(at), compromised: self.compromised }
    }
}

/// Other signers that an earlier version registered with any of these keys.
async fn others_with(
    connection: &mut PgConnection,
    signer: &Signer,
    key_ids: &BTreeSet<&str>,
) -> Result<Vec<Signer>, Failure> {
    let key_ids: Vec<String> = key_ids.iter().map(|id| (*id).to_owned()).collect();
    let mut others = Vec::new();
    for name in store::owners(connection, &key_ids).await? {
        if name != signer.name {
            others.extend(store::signer(connection, &name).await?);
        }
    }
    Ok(others)
}

/// Nothing where the revocation is not stricter than what is in force.
fn stricter(signer: &Signer, one: &Registered, given: Revocation) -> Option<Target> {
    let before = one.revocation();
    let then = before.map_or(given, |before| before.and(given));
    (before != Some(then)).then(|| Target {
        signer_id: signer.id,
        signer: signer.name.clone(),
        identity_id: one.id,
        key_id: one.key().map(|key| key.id().as_str().to_owned()),
        before,
        then,
    })
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

fn effect(signer: &Signer, targets: &[Target]) -> Effect {
    let keys = targets
        .iter()
        .filter_map(|one| Some(((one.signer.clone(), one.key_id.clone()?), (one.before, one.then))));
    Effect { signer: signer.name.clone(), keys: keys.collect() }
}

/// What the revocation would change, if it were made now.
pub async fn would_revoke(
    connection: &mut PgConnection,
    _: &Grant<Revoke, Everything>,
    name: &str,
    revocation: &NewRevocation,
) -> Result<Effect, SignerRefused> {
    revocation.check()?;
    let at = database_time(connection).await?;
    let signer = store::signer(connection, name).await?.ok_or(SignerRefused::Unknown)?;
    let targets = revocation.targets(connection, &signer, revocation.given(at)).await?;
    Ok(effect(&signer, &targets))
}

/// Revokes a signer or one of its keys, from a time on or wholly. Nothing is evaluated again here: trust is decided on
/// reading, and a job settles which scans count. No decision overlooks it once it is answered, and it waits for no
/// evidence that is being recorded.
pub async fn revoke(
    db: &Db,
    grant: &Grant<Revoke, Everything>,
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
        let targets = revocation.targets(&mut tx, &signer, given).await?;
        let effect = effect(&signer, &targets);
        write(&mut tx, grant.principal(), &targets, (given, &revocation.reason), at).await?;
        let revoked = store::signer(&mut tx, name).await?.ok_or(SignerRefused::Unknown)?;
        tx.commit().await.map_err(|error| Failure::new("revoking a signer", error))?;
        Ok((revoked, effect))
    })
    .await
}

/// Writes the revocations, and an event for each signer.
async fn write(
    tx: &mut Tx,
    by: &Principal,
    targets: &[Target],
    (given, reason): (Revocation, &str),
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    let mut of_signer: BTreeMap<(i64, &str), Vec<&Target>> = BTreeMap::new();
    for one in targets {
        of_signer.entry((one.signer_id, &one.signer)).or_default().push(one);
    }
    for ((signer_id, _), targets) in &of_signer {
        let identities: Vec<i64> = targets.iter().map(|one| one.identity_id).collect();
        store::revoke(tx, *signer_id, &identities, (given, reason), at, by.id).await?;
        queue::enqueue(tx, queue::SETTLE_SCANS, &signer_id.to_string(), &Value::Null, None).await?;
    }
    for ((_, signer), targets) in of_signer {
        let key_ids: Vec<&String> = targets.iter().filter_map(|one| one.key_id.as_ref()).collect();
        let facts = json!({"signer": signer, "key_ids": key_ids, "distrusted_from": given.distrusted_from,
            "compromised": given.compromised, "reason": reason});
        queue::reevaluate(tx, &Changed::Signer(signer.to_owned())).await?;
        ledger::append(tx, event(Kind::SignerRevoked, at, by, facts)).await?;
    }
    Ok(())
}

/// Revokes a key that several signers have for each of them as strictly as for any: revocations of an earlier version
/// were of one signer only.
pub(super) async fn share(tx: &mut Tx, signer: &str, other: &str) -> Result<(), Failure> {
    let (Some(one), Some(two)) = (store::signer(tx, signer).await?, store::signer(tx, other).await?) else {
        return Ok(());
    };
    let at = database_time(tx).await?;
    for (from, to) in [(&one, &two), (&two, &one)] {
        for (revoked, shared) in from.identities.iter().flat_map(|own| {
            let same = |shared: &&Registered| {
                own.key().zip(shared.key()).is_some_and(|(own, shared)| own.id() == shared.id())
            };
            to.identities.iter().filter(same).map(move |shared| (own, shared))
        }) {
            let Some(given) = revoked.revocation() else { continue };
            let reason = format!("the signer {} has the same key, and it is revoked there", from.name);
            let targets: Vec<Target> = stricter(to, shared, given).into_iter().collect();
            write(tx, &identity::service(), &targets, (given, &reason), at).await?;
        }
    }
    Ok(())
}

/// What a revocation locks: decisions, and nothing that waits for evidence.
fn scopes() -> Scopes {
    Scopes::decisions(Decisions::All)
}
