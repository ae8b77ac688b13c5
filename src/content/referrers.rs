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
