//! Referrers: the manifests of a repository that name another as their subject.

use super::store::referrers as store;
use crate::failure::Failure;
use crate::names::{Digest, MediaType, Tag};
use serde_json::Value;
use sqlx::PgConnection;

/// A manifest that refers to the one that was asked about.
#[derive(Clone, Debug)]
pub struct Referrer {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its own bytes.
    pub size_bytes: i64,
    /// `artifactType`; of an image without one, its config's type.
    pub artifact_type: Option<MediaType>,
    /// Its annotations.
    pub annotations: Option<Value>,
}

/// A page of them.
#[derive(Clone, Debug)]
pub struct Referrers {
    /// By digest.
    pub page: Vec<Referrer>,
    /// Whether others come behind it.
    pub more: bool,
}

/// Bytes of the manifests of one page, beyond which it ends with the manifest that it is at: their
/// annotations are in memory, and each may be nearly as large as the largest manifest.
pub const REFERRERS_BYTES: u64 = 1 << 20;

/// The digest that a tag of cosign or the referrers fallback is made of: `sha256-<hex>`, perhaps with
/// `.sig`, `.att` or `.sbom`. What it names belongs to the manifest of that digest.
pub(super) fn subject_of_tag(tag: &Tag) -> Option<Digest> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
    format!("{algorithm}:{hex}").parse().ok()
}

/// A tag under which clients look for what belongs to a manifest, where they do not ask for referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedTag {
    /// The manifest whose digest the tag is made of.
    pub subject: Digest,
    /// Whether it is the referrers fallback, which names an index of referrers. Otherwise it is cosign's name of
    /// signatures (`.sig`), attestations (`.att`) or an SBOM (`.sbom`).
    pub is_fallback: bool,
}

impl AttachedTag {
    /// Reads `sha256-<hex>`, perhaps with `.sig`, `.att` or `.sbom`; `None` for every other tag.
    pub fn read(tag: &Tag) -> Option<Self> {
        let rest = tag.as_str().strip_prefix("sha256-")?;
        let (hex, end) = rest.split_once('.').map_or((rest, None), |(hex, end)| (hex, Some(end)));
        let is_fallback = match end {
            None => true,
            Some("sig" | "att" | "sbom") => false,
            Some(_) => return None,
        };
        Some(Self { subject: format!("sha256:{hex}").parse().ok()?, is_fallback })
    }
}

/// A page of what refers to the subject, by digest after `last`, at most `limit` of them; the subject need not
/// be there.
pub async fn referrers(
    connection: &mut PgConnection,
    repository_id: i64,
    subject: &Digest,
    artifact_type: Option<&str>,
    last: &str,
    limit: i64,
) -> Result<Referrers, Failure> {
    let bytes = REFERRERS_BYTES.cast_signed();
    store::page(connection, repository_id, subject, artifact_type, last, limit, bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_that_clients_look_for_attach_something() {
        let subject = Digest::sha256(b"x");
        let read = |end: &str| {
            let tag = format!("{}{end}", subject.as_str().replace(':', "-"));
            AttachedTag::read(&tag.parse().unwrap())
        };
        for end in [".sig", ".att", ".sbom"] {
            assert_eq!(read(end), Some(AttachedTag { subject: subject.clone(), is_fallback: false }));
        }
        assert_eq!(read(""), Some(AttachedTag { subject: subject.clone(), is_fallback: true }));
        for other in [".", ".sig.att", ".SIG", ".sboms", "0"] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(AttachedTag::read(&"v1.sig".parse().unwrap()), None);
    }

    #[test]
    fn a_tag_made_of_a_digest_tells_its_subject() {
        let subject = Digest::sha256(b"x");
        for end in ["", ".sig", ".att", ".sbom"] {
            let tag = format!("{}{end}", subject.as_str().replace(':', "-"));
            assert_eq!(subject_of_tag(&tag.parse().unwrap()), Some(subject.clone()));
        }
        for other in ["v1", "sha256-", "sha256-abc.sig", "sha1-da39a3ee5e6b4b0d3255bfef95601890afd80709"] {
            assert_eq!(subject_of_tag(&other.parse().unwrap()), None, "{other}");
        }
    }
}
