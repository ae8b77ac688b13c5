//! Media types: RFC 6838, section 4.2.

use super::text_name;

/// A media type such as `application/vnd.oci.image.manifest.v1+json`, kept exactly as it was given.
/// Parameters (`;version=0.3`) are allowed, as Sigstore's older bundles use them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaType(String);

/// Not a media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a media type is type/subtype in at most 255 visible ASCII characters")]
pub struct InvalidMediaType;

impl MediaType {
    fn check(text: &str) -> Result<(), InvalidMediaType> {
        let token = |s: &str| {
            !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        let essence = text.split(';').next().unwrap_or_default().trim_end();
        let visible = text.len() <= 255 && text.bytes().all(|b| (0x20..0x7f).contains(&b));
        match essence.split_once('/') {
            Some((kind, subtype)) if visible && token(kind) && token(subtype) => Ok(()),
            _ => Err(InvalidMediaType),
        }
    }
}

text_name!(MediaType, InvalidMediaType);
