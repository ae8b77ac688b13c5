//! One file as an artifact: the manifest that the registry writes of it, and how it is recognised.
//!
//! What is said about a file counts for this manifest only, byte for byte: any other one around the file can name
//! another type, another name or a configuration that says how it runs.

use super::build::{Artifact, Layer};
use super::parse::TITLE;
use super::{ParsedManifest, StoredLayer};
use crate::failure::Failure;
use crate::names::{Algorithm, Digest, MediaType, RepositoryName, text_name};
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

/// The one layer's media type; what the file is stands in the artifact's type.
const LAYER: &str = "application/octet-stream";

/// The manifest of a file: a pure function of its bytes, its name and its type.
pub fn file_manifest(
    artifact_type: &MediaType,
    filename: &Filename,
    content: &Digest,
    size_bytes: u64,
) -> Result<ParsedManifest, Failure> {
    artifact(artifact_type, filename, content, size_bytes)?.manifest()
}

fn artifact(
    artifact_type: &MediaType,
    filename: &Filename,
    content: &Digest,
    size_bytes: u64,
) -> Result<Artifact, Failure> {
    let media_type = LAYER.parse().map_err(|error| Failure::new("naming a layer's type", error))?;
    let title = (TITLE.to_owned(), filename.to_string());
    Ok(Artifact {
        artifact_type: artifact_type.clone(),
        layers: vec![Layer {
            digest: content.clone(),
            size_bytes,
            media_type,
            annotations: BTreeMap::from([title]),
        }],
        subject: None,
        annotations: BTreeMap::new(),
    })
}

/// The file, where these bytes are the manifest that the registry writes of it.
pub(super) fn file_of(
    body: &[u8],
    artifact_type: Option<&MediaType>,
    layers: &[StoredLayer],
) -> Option<Digest> {
    let [layer] = layers else { return None };
    let filename: Filename = layer.title()?.parse().ok()?;
    let size_bytes = u64::try_from(layer.size_bytes).ok()?;
    if layer.digest.algorithm() != Algorithm::Sha256 {
        return None;
    }
    let written = artifact(artifact_type?, &filename, &layer.digest, size_bytes).ok()?.body().ok()?;
    (written == body).then(|| layer.digest.clone())
}

#[cfg(test)]
mod tests {
    use super::super::OCI_IMAGE;
    use super::*;
    use proptest::prelude::*;

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

    fn manifest(name: &str, kind: &str, bytes: &[u8]) -> ParsedManifest {
        let (kind, name) = (kind.parse().unwrap(), name.parse().unwrap());
        file_manifest(&kind, &name, &Digest::sha256(bytes), bytes.len() as u64).unwrap()
    }

    #[test]
    fn the_manifest_is_a_pure_function_of_bytes_name_and_type() {
        let one = manifest("a", "x/y", b"1").digest;
        assert_eq!(manifest("a", "x/y", b"1").digest, one);
        for other in [manifest("b", "x/y", b"1"), manifest("a", "x/z", b"1"), manifest("a", "x/y", b"2")] {
            assert_ne!(other.digest, one);
        }
    }

    #[test]
    fn only_the_manifest_that_the_registry_writes_of_a_file_is_the_file() {
        let written = manifest("app", "application/vnd.example+type", b"the program");
        assert_eq!(written.file(), Some(Digest::sha256(b"the program")));
        let text = String::from_utf8(written.body.to_vec()).unwrap();
        let parse = |text: String| {
            ParsedManifest::parse(text.into_bytes().into(), Some(OCI_IMAGE), Algorithm::Sha256, usize::MAX)
        };
        let config = Digest::sha256(b"{}");
        for (what, changed) in [
            ("another title", text.replace("\"app\"", "\"../../.ssh/authorized_keys\"")),
            ("an empty title", text.replace("\"app\"", "\"\"")),
            ("another config", text.replace(config.as_str(), Digest::sha256(b"{\"run\":1}").as_str())),
            ("another layer type", text.replace("octet-stream", "vnd.oci.image.layer.v1.tar")),
            ("another annotation", text.replace("\"annotations\":{", "\"annotations\":{\"a\":\"b\",")),
            ("annotations of the manifest", text.replacen('{', "{\"annotations\":{},", 1)),
            ("a space", text.replacen(':', ": ", 1)),
            (
                "another order",
                format!("{{\"schemaVersion\":2,{}", &text[1..]).replace(",\"schemaVersion\":2}", "}"),
            ),
        ] {
            assert_ne!(changed, text, "{what}");
            if let Ok(other) = parse(changed) {
                assert_eq!(other.file(), None, "{what}");
            }
        }
        assert_eq!(parse(text).unwrap().file(), Some(Digest::sha256(b"the program")));
    }

    proptest! {
        #[test]
        fn every_file_is_recognised_by_the_manifest_that_is_written_of_it(
            name in "[^/\\\\\\p{C}]{1,40}", bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assume!(name.parse::<Filename>().is_ok());
            prop_assert_eq!(manifest(&name, "x/y", &bytes).file(), Some(Digest::sha256(&bytes)));
        }
    }
}
