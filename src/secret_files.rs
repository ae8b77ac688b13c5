//! Secret files: keys and tokens that the service reads from a path.
//!
//! Promises that a file that others may read or write is refused, or warned of where the operator says so. What is
//! checked is the file that is read, not what its name leads to a moment later.

use crate::config::SecretFileMode;
use nix::fcntl::OFlag;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bits of a mode that are for others, and for the group.
const OTHERS: u32 = 0o007;
const GROUP: u32 = 0o070;

/// Maximum bytes of a secret file.
const MAX_BYTES: u64 = 1 << 20;

/// Why a secret file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is not there, or cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "{} has mode {mode:04o}, so that every user of the machine may read or change it: run `chmod 600 {}`, or set \
         PROOFMARK_SECRET_FILE_MODE=warn where that cannot be (Kubernetes mounts secrets with mode 0644 unless \
         `defaultMode: 0400` is set)",
        path.display(), path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is a pipe, a directory or a device.
    #[error("{} is no regular file", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// It is larger than any secret.
    #[error("{} has more than {MAX_BYTES} bytes, which no key or token has", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl Unusable {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Unreadable { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a secret file whole, if nobody else may.
pub fn read(path: &Path, rule: SecretFileMode) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let unreadable = |error| Unusable::Unreadable { path: path.to_owned(), error };
    // A pipe without a writer is not waited for.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Unusable::NoFile { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    match (mode & OTHERS != 0, rule) {
        (true, SecretFileMode::Refuse) => return Err(Unusable::Open { path: path.to_owned(), mode }),
        (true, SecretFileMode::Warn) => {
            warn(path, mode, "every user of the machine may read or change a secret file");
        }
        (false, _) if mode & GROUP != 0 => warn(path, mode, "its group may read or change a secret file"),
        (false, _) => {}
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Unusable::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Reads a secret file that is text.
pub fn read_text(path: &Path, rule: SecretFileMode) -> Result<Zeroizing<String>, Unusable> {
    let bytes = read(path, rule)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| Unusable::Unreadable {
        path: path.to_owned(),
        error: io::Error::new(io::ErrorKind::InvalidData, error),
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn warn(path: &Path, mode: u32, message: &str) {
    tracing::warn!(file = %path.display(), mode = format!("{mode:04o}"), "{message}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_file_that_others_may_read_or_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "text").unwrap();
        for (mode, refused) in [
            (0o600, false),
            (0o400, false),
            (0o640, false),
            (0o660, false),
            (0o644, true),
            (0o604, true),
            (0o602, true),
            (0o666, true),
            (0o601, true),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = read_text(&path, SecretFileMode::Refuse);
            assert_eq!(read.is_err(), refused, "{mode:o}");
            if let Err(error) = read {
                let text = error.to_string();
                assert!(text.contains(&format!("{mode:04o}")) && text.contains("chmod 600"), "{text}");
            }
            assert_eq!(*read_text(&path, SecretFileMode::Warn).unwrap(), "text", "{mode:o}");
        }
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read(&link, SecretFileMode::Refuse).is_err(), "a link is what it leads to");
        assert!(read(&directory.path().join("none"), SecretFileMode::Warn).unwrap_err().is_missing());
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        for no_file in [&pipe, directory.path()] {
            assert!(matches!(read(no_file, SecretFileMode::Refuse), Err(Unusable::NoFile { .. })));
        }
        fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&path, SecretFileMode::Refuse), Err(Unusable::TooLarge { .. })));
    }
}
