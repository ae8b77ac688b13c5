//! Keys: the registry's own keys and its identity, written to Postgres once.
//!
//! Knows four Ed25519 keys by role (summary, log, token, webhook), where their private halves lie,
//! and the names that the registry signs under. Promises that names and public keys never follow an
//! address or a URL, that a replica with other private keys does not start, and that no secret is
//! printed. Keys are made unasked only beside the private Postgres; beside one that is given they
//! are given too. Never knows what the statements that it signs mean.

mod dsse;
mod file;
mod private;
mod store;
mod trust;

pub use dsse::pae;
pub use file::init;
pub use store::verifier_id;
pub use trust::{KeyRole, TRUST_VERSION, Trust, TrustedKey, TrustedScheme, signed_at_field};

use crate::failure::Failure;
use private::PrivateKeys;
use sqlx::PgConnection;
use std::fmt;
use std::path::PathBuf;

/// Where the private keys come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file that the operator gives; it must exist.
    Given(PathBuf),
    /// A file in the data directory, made at the first start. Only beside the private Postgres: two
    /// replicas over one database must not each make their own.
    Made(PathBuf),
}

/// The private keys, matched against the registered public ones, and the identity they sign under.
pub struct Keys {
    private: PrivateKeys,
    trust: Trust,
    token_signing: jsonwebtoken::EncodingKey,
    token_verifying: jsonwebtoken::DecodingKey,
}

/// What [`Keys::open`] did.
#[derive(Debug)]
pub struct Opened {
    /// The keys.
    pub keys: Keys,
    /// Whether this was the first start, which wrote the identity: the caller appends the event
    /// in the same transaction.
    pub first: bool,
}

const OPENING: &str = "opening the registry's own keys";

/// The registered identity and public keys, where a first start has written them.
pub async fn registered(connection: &mut PgConnection) -> Result<Option<Trust>, Failure> {
    store::read(connection).await
}

impl Keys {
    /// Reads the private keys and compares them with the registered ones. At the first start it
    /// writes the identity under a lock: the names made of `public_name`, and the public keys.
    ///
    /// The key file is durable before the row is written: a crash between them leaves a file that
    /// the next start registers. A registered key whose file is gone is never replaced.
    pub async fn open(
        connection: &mut PgConnection,
        source: &Source,
        public_name: &str,
    ) -> Result<Opened, Failure> {
        let mut registered = store::read(connection).await?;
        if registered.is_none() {
            store::lock(connection).await?;
            registered = store::read(connection).await?;
        }
        let private = match source {
            Source::Given(path) => file::read(path)?,
            Source::Made(path) => {
                if registered.is_none() && !path.exists() {
                    file::init(path)?;
                }
                file::read(path)?
            }
        };
        let (trust, first) = match registered {
            Some(trust) => (trust, false),
            None => (store::write(connection, &trust::Names::of(public_name)?, &private).await?, true),
        };
        private.must_be(&trust)?;
        let token_signing = jsonwebtoken::EncodingKey::from_ed_der(private.pkcs8(KeyRole::Token)?.as_bytes());
        let token_verifying =
            jsonwebtoken::DecodingKey::from_ed_der(private.key(KeyRole::Token).verifying_key().as_bytes());
        Ok(Opened { keys: Self { private, trust, token_signing, token_verifying }, first })
    }

    /// Signs a statement with the summary key: the bytes of a DSSE envelope, with a keyid for
    /// verifiers that select by it.
    pub fn sign_summary(&self, payload_type: &str, payload: &[u8]) -> Vec<u8> {
        dsse::sign(self.private.key(KeyRole::Summary), payload_type, payload)
    }

    /// What signs the short-lived tokens (EdDSA).
    pub fn token_signing(&self) -> &jsonwebtoken::EncodingKey {
        &self.token_signing
    }

    /// What verifies them, on every replica.
    pub fn token_verifying(&self) -> &jsonwebtoken::DecodingKey {
        &self.token_verifying
    }

    /// The trust file's content, as it is served at `/.well-known/proofmark`.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The identity that summaries name as their verifier.
    pub fn verifier_id(&self) -> &str {
        &self.trust.verifier_id
    }

    /// The registry's name in what it signs.
    pub fn public_name(&self) -> &str {
        &self.trust.public_name
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("verifier_id", &self.trust.verifier_id).finish_non_exhaustive()
    }
}
