//! Public keys of signers, and the scheme that each signs by.
//!
//! Nothing in a bundle tells Ed25519 from Ed25519ph, so the scheme is registered with the key and
//! a signature counts under that scheme only.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::DecodePublicKey;
use ed25519_dalek::{Signature, VerifyingKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256, Sha512};
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

/// SHA-256 of a key's SubjectPublicKeyInfo, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The id in hexadecimal.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(der: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(der)))
    }

    /// A hint that is a key's id: hexadecimal, with or without a prefix, or base64 as Sigstore
    /// writes it. Any other text is no hint. It finds keys and proves nothing.
    pub(super) fn from_hint(hint: &str) -> Option<Self> {
        let bare = hint.rsplit_once(':').map_or(hint, |(_, rest)| rest);
        let bytes = hex::decode(bare).ok().or_else(|| STANDARD.decode(hint).ok())?;
        (bytes.len() == 32).then(|| Self(hex::encode(bytes)))
    }
}

/// A public key with its scheme.
pub struct PublicKey {
    scheme: Scheme,
    id: KeyId,
    pem: String,
    key: Key,
}

enum Key {
    Ed25519(VerifyingKey),
    Ed25519ph(VerifyingKey),
    Other(Box<ParsedPublicKey>),
}

/// Not a key that can be registered, with why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// No public key in the text.
    #[error("a public key is a PEM block PUBLIC KEY (SubjectPublicKeyInfo), as openssl and cosign write it")]
    NotPem,
    /// A secret, given away.
    #[error("this is a private key: register its public half, and consider the private one exposed")]
    Private,
    /// A key of another kind than its scheme.
    #[error("this key does not fit the scheme {0}")]
    OtherScheme(Scheme),
    /// A key of no kind that is known.
    #[error("keys are Ed25519, ECDSA P-256, ECDSA P-384, or RSA of 2048 to 8192 bits")]
    UnknownKind,
}

impl PublicKey {
    /// Reads a key; without a scheme, the first that fits it.
    pub fn from_pem(text: &str, scheme: Option<Scheme>) -> Result<Self, InvalidKey> {
        if text.contains("PRIVATE KEY-----") {
            return Err(InvalidKey::Private);
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| InvalidKey::NotPem)?;
        let der: &[u8] = der.as_ref();
        let candidates = scheme.map_or_else(|| Scheme::ALL.to_vec(), |scheme| vec![scheme]);
        let found = candidates.into_iter().find_map(|scheme| Some((scheme, Key::read(der, scheme)?)));
        let (scheme, key) = found.ok_or(scheme.map_or(InvalidKey::UnknownKind, InvalidKey::OtherScheme))?;
        Ok(Self { scheme, id: KeyId::of(der), pem: pem(der), key })
    }

    /// How it signs.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The key as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
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
        write!(f, "PublicKey({} {})", self.scheme, self.id.0)
    }
}

impl Key {
    fn read(der: &[u8], scheme: Scheme) -> Option<Self> {
        let algorithm: &'static dyn VerificationAlgorithm = match scheme {
            Scheme::Ed25519 => return edwards(der).map(Self::Ed25519),
            Scheme::Ed25519ph => return edwards(der).map(Self::Ed25519ph),
            Scheme::EcdsaP256 => &ECDSA_P256_SHA256_ASN1,
            Scheme::EcdsaP384 => &ECDSA_P384_SHA384_ASN1,
            Scheme::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        };
        ParsedPublicKey::new(algorithm, der).ok().map(|key| Self::Other(Box::new(key)))
    }
}

/// An Ed25519 key that is not weak: a weak one verifies one signature for many messages.
fn edwards(der: &[u8]) -> Option<VerifyingKey> {
    VerifyingKey::from_public_key_der(der).ok().filter(|key| !key.is_weak())
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + 80);
    text.push_str("-----BEGIN PUBLIC KEY-----\n");
    for (at, letter) in body.char_indices() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str("\n-----END PUBLIC KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = include_str!("../../tests/fixtures/signing/keys/ci.pub");
    const ED25519: &str = include_str!("../../tests/fixtures/signing/keys/ed25519.pub");
    const RSA: &str = include_str!("../../tests/fixtures/signing/keys/rsa.pub");
    const P384: &str = include_str!("../../tests/fixtures/signing/keys/p384.pub");

    #[test]
    fn a_key_finds_its_scheme_and_keeps_its_text() {
        for (text, scheme) in [
            (P256, Scheme::EcdsaP256),
            (ED25519, Scheme::Ed25519),
            (RSA, Scheme::Rsa),
            (P384, Scheme::EcdsaP384),
        ] {
            let key = PublicKey::from_pem(text, None).unwrap();
            assert_eq!((key.scheme(), key.pem()), (scheme, text));
        }
        assert_eq!(
            PublicKey::from_pem(ED25519, Some(Scheme::Ed25519ph)).unwrap().scheme(),
            Scheme::Ed25519ph
        );
    }

    #[test]
    fn what_is_no_key_of_the_scheme_is_refused_with_the_reason() {
        let why = |text: &str, scheme| PublicKey::from_pem(text, scheme).unwrap_err();
        assert_eq!(why(P256, Some(Scheme::EcdsaP384)), InvalidKey::OtherScheme(Scheme::EcdsaP384));
        assert_eq!(why("hello", None), InvalidKey::NotPem);
        assert_eq!(why("-----BEGIN EC PRIVATE KEY-----\n", None), InvalidKey::Private);
        let identity_point = format!("{}AQ{}=", "MCowBQYDK2VwAyEA", "A".repeat(41));
        let weak = format!("-----BEGIN PUBLIC KEY-----\n{identity_point}\n-----END PUBLIC KEY-----\n");
        assert_eq!(why(&weak, None), InvalidKey::UnknownKind);
    }

    #[test]
    fn hints_are_ids_in_hexadecimal_or_base64() {
        let key = PublicKey::from_pem(P256, None).unwrap();
        let raw = hex::decode(key.id().as_str()).unwrap();
        for hint in
            [key.id().as_str().to_owned(), STANDARD.encode(&raw), format!("SHA256:{}", key.id().as_str())]
        {
            assert_eq!(KeyId::from_hint(&hint).as_ref(), Some(key.id()), "{hint}");
        }
        for other in ["", "ci", "deadbeef"] {
            assert_eq!(KeyId::from_hint(other), None, "{other}");
        }
    }
}
