//! A statement is read only behind a signature, so every input is signed first.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer, SigningKey};
use libfuzzer_sys::fuzz_target;
use proofmark::attestation::{Envelope, Facts, IN_TOTO, verify};
use proofmark::trust::PublicKey;
use std::sync::LazyLock;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));
static PUBLIC: LazyLock<PublicKey> = LazyLock::new(|| {
    let pem = KEY.verifying_key().to_public_key_pem(LineEnding::LF).expect("a key is written as PEM");
    PublicKey::from_pem(&pem, None).expect("and read again")
});

fuzz_target!(|payload: &[u8]| {
    let mut message = format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    let envelope = serde_json::json!({
        "payloadType": IN_TOTO,
        "payload": STANDARD.encode(payload),
        "signatures": [{"sig": STANDARD.encode(KEY.sign(&message).to_bytes())}],
    });
    let envelope = Envelope::parse(envelope.to_string().as_bytes()).expect("the envelope is well formed");
    if let Ok(verified) = verify(&envelope, &[&PUBLIC]) {
        assert_eq!(verified.keys().collect::<Vec<_>>(), [0]);
        let _ = Facts::of(verified.content());
    }
});
