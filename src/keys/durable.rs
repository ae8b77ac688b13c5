//! Files of keys on disk: complete and durable under their name, or not there.

use crate::failure::Failure;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a file that is written may do to one of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// Nothing: the name must be free.
    Refused,
    /// It takes its place, at once.
    Replaced,
}

/// Writes a file of this mode. It is written and synced under another name first, so that a crash leaves the
/// old file or the new one, whole.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32, existing: Existing) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::new("writing a file", format!("{}: {error}", path.display()));
    let directory = directory(path);
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let staged = directory.join(format!(".keys-{}", uuid::Uuid::new_v4()));
    let written = stage(&staged, bytes, mode).and_then(|()| match existing {
        Existing::Replaced => std::fs::rename(&staged, path),
        Existing::Refused => match std::fs::hard_link(&staged, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(std::io::Error::new(error.kind(), "the file exists, and is never overwritten"))
            }
            other => other,
        },
    });
    // Gone already where it was renamed.
    let removed = match std::fs::remove_file(&staged) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    written.map_err(failed)?;
    removed.map_err(failed)?;
    File::open(&directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

fn directory(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn stage(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
