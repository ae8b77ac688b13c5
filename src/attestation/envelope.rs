//! DSSE 1.0 envelopes, and what else comes as a payload with signatures over it.

use super::json::{self, Malformed};
use crate::keys::pae;
use crate::names::Digest;
use crate::trust::{KeyId, PublicKey, Scheme};
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A payload with signatures over it, as received. The payload has no accessor: it is read by
/// [`super::verify`] once a key is known to have signed it.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub(super) payload: Payload,
    pub(super) signatures: Vec<Signature>,
    tried: Tried,
}

/// Which key made which signature (by its place), as far as it was tried. The answer never changes, so
/// it is worked out once, before anything is locked, and found again in the transaction.
#[derive(Clone, Debug, Default)]
struct Tried(Arc<Mutex<HashMap<Trial, bool>>>);

/// A signature, by its place, and a key.
type Trial = (usize, KeyId, Scheme);

/// What was signed, and how the signature covers it.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// DSSE: type and bytes under the pre-authentication encoding.
    Dsse { payload_type: String, bytes: Vec<u8> },
    /// cosign's older "simple signing": the bytes themselves.
    SimpleSigning(Vec<u8>),
}

/// One signature; nothing about it is evidence but that a known key verifies it.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) material: Material,
    pub(super) bytes: Vec<u8>,
}

/// What the signature says it was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Material {
    /// A key, with its id where the hint is one.
    Key(Option<KeyId>),
    /// A certificate of a short-lived key.
    Certificate,
}

/// Signatures of one envelope at the most: each may cost one verification per known key.
const MAX_SIGNATURES: usize = 32;

/// The payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

#[derive(Deserialize)]
struct Wire {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Deserialize)]
struct WireSignature {
    keyid: Option<String>,
    sig: String,
}

impl Envelope {
    /// Reads a DSSE envelope; one without any signature is readable, and proves nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::from_json(json::parse(bytes, json::DOCUMENT)?)
    }

    pub(super) fn from_json(document: Value) -> Result<Self, Malformed> {
        let wire: Wire = json::shape(document, "a DSSE envelope")?;
        if wire.signatures.len() > MAX_SIGNATURES {
            return Err(Malformed::new(format!("an envelope has at most {MAX_SIGNATURES} signatures")));
        }
        let signatures = wire.signatures.iter().map(Signature::read).collect::<Result<_, _>>()?;
        let bytes = decode(&wire.payload).ok_or_else(|| Malformed::new("the payload is not base64"))?;
        Ok(Self {
            payload: Payload::Dsse { payload_type: wire.payload_type, bytes },
            signatures,
            tried: Tried::default(),
        })
    }

    /// An in-toto statement without an envelope, which nobody signed.
    pub(super) fn unsigned(statement: &[u8]) -> Self {
        let payload = Payload::Dsse { payload_type: IN_TOTO.to_owned(), bytes: statement.to_vec() };
        Self { payload, signatures: Vec::new(), tried: Tried::default() }
    }

    /// A simple signing payload with the signature of its layer's annotation.
    pub(super) fn simple_signing(payload: &[u8], signature: &str) -> Result<Self, Malformed> {
        let bytes = decode(signature).ok_or_else(|| Malformed::new("the signature is not base64"))?;
        let signatures = vec![Signature { material: Material::Key(None), bytes }];
        Ok(Self { payload: Payload::SimpleSigning(payload.to_vec()), signatures, tried: Tried::default() })
    }

    /// Whether the key made the signature at this place. The message is made only when it is needed.
    pub(super) fn is_made_by<'a>(
        &self,
        place: usize,
        key: &PublicKey,
        message: impl FnOnce() -> &'a [u8],
    ) -> bool {
        let Some(signature) = self.signatures.get(place) else { return false };
        let asked = (place, key.id().clone(), key.scheme());
        let tried = || self.tried.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = tried().get(&asked) {
            return *made;
        }
        let made = key.verifies(message(), &signature.bytes);
        tried().insert(asked, made);
        made
    }

    /// The bytes that every signature of it covers.
    pub(super) fn message(&self) -> Cow<'_, [u8]> {
        match &self.payload {
            Payload::Dsse { payload_type, bytes } => Cow::Owned(pae(payload_type, bytes)),
            Payload::SimpleSigning(bytes) => Cow::Borrowed(bytes),
        }
    }

    /// What a signed message is known by: all else about an envelope can be changed without a key.
    pub(super) fn message_digest(&self) -> Digest {
        Digest::sha256(&self.message())
    }
}

impl Signature {
    fn read(wire: &WireSignature) -> Result<Self, Malformed> {
        let bytes = decode(&wire.sig).ok_or_else(|| Malformed::new("a signature is not base64"))?;
        Ok(Self { material: Material::Key(wire.keyid.as_deref().and_then(KeyId::from_hint)), bytes })
    }
}

/// DSSE: "either standard or URL-safe"; padding may be left out, which changes no byte.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const BY_STANDARD: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
    const BY_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
    BY_STANDARD.decode(text).or_else(|_| BY_URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read_and_mixtures_are_not() {
        assert_eq!(decode("+/+/"), decode("-_-_"));
        assert_eq!(decode("YQ=="), decode("YQ"));
        for bad in ["+_+_", "Y", "YR==", "YQ==\n", "é"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_an_envelope_is_refused_with_the_reason() {
        let why = |text: &str| Envelope::parse(text.as_bytes()).unwrap_err().0;
        assert!(why(r#"{"payload":"","payloadType":"t"}"#).contains("signatures"));
        assert!(why(r#"{"payload":"","payload":"","payloadType":"t","signatures":[]}"#).contains("twice"));
        assert!(why(r#"{"payload":"!","payloadType":"t","signatures":[]}"#).contains("base64"));
        let many = vec![r#"{"sig":""}"#; 33].join(",");
        assert!(why(&format!(r#"{{"payload":"","payloadType":"t","signatures":[{many}]}}"#)).contains("32"));
        assert!(Envelope::parse(br#"{"payload":"","payloadType":"t","signatures":[],"more":1}"#).is_ok());
    }
}
