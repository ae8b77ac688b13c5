//! in-toto statements (v1, and v0.1 that cosign still writes), and cosign's older claims as one.

use super::envelope::{IN_TOTO, Payload};
use super::json::{self, Malformed};
use crate::names::Digest;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a signer says of its subjects.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// What kind of thing it says.
    pub predicate_type: String,
    /// What it says.
    pub predicate: Value,
}

/// Something that a statement is about. Names are for people; it is matched by digest only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Subject {
    /// What the signer calls it.
    pub name: Option<String>,
    /// Its digests, hexadecimal by algorithm.
    pub digest: BTreeMap<String, String>,
    /// What else is said of it; nothing is concluded from it but in our own summaries.
    #[serde(default)]
    pub annotations: Value,
}

impl Subject {
    /// Whether it has the digest.
    pub fn is(&self, digest: &Digest) -> bool {
        self.digest.get(digest.algorithm().as_str()).is_some_and(|hex| hex == digest.hex())
    }
}

/// Why a payload is not a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It cannot be read at all.
    Malformed(String),
    /// It is of a kind that is not known here, so nothing is concluded from it.
    Foreign(String),
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

/// The predicate type of `cosign sign`, also given to its older simple signing.
pub const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

const STATEMENT_TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
const MAX_SUBJECTS: usize = 4096;
const MAX_PREDICATE_TYPE_LEN: usize = 1024;

#[derive(Deserialize)]
struct Wire {
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
}

#[derive(Deserialize)]
struct SimpleSigning {
    critical: Critical,
    #[serde(default)]
    optional: Value,
}

#[derive(Deserialize)]
struct Critical {
    identity: Value,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

impl Statement {
    /// Whether one of the subjects has the digest.
    pub fn is_about(&self, digest: &Digest) -> bool {
        self.subjects.iter().any(|subject| subject.is(digest))
    }

    /// The subjects' digests of the algorithms that content is stored under.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.subjects
            .iter()
            .flat_map(|subject| &subject.digest)
            .filter_map(|(algorithm, hex)| format!("{algorithm}:{hex}").parse().ok())
    }

    /// Reads a payload. Whoever calls this has verified a signature, or marks what it reads as a
    /// claim of nobody.
    pub(super) fn read(payload: &Payload) -> Result<Self, Unreadable> {
        match payload {
            Payload::Dsse { payload_type, bytes } if payload_type == IN_TOTO => Self::in_toto(bytes),
            Payload::Dsse { payload_type, .. } => {
                Err(Unreadable::Foreign(format!("the payload type is {payload_type:?}, not {IN_TOTO}")))
            }
            Payload::SimpleSigning(bytes) => Self::simple_signing(bytes),
        }
    }

    fn in_toto(bytes: &[u8]) -> Result<Self, Unreadable> {
        let document = json::parse(bytes, json::STATEMENT)?;
        match document.get("_type") {
            Some(Value::String(kind)) if STATEMENT_TYPES.contains(&kind.as_str()) => {}
            Some(Value::String(kind)) => {
                return Err(Unreadable::Foreign(format!("{kind:?} is no statement type that is known here")));
            }
            _ => return Err(Unreadable::Malformed("not an in-toto statement: it has no _type".into())),
        }
        let wire: Wire = json::shape(document, "an in-toto statement")?;
        if wire.subject.is_empty() || wire.subject.iter().any(|subject| subject.digest.is_empty()) {
            return Err(Unreadable::Malformed("a statement has subjects, each with a digest".into()));
        }
        if wire.subject.len() > MAX_SUBJECTS {
            return Err(Unreadable::Malformed(format!("a statement has at most {MAX_SUBJECTS} subjects")));
        }
        if wire.predicate_type.is_empty() || wire.predicate_type.len() > MAX_PREDICATE_TYPE_LEN {
            return Err(Unreadable::Malformed(format!(
                "a predicate type has 1 to {MAX_PREDICATE_TYPE_LEN} bytes"
            )));
        }
        if wire.predicate_type.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Unreadable::Malformed(
                "a predicate type is a URI: it has no spaces or controls".into(),
            ));
        }
        Ok(Self { subjects: wire.subject, predicate_type: wire.predicate_type, predicate: wire.predicate })
    }

    fn simple_signing(bytes: &[u8]) -> Result<Self, Unreadable> {
        let claim: SimpleSigning =
            json::shape(json::parse(bytes, json::SIMPLE_SIGNING)?, "a simple signing payload")?;
        if claim.critical.kind != "cosign container image signature" {
            return Err(Unreadable::Foreign(format!(
                "{:?} is no simple signing type that is known here",
                claim.critical.kind
            )));
        }
        let digest = claim.critical.image.digest;
        let of = (digest.algorithm().as_str().to_owned(), digest.hex().to_owned());
        Ok(Self {
            subjects: vec![Subject { name: None, digest: BTreeMap::from([of]), annotations: Value::Null }],
            predicate_type: COSIGN_SIGN.to_owned(),
            predicate: json!({"identity": claim.critical.identity, "optional": claim.optional}),
        })
    }
}
