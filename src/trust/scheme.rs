//! The schemes by which keys sign.
//!
//! Nothing in a bundle tells Ed25519 from Ed25519ph, so schemes are registered with the key and a signature counts
//! under those only.

use super::key::{CanonicalKey, Family, InvalidKey, KeyId};
use aws_lc_rs::signature::ParsedPublicKey;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha512};
use std::fmt;
use std::str::FromStr;

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Scheme {
    /// RFC 8032 Ed25519.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// RFC 8032 Ed25519ph over SHA-512, empty context: what cosign signs with.
    #[serde(rename = "ed25519ph")]
    Ed25519ph,
    /// ECDSA on P-256 with SHA-256, signatures in ASN.1 DER.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384, signatures in ASN.1 DER.
    #[serde(rename = "ecdsa-p384")]
    EcdsaP384,
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 to 8192 bits.
    #[serde(rename = "rsa")]
    Rsa,
}

/// Not a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scheme is one of ed25519, ed25519ph, ecdsa-p256, ecdsa-p384, rsa")]
pub struct UnknownScheme;

impl Scheme {
    /// Every scheme; where none is given, the first that fits the key.
    pub const ALL: [Self; 5] = [Self::Ed25519, Self::Ed25519ph, Self::EcdsaP256, Self::EcdsaP384, Self::Rsa];

    /// The scheme's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ed25519ph => "ed25519ph",
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Rsa => "rsa",
        }
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::Ed25519 | Self::Ed25519ph => Family::Ed25519,
            Self::EcdsaP256 => Family::P256,
            Self::EcdsaP384 => Family::P384,
            Self::Rsa => Family::Rsa,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scheme {
    type Err = UnknownScheme;
    fn from_str(text: &str) -> Result<Self, UnknownScheme> {
        Self::ALL.into_iter().find(|scheme| scheme.as_str() == text).ok_or(UnknownScheme)
    }
}

/// A public key with one of its schemes: what verifies a signature.
pub struct PublicKey {
    scheme: Scheme,
    id: KeyId,
    key: Key,
}

enum Key {
    Ed25519(VerifyingKey),
    Ed25519ph(VerifyingKey),
    Other(Box<ParsedPublicKey>),
}

impl CanonicalKey {
    /// The schemes by which the key can sign; the first is the usual one.
    pub fn fitting(&self) -> impl Iterator<Item = Scheme> {
        Scheme::ALL.into_iter().filter(|scheme| scheme.family() == self.family)
    }

    /// The key with one of its schemes.
    pub fn by(&self, scheme: Scheme) -> Result<PublicKey, InvalidKey> {
        let other = || {
            let fitting: Vec<&str> = self.fitting().map(Scheme::as_str).collect();
            InvalidKey::OtherScheme(self.id().clone(), scheme, fitting.join(", "))
        };
        if scheme.family() != self.family {
            return Err(other());
        }
        let edwards = || {
            let start = self.der().len().saturating_sub(32);
            let bytes = self.der()[start..].try_into().map_err(|_| InvalidKey::UnknownKind)?;
            VerifyingKey::from_bytes(bytes).map_err(|_| InvalidKey::UnknownKind)
        };
        let key = match (scheme, self.family.algorithm()) {
            (Scheme::Ed25519ph, _) => Key::Ed25519ph(edwards()?),
            (_, None) => Key::Ed25519(edwards()?),
            (_, Some(algorithm)) => {
                let key = ParsedPublicKey::new(algorithm, self.der()).map_err(|_| InvalidKey::UnknownKind)?;
                Key::Other(Box::new(key))
            }
        };
        Ok(PublicKey { scheme, id: self.id().clone(), key })
    }
}

impl PublicKey {
    /// Reads a key; without a scheme, with the first that fits it.
    pub fn from_pem(text: &str, scheme: Option<Scheme>) -> Result<Self, InvalidKey> {
        let (key, _) = CanonicalKey::read(text)?;
        let scheme = scheme.or_else(|| key.fitting().next()).ok_or(InvalidKey::UnknownKind)?;
        key.by(scheme)
    }

    /// How it signs.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Whether the key signed the message, under its scheme.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            Key::Ed25519(key) => Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Key::Ed25519ph(key) => Signature::from_slice(signature).is_ok_and(|signature| {
                let prehash = Sha512::new_with_prefix(message);
                key.verify_prehashed_strict(prehash, None, &signature).is_ok()
            }),
            Key::Other(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.scheme, self.id)
    }
}
