//! Ed25519 keys: the private halves in memory, wiped when they are dropped and never printed, and the public
//! halves, known by their own bytes.

use super::OPENING;
use super::trust::{KeyRole, Trust};
use crate::failure::Failure;
use chrono::{DateTime, Utc};
use ed25519_dalek::pkcs8::spki::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePublicKey, EncodePrivateKey, SecretDocument};
use ed25519_dalek::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// One Ed25519 key for each role, in their order.
pub(super) struct PrivateKeys(pub(super) [SigningKey; KeyRole::ALL.len()]);

/// The public halves, one for each role.
pub type PublicKeys = BTreeMap<KeyRole, PublicKey>;

/// The public half of an Ed25519 key. Two are the same key if their bytes are, however they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    id: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads PEM. A key for which signatures of any message can be made without a private key is none.
    pub fn from_pem(text: &str) -> Option<Self> {
        let key = VerifyingKey::from_public_key_pem(text).ok().filter(|key| !key.is_weak())?;
        Some(Self::of(key))
    }

    pub(super) fn of(key: VerifyingKey) -> Self {
        Self { id: key_id(&key), key }
    }

    /// SHA-256 of the SubjectPublicKeyInfo's DER, hexadecimal.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// SubjectPublicKeyInfo as PEM, in the one way that it is written here.
    pub fn pem(&self) -> Result<String, Failure> {
        self.key.to_public_key_pem(LineEnding::LF).map_err(|error| Failure::new(OPENING, error.to_string()))
    }

    /// The key itself.
    pub(super) fn bytes(&self) -> &[u8] {
        self.key.as_bytes()
    }

    /// Whether it made the signature.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = ed25519_dalek::Signature::from_slice(signature);
        signature.is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

impl PrivateKeys {
    /// New keys from the system's randomness.
    pub(super) fn generate() -> Result<Self, Failure> {
        Ok(Self([generate()?, generate()?, generate()?, generate()?, generate()?]))
    }

    pub(super) fn key(&self, role: KeyRole) -> &SigningKey {
        &self.0[role as usize]
    }

    /// The key as PKCS#8 DER.
    pub(super) fn pkcs8(&self, role: KeyRole) -> Result<SecretDocument, Failure> {
        pkcs8(self.key(role))
    }

    /// The public halves.
    pub(super) fn public(&self) -> PublicKeys {
        KeyRole::ALL.map(|role| (role, PublicKey::of(self.key(role).verifying_key()))).into()
    }

    /// Refuses when the trust file does not have each role's key in force.
    pub(super) fn must_be(&self, trust: &Trust, at: DateTime<Utc>) -> Result<(), Failure> {
        for (role, held) in self.public() {
            let in_force: Vec<&str> = trust.in_force(role, at).map(|key| key.key_id.as_str()).collect();
            if in_force.contains(&held.id()) {
                continue;
            }
            let later = trust.keys.get(&role).into_iter().flatten().find(|key| key.key_id == held.id());
            let why = match later {
                Some(key) => format!(
                    "which is not in force at {at} (valid from {}{}{})",
                    key.valid_from,
                    key.valid_until.map(|end| format!(" until {end}")).unwrap_or_default(),
                    key.revoked_at.map(|at| format!(", revoked at {at}")).unwrap_or_default(),
                ),
                None => "which it does not have".to_owned(),
            };
            return Err(Failure::new(
                OPENING,
                format!(
                    "the {role} key in the key file is {}, and version {} of the trust file names {} for it, {why}: \
                     this is not the key file of this registry (restore the right one, or point DATABASE_URL at its \
                     database; a new key comes with the next trust file: proofmark key trust next)",
                    held.id(),
                    trust.version,
                    if in_force.is_empty() { "none".to_owned() } else { in_force.join(", ") },
                ),
            ));
        }
        Ok(())
    }
}

pub(super) fn pkcs8(key: &SigningKey) -> Result<SecretDocument, Failure> {
    key.to_pkcs8_der().map_err(|error| Failure::new(OPENING, error.to_string()))
}

pub(super) fn generate() -> Result<SigningKey, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_the_hash_of_the_public_keys_der() {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        let der = key.to_public_key_der().unwrap();
        assert_eq!(key_id(&key), hex::encode(Sha256::digest(der.as_bytes())));
        let public = PublicKey::of(key);
        assert_eq!(PublicKey::from_pem(&public.pem().unwrap()), Some(public));
    }

    #[test]
    fn a_key_that_needs_no_private_half_is_no_key() {
        // The neutral element: a signature of nothing verifies under it for every message.
        let mut bytes = [0; 32];
        bytes[0] = 1;
        let weak = PublicKey::of(VerifyingKey::from_bytes(&bytes).unwrap());
        assert_eq!(PublicKey::from_pem(&weak.pem().unwrap()), None);
    }
}
