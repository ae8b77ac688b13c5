//! The private halves in memory: wiped when they are dropped, never printed.

use super::OPENING;
use super::trust::{KeyRole, Trust};
use crate::failure::Failure;
use ed25519_dalek::pkcs8::spki::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, SecretDocument};
use ed25519_dalek::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// One Ed25519 key for each role.
pub(super) struct PrivateKeys {
    pub(super) summary: SigningKey,
    pub(super) log: SigningKey,
    pub(super) token: SigningKey,
    pub(super) webhook: SigningKey,
}

impl PrivateKeys {
    /// New keys from the system's randomness.
    pub(super) fn generate() -> Result<Self, Failure> {
        Ok(Self { summary: generate()?, log: generate()?, token: generate()?, webhook: generate()? })
    }

    pub(super) fn key(&self, role: KeyRole) -> &SigningKey {
        match role {
            KeyRole::Summary => &self.summary,
            KeyRole::Log => &self.log,
            KeyRole::Token => &self.token,
            KeyRole::Webhook => &self.webhook,
        }
    }

    /// The key as PKCS#8 DER.
    pub(super) fn pkcs8(&self, role: KeyRole) -> Result<SecretDocument, Failure> {
        self.key(role).to_pkcs8_der().map_err(|error| Failure::new(OPENING, error.to_string()))
    }

    /// Refuses when a role's registered key in force is another one.
    pub(super) fn must_be(&self, trust: &Trust) -> Result<(), Failure> {
        for role in KeyRole::ALL {
            let held = key_id(&self.key(role).verifying_key());
            let registered = trust.in_force(role).map(|key| key.key_id.as_str());
            if registered != Some(held.as_str()) {
                return Err(Failure::new(
                    OPENING,
                    format!(
                        "the {role} key in the key file is {held}, but {} is registered: this is not the key \
                         file of this registry (restore the right one, or point DATABASE_URL at its database)",
                        registered.unwrap_or("none")
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn generate() -> Result<SigningKey, Failure> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(seed.as_mut_slice())
        .map_err(|_| Failure::new("making a key", "the system gave no random bytes"))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// SHA-256 of the SubjectPublicKeyInfo's DER, in hexadecimal. An Ed25519 SPKI is a fixed prefix
/// (RFC 8410) and the 32 bytes of the key.
pub(super) fn key_id(key: &VerifyingKey) -> String {
    const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let mut hash = Sha256::new();
    hash.update(PREFIX);
    hash.update(key.as_bytes());
    hex::encode(hash.finalize())
}

/// The public half as PEM.
pub(super) fn public_pem(key: &VerifyingKey) -> Result<String, Failure> {
    key.to_public_key_pem(LineEnding::LF).map_err(|error| Failure::new(OPENING, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_the_hash_of_the_public_keys_der() {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        let der = key.to_public_key_der().unwrap();
        assert_eq!(key_id(&key), hex::encode(Sha256::digest(der.as_bytes())));
    }
}
