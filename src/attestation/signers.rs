//! Signers: public keys and what each is believed for.

use super::scheme::{InvalidKey, PublicKey, Scheme};
use super::store::signers as store;
use super::waiting::Search;
use crate::access::{Administer, Everything, Grant};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Pattern, RepositoryName};
use crate::policy::{Revocation, Signature, Untrusted};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{
    Db, Decisions, Generation, Scopes, act, agreed_time, constraint, database_time, refusal,
};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;

/// A registered signer.
#[derive(Debug)]
pub struct Signer {
    /// The row.
    pub id: i64,
    /// Its key, with the scheme.
    pub key: PublicKey,
    /// Its name and what it is believed for.
    pub signature: Signature,
    /// Who registered it.
    pub registered_by: String,
    /// When.
    pub registered_at: DateTime<Utc>,
    /// Why it was revoked, and by whom.
    pub revoked: Option<Revoked>,
}

/// The act of a revocation.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// Why.
    pub reason: String,
    /// Who revoked it.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A signer to be registered.
#[derive(Clone, Debug)]
pub struct NewSigner {
    /// What policies call it.
    pub name: String,
    /// PEM.
    pub public_key: String,
    /// How it signs; without one, the first scheme that fits the key.
    pub scheme: Option<Scheme>,
    /// Repositories that it is believed for.
    pub repositories: Vec<Pattern>,
    /// Predicate types that it is believed for.
    pub predicate_types: Vec<Pattern>,
    /// Statements count when they were received from here on; whenever, when there is none.
    pub valid_from: Option<DateTime<Utc>>,
    /// Until when.
    pub valid_until: Option<DateTime<Utc>>,
}

/// A signer to be revoked.
#[derive(Clone, Debug)]
pub struct NewRevocation {
    /// What was received from here on is not believed; now when there is none.
    pub at: Option<DateTime<Utc>>,
    /// Nothing is believed, whenever it was received.
    pub compromised: bool,
    /// Why.
    pub reason: String,
}

/// Why a signer was not registered or revoked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each is its own sentence")]
pub enum SignerRefused {
    #[error("{0}")]
    Key(#[from] InvalidKey),
    #[error("a signer's name has 1 to 100 letters, digits, '.', '_' or '-'")]
    Name,
    #[error("a signer is believed for at least one repository pattern and one predicate type pattern")]
    ForNothing,
    #[error("valid_until lies before valid_from")]
    Never,
    #[error("there is a signer {0} with another key or other rules; signers are never changed, only revoked")]
    NameTaken(String),
    #[error("this key is registered with this scheme, as {0}")]
    KeyTaken(String),
    #[error("there is no signer of this name")]
    Unknown,
    #[error("the signer is revoked already, and a revocation is never changed")]
    RevokedAlready,
    #[error("a revocation says why, in at most 1000 characters")]
    Reason,
    #[error(transparent)]
    Failed(#[from] Failure),
}

refusal!(SignerRefused);

impl NewSigner {
    /// Without another word a key is believed for what came before it was registered, too: people
    /// push signatures first and register the key when a promotion asks for it.
    pub(super) fn valid_from(&self) -> DateTime<Utc> {
        self.valid_from.unwrap_or(DateTime::UNIX_EPOCH)
    }
}

impl Signer {
    /// Whether its signature counts for this.
    pub fn trusted_for(
        &self,
        repository: &RepositoryName,
        predicate_type: &str,
        received_at: DateTime<Utc>,
    ) -> Result<(), Untrusted> {
        self.signature.trusted_for(repository, predicate_type, received_at)
    }
}

/// Registers a signer and judges what waits for its key. Registering the same again changes nothing.
///
/// No evidence is recorded and nothing decided meanwhile: a test result that failed, and waited for its key, counts
/// from here.
pub async fn register(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    new: &NewSigner,
) -> Result<Signer, SignerRefused> {
    let key = PublicKey::from_pem(&new.public_key, new.scheme)?;
    check(new)?;
    act(|| async {
        let mut connection = db.acquire().await?;
        if let Some(known) = known(&mut connection, &key, new).await? {
            return Ok(known);
        }
        let search = Search::begin(&mut connection, &key).await?;
        drop(connection);
        let mut tx = db.begin().await?;
        Scopes::signers().lock(&mut tx).await?;
        if let Some(known) = known(&mut tx, &key, new).await? {
            return Ok(known);
        }
        let at = agreed_time(&mut tx).await?;
        let id = match store::insert(&mut tx, new, &key, at, grant.principal().id).await {
            Err(error) if constraint(&error) == Some("a_key_is_registered_once_a_scheme") => {
                drop(tx);
                return Err(SignerRefused::KeyTaken(name_of(db, &key).await?));
            }
            other => other.map_err(|error| Failure::new("registering a signer", error))?,
        };
        let judged = search.finish(&mut tx, id).await?;
        let facts = json!({"signer": new.name, "scheme": key.scheme(), "key_id": key.id().as_str(),
            "repositories": new.repositories, "predicate_types": new.predicate_types,
            "valid_from": new.valid_from(), "valid_until": new.valid_until, "judged": judged});
        queue::reevaluate(&mut tx, &Changed::Signer(new.name.clone())).await?;
        ledger::append(&mut tx, event(Kind::SignerRegistered, at, grant, facts)).await?;
        let registered = store::by_name(&mut tx, &new.name).await?.ok_or(SignerRefused::Unknown)?;
        tx.commit().await.map_err(|error| Failure::new("registering a signer", error))?;
        Ok(registered)
    })
    .await
}

/// Signers by name, after this one.
pub async fn signers(db: &Db, after: &str, limit: i64) -> Result<Vec<Signer>, Failure> {
    store::page(&mut *db.acquire().await?, after, limit).await
}

/// Revokes a signer, from a time on or wholly. Nothing is judged again here: trust is judged on
/// reading. It takes every decision alone, so none overlooks it once it is answered.
pub async fn revoke(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    name: &str,
    revocation: &NewRevocation,
) -> Result<Signer, SignerRefused> {
    if revocation.reason.trim().is_empty() || revocation.reason.len() > 1000 {
        return Err(SignerRefused::Reason);
    }
    act(|| async {
        let mut tx = db.begin().await?;
        Scopes::decisions(Decisions::All).lock(&mut tx).await?;
        let signer = store::by_name(&mut tx, name).await?.ok_or(SignerRefused::Unknown)?;
        if signer.revoked.is_some() {
            return Err(SignerRefused::RevokedAlready);
        }
        let at = database_time(&mut tx).await?;
        let from = revocation.at.unwrap_or(at);
        store::revoke(&mut tx, signer.id, revocation, (at, from), grant.principal().id).await?;
        let facts = json!({"signer": name, "key_id": signer.key.id().as_str(), "distrusted_from": from,
            "compromised": revocation.compromised, "reason": revocation.reason});
        queue::reevaluate(&mut tx, &Changed::Signer(name.to_owned())).await?;
        ledger::append(&mut tx, event(Kind::SignerRevoked, at, grant, facts)).await?;
        let revoked = store::by_name(&mut tx, name).await?.ok_or(SignerRefused::Unknown)?;
        tx.commit().await.map_err(|error| Failure::new("revoking a signer", error))?;
        Ok(revoked)
    })
    .await
}

fn check(new: &NewSigner) -> Result<(), SignerRefused> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if new.name.is_empty() || new.name.len() > 100 || !new.name.bytes().all(letter) {
        return Err(SignerRefused::Name);
    }
    if new.repositories.is_empty() || new.predicate_types.is_empty() {
        return Err(SignerRefused::ForNothing);
    }
    if let (Some(from), Some(until)) = (new.valid_from, new.valid_until)
        && until <= from
    {
        return Err(SignerRefused::Never);
    }
    Ok(())
}

/// The signer of this name, if it is this one.
async fn known(
    connection: &mut PgConnection,
    key: &PublicKey,
    new: &NewSigner,
) -> Result<Option<Signer>, SignerRefused> {
    match store::by_name(connection, &new.name).await? {
        Some(known) if !same(&known, key, new) => Err(SignerRefused::NameTaken(known.signature.signer)),
        known => Ok(known),
    }
}

fn same(known: &Signer, key: &PublicKey, new: &NewSigner) -> bool {
    let Signature { repositories, predicate_types, valid_from, valid_until, .. } = &known.signature;
    (known.key.id(), known.key.scheme()) == (key.id(), key.scheme())
        && *repositories == new.repositories.iter().cloned().collect()
        && *predicate_types == new.predicate_types.iter().cloned().collect()
        && new.valid_from() == *valid_from
        && *valid_until == new.valid_until
}

async fn name_of(db: &Db, key: &PublicKey) -> Result<String, Failure> {
    let known = signers(db, "", i64::MAX).await?;
    let other = known.into_iter().find(|s| (s.key.id(), s.key.scheme()) == (key.id(), key.scheme()));
    Ok(other.map_or_else(|| "another signer".to_owned(), |signer| signer.signature.signer))
}

fn event(
    kind: Kind,
    at: DateTime<Utc>,
    grant: &Grant<Administer, Everything>,
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
        changes: vec![Generation::signers()],
    }
}

/// The part of a revocation that trust is judged by.
pub(super) fn revocation(from: Option<DateTime<Utc>>, compromised: Option<bool>) -> Option<Revocation> {
    Some(Revocation { distrusted_from: from?, compromised: compromised.unwrap_or(false) })
}
