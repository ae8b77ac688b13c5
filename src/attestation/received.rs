//! One attestation as it came in, over our API or over OCI: told apart, parsed, bytes kept.

use super::bundle::{self, Bundle};
use super::envelope::{Envelope, IN_TOTO, Material};
use super::facts;
use super::json::{self, Malformed};
use super::statement::{Statement, Unreadable};
use super::verify::{Unproved, Verified, verify_read};
use super::wrapping::{READ, unwrap};
use crate::names::{Digest, MediaType};
use crate::postgres::{Mode, Scopes};
use crate::trust::{KeyId, PublicKey};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A bare DSSE envelope as a layer.
pub const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
/// A Sigstore bundle as a layer, and as the artifact type of what carries it.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Of the longest keys there are twice as much.
const MAX_SIGNATURE_LEN: usize = 2048;
const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";

/// An attestation as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    pub(super) media_type: &'static str,
    pub(super) body: Bytes,
    pub(super) digest: Digest,
    /// The signature that stands beside the body (simple signing), as it was written.
    beside: Option<String>,
    pub(super) form: Form,
    /// What the payload claims, read once.
    claims: Result<Arc<Statement>, Unreadable>,
    /// The digest of the signed bytes.
    pub(super) message: Option<Digest>,
}

/// What it turned out to be.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// Signatures over a payload.
    Signed(Envelope),
    /// Cannot be read as what it says it is.
    Malformed(String),
    /// Nothing to verify.
    Opaque(String),
}

impl Received {
    /// The documents of a request's body: an envelope, a bundle, or a wrapping of several (JSON lines, a JSON list,
    /// the answer of GitHub's or npm's attestations API). Every one must be readable and carry a statement.
    pub fn documents(body: &Bytes) -> Result<Vec<Self>, Malformed> {
        let documents = unwrap(body)?;
        let several = documents.len() > 1;
        let read = |(number, body): (usize, Bytes)| {
            json::parse(&body, json::DOCUMENT).and_then(|document| Self::document(document, body)).map_err(
                |malformed| {
                    if several {
                        Malformed(format!("document {}: {malformed}", number + 1))
                    } else {
                        malformed
                    }
                },
            )
        };
        documents.into_iter().enumerate().map(read).collect()
    }

    fn document(document: Value, body: Bytes) -> Result<Self, Malformed> {
        let (media_type, envelope) = if document.get("mediaType").is_some() {
            match bundle::from_json(document)? {
                Bundle::Envelope(envelope) => (BUNDLE, envelope),
                Bundle::Message => {
                    return Err(Malformed::new(
                        "a bundle with a messageSignature states nothing: send one \
                                               with a dsseEnvelope",
                    ));
                }
            }
        } else if document.get("payloadType").is_some() {
            (DSSE, Envelope::from_json(document)?)
        } else {
            return Err(Malformed(format!(
                "neither a DSSE envelope nor a Sigstore bundle; what is read is {READ}"
            )));
        };
        Ok(Self::new(media_type, body, None, Form::Signed(envelope)))
    }

    /// Reads what is needed of it once: documents may be large.
    fn new(media_type: &'static str, body: Bytes, beside: Option<String>, form: Form) -> Self {
        let (claims, message) = match &form {
            Form::Signed(envelope) => {
                (Statement::read(&envelope.payload).map(Arc::new), Some(envelope.message_digest()))
            }
            Form::Malformed(why) => (Err(Unreadable::Malformed(why.clone())), None),
            Form::Opaque(why) => (Err(Unreadable::Foreign(why.clone())), None),
        };
        Self { media_type, digest: Digest::sha256(&body), body, beside, form, claims, message }
    }

    /// What two layers of the same bytes are told apart by; `None` when the media type is of no
    /// attestation.
    pub fn told_apart_by(
        media_type: &MediaType,
        annotations: &BTreeMap<String, String>,
    ) -> Option<(&'static str, Option<String>, bool)> {
        let kind = kind(media_type)?;
        let beside = annotations.get(SIGNATURE_ANNOTATION).filter(|_| kind == SIMPLE_SIGNING);
        Some((kind, beside.cloned(), annotations.contains_key(CERTIFICATE_ANNOTATION)))
    }

    /// A layer of a pushed manifest; `None` when its media type is of no attestation.
    pub fn layer(
        media_type: &MediaType,
        annotations: &BTreeMap<String, String>,
        body: Bytes,
    ) -> Option<Self> {
        let kind = kind(media_type)?;
        let beside = annotations.get(SIGNATURE_ANNOTATION).filter(|_| kind == SIMPLE_SIGNING);
        let (beside, form) = match beside {
            Some(signature) if signature.len() > MAX_SIGNATURE_LEN => {
                (None, Form::Malformed(format!("a signature has at most {MAX_SIGNATURE_LEN} characters")))
            }
            _ => {
                let form = read(kind, annotations, &body);
                (beside.cloned(), form.unwrap_or_else(|malformed| Form::Malformed(malformed.0)))
            }
        };
        Some(Self::new(kind, body, beside, form))
    }

    /// Whether a layer of this media type is a statement without an envelope, as BuildKit pushes them.
    pub fn is_bare_statement(media_type: &MediaType) -> bool {
        kind(media_type) == Some(IN_TOTO)
    }

    /// The first of the subjects that it states, trusted or not.
    pub fn first_subject(&self) -> Option<Digest> {
        self.claimed()?.digests().next()
    }

    /// What the payload claims, whether or not a known key signed it. Only what is counted with its signatures may
    /// be made of it.
    pub fn claimed(&self) -> Option<&Statement> {
        self.claims.as_deref().ok()
    }

    /// The digest of the bytes as they were received.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The bytes as they were received.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The media type that a layer with these bytes has.
    pub fn media_type(&self) -> &'static str {
        self.media_type
    }

    /// The signature that stands beside the bytes, as simple signing has it.
    pub fn beside(&self) -> Option<&str> {
        self.beside.as_deref()
    }

    /// How many signatures it has.
    pub fn signatures(&self) -> usize {
        match &self.form {
            Form::Signed(envelope) => envelope.signatures.len(),
            Form::Malformed(_) | Form::Opaque(_) => 0,
        }
    }

    /// What a transaction that records these locks. No signer is registered meanwhile (it would not
    /// judge what is not committed yet); what may turn a yes into a no takes its repository alone.
    pub fn scopes(received: &[Self], repository_id: i64) -> Scopes {
        let adverse = received.iter().any(Self::may_be_adverse);
        let mode = if adverse { Mode::Exclusive } else { Mode::Shared };
        Scopes { signers: Some(Mode::Shared), repository: Some((repository_id, mode)), ..Scopes::default() }
    }

    /// Of results and scans the newest counts, so a new one may take the place of one that a policy asks for.
    fn may_be_adverse(&self) -> bool {
        self.signatures() > 0
            && self.claimed().is_some_and(|statement| {
                facts::is_result(&statement.predicate_type) || facts::is_scan(&statement.predicate_type)
            })
    }

    /// What the known keys signed.
    pub fn verify(&self, keys: &[&PublicKey]) -> Result<Verified<Arc<Statement>>, Unproved> {
        match &self.form {
            Form::Signed(envelope) => verify_read(envelope, keys, || self.claims.clone()),
            Form::Malformed(why) => Err(Unproved::Malformed(why.clone())),
            Form::Opaque(why) => Err(Unproved::Foreign(why.clone())),
        }
    }

    /// What the payload claims, perhaps signed by nobody that is known: to be listed and found by,
    /// never to be counted.
    pub(super) fn claims(&self) -> Result<Arc<Statement>, Unreadable> {
        self.claims.clone()
    }

    /// The key ids that its signatures hint at, `None` for one without a usable hint; certificates
    /// hint at nothing.
    pub(super) fn hints(&self) -> impl Iterator<Item = Option<&KeyId>> {
        let signatures = match &self.form {
            Form::Signed(envelope) => envelope.signatures.as_slice(),
            Form::Malformed(_) | Form::Opaque(_) => &[],
        };
        signatures.iter().filter_map(|signature| match &signature.material {
            Material::Key(hint) => Some(hint.as_ref()),
            Material::Certificate => None,
        })
    }

    /// The envelope of an attestation that was recorded earlier. Equal bytes are kept once, under the media
    /// type that they came with first, which may have been a wrong one.
    pub(super) fn parse_again(media_type: &str, beside: Option<&str>, body: &[u8]) -> Option<Envelope> {
        let annotations = beside.map(|text| (SIGNATURE_ANNOTATION.to_owned(), text.to_owned()));
        let annotations = annotations.into_iter().collect();
        let as_kind = |kind| match read(kind, &annotations, body) {
            Ok(Form::Signed(envelope)) => Some(envelope),
            Ok(Form::Malformed(_) | Form::Opaque(_)) | Err(_) => None,
        };
        as_kind(media_type).or_else(|| [DSSE, BUNDLE, SIMPLE_SIGNING, IN_TOTO].into_iter().find_map(as_kind))
    }
}

/// The media type that it is kept under: versions of the bundle's are one kind.
fn kind(media_type: &MediaType) -> Option<&'static str> {
    let text = media_type.as_str();
    match text {
        DSSE => Some(DSSE),
        SIMPLE_SIGNING => Some(SIMPLE_SIGNING),
        IN_TOTO => Some(IN_TOTO),
        _ if text.starts_with("application/vnd.dev.sigstore.bundle") => Some(BUNDLE),
        _ => None,
    }
}

fn read(kind: &str, annotations: &BTreeMap<String, String>, body: &[u8]) -> Result<Form, Malformed> {
    if kind == BUNDLE {
        return Ok(match bundle::from_json(json::parse(body, json::DOCUMENT)?)? {
            Bundle::Envelope(envelope) => Form::Signed(envelope),
            Bundle::Message => Form::Opaque("a signature over a file, which states nothing".into()),
        });
    }
    if kind == IN_TOTO {
        let statement = json::parse(body, json::STATEMENT)?;
        // What could be an envelope as well would be one attestation or another by its media type alone.
        if ["payloadType", "mediaType", "critical"].iter().any(|name| statement.get(name).is_some()) {
            return Err(Malformed::new("not a statement: it has members of an envelope"));
        }
        return Ok(Form::Signed(Envelope::unsigned(body)));
    }
    let mut envelope = if kind == SIMPLE_SIGNING {
        let signature = annotations
            .get(SIGNATURE_ANNOTATION)
            .ok_or_else(|| Malformed(format!("the layer has no annotation {SIGNATURE_ANNOTATION}")))?;
        json::parse(body, json::SIMPLE_SIGNING)?;
        Envelope::simple_signing(body, signature)?
    } else {
        Envelope::parse(body)?
    };
    if annotations.contains_key(CERTIFICATE_ANNOTATION) {
        envelope.signatures.iter_mut().for_each(|signature| signature.material = Material::Certificate);
    }
    Ok(Form::Signed(envelope))
}
