//! A file as its request describes it, before its bytes are there.

use super::artifact::ArtifactRefused;
use crate::content::{self, Filename, Manifest, ParsedManifest};
use crate::failure::Failure;
use crate::names::{Algorithm, Digest, MediaType, Tag};

/// A file that is to be put.
#[derive(Clone, Debug)]
pub struct PutFile {
    /// The write-once tag that it claims, if any.
    pub version: Option<Tag>,
    /// Its name.
    pub filename: Filename,
    /// What it is.
    pub artifact_type: MediaType,
    /// The digests that the caller announced; all must hold.
    pub announced: Vec<Digest>,
    /// How many bytes the request says there are.
    pub declared_bytes: Option<u64>,
}

impl PutFile {
    /// The artifact's manifest: a pure function of the bytes, the name and the type.
    pub fn manifest(&self, content: &Digest, size_bytes: u64) -> Result<ParsedManifest, Failure> {
        content::file_manifest(&self.artifact_type, &self.filename, content, size_bytes)
    }

    /// Whether any body that this request allows makes the manifest that is there: then how many
    /// bytes that body has.
    pub(super) fn could_be(&self, there: &Manifest) -> Result<Option<u64>, Failure> {
        let layers = there.layers()?;
        let [layer] = layers.as_slice() else { return Ok(None) };
        let size_bytes = u64::try_from(layer.size_bytes).unwrap_or_default();
        let lengths_differ = self.declared_bytes.is_some_and(|bytes| bytes != size_bytes);
        let digests_differ = self
            .announced
            .iter()
            .any(|said| said.algorithm() == layer.digest.algorithm() && *said != layer.digest);
        if lengths_differ || digests_differ {
            return Ok(None);
        }
        let same = self.manifest(&layer.digest, size_bytes)?.digest == there.digest;
        Ok(same.then_some(size_bytes))
    }

    /// Whether a SHA-512 was announced, which has to be computed beside the SHA-256.
    pub(super) fn wants_sha512(&self) -> bool {
        self.announced.iter().any(|digest| digest.algorithm() == Algorithm::Sha512)
    }

    /// Whether the bytes that came are those that were announced.
    pub(super) fn check(&self, sha256: &Digest, sha512: Option<&Digest>) -> Result<(), ArtifactRefused> {
        for said in &self.announced {
            let actual = match said.algorithm() {
                Algorithm::Sha256 => Some(sha256),
                Algorithm::Sha512 => sha512,
            };
            if let Some(actual) = actual.filter(|actual| *actual != said) {
                return Err(ArtifactRefused::WrongDigest { said: said.clone(), actual: actual.clone() });
            }
        }
        Ok(())
    }
}
