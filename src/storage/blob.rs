//! A blob that is durable.

use super::pieces::PieceDigests;
use crate::names::Digest;
use bytes::Bytes;
use uuid::Uuid;

/// Bytes that are durable and have this digest. Made only in this room, which hashes while it writes.
#[derive(Clone, Debug)]
pub struct StoredBlob {
    digest: Digest,
    size_bytes: u64,
    location: Location,
    pieces: Option<PieceDigests>,
}

/// Where a blob's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In Postgres, in the blob's own row.
    Inline(Bytes),
    /// In the object store, under this key.
    Object(String),
}

impl StoredBlob {
    pub(super) fn inline(digest: Digest, bytes: Bytes) -> Self {
        Self { digest, size_bytes: bytes.len() as u64, location: Location::Inline(bytes), pieces: None }
    }

    pub(super) fn object(digest: Digest, size_bytes: u64, key: String, pieces: Option<PieceDigests>) -> Self {
        Self { digest, size_bytes, location: Location::Object(key), pieces }
    }

    /// The blob `{}`, the config of artifacts that have nothing to configure. So small that it lies
    /// in its row.
    pub fn empty_json() -> Self {
        const EMPTY: &[u8] = b"{}";
        Self::inline(Digest::sha256(EMPTY), Bytes::from_static(EMPTY))
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How many bytes it has.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Where its bytes lie.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The digests of its pieces; `None` of what lies in Postgres, and where an earlier version took the first bytes.
    pub fn pieces(&self) -> Option<&PieceDigests> {
        self.pieces.as_ref()
    }
}

/// The key of bytes whose digest is known when their key is given, as on a file store that renames.
pub(super) fn key_of(digest: &Digest, upload: Uuid) -> String {
    format!("blobs/{}/{}-{upload}", &digest.hex()[..2], digest.hex())
}

/// The key of an upload in parts, which has to be given before the digest is known.
pub(super) fn key_of_parts(upload: Uuid) -> String {
    let name = upload.to_string();
    format!("blobs/{}/{name}", &name[..2])
}

/// The upload that wrote an object or staged bytes: the UUID that its name ends in, or that the
/// staged name begins with.
pub(super) fn upload_of(name: &str) -> Option<Uuid> {
    let file = name.rsplit('/').next()?;
    let text =
        if name.starts_with("staging/") { file.get(..36)? } else { file.get(file.len().checked_sub(36)?..)? };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_name_tells_its_upload() {
        let upload = Uuid::new_v4();
        assert_eq!(upload_of(&key_of(&Digest::sha256(b"x"), upload)), Some(upload));
        assert_eq!(upload_of(&key_of_parts(upload)), Some(upload));
        assert_eq!(upload_of(&format!("staging/{upload}-{}", Uuid::new_v4())), Some(upload));
        assert_eq!(upload_of("blobs/ab/notes.txt"), None);
        assert_eq!(upload_of(""), None);
    }
}
