//! What readers know of attestations, so that nothing in them can be read in two ways.

use crate::json::{self, Bounds, Shape};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A DSSE envelope or a Sigstore bundle: which of the two decides a member, so both are one shape.
pub(super) const DOCUMENT: Shape = Shape::Members(&[
    ("payload", Shape::Any),
    ("payloadType", Shape::Any),
    ("signatures", SIGNATURES),
    ("mediaType", Shape::Any),
    ("verificationMaterial", MATERIAL),
    ("dsseEnvelope", ENVELOPE),
    ("messageSignature", Shape::Any),
]);

const ENVELOPE: Shape =
    Shape::Members(&[("payload", Shape::Any), ("payloadType", Shape::Any), ("signatures", SIGNATURES)]);

const SIGNATURES: Shape =
    Shape::List(&Shape::Members(&[("keyid", Shape::Any), ("sig", Shape::Any), ("cert", Shape::Any)]));

const MATERIAL: Shape = Shape::Members(&[
    ("publicKey", Shape::Members(&[("hint", Shape::Any)])),
    ("certificate", Shape::Any),
    ("x509CertificateChain", Shape::Any),
    ("tlogEntries", Shape::Any),
    ("timestampVerificationData", Shape::Any),
]);

/// An in-toto statement. What is in a predicate is its signer's and may have any names.
pub(super) const STATEMENT: Shape = Shape::Members(&[
    ("_type", Shape::Any),
    ("subject", Shape::List(&SUBJECT)),
    ("predicateType", Shape::Any),
    ("predicate", Shape::Any),
]);

const SUBJECT: Shape = Shape::Members(&[
    ("name", Shape::Any),
    ("uri", Shape::Any),
    ("digest", Shape::Any),
    ("content", Shape::Any),
    ("downloadLocation", Shape::Any),
    ("mediaType", Shape::Any),
    ("annotations", Shape::Any),
]);

/// cosign's older claim.
pub(super) const SIMPLE_SIGNING: Shape = Shape::Members(&[
    (
        "critical",
        Shape::Members(&[
            ("identity", Shape::Members(&[("docker-reference", Shape::Any)])),
            ("image", Shape::Members(&[("docker-manifest-digest", Shape::Any)])),
            ("type", Shape::Any),
        ]),
    ),
    ("optional", Shape::Any),
]);

/// As deep as the parser goes, and what the largest bills of materials say.
const BOUNDS: Bounds = Bounds { depth: 128, values: 2_000_000 };

/// Not to be read as what it should be, with why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Reads one document, which under one signature must be one to every reader.
pub(super) fn parse(bytes: &[u8], shape: Shape) -> Result<Value, Malformed> {
    let read = json::at_length(bytes.len(), || {
        json::check(bytes, BOUNDS, shape).and_then(|()| serde_json::from_slice(bytes))
    });
    read.map_err(|error| Malformed(format!("not a JSON document that can be read in one way only: {error}")))
}

/// The document as a type that knows its members; unknown members are ignored.
pub(super) fn shape<T: DeserializeOwned>(value: Value, what: &str) -> Result<T, Malformed> {
    serde_json::from_value(value).map_err(|error| Malformed(format!("not {what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_that_readers_know_has_one_spelling() {
        let envelope = r#"{"payload":"","payloadType":"t","signatures":[{"sig":"","keyid":""}]}"#;
        let statement = r#"{"_type":"t","subject":[{"digest":{"a":"1","A":"2"}}],"predicateType":"p",
                            "predicate":{"env":{"PATH":"","path":""}}}"#;
        parse(envelope.as_bytes(), DOCUMENT).unwrap();
        parse(statement.as_bytes(), STATEMENT).unwrap();
        for (document, shape, from, to) in [
            (envelope, DOCUMENT, r#""payload":"#, r#""Payload":"","payload":"#),
            (envelope, DOCUMENT, r#""payloadType":"#, r#""payloadtype":"","payloadType":"#),
            (envelope, DOCUMENT, r#""sig":"#, r#""Sig":"","sig":"#),
            (envelope, DOCUMENT, r#""signatures":"#, r#""\u017fignatures":[],"signatures":"#),
            (statement, STATEMENT, r#""subject":"#, r#""Subject":[],"subject":"#),
            (statement, STATEMENT, r#""digest":"#, r#""Digest":{},"digest":"#),
            (statement, STATEMENT, r#""predicate":"#, r#""PREDICATE":1,"predicate":"#),
            (statement, STATEMENT, r#""predicate":"#, r#""x":1e-99999,"predicate":"#),
        ] {
            let other = document.replace(from, to);
            assert_ne!(other, document);
            assert!(parse(other.as_bytes(), shape).is_err(), "{other}");
        }
    }
}
