//! Signers: what each is believed for, and its identities.

use super::key::{CanonicalKey, GivenAs, InvalidKey, KeyId};
use super::revocations::Revoked;
use super::scheme::{PublicKey, Scheme};
use super::store;
use crate::access::{Administer, Everything, Grant, Principal};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Pattern, RepositoryName};
use crate::policy::{Revocation, Signature, Untrusted, in_words};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Generation, Tx, refusal};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// A registered signer.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The row.
    pub id: i64,
    /// What policies call it.
    pub name: String,
    /// Repositories that it is believed for.
    pub repositories: Vec<Pattern>,
    /// Predicate types that it is believed for.
    pub predicate_types: Vec<Pattern>,
    /// Who registered it.
    pub registered_by: String,
    /// When.
    pub registered_at: DateTime<Utc>,
    /// Its identities, the first one first.
    pub identities: Vec<Registered>,
}

/// Whose signatures count as the signer's.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Of a public key, by these schemes.
    Key {
        /// The key.
        key: CanonicalKey,
        /// Its schemes.
        schemes: BTreeSet<Scheme>,
    },
    /// Of whom a certificate authority names in a certificate.
    Certificate(CertificateIdentity),
}

/// What the certificate of a keyless signature states.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateIdentity {
    /// The OpenID issuer.
    pub issuer: String,
    /// The subject's alternative name.
    pub identity: String,
    /// Other claims that the certificate must state.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
}

/// An identity of a signer, as it is registered.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The row.
    pub id: i64,
    /// Whose signatures.
    pub identity: Identity,
    /// What was received from here on counts.
    pub valid_from: DateTime<Utc>,
    /// Until when.
    pub valid_until: Option<DateTime<Utc>>,
    /// Who registered it.
    pub registered_by: String,
    /// When.
    pub registered_at: DateTime<Utc>,
    /// The schemes that count already.
    pub active: BTreeSet<Scheme>,
    /// Revocations, the oldest first.
    pub revocations: Vec<Revoked>,
    /// The signer that has the same key, which an earlier version allowed.
    pub shares_key_with: Option<String>,
}

impl Registered {
    /// The key, where it is one.
    pub fn key(&self) -> Option<&CanonicalKey> {
        match &self.identity {
            Identity::Key { key, .. } => Some(key),
            Identity::Certificate(_) => None,
        }
    }

    /// Whether pending envelopes are yet to be verified by it.
    pub fn is_verifying(&self) -> bool {
        match &self.identity {
            Identity::Key { schemes, .. } => *schemes != self.active,
            Identity::Certificate(_) => false,
        }
    }

    /// The revocation in force: the strictest.
    pub fn revocation(&self) -> Option<Revocation> {
        self.revocations.iter().map(|one| one.revocation).reduce(Revocation::and)
    }
}

/// From when an identity is valid, and until when.
type Validity = (DateTime<Utc>, Option<DateTime<Utc>>);

impl Registered {
    /// The schemes and the validity that the key then has; nothing where it has all of it.
    fn extended(
        &self,
        schemes: &BTreeSet<Scheme>,
        key: &GivenKey,
    ) -> Result<Option<(BTreeSet<Scheme>, Validity)>, SignerRefused> {
        let (valid_from, valid_until) = (self.valid_from, self.valid_until);
        let from = key.valid_from.unwrap_or(valid_from);
        let until = key.valid_until.or(valid_until);
        if from > valid_from || until.is_some_and(|until| valid_until.is_none_or(|end| until < end)) {
            let end =
                valid_until.map_or_else(|| "no end".to_owned(), |end| format!("the end {}", in_words(end)));
            let validity =
                format!("the key {} is valid from {} with {end}", key.key.id(), in_words(valid_from));
            return Err(SignerRefused::Shortened(validity));
        }
        let all: BTreeSet<Scheme> = schemes.union(&key.schemes).copied().collect();
        let changes = (&all, from, until) != (schemes, valid_from, valid_until);
        Ok(changes.then_some((all, (from, until))))
    }
}

impl Signer {
    fn with_key(&self, id: &KeyId) -> Option<(&Registered, &BTreeSet<Scheme>)> {
        self.identities.iter().find_map(|one| match &one.identity {
            Identity::Key { key, schemes } if key.id() == id => Some((one, schemes)),
            Identity::Key { .. } | Identity::Certificate(_) => None,
        })
    }

    /// Whether pending envelopes are yet to be verified by any of its keys.
    pub fn is_verifying(&self) -> bool {
        self.identities.iter().any(Registered::is_verifying)
    }
}

/// A key of a signer with one scheme: what a signature is held against.
#[derive(Debug)]
pub struct SigningKey {
    /// The identity's row.
    pub identity_id: i64,
    /// The signer's row.
    pub signer_id: i64,
    /// The key, with the scheme.
    pub key: PublicKey,
    /// Whether what it signed counts already.
    pub is_active: bool,
    /// Its signer, and what it is believed for.
    pub signature: Signature,
}

impl SigningKey {
    /// Whether its signature counts for this, once the key is active.
    pub fn trusted_for(
        &self,
        repository: &RepositoryName,
        predicate_type: &str,
        received_at: DateTime<Utc>,
    ) -> Result<(), Untrusted> {
        self.signature.trusted_for(repository, predicate_type, received_at)
    }
}

/// A key to be registered.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// PEM.
    pub public_key: Option<String>,
    /// What a certificate states, instead of a key.
    pub certificate: Option<CertificateIdentity>,
    /// How it signs; without any, the first scheme that fits the key.
    pub schemes: BTreeSet<Scheme>,
    /// Statements count when they were received from here on; whenever, when there is none.
    pub valid_from: Option<DateTime<Utc>>,
    /// Until when.
    pub valid_until: Option<DateTime<Utc>>,
}

/// A signer to be registered with its first key.
#[derive(Clone, Debug)]
pub struct NewSigner {
    /// What policies call it.
    pub name: String,
    /// Its first key.
    pub key: NewKey,
    /// Repositories that it is believed for.
    pub repositories: Vec<Pattern>,
    /// Predicate types that it is believed for.
    pub predicate_types: Vec<Pattern>,
}

/// A key that was read.
#[derive(Clone, Debug)]
pub struct GivenKey {
    pub(super) key: CanonicalKey,
    /// Those that were given; empty where none was.
    pub(super) schemes: BTreeSet<Scheme>,
    pub(super) valid_from: Option<DateTime<Utc>>,
    pub(super) valid_until: Option<DateTime<Utc>>,
    given: GivenAs,
}

/// Why a signer was not registered, extended or revoked.
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
    #[error("a signer has a public_key, and this request has none")]
    NoKey,
    #[error(
        "a certificate identity cannot be registered yet: signatures with certificates (keyless signing) are not \
         verified by this version; register a public_key"
    )]
    Certificate,
    #[error(
        "there is a signer {0} with another key or other rules; signers are never changed: add a key, a scheme or \
         validity with POST /api/v1/signers/{0}/keys, or revoke a key"
    )]
    NameTaken(String),
    #[error(
        "this key belongs to the signer {0}, and a key is one signer whatever its name, encoding or scheme: add a \
         scheme or validity with POST /api/v1/signers/{0}/keys"
    )]
    KeyTaken(String),
    #[error("{0}; it can be extended and not shortened: revoke the key to end it earlier")]
    Shortened(String),
    #[error("there is no signer of this name")]
    Unknown,
    #[error("the signer {signer} has no key {key_id}; it has {has}")]
    UnknownKey { signer: String, key_id: String, has: String },
    #[error("{0}, and a revocation is never taken back or softened")]
    NotStricter(String),
    #[error("a revocation says why, in at most 1000 characters")]
    Reason,
    #[error(transparent)]
    Failed(#[from] Failure),
}

refusal!(SignerRefused);

impl NewKey {
    /// Reads it, before anything is locked.
    pub fn read(&self) -> Result<GivenKey, SignerRefused> {
        if self.certificate.is_some() {
            return Err(SignerRefused::Certificate);
        }
        let (key, given) = CanonicalKey::read(self.public_key.as_ref().ok_or(SignerRefused::NoKey)?)?;
        for scheme in &self.schemes {
            key.by(*scheme)?;
        }
        if let (Some(from), Some(until)) = (self.valid_from, self.valid_until)
            && until <= from
        {
            return Err(SignerRefused::Never);
        }
        let (schemes, valid_from, valid_until) = (self.schemes.clone(), self.valid_from, self.valid_until);
        Ok(GivenKey { key, schemes, valid_from, valid_until, given })
    }
}

impl GivenKey {
    /// What its registrar should know.
    pub fn warning(&self) -> Option<String> {
        let of_certificate = self.given == GivenAs::Certificate;
        of_certificate.then(|| {
            "the key was taken from a certificate: the certificate's validity and chain are not looked at"
                .to_owned()
        })
    }

    /// The schemes of a new key: those that were given, or the usual one.
    pub(super) fn new_schemes(&self) -> BTreeSet<Scheme> {
        if self.schemes.is_empty() { self.key.fitting().take(1).collect() } else { self.schemes.clone() }
    }

    /// Without another word a key is believed for what came before it was registered, too: people
    /// push signatures first and register the key when a promotion asks for it.
    pub(super) fn new_valid_from(&self) -> DateTime<Utc> {
        self.valid_from.unwrap_or(DateTime::UNIX_EPOCH)
    }
}

impl NewSigner {
    fn check(&self) -> Result<(), SignerRefused> {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if self.name.is_empty() || self.name.len() > 100 || !self.name.bytes().all(letter) {
            return Err(SignerRefused::Name);
        }
        if self.repositories.is_empty() || self.predicate_types.is_empty() {
            return Err(SignerRefused::ForNothing);
        }
        Ok(())
    }

    /// Whether it is registered as this.
    fn is(&self, known: &Signer, key: &GivenKey) -> bool {
        let same = |one: &Registered| match &one.identity {
            Identity::Key { key: known, schemes } => {
                known.id() == key.key.id()
                    && key.new_schemes().is_subset(schemes)
                    && one.valid_from == key.new_valid_from()
                    && one.valid_until == key.valid_until
            }
            Identity::Certificate(_) => false,
        };
        let set = |patterns: &[Pattern]| patterns.iter().cloned().collect::<BTreeSet<_>>();
        set(&known.repositories) == set(&self.repositories)
            && set(&known.predicate_types) == set(&self.predicate_types)
            && known.identities.iter().any(same)
    }
}

/// What was registered or extended in a transaction that is not committed yet.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The identity.
    pub identity_id: i64,
    /// The signer's name.
    pub signer: String,
    /// Whether there are schemes by which pending envelopes are yet to be verified.
    pub is_verifying: bool,
    kind: Kind,
}

/// Registers a signer with its first key; nothing where it is registered as the same. The caller holds the locks of
/// a registration, verifies what is pending, and tells the event.
pub async fn admit(
    tx: &mut Tx,
    grant: &Grant<Administer, Everything>,
    (new, key): (&NewSigner, &GivenKey),
    at: DateTime<Utc>,
) -> Result<Option<Admitted>, SignerRefused> {
    new.check()?;
    if let Some(known) = store::signer(tx, &new.name).await? {
        return if new.is(&known, key) { Ok(None) } else { Err(SignerRefused::NameTaken(known.name)) };
    }
    if let Some(owner) = store::owner(tx, key.key.id()).await? {
        return Err(SignerRefused::KeyTaken(owner));
    }
    let signer_id = store::insert(tx, new, at, grant.principal().id).await?;
    let identity_id = store::insert_key(tx, signer_id, key, at, grant.principal().id).await?;
    let (signer, kind) = (new.name.clone(), Kind::SignerRegistered);
    Ok(Some(Admitted { identity_id, signer, is_verifying: true, kind }))
}

/// Adds a key to a signer, or schemes and validity to a key that it has; nothing where it has all of it.
pub async fn admit_key(
    tx: &mut Tx,
    grant: &Grant<Administer, Everything>,
    (name, key): (&str, &GivenKey),
    at: DateTime<Utc>,
) -> Result<Option<Admitted>, SignerRefused> {
    let known = store::signer(tx, name).await?.ok_or(SignerRefused::Unknown)?;
    let (signer, kind, by) = (known.name.clone(), Kind::SignerKeyAdded, grant.principal().id);
    let Some((own, schemes)) = known.with_key(key.key.id()) else {
        if let Some(owner) = store::owner(tx, key.key.id()).await? {
            return Err(SignerRefused::KeyTaken(owner));
        }
        let identity_id = store::insert_key(tx, known.id, key, at, by).await?;
        return Ok(Some(Admitted { identity_id, signer, is_verifying: true, kind }));
    };
    let Some((all, validity)) = own.extended(schemes, key)? else { return Ok(None) };
    store::extend(tx, own.id, &all, validity, at, by).await?;
    Ok(Some(Admitted { identity_id: own.id, signer, is_verifying: all != own.active, kind }))
}

/// Whether a signer is registered as this already: then nothing is to be locked.
pub async fn is_registered(
    connection: &mut PgConnection,
    (new, key): (&NewSigner, &GivenKey),
) -> Result<bool, SignerRefused> {
    new.check()?;
    Ok(store::signer(connection, &new.name).await?.is_some_and(|known| new.is(&known, key)))
}

/// Whether the signer has this key already, with these schemes and this validity.
pub async fn has_key(
    connection: &mut PgConnection,
    (name, key): (&str, &GivenKey),
) -> Result<bool, SignerRefused> {
    let known = store::signer(connection, name).await?.ok_or(SignerRefused::Unknown)?;
    match known.with_key(key.key.id()) {
        Some((own, schemes)) => Ok(own.extended(schemes, key)?.is_none()),
        None => Ok(false),
    }
}

/// Appends the event of what was admitted, as the transaction's last write.
pub async fn tell(
    tx: &mut Tx,
    grant: &Grant<Administer, Everything>,
    admitted: &Admitted,
    at: DateTime<Utc>,
) -> Result<(), SignerRefused> {
    let signer = store::signer(tx, &admitted.signer).await?.ok_or(SignerRefused::Unknown)?;
    let identity = signer.identities.iter().find(|one| one.id == admitted.identity_id);
    let identity = identity.ok_or(SignerRefused::Unknown)?;
    let (key_id, schemes) = match &identity.identity {
        Identity::Key { key, schemes } => (Some(key.id().as_str()), schemes.clone()),
        Identity::Certificate(_) => (None, BTreeSet::new()),
    };
    let facts = json!({"signer": signer.name, "key_id": key_id, "schemes": schemes,
        "repositories": signer.repositories, "predicate_types": signer.predicate_types,
        "valid_from": identity.valid_from, "valid_until": identity.valid_until,
        "verifying": identity.is_verifying()});
    queue::reevaluate(tx, &Changed::Signer(signer.name.clone())).await?;
    ledger::append(tx, event(admitted.kind, at, grant.principal(), facts)).await?;
    Ok(())
}

/// An identity whose pending envelopes are being verified.
#[derive(Debug)]
pub struct Verifying {
    /// Its signer's name.
    pub signer: String,
    /// Repositories that the signer is believed for.
    pub repositories: Vec<Pattern>,
    /// The key with each scheme that does not count yet.
    pub keys: Vec<PublicKey>,
    /// Pending attestations up to this one are tried.
    pub to: i64,
    /// Those up to this one were.
    pub done: i64,
}

/// The identity, if it is being verified.
pub async fn verifying(
    connection: &mut PgConnection,
    identity_id: i64,
) -> Result<Option<Verifying>, Failure> {
    store::verifying(connection, identity_id).await
}

/// Every identity that is being verified.
pub async fn being_verified(connection: &mut PgConnection) -> Result<Vec<i64>, Failure> {
    store::being_verified(connection).await
}

/// Begins to verify: the pending attestations up to this one are to be tried.
pub async fn verify_up_to(connection: &mut PgConnection, identity_id: i64, to: i64) -> Result<(), Failure> {
    store::verify_up_to(connection, identity_id, to).await
}

/// Notes that the pending attestations up to this one were tried by the keys that were to be verified.
pub async fn verified_to(
    connection: &mut PgConnection,
    identity_id: i64,
    verifying: &Verifying,
    done: i64,
) -> Result<(), Failure> {
    let schemes: Vec<String> = verifying.keys.iter().map(|key| key.scheme().as_str().to_owned()).collect();
    store::verified_to(connection, identity_id, (&schemes, done)).await
}

/// Makes all schemes of an identity count. The caller holds the locks of a registration.
pub async fn activate(connection: &mut PgConnection, identity_id: i64) -> Result<(), Failure> {
    store::activate(connection, identity_id).await
}

/// Signers by name, after this one.
pub async fn signers(db: &Db, after: &str, limit: i64) -> Result<Vec<Signer>, Failure> {
    store::page(&mut *db.acquire().await?, after, limit).await
}

/// The signer of this name.
pub async fn signer(db: &Db, name: &str) -> Result<Option<Signer>, Failure> {
    store::signer(&mut *db.acquire().await?, name).await
}

/// Which keys are wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// All.
    All,
    /// Those with these ids.
    Keys(&'a [KeyId]),
    /// Those of these rows.
    Identities(&'a [i64]),
}

/// Keys of signers, each with each of its schemes, by the names of the signers.
pub async fn signing_keys(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> Result<Vec<SigningKey>, Failure> {
    store::signing_keys(connection, wanted).await
}

/// An event of what changed which keys count.
pub fn event(kind: Kind, at: DateTime<Utc>, principal: &Principal, facts: serde_json::Value) -> Event<'_> {
    let changes = vec![Generation::signers()];
    Event { kind, at, principal, repository: None, environment: None, digest: None, facts, changes }
}
