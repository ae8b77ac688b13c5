//! Root keys: each in a file of its own, which belongs on a machine without a network.

use super::durable::{Existing, write};
use super::private::{PublicKey, generate, pkcs8};
use crate::config::SecretFileMode;
use crate::failure::Failure;
use crate::secret_files;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use serde::Deserialize;
use std::path::Path;
use zeroize::Zeroizing;

/// A private key of the role root. It signs trust files and nothing else.
pub struct RootKey(SigningKey);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    #[serde(rename = "about")]
    _about: Option<&'a str>,
    version: u32,
    root: &'a str,
}

const ABOUT: &str = "A root key of a Proofmark registry. It signs trust files: keep it off the network.";
const READING: &str = "reading a root key";

impl RootKey {
    /// Makes a key in a file that must not exist yet (mode 0600).
    pub fn init(path: &Path) -> Result<Self, Failure> {
        let key = Self(generate()?);
        let der = pkcs8(&key.0)?;
        // Room for everything, so that no reallocation leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(512));
        text.extend(["{\n  \"about\": \"", ABOUT, "\",\n  \"version\": 1,\n  \"root\": \""]);
        STANDARD.encode_string(der.as_bytes(), &mut text);
        text.push_str("\"\n}\n");
        write(path, text.as_bytes(), 0o600, Existing::Refused)?;
        Ok(key)
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |why: String| Failure::new(READING, format!("the root file {}: {why}", path.display()));
        let text = secret_files::read_text(path, SecretFileMode::of_environment())
            .map_err(|unusable| Failure::new(READING, unusable))?;
        let other = || failed("it is not what `proofmark key root init` writes".into());
        let document: Document<'_> = serde_json::from_str(&text).map_err(|_| other())?;
        if document.version != 1 {
            return Err(failed(format!("it has version {}; this build reads version 1", document.version)));
        }
        let der = Zeroizing::new(STANDARD.decode(document.root).unwrap_or_default());
        SigningKey::from_pkcs8_der(&der).map(Self).map_err(|_| other())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::of(self.0.verifying_key())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).to_bytes().to_vec()
    }
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RootKey").field(&self.public().id()).finish()
    }
}

#[cfg(test)]
impl RootKey {
    pub(super) fn of(seed: u8) -> Self {
        Self(SigningKey::from_bytes(&[seed; 32]))
    }
}
