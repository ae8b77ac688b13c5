//! The digest of a file on this side.

use super::stop::Stop;
use crate::names::{Algorithm, Digest, Hasher};
use indicatif::ProgressBar;
use std::io::Read;
use std::path::Path;

/// Bytes read at once: large, so that hashing and sending keep up with the disk.
pub const READ_BYTES: usize = 1 << 20;

/// A file's length and SHA-256 digest.
pub async fn hash(path: &Path, bar: ProgressBar) -> Result<(u64, Digest), Stop> {
    let owned = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || read(&owned, &bar))
        .await
        .map_err(|error| Stop::Unanswered(format!("hashing stopped: {error}")))?;
    hashed.map_err(|error| Stop::Usage(format!("cannot read {}: {error}", path.display())))
}

fn read(path: &Path, bar: &ProgressBar) -> std::io::Result<(u64, Digest)> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; READ_BYTES];
    let mut length = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            bar.finish_and_clear();
            return Ok((length, hasher.finish()));
        }
        hasher.update(&buffer[..count]);
        length += count as u64;
        bar.set_position(length);
    }
}
