//! Content digests: OCI image specification, "Descriptor", section "Digests".

use sha2::digest::Digest as _;
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Sha256, Sha512};
use std::fmt;
use std::str::FromStr;

use super::text_name;

/// A digest algorithm that this registry stores content under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the default: 64 hexadecimal digits.
    Sha256,
    /// SHA-512: 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The name as it stands before the colon of a digest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl FromStr for Algorithm {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(InvalidDigest),
        }
    }
}

/// A content digest, `sha256:<64 hex>` or `sha512:<128 hex>`, lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

/// Not a digest that this registry accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is sha256: and 64, or sha512: and 128, lower-case hexadecimal digits")]
pub struct InvalidDigest;

impl Digest {
    /// The digest of bytes held in memory.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The SHA-256 digest of bytes held in memory.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha256:") { Algorithm::Sha256 } else { Algorithm::Sha512 }
    }

    /// The hexadecimal digits behind the colon.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    fn check(text: &str) -> Result<(), InvalidDigest> {
        let (algorithm, hex) = text.split_once(':').ok_or(InvalidDigest)?;
        let algorithm: Algorithm = algorithm.parse()?;
        let digits = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && hex.len() == algorithm.hex_len() { Ok(()) } else { Err(InvalidDigest) }
    }
}

text_name!(Digest, InvalidDigest);

/// A running hash of one algorithm.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

/// The state of a running hash, as bytes that another process can go on from. Not authenticated:
/// it is kept on the server's side only.
#[derive(Clone, PartialEq, Eq)]
pub struct Resumable(pub Vec<u8>);

impl Hasher {
    /// A hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(h) => Digest(format!("sha256:{}", hex::encode(h.finalize()))),
            Self::Sha512(h) => Digest(format!("sha512:{}", hex::encode(h.finalize()))),
        }
    }

    /// The same, as bytes.
    pub fn finish_bytes(self) -> Vec<u8> {
        match self {
            Self::Sha256(h) => h.finalize().to_vec(),
            Self::Sha512(h) => h.finalize().to_vec(),
        }
    }

    /// The state, for another process to resume.
    pub fn suspend(&self) -> Resumable {
        match self {
            Self::Sha256(h) => Resumable(h.serialize().to_vec()),
            Self::Sha512(h) => Resumable(h.serialize().to_vec()),
        }
    }

    /// Goes on from a suspended state. `None` when the bytes are no state of this algorithm.
    pub fn resume(algorithm: Algorithm, state: &Resumable) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => {
                let state = state.0.as_slice().try_into().ok()?;
                Sha256::deserialize(&state).ok().map(Self::Sha256)
            }
            Algorithm::Sha512 => {
                let state = state.0.as_slice().try_into().ok()?;
                Sha512::deserialize(&state).ok().map(Self::Sha512)
            }
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256(_) => "Hasher(sha256)",
            Self::Sha512(_) => "Hasher(sha512)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn upper_case_and_other_algorithms_are_refused() {
        for bad in ["", "sha256:", "sha256:AB", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256", ":"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_empty_digest_is_the_published_one() {
        assert_eq!(
            Digest::sha256(b"").as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    proptest! {
        #[test]
        fn a_suspended_hash_goes_on_to_the_same_digest(a: Vec<u8>, b: Vec<u8>, long: bool) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let mut first = Hasher::new(algorithm);
            first.update(&a);
            let mut second = Hasher::resume(algorithm, &first.suspend()).unwrap();
            second.update(&b);
            let whole: Vec<u8> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(second.finish(), Digest::of(algorithm, &whole));
        }

        #[test]
        fn a_digest_round_trips(bytes: Vec<u8>) {
            let digest = Digest::sha256(&bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        }
    }
}
