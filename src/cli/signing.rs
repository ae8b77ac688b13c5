//! Signing on this side: an in-toto statement in a DSSE envelope, with the caller's own key.

use super::connection::read;
use super::stop::Stop;
use crate::attestation::COSIGN_SIGN;
use crate::keys::pae;
use crate::names::Digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::path::Path;
use zeroize::Zeroizing;

/// What the payload of an envelope with a statement is.
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";

/// What a bundle is.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A private key that can sign.
pub enum SigningKey {
    /// Ed25519, over the bytes themselves.
    Ed25519(Ed25519KeyPair),
    /// ECDSA on P-256 with SHA-256, the signature in ASN.1 DER.
    P256(EcdsaKeyPair),
}

impl SigningKey {
    /// Reads a PEM file: PKCS#8 of either kind, or SEC 1 for P-256, as openssl writes them.
    pub fn read(path: &Path) -> Result<Self, Stop> {
        let wrong = |why: &str| {
            Stop::Usage(format!(
                "{} holds no key to sign with ({why}); give an Ed25519 or P-256 private key as PEM, such as `openssl \
                 genpkey -algorithm ed25519` makes",
                path.display()
            ))
        };
        let pem = Zeroizing::new(read(path, "the signing key")?);
        if pem.windows(9).any(|window| window == b"ENCRYPTED") {
            return Err(wrong("it is encrypted: decrypt it with `openssl pkey` first"));
        }
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong("it is not a private key as PEM"))?;
        let der = key.secret_der();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::Ed25519(pair));
        }
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map(Self::P256)
            .map_err(|_| wrong("it is of another kind"))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Stop> {
        match self {
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| Stop::Unanswered("the key did not sign".into())),
        }
    }

    /// SHA-256 of the SubjectPublicKeyInfo's DER, hexadecimal: a hint for verifiers.
    fn key_id(&self) -> String {
        self.fingerprint().hex().to_owned()
    }

    fn fingerprint(&self) -> Digest {
        // SubjectPublicKeyInfo is a fixed header before the raw key (RFC 8410; RFC 5480 for P-256).
        const ED25519: &str = "302a300506032b6570032100";
        const P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        let (header, raw) = match self {
            Self::Ed25519(pair) => (ED25519, pair.public_key().as_ref()),
            Self::P256(pair) => (P256, pair.public_key().as_ref()),
        };
        let mut der = hex::decode(header).unwrap_or_default();
        der.extend_from_slice(raw);
        Digest::sha256(&der)
    }

    /// A Sigstore bundle with an envelope over the statement, as cosign writes it for a key.
    pub fn bundle(&self, statement: &Value) -> Result<Value, Stop> {
        let payload = statement.to_string().into_bytes();
        let signature = self.sign(&pae(STATEMENT_TYPE, &payload))?;
        let hint = hex::decode(self.fingerprint().hex()).unwrap_or_default();
        Ok(json!({
            "mediaType": BUNDLE,
            "verificationMaterial": { "publicKey": { "hint": STANDARD.encode(hint) } },
            "dsseEnvelope": {
                "payload": STANDARD.encode(&payload),
                "payloadType": STATEMENT_TYPE,
                "signatures": [{ "sig": STANDARD.encode(signature) }],
            },
        }))
    }

    /// An envelope over the statement.
    pub fn envelope(&self, statement: &Value) -> Result<Value, Stop> {
        let payload = statement.to_string().into_bytes();
        let signature = self.sign(&pae(STATEMENT_TYPE, &payload))?;
        Ok(json!({
            "payload": STANDARD.encode(&payload),
            "payloadType": STATEMENT_TYPE,
            "signatures": [{ "keyid": self.key_id(), "sig": STANDARD.encode(signature) }],
        }))
    }
}

/// An in-toto statement that says the predicate about one subject.
pub fn statement(name: &str, subject: &Digest, predicate_type: &str, predicate: &Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": name, "digest": { subject.algorithm().as_str(): subject.hex() } }],
        "predicateType": predicate_type,
        "predicate": predicate,
    })
}

/// The statement of `cosign sign` about an artifact.
pub fn signature_statement(subject: &Digest, annotations: &[(String, String)]) -> Result<Value, Stop> {
    let mut named = serde_json::Map::new();
    for (name, value) in annotations {
        if named.insert(name.clone(), json!(value)).is_some() {
            return Err(Stop::Usage(format!("the annotation {name} is given twice; each name stands once")));
        }
    }
    let mut subject = json!({ "digest": { subject.algorithm().as_str(): subject.hex() } });
    if !named.is_empty() {
        subject["annotations"] = Value::Object(named);
    }
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [subject],
        "predicateType": COSIGN_SIGN,
        "predicate": {},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by openssl: `genpkey -algorithm ed25519`; `pkey -pubout -outform der | sha256sum`.
    const ED25519: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const ED25519_ID: &str = "a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f";

    #[test]
    fn a_key_that_openssl_made_signs_and_has_openssls_key_id() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        std::fs::write(&path, ED25519).unwrap();
        let key = SigningKey::read(&path).unwrap();
        assert_eq!(key.key_id(), ED25519_ID);
        let digest = Digest::sha256(b"");
        let envelope = key.envelope(&statement("a", &digest, "https://example.com/t", &json!({}))).unwrap();
        let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
        let signature = STANDARD.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap();
        let SigningKey::Ed25519(pair) = &key else { panic!("not Ed25519") };
        let public =
            aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, pair.public_key());
        assert!(public.verify(&pae(STATEMENT_TYPE, &payload), &signature).is_ok());
    }

    #[test]
    fn a_bundle_is_shaped_as_cosign_writes_it() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/signing");
        let of_cosign = std::fs::read(format!("{folder}/cosign3-sign-annotated-p256/blob-0.json")).unwrap();
        let of_cosign: Value = serde_json::from_slice(&of_cosign).unwrap();
        let payload = |bundle: &Value| -> Value {
            let bytes = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
            serde_json::from_slice(&bytes).unwrap()
        };
        let signed = payload(&of_cosign);
        let digest =
            format!("sha256:{}", signed["subject"][0]["digest"]["sha256"].as_str().unwrap()).parse().unwrap();
        let given = ["build=1234567", "env=staging"].map(|text| {
            let (name, value) = text.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        });
        let key = std::path::PathBuf::from(format!("{folder}/keys/test-only-release.key.pem"));
        let key = SigningKey::read(&key).unwrap();
        let mut ours = key.bundle(&signature_statement(&digest, &given).unwrap()).unwrap();
        assert_eq!(payload(&ours), signed);
        // But for the signature and the spelling of the payload it is the same document.
        for member in ["payload", "signatures"] {
            ours["dsseEnvelope"][member] = of_cosign["dsseEnvelope"][member].clone();
        }
        assert_eq!(ours, of_cosign);
        let twice = [given[0].clone(), given[0].clone()];
        assert!(matches!(signature_statement(&digest, &twice), Err(Stop::Usage(_))));
    }

    #[test]
    fn what_cannot_sign_is_refused_with_what_can() {
        let directory = tempfile::tempdir().unwrap();
        for text in [
            "",
            "no key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ] {
            let path = directory.path().join("key.pem");
            std::fs::write(&path, text).unwrap();
            let Err(Stop::Usage(why)) = SigningKey::read(&path) else { panic!("{text} was read") };
            assert!(why.contains("Ed25519 or P-256"), "{why}");
        }
    }
}
