//! Names, parsed once at the door: whoever holds one holds a valid one.
//!
//! Knows the grammar of digests, repositories, tags, references, environments, platforms, media types
//! and patterns. Promises that a value's text round-trips through `Display`, JSON and Postgres.
//! Never looks anything up.

mod digest;
mod environment;
mod image_reference;
mod media_type;
mod network;
mod pattern;
mod platform;
mod public_url;
mod reference;
mod repository;
mod scanner;
mod source;
mod tag;
mod text;

pub use digest::{Algorithm, Digest, Hasher, InvalidDigest, Resumable};
pub use environment::{EnvironmentName, InvalidEnvironmentName};
pub use image_reference::{ImageReference, InvalidImageReference};
pub use media_type::{InvalidMediaType, MediaType};
pub use network::client_network;
pub use pattern::{InvalidPattern, Pattern};
pub use platform::{Fit, InvalidPlatform, Platform};
pub use public_url::{InvalidPublicUrl, PublicUrl};
pub use reference::{InvalidReference, Reference};
pub use repository::{InvalidRepositoryName, RepositoryName};
pub use scanner::{InvalidScannerName, ScannerName};
pub use source::{SourceUri, full_branch, git_ref, is_branch, is_source, never_matches};
pub use tag::{InvalidTag, Tag};
pub(crate) use text::text_name;
