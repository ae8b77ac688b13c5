//! Public keys in one form: whatever encoding a key comes in, it has one DER and one id.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};
use spki::der::asn1::{AnyRef, UintRef};
use spki::der::{self, Decode, Encode, Reader, Tag, Tagged};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use std::fmt;

/// SHA-256 of the one DER of a key's SubjectPublicKeyInfo, in hexadecimal.
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
    pub fn from_hint(hint: &str) -> Option<Self> {
        let bare = hint.rsplit_once(':').map_or(hint, |(_, rest)| rest);
        let bytes = hex::decode(bare).ok().or_else(|| STANDARD.decode(hint).ok())?;
        (bytes.len() == 32).then(|| Self(hex::encode(bytes)))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ed25519,
    P256,
    P384,
    Rsa,
}

/// A public key in its one form.
#[derive(Clone)]
pub struct CanonicalKey {
    pub(super) family: Family,
    id: KeyId,
    der: Vec<u8>,
}

/// How a key was given, where that leaves something to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenAs {
    /// As a key.
    Key,
    /// In an X.509 certificate.
    Certificate,
}

/// Not a key that can be registered: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// No public key in the text.
    #[error(
        "a public key is one PEM block: PUBLIC KEY (SubjectPublicKeyInfo), RSA PUBLIC KEY (PKCS#1) or CERTIFICATE; \
         `openssl pkey -pubin -inform DER -in FILE -pubout` makes one of a key in DER, and a JSON Web Key is to be \
         converted first"
    )]
    NotPem,
    /// A block of another kind.
    #[error(
        "the PEM block {0:?} is not read: a public key is a block PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE; \
         `openssl pkey -pubin -in FILE -pubout` writes a key as PUBLIC KEY"
    )]
    OtherBlock(String),
    /// More than one block.
    #[error(
        "the text has several PEM blocks: send one key alone; of a chain `openssl x509 -in FILE -pubkey -noout` \
         prints the key of the first certificate"
    )]
    SeveralBlocks,
    /// Text beside the block.
    #[error(
        "there is text before or after the PEM block: send the block alone, as `openssl pkey -pubin -in FILE \
         -pubout` or `openssl x509 -in FILE` prints it"
    )]
    TextAround,
    /// A secret, given away.
    #[error(
        "this is a private key: register its public half (`openssl pkey -in FILE -pubout`), and consider the \
         private one exposed"
    )]
    Private,
    /// Not DER, or not the structure that the block's label says.
    #[error(
        "the PEM block {0} is not valid DER, or has bytes after its end: `openssl pkey -pubin -in FILE -pubout` \
         (`openssl rsa -RSAPublicKey_in -in FILE -pubout` for RSA PUBLIC KEY, `openssl x509 -in FILE -pubkey \
         -noout` for CERTIFICATE) writes the key anew"
    )]
    NotDer(&'static str),
    /// A curve that is spelled out.
    #[error(
        "the key spells out the parameters of its curve instead of naming it: `openssl ec -pubin -in FILE -pubout \
         -param_enc named_curve` writes it with the name"
    )]
    ExplicitCurve,
    /// A key that only signs by RSASSA-PSS.
    #[error(
        "the key is for RSASSA-PSS signatures, which are not verified here: use an RSA key with PKCS#1 v1.5 and \
         SHA-256, an ECDSA key or an Ed25519 key"
    )]
    Pss,
    /// An Ed25519 key for which others than its holder can make signatures, or its holder has several.
    #[error(
        "this Ed25519 key is not one that key generators make (it has a part of small order): make a new key"
    )]
    SmallOrder,
    /// A key of another kind than its scheme.
    #[error("the key {0} does not fit the scheme {1}; it fits {2}")]
    OtherScheme(KeyId, super::Scheme, String),
    /// An RSA key that no signature would be verified by.
    #[error("an RSA key has 2048 to 8192 bits, and this one has {0}: make a new key")]
    RsaSize(usize),
    /// A key of no kind that is known.
    #[error(
        "keys are Ed25519, ECDSA P-256, ECDSA P-384, or RSA of 2048 to 8192 bits; this one is none of them"
    )]
    UnknownKind,
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Bits of an RSA key whose signatures are verified.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What comes before an Ed25519 key in its SubjectPublicKeyInfo.
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The algorithm of an RSA key: its identifier, and NULL for parameters.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

impl CanonicalKey {
    /// Reads a key from one PEM block: a SubjectPublicKeyInfo, a PKCS#1 key, or a certificate, whose key is taken and
    /// of which nothing else is looked at.
    pub fn read(text: &str) -> Result<(Self, GivenAs), InvalidKey> {
        let (label, der) = pem_block(text)?;
        let (key, given) = match label {
            "PUBLIC KEY" => (Self::from_spki(&der, "PUBLIC KEY")?, GivenAs::Key),
            "RSA PUBLIC KEY" => {
                AnyRef::from_der(&der).map_err(|_| InvalidKey::NotDer("RSA PUBLIC KEY"))?;
                (Self::rsa(&der)?, GivenAs::Key)
            }
            "CERTIFICATE" => {
                let key = certified_key(&der).map_err(|_| InvalidKey::NotDer("CERTIFICATE"))?;
                (Self::from_spki(&key, "CERTIFICATE")?, GivenAs::Certificate)
            }
            other => return Err(InvalidKey::OtherBlock(other.chars().take(40).collect())),
        };
        if key.is_of_small_order() {
            return Err(InvalidKey::SmallOrder);
        }
        Ok((key, given))
    }

    /// Reads the one form again.
    pub(super) fn stored(text: &str) -> Result<Self, InvalidKey> {
        Self::from_spki(&pem_block(text)?.1, "PUBLIC KEY")
    }

    /// Reads a key of this family as an earlier version took it: with bytes behind its end, with a compressed point.
    pub(super) fn of_earlier_version(text: &str, family: Family) -> Option<Self> {
        use ed25519_dalek::pkcs8::DecodePublicKey;
        let (_, der) = pem_block(text).ok()?;
        match family.algorithm() {
            None => VerifyingKey::from_public_key_der(&der).ok().map(|key| Self::ed25519(&key)),
            Some(algorithm) => Self::marshalled(&der, algorithm, family).ok(),
        }
    }

    fn from_spki(der: &[u8], label: &'static str) -> Result<Self, InvalidKey> {
        let not_der = |_| InvalidKey::NotDer(label);
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(not_der)?;
        let key = info.subject_public_key.as_bytes().ok_or(InvalidKey::NotDer(label))?;
        let parameters = info.algorithm.parameters;
        match info.algorithm.oid {
            RSA if parameters.is_none_or(|parameters| parameters == AnyRef::NULL) => Self::rsa(key),
            RSA_PSS => Err(InvalidKey::Pss),
            EC => {
                let curve = parameters.ok_or(InvalidKey::UnknownKind)?;
                if curve.tag() != Tag::ObjectIdentifier {
                    return Err(InvalidKey::ExplicitCurve);
                }
                let family = match curve.decode_as::<ObjectIdentifier>().map_err(not_der)? {
                    P256 => Family::P256,
                    P384 => Family::P384,
                    _ => return Err(InvalidKey::UnknownKind),
                };
                let algorithm = family.algorithm().ok_or(InvalidKey::UnknownKind)?;
                Self::marshalled(der, algorithm, family)
            }
            ED25519 if parameters.is_none() => {
                let bytes = key.try_into().map_err(|_| InvalidKey::NotDer(label))?;
                let key = VerifyingKey::from_bytes(bytes).map_err(|_| InvalidKey::UnknownKind)?;
                Ok(Self::ed25519(&key))
            }
            RSA | ED25519 => Err(InvalidKey::NotDer(label)),
            _ => Err(InvalidKey::UnknownKind),
        }
    }

    /// Of an RSAPublicKey.
    fn rsa(key: &[u8]) -> Result<Self, InvalidKey> {
        let bits = modulus_bits(key).map_err(|_| InvalidKey::UnknownKind)?;
        if !RSA_BITS.contains(&bits) {
            return Err(InvalidKey::RsaSize(bits));
        }
        let mut content = vec![0];
        content.extend_from_slice(key);
        let info = tlv(0x30, &[&RSA_ALGORITHM[..], &tlv(0x03, &content)].concat());
        Self::marshalled(&info, &RSA_PKCS1_2048_8192_SHA256, Family::Rsa)
    }

    /// Whether an Ed25519 key has a part of small order: a weak key verifies one signature for many messages, and
    /// whose holder adds such a part to a key has another key for the same secret.
    fn is_of_small_order(&self) -> bool {
        let bytes = self.der.get(ED25519_PREFIX.len()..).and_then(|bytes| bytes.try_into().ok());
        let key = bytes.filter(|_| self.family == Family::Ed25519).map(VerifyingKey::from_bytes);
        key.and_then(Result::ok).is_some_and(|key| key.is_weak() || !key.to_edwards().is_torsion_free())
    }

    fn ed25519(key: &VerifyingKey) -> Self {
        // A coordinate may be written as more than the field's order; the point has one encoding.
        let point = key.to_edwards().compress();
        Self::new(Family::Ed25519, [&ED25519_PREFIX[..], point.as_bytes()].concat())
    }

    /// Reads the key and writes it anew: with its point uncompressed, and its parameters in one form.
    fn marshalled(
        info: &[u8],
        algorithm: &'static dyn VerificationAlgorithm,
        family: Family,
    ) -> Result<Self, InvalidKey> {
        let key = ParsedPublicKey::new(algorithm, info).map_err(|_| InvalidKey::UnknownKind)?;
        let der = key.as_der().map_err(|_| InvalidKey::UnknownKind)?;
        Ok(Self::new(family, der.as_ref().to_vec()))
    }

    fn new(family: Family, der: Vec<u8>) -> Self {
        Self { family, id: KeyId::of(&der), der }
    }

    /// Its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Its one DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The same as PEM.
    pub fn pem(&self) -> String {
        let body = STANDARD.encode(&self.der);
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
}

impl fmt::Debug for CanonicalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CanonicalKey({:?} {})", self.family, self.id)
    }
}

impl Family {
    /// What verifies signatures of the family; Ed25519 has two schemes, which are verified otherwise.
    pub(super) fn algorithm(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Self::Ed25519 => None,
            Self::P256 => Some(&ECDSA_P256_SHA256_ASN1),
            Self::P384 => Some(&ECDSA_P384_SHA384_ASN1),
            Self::Rsa => Some(&RSA_PKCS1_2048_8192_SHA256),
        }
    }
}

/// The label and the bytes of the one block that the text is, with space around it.
fn pem_block(text: &str) -> Result<(&str, Vec<u8>), InvalidKey> {
    const BEGIN: &str = "-----BEGIN ";
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.contains("PRIVATE KEY-----") {
        return Err(InvalidKey::Private);
    }
    match text.matches(BEGIN).count() {
        0 => return Err(InvalidKey::NotPem),
        1 => {}
        _ => return Err(InvalidKey::SeveralBlocks),
    }
    let (label, rest) = text
        .strip_prefix(BEGIN)
        .ok_or(InvalidKey::TextAround)?
        .split_once("-----")
        .ok_or(InvalidKey::NotPem)?;
    let (body, after) = rest.split_once(&format!("-----END {label}-----")).ok_or(InvalidKey::NotPem)?;
    if !after.is_empty() {
        return Err(InvalidKey::TextAround);
    }
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| InvalidKey::NotPem)?;
    Ok((label, der))
}

/// The SubjectPublicKeyInfo of an X.509 certificate, whose other fields are only stepped over.
fn certified_key(certificate: &[u8]) -> der::Result<Vec<u8>> {
    AnyRef::from_der(certificate)?.sequence(|fields| {
        let key = AnyRef::decode(fields)?.sequence(|fields| {
            // The version may be missing; then the serial number is first.
            let first = AnyRef::decode(fields)?;
            let before = if first.tag() == Tag::Integer { 4 } else { 5 };
            for _ in 0..before {
                AnyRef::decode(fields)?;
            }
            let key = AnyRef::decode(fields)?.to_der()?;
            while !fields.is_finished() {
                AnyRef::decode(fields)?;
            }
            Ok::<_, der::Error>(key)
        })?;
        // The algorithm of the signature, and the signature.
        AnyRef::decode(fields)?;
        AnyRef::decode(fields)?;
        Ok(key)
    })
}

/// Bits of the modulus of an RSAPublicKey (RFC 8017, A.1.1).
fn modulus_bits(key: &[u8]) -> der::Result<usize> {
    AnyRef::from_der(key)?.sequence(|fields| {
        let modulus = UintRef::decode(fields)?;
        UintRef::decode(fields)?;
        let zeros = modulus.as_bytes().first().map_or(0, |byte| byte.leading_zeros() as usize);
        Ok(modulus.as_bytes().len() * 8 - zeros)
    })
}

/// A DER element with its length in as few bytes as it takes.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut element = vec![tag];
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    match *length {
        [] => element.push(0),
        [short] if short < 0x80 => element.push(short),
        _ => {
            element.push(0x80 | u8::try_from(length.len()).unwrap_or_default());
            element.extend_from_slice(length);
        }
    }
    element.extend_from_slice(content);
    element
}

#[cfg(test)]
mod tests;
