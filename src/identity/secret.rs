//! A bearer secret: shown once, kept as a hash.

use crate::config::SecretFileMode;
use crate::secret_files::{self, Unusable};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What stands before every secret that we make, so that scanners of leaked secrets find it.
const PREFIX: &str = "pmk_";

/// Characters of a secret that an operator chose, at the least, and different ones among them: 20 letters of one kind
/// are guessed at once.
const MIN_CHOSEN_LEN: usize = 20;
const MIN_DIFFERENT: usize = 8;

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

/// The path without its segments that hold a token of ours, as somebody may write one there by mistake: a log is read
/// by more people than may have it.
pub fn without_secrets(path: &str) -> Cow<'_, str> {
    let holds_one = |segment: &str| holds_secret(segment) || holds_secret(&decoded(segment));
    if !path.split('/').any(holds_one) {
        return Cow::Borrowed(path);
    }
    let shown = path.split('/').map(|segment| if holds_one(segment) { "[secret]" } else { segment });
    Cow::Owned(shown.collect::<Vec<_>>().join("/"))
}

/// Without its percent-encoding, however often it was encoded.
fn decoded(segment: &str) -> String {
    let mut text = segment.to_owned();
    // Each round makes it shorter, or is the last.
    while text.contains('%') {
        let next = url::form_urlencoded::parse(
            format!("={}", text.replace('&', "%26").replace('+', "%2B")).as_bytes(),
        )
        .map(|(_, value)| value.into_owned())
        .next()
        .unwrap_or_default();
        if next.len() >= text.len() {
            break;
        }
        text = next;
    }
    text
}

/// A token, or a docker token: a JWT begins with `{"` in base64.
fn holds_secret(text: &str) -> bool {
    text.contains(PREFIX) || text.split_once("eyJ").is_some_and(|(_, rest)| rest.matches('.').count() >= 2)
}

impl Secret {
    /// Whether it is the other one; how long that takes tells nothing of where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.sha256().ct_eq(&other.sha256()).into()
    }
}

/// Why a secret that an operator chose is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NoSecret {
    /// It is too easy to guess.
    #[error(
        "a chosen token has at least {MIN_CHOSEN_LEN} characters, {MIN_DIFFERENT} different ones among them and no \
         spaces: take one of `openssl rand -base64 32`"
    )]
    Weak,
    /// Its file cannot be taken.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// The secret that an operator wrote into a file.
pub fn chosen_secret(path: &Path, rule: SecretFileMode) -> Result<Secret, NoSecret> {
    let text = secret_files::read_text(path, rule)?;
    let text = text.trim();
    let different = text.chars().collect::<BTreeSet<_>>().len();
    if text.len() < MIN_CHOSEN_LEN || different < MIN_DIFFERENT || text.contains(char::is_whitespace) {
        return Err(NoSecret::Weak);
    }
    Ok(Secret::new(text))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_a_path_is_shown_to_nobody() {
        let token = Secret::generate();
        let token = token.reveal();
        let encoded = token.replace('_', "%5F").replace('p', "%70");
        for segment in
            [token, &format!("x{token}y"), &encoded, &encoded.replace('%', "%25"), "eyJhbGci.eyJz.c2ln"]
        {
            assert_eq!(without_secrets(&format!("/v2/{segment}/tags")), "/v2/[secret]/tags", "{segment}");
        }
        for path in ["/v2/team/app/manifests/1.2.3", "/", "", "/api/v1/x%20y%", "/v2/eyJack/blobs/sha256:ab"]
        {
            assert_eq!(without_secrets(path), path);
        }
    }
}
