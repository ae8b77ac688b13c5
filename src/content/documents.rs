//! Documents: signatures, attestations and SBOMs, told from what could run by what they are made of.
//!
//! cosign gives its signatures the configuration of an image, so the manifest alone does not say that nothing in
//! it runs; nor do the media types of its layers, which some runtimes ignore. What does is that every layer is
//! text: a program has bytes that text has not, and so has an archive that holds one.

use super::blobs::{self, Blob};
use super::manifest::is_image;
use super::{Manifest, StoredLayer};
use crate::failure::Failure;
use crate::names::{Digest, MediaType};
use crate::storage::Store;
use bytes::Bytes;
use futures::StreamExt;
use moka::future::Cache;
use sqlx::PgConnection;

/// Layers of one document; cosign appends one for each signature.
const MAX_LAYERS: usize = 256;

/// Blobs of which is remembered whether they are text.
const REMEMBERED: u64 = 20_000;

/// Media types of signatures, attestations and SBOMs, without parameters and in lower case.
const TYPES: [&str; 17] = [
    "application/vnd.dev.cosign.simplesigning.v1+json",
    "application/vnd.dsse.envelope.v1+json",
    "application/vnd.in-toto+json",
    "application/jose+json",
    "application/vnd.cyclonedx",
    "application/vnd.cyclonedx+json",
    "application/vnd.cyclonedx+xml",
    "application/vnd.openvex+json",
    "application/vnd.syft+json",
    "application/spdx+json",
    "application/spdx+xml",
    "application/sarif+json",
    "text/spdx",
    "text/spdx+json",
    "text/spdx+xml",
    "text/vnd.cyclonedx+json",
    "text/vnd.cyclonedx+xml",
];

/// Versions of Sigstore's bundles differ in their name.
const BUNDLES: &str = "application/vnd.dev.sigstore.bundle";

/// Whether a layer of this media type is a signature, an attestation or an SBOM.
fn is_document_type(media_type: &MediaType) -> bool {
    let essence = media_type.as_str().split(';').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    TYPES.contains(&essence.as_str()) || essence.starts_with(BUNDLES)
}

/// The layers of a manifest that is made like a document: an image manifest with nothing but layers of documents'
/// media types. `None` for everything else. It is a document if all of them are text, which [`Texts`] says.
pub fn document_layers(manifest: &Manifest) -> Result<Option<Vec<StoredLayer>>, Failure> {
    if !is_image(&manifest.media_type) {
        return Ok(None);
    }
    let layers = manifest.layers()?;
    let all = layers.iter().all(|layer| is_document_type(&layer.media_type));
    Ok((all && !layers.is_empty() && layers.len() <= MAX_LAYERS).then_some(layers))
}

/// Which blobs are text. The answer cannot change, so it is remembered by digest; who may see a blob where is never
/// answered from here.
#[derive(Clone, Debug)]
pub struct Texts(Cache<Digest, bool>);

impl Default for Texts {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl Texts {
    /// The blobs of these layers that have still to be read, as the repository has them: no more than `limit_bytes`.
    /// `None` where one is not there, is known to be no text, or all are too large.
    pub async fn unread(
        &self,
        connection: &mut PgConnection,
        repository_id: i64,
        layers: Vec<StoredLayer>,
        limit_bytes: u64,
    ) -> Result<Option<Vec<Blob>>, Failure> {
        let mut unread = Vec::new();
        let mut left_bytes = limit_bytes;
        for layer in layers {
            match self.0.get(&layer.digest).await {
                Some(true) => continue,
                Some(false) => return Ok(None),
                None => {}
            }
            let found = blobs::find(connection, repository_id, &layer.digest).await?;
            let Some(blob) = found else { return Ok(None) };
            let Some(left) = left_bytes.checked_sub(blob.size_bytes) else { return Ok(None) };
            left_bytes = left;
            unread.push(blob);
        }
        Ok(Some(unread))
    }

    /// Whether all of these blobs are text. No connection should be held meanwhile.
    pub async fn are_text(&self, store: &Store, blobs: &[Blob]) -> Result<bool, Failure> {
        for blob in blobs {
            let is_text = match self.0.get(&blob.digest).await {
                Some(known) => known,
                None => read(store, blob).await?,
            };
            self.0.insert(blob.digest.clone(), is_text).await;
            if !is_text {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

async fn read(store: &Store, blob: &Blob) -> Result<bool, Failure> {
    let mut text = Text::default();
    let mut stream = blob.read(store, |_| ()).await?;
    while let Some(chunk) = stream.next().await {
        if !text.takes(&chunk.map_err(|error| Failure::new("reading a document", error))?) {
            return Ok(false);
        }
    }
    Ok(text.is_complete())
}

/// bzip2, the one compression whose bytes could all be text.
const BZIP2: &[u8] = b"BZh";

/// UTF-8 without control characters but tabs, form feeds and line ends, read piece by piece. A program of any format has others,
/// a compressed archive as well, and so has an archive with a program in it.
#[derive(Default)]
struct Text {
    /// The first bytes, until there are enough of them.
    start: Vec<u8>,
    /// A character that the next piece goes on with.
    cut: Vec<u8>,
}

impl Text {
    /// Whether it is text up to the end of this piece.
    fn takes(&mut self, piece: &Bytes) -> bool {
        let wanted = BZIP2.len() - self.start.len();
        self.start.extend(piece.iter().take(wanted));
        if self.start == BZIP2 {
            return false;
        }
        let mut bytes = std::mem::take(&mut self.cut);
        bytes.extend_from_slice(piece);
        let valid = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return false,
        };
        self.cut = bytes.split_off(valid);
        // Licences have form feeds.
        !bytes.iter().any(|byte| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r' | b'\x0c'))
    }

    fn is_complete(&self) -> bool {
        self.cut.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_text(pieces: &[&[u8]]) -> bool {
        let mut text = Text::default();
        pieces.iter().all(|piece| text.takes(&Bytes::copy_from_slice(piece))) && text.is_complete()
    }

    #[test]
    fn json_is_text_and_programs_and_archives_are_not() {
        assert!(is_text(&["{\"é\":\t\"\u{feff}𝄞\"}\r\n".as_bytes()]));
        assert!(is_text(&[]));
        for binary in [
            &b"\x7fELF\x02\x01\x01\0"[..],
            b"\x1f\x8b\x08\0",
            b"\x28\xb5\x2f\xfd",
            b"\x04\x22\x4d\x18",
            b"BZh91AY&SY",
            b"name\0\0",
            b"\xfd7zXZ\0",
            b"MZ\x90\0",
            b"\0asm",
            b"half a character \xc3",
        ] {
            assert!(!is_text(&[binary]), "{binary:?}");
        }
    }

    proptest! {
        #[test]
        fn text_is_text_wherever_it_is_cut(
            bytes in prop_oneof![".{0,40}".prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..40)],
            cuts in proptest::collection::vec(0_usize..41, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut last = 0;
            let pieces: Vec<&[u8]> = cuts.iter().map(|cut| {
                let piece = &bytes[last..*cut];
                last = *cut;
                piece
            }).collect();
            prop_assert_eq!(is_text(&pieces), is_text(&[&bytes]));
        }
    }

    #[test]
    fn only_the_media_types_of_documents_are_documents() {
        let is = |text: &str| is_document_type(&text.parse().unwrap());
        for document in [
            "application/vnd.dev.cosign.simplesigning.v1+json",
            "application/vnd.dev.sigstore.bundle+json;version=0.2",
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            "text/spdx",
            "Text/SPDX+json; charset=utf-8",
        ] {
            assert!(is(document), "{document}");
        }
        for other in ["application/vnd.oci.image.layer.v1.tar", "application/octet-stream", "text/plain"] {
            assert!(!is(other), "{other}");
        }
    }
}
