//! Keys: the registry's own keys, its identity, and the trust files by which others know them.
//!
//! Knows one Ed25519 key for each role, where their private halves lie, the names that the registry signs under, and
//! the trust files that name both under the signatures of the role root. Promises that names never follow an address
//! or a URL, that a version of the trust file follows another only by the roots of both, that a replica with other
//! private keys than the trust file's does not start, and that no secret is printed. Keys and a root are made
//! unasked only beside the private Postgres; beside one that is given they are given too. Never knows what the
//! statements that it signs mean.

mod ceremony;
mod chain;
mod dsse;
mod durable;
mod file;
mod open;
mod private;
mod root;
mod signed;
mod store;
mod trust;

pub use ceremony::{First, Next};
pub use chain::Chain;
pub use dsse::pae;
pub use file::{init, public, public_document, upgrade};
pub use open::{ROOT_FILE, TRUST_FILE, demand};
pub use private::{PublicKey, PublicKeys};
pub use root::RootKey;
pub use signed::{Draft, MAX_TRUST_BYTES, TrustFile, TrustRefused};
pub use store::verifier_id;
pub use trust::{KeyRole, Root, TRUST_FORMAT, Trust, TrustedKey, TrustedScheme, signed_at_field};

use crate::config::SecretFileMode;
use crate::failure::Failure;
use chrono::{DateTime, Utc};
use private::PrivateKeys;
use sqlx::PgConnection;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Where the private keys come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file that the operator gives; it must exist.
    Given(PathBuf),
    /// A file in the data directory, made at the first start. Only beside the private Postgres: two
    /// replicas over one database must not each make their own.
    Made(PathBuf),
}

/// Where keys, trust file and name come from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The private keys.
    pub keys: &'a Source,
    /// Whether a key file is taken that others may read.
    pub secret_file_mode: SecretFileMode,
    /// The trust file that the operator gives: the rows of the database must contain it or be followed by it.
    pub trust: Option<&'a Path>,
    /// Beside the private Postgres, where the first start makes a root key and a trust file.
    pub home: Option<&'a Path>,
    /// The name that the operator states, and the one that is taken otherwise, where no trust file states it.
    pub public_name: (Option<&'a str>, &'a str),
}

/// The private keys, matched against the trust file in force, and the identity they sign under.
pub struct Keys {
    private: PrivateKeys,
    trust: Arc<TrustFile>,
    chain: RwLock<Arc<Chain>>,
    began: DateTime<Utc>,
    token_signing: jsonwebtoken::EncodingKey,
}

/// What [`Keys::open`] did.
#[derive(Debug)]
pub struct Opened {
    /// The keys.
    pub keys: Keys,
    /// Whether this was the first start, which wrote the identity: the caller appends the event
    /// in the same transaction.
    pub first: bool,
    /// The trust files that were written; each is an event too.
    pub added: Vec<Arc<TrustFile>>,
    /// Whether they revoke a summary key: what it signed is to be signed anew.
    pub revokes_summaries: bool,
}

const OPENING: &str = "opening the registry's own keys";

/// What names the registry in its store, as far as the oldest trust file can be read; a damaged one is for fsck.
pub async fn owner(connection: &mut PgConnection) -> Result<Option<String>, Failure> {
    let Some(stored) = store::read(connection).await? else { return Ok(None) };
    let oldest = stored.documents.first().and_then(|document| Draft::read(document).ok());
    Ok(oldest.and_then(|draft| draft.trust().owner().map(str::to_owned)))
}

impl Keys {
    /// Reads the private keys and the trust files, and compares them. At the first start it writes the identity under
    /// a lock, and the first trust file; later, a trust file that was given and follows the newest. A registered key
    /// whose file is gone is never replaced.
    pub async fn open(connection: &mut PgConnection, sources: &Sources<'_>) -> Result<Opened, Failure> {
        open::open(connection, sources).await
    }

    fn new(private: PrivateKeys, chain: Chain, began: DateTime<Utc>) -> Result<Self, Failure> {
        let token_signing = jsonwebtoken::EncodingKey::from_ed_der(private.pkcs8(KeyRole::Token)?.as_bytes());
        let trust = Arc::clone(chain.newest());
        Ok(Self { private, trust, chain: RwLock::new(Arc::new(chain)), began, token_signing })
    }

    /// Signs a statement with the summary key: the bytes of a DSSE envelope, with a keyid for
    /// verifiers that select by it. Refuses once a newer trust file ended the key: nobody would believe it.
    pub fn sign_summary(&self, payload_type: &str, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        let key = self.private.key(KeyRole::Summary);
        let (id, published) = (private::key_id(&key.verifying_key()), self.published());
        let trust = published.newest().trust();
        if trust.in_force(KeyRole::Summary, crate::clock::now()).any(|in_force| in_force.key_id == id) {
            return Ok(dsse::sign(key, payload_type, payload));
        }
        Err(Failure::new(
            "signing a verification summary",
            format!(
                "the summary key {id} is not in force by version {} of the trust file: restart this replica with the new \
                 key file",
                trust.version
            ),
        ))
    }

    /// Whether one of our envelopes names a summary key that was revoked, so that nobody believes it any more.
    pub fn is_by_a_revoked_key(&self, envelope: &[u8]) -> bool {
        let published = self.published();
        let keys = published.newest().trust().keys.get(&KeyRole::Summary);
        let mut revoked = keys.into_iter().flatten().filter(|key| key.revoked_at.is_some()).peekable();
        if revoked.peek().is_none() {
            return false;
        }
        let named = serde_json::from_slice::<serde_json::Value>(envelope).ok();
        let named = named.as_ref().and_then(|envelope| envelope.pointer("/signatures/0/keyid")?.as_str());
        revoked.any(|key| Some(key.key_id.as_str()) == named)
    }

    /// What signs the short-lived tokens (EdDSA).
    pub fn token_signing(&self) -> &jsonwebtoken::EncodingKey {
        &self.token_signing
    }

    /// What verifies them: every token key in force, since a replica may sign with the one before or after this one's.
    pub fn token_verifying(&self) -> Vec<jsonwebtoken::DecodingKey> {
        let published = self.published();
        let in_force = published.newest().trust().in_force(KeyRole::Token, crate::clock::now());
        let read = in_force.filter_map(|key| PublicKey::from_pem(&key.public_key));
        read.map(|key| jsonwebtoken::DecodingKey::from_ed_der(key.bytes())).collect()
    }

    /// What the trust file says that was in force at the start. Its names are every version's.
    pub fn trust(&self) -> &Trust {
        self.trust.trust()
    }

    /// The trust files as they are published: every one follows the one before it.
    pub fn published(&self) -> Arc<Chain> {
        Arc::clone(&self.chain.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over the trust files that another replica was given. A row that does not follow what is published is
    /// never published.
    pub async fn follow(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let published = self.published();
        let documents = store::documents(connection, published.newest().version()).await?;
        if documents.is_empty() {
            return Ok(());
        }
        let failed = |refused| Failure::new("following the trust files in the database", refused);
        let mut chain = Chain::clone(&published);
        for document in documents {
            chain.extend(TrustFile::parse(&document).map_err(failed)?).map_err(failed)?;
        }
        tracing::info!(version = chain.newest().version(), "a newer trust file is published");
        *self.chain.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(chain);
        Ok(())
    }

    /// When the registry began.
    pub fn began(&self) -> DateTime<Utc> {
        self.began
    }

    /// The identity that summaries name as their verifier.
    pub fn verifier_id(&self) -> &str {
        &self.trust().verifier_id
    }

    /// The registry's name in what it signs.
    pub fn public_name(&self) -> &str {
        &self.trust().public_name
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("verifier_id", &self.verifier_id()).finish_non_exhaustive()
    }
}
