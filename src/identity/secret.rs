//! A bearer secret: shown once, kept as a hash.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// What stands before every secret that we make, so that scanners of leaked secrets find it.
const PREFIX: &str = "pmk_";

/// Characters of a secret that an operator chose, at the least.
pub const MIN_CHOSEN_LEN: usize = 20;

/// A secret as its holder shows it; never printed by accident.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A new secret of 256 random bits.
    pub fn generate() -> Self {
        let bytes: [u8; 32] = rand::random();
        Self(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// What stood in a header or a file.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// The text, to show it to its holder.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the text: what Postgres keeps. 256 random bits leave nothing to guess, so a slow
    /// hash would only slow every request.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
