//! Content: repositories, uploads, blobs, manifests, tags, referrers, pins.
//!
//! Knows what a repository holds and which names point where. Promises that a write-once name never
//! moves, that a manifest's blobs and children are there, and that what is pinned stays. Never
//! judges what content means: evidence and promotion are rooms below.

mod repositories;
mod store;

pub use repositories::{Repository, ensure_repository, repository};
