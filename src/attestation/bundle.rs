//! Sigstore bundles, v0.1 to v0.3: an envelope with what it was signed with.

use super::envelope::{Envelope, Material};
use super::json::{self, Malformed};
use crate::trust::KeyId;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The forms of bundle that are read.
const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    media_type: String,
    verification_material: WireMaterial,
    dsse_envelope: Option<Value>,
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMaterial {
    public_key: Option<WirePublicKey>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WirePublicKey {
    hint: Option<String>,
}

/// What a bundle carries.
pub(super) enum Bundle {
    /// A signed statement.
    Envelope(Envelope),
    /// A signature over a file that is not in the bundle: it states nothing.
    Message,
}

/// Reads a bundle. It holds exactly one signature, so that its one material belongs to it.
pub(super) fn from_json(document: Value) -> Result<Bundle, Malformed> {
    let wire: Wire = json::shape(document, "a Sigstore bundle")?;
    if !MEDIA_TYPES.contains(&wire.media_type.as_str()) {
        return Err(Malformed(format!(
            "{:?} is no bundle that can be read: versions 0.1 to 0.3 are",
            wire.media_type
        )));
    }
    let material = wire.verification_material;
    let material = match (material.public_key, material.certificate, material.x509_certificate_chain) {
        (Some(key), None, None) => Material::Key(key.hint.as_deref().and_then(KeyId::from_hint)),
        (None, Some(_), None) | (None, None, Some(_)) => Material::Certificate,
        _ => return Err(Malformed::new("a bundle has one of publicKey, certificate, x509CertificateChain")),
    };
    let mut envelope = match (wire.dsse_envelope, wire.message_signature) {
        (Some(envelope), None) => Envelope::from_json(envelope)?,
        (None, Some(_)) => return Ok(Bundle::Message),
        _ => return Err(Malformed::new("a bundle has one of dsseEnvelope, messageSignature")),
    };
    let [signature] = envelope.signatures.as_mut_slice() else {
        return Err(Malformed(format!(
            "a bundle has exactly one signature, this one has {}",
            envelope.signatures.len()
        )));
    };
    // The bundle's own hint is the one its writer meant; without it the envelope's keyid may do.
    if material != Material::Key(None) {
        signature.material = material;
    }
    Ok(Bundle::Envelope(envelope))
}
