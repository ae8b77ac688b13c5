//! Manifests: what may come in, how they are stored, and how they are found again.

mod build;
mod file;
mod parse;
mod put;
mod read;

pub use build::{Artifact, Attached, Attachment, Layer, attach, link_empty_config};
pub use file::{Filename, InvalidFilename, file_manifest};
pub use parse::{
    Descriptor, InvalidManifest, OCI_IMAGE, OCI_INDEX, ParsedManifest, TITLE, config_fits, is_image,
    platform_of_config,
};
pub use put::{Stored, note_author, put_manifest};
pub use read::{Bodies, Found, Manifest, StoredLayer, find, known, manifest};
