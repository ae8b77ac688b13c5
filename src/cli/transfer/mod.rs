//! `export` and `import`: a registry, or part of one, as an OCI image layout.
//!
//! The layout holds every manifest and blob under its digest, so that every tool that reads layouts reads
//! it, and one artifact more: the record, which has what is no content (events, names that were deleted,
//! rules, signers, verdicts). Both commands may be repeated: what is there already is not moved again.

mod check;
mod export;
mod import;
mod layout;
mod names;
mod plan;
mod record;
mod settings;
mod told;

pub use export::Export;
pub use import::Import;

use std::time::Duration;

/// Blobs on their way at the same time.
const AT_ONCE: usize = 4;
/// Pauses before a blob is asked for, or sent, again.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(8)];
