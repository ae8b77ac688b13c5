//! A file as its request describes it, before its bytes are there.

use super::artifact::ArtifactRefused;
use crate::content::{Artifact, Layer, Manifest, ParsedManifest, TITLE};
use crate::failure::Failure;
use crate::names::{Algorithm, Digest, MediaType, RepositoryName, Tag, text_name};
use std::collections::BTreeMap;

/// The name that a file is stored under: one component, nothing that a path could climb with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filename(String);

/// Not a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a filename has 1 to 255 bytes, no '/', '\\' or control characters, and is neither '.' nor '..'")]
pub struct InvalidFilename;

impl Filename {
    fn check(text: &str) -> Result<(), InvalidFilename> {
        let plain = text.chars().all(|c| !c.is_control() && c != '/' && c != '\\');
        let named = !text.is_empty() && text.len() <= 255 && text != "." && text != "..";
        if plain && named { Ok(()) } else { Err(InvalidFilename) }
    }

    /// The last part of a repository's name, which is a file's name too.
    pub fn of_repository(repository: &RepositoryName) -> Self {
        Self(repository.as_str().rsplit('/').next().unwrap_or_default().to_owned())
    }
}

text_name!(Filename, InvalidFilename);

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

/// The one layer's media type; what the file is stands in the artifact's type.
const LAYER: &str = "application/octet-stream";

impl PutFile {
    /// The artifact's manifest: a pure function of the bytes, the name and the type.
    pub fn manifest(&self, content: &Digest, size_bytes: u64) -> Result<ParsedManifest, Failure> {
        let media_type = LAYER.parse().map_err(|error| Failure::new("naming a layer's type", error))?;
        let title = (TITLE.to_owned(), self.filename.to_string());
        let artifact = Artifact {
            artifact_type: self.artifact_type.clone(),
            layers: vec![Layer {
                digest: content.clone(),
                size_bytes,
                media_type,
                annotations: BTreeMap::from([title]),
            }],
            subject: None,
            annotations: BTreeMap::new(),
        };
        artifact.manifest()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filename_is_one_component() {
        for good in ["disk.img", "a b", "ü.tar", "..x", "x.."] {
            assert!(good.parse::<Filename>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/etc", "a\\b", "a\0b", "a\nb"] {
            assert!(bad.parse::<Filename>().is_err(), "{bad}");
        }
        assert!("x".repeat(256).parse::<Filename>().is_err());
    }

    #[test]
    fn the_manifest_is_a_pure_function_of_bytes_name_and_type() {
        let file = |name: &str, kind: &str| PutFile {
            version: None,
            filename: name.parse().unwrap(),
            artifact_type: kind.parse().unwrap(),
            announced: vec![],
            declared_bytes: None,
        };
        let digest = |name: &str, kind: &str, bytes: &[u8]| {
            file(name, kind).manifest(&Digest::sha256(bytes), bytes.len() as u64).unwrap().digest
        };
        let one = digest("a", "x/y", b"1");
        assert_eq!(digest("a", "x/y", b"1"), one);
        for other in [digest("b", "x/y", b"1"), digest("a", "x/z", b"1"), digest("a", "x/y", b"2")] {
            assert_ne!(other, one);
        }
    }
}
