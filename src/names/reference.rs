//! What a manifest is asked for by.

use super::{Digest, Tag};
use std::fmt;
use std::str::FromStr;

/// A tag or a digest, the last part of `/v2/<name>/manifests/<reference>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

/// Neither a tag nor a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reference is a tag, or a digest such as sha256:<64 hexadecimal digits>")]
pub struct InvalidReference;

impl FromStr for Reference {
    type Err = InvalidReference;
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.contains(':') {
            text.parse().map(Self::Digest).map_err(|_| InvalidReference)
        } else {
            text.parse().map(Self::Tag).map_err(|_| InvalidReference)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}
