//! Bytes in files: staged below `staging/`, renamed into `blobs/`, each step fsynced.

use super::append::finished;
use super::blob::{key_of, upload_of};
use super::staged::{Pieces, Segment, Staged};
use super::steps::Steps;
use super::store::{Found, Place};
use crate::failure::{Failure, LostUpload, MissingFile};
use crate::names::{Digest, Hasher};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// A directory that holds blobs. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Files {
    root: Arc<Path>,
    pub(super) steps: Steps,
}

/// How much may be written before the disk is asked to take it, beside the writing, so that little
/// is left to wait for at the end.
const FLUSH_BYTES: u64 = 64 << 20;

/// A staged file that is being written.
pub(super) struct FileSink {
    files: Files,
    name: String,
    bytes: u64,
    /// The step in flight; none after one that failed.
    writing: Option<JoinHandle<io::Result<File>>>,
    /// A flush beside the writing, and how many bytes there were when it began.
    flushing: Option<JoinHandle<io::Result<()>>>,
    flushed_bytes: u64,
}

impl Files {
    /// Opens the directory, making it where it is missing.
    pub async fn open(root: &str) -> Result<Self, Failure> {
        let files = Self { root: Path::new(root).into(), steps: Steps::new() };
        let root = files.root.clone();
        blocking("making the storage directory", move || {
            if let Some(parent) = root.parent() {
                fs::create_dir_all(parent)?;
            }
            for directory in ["staging", "blobs"] {
                make_private(&root.join(directory))?;
            }
            sync_directory(&root)?;
            root.parent().map_or(Ok(()), sync_directory)
        })
        .await?;
        Ok(files)
    }

    /// Whether files can be made.
    pub async fn check(&self) -> Result<(), Failure> {
        let probe = self.path(&format!("staging/{}-probe", uuid::Uuid::new_v4()));
        blocking("writing a probe into the storage directory", move || {
            create_private(&probe)?;
            fs::remove_file(&probe)
        })
        .await
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Runs all the bytes that a state names through another hash.
    pub async fn rehash(&self, staged: &Staged, mut hasher: Hasher) -> Result<Hasher, Failure> {
        let paths: Vec<(PathBuf, u64)> =
            segments(staged)?.iter().map(|segment| (self.path(&segment.name), segment.bytes)).collect();
        let (tail, staging) = (staged.tail.clone(), self.path("staging"));
        blocking("reading staged files again", move || {
            let mut buffer = vec![0; 1 << 20];
            for (path, bytes) in paths {
                let mut file = File::open(path).map_err(|error| lost(error, &staging))?.take(bytes);
                loop {
                    let read = file.read(&mut buffer)?;
                    if read == 0 {
                        break;
                    }
                    hasher.update(&buffer[..read]);
                }
            }
            hasher.update(&tail);
            Ok(hasher)
        })
        .await
    }

    /// Joins what was staged and renames it to its key. Every step may be repeated: what stands at
    /// an offset is decided by the state, so writing it again writes the same bytes, and a rename
    /// that was already done is seen by the file under the key.
    pub async fn finish(&self, staged: &Staged, digest: &Digest) -> Result<String, Failure> {
        let key = key_of(digest, staged.upload);
        let (target, size_bytes) = (self.path(&key), staged.offset_bytes);
        let paths: Vec<(PathBuf, u64)> =
            segments(staged)?.iter().map(|segment| (self.path(&segment.name), segment.bytes)).collect();
        let (tail, staging) = (staged.tail.clone(), self.path("staging"));
        blocking("moving a blob into place", move || {
            let Some(((base, base_bytes), others)) = paths.split_first() else {
                return Err(io::Error::other("nothing was staged"));
            };
            if !base.exists() {
                if fs::metadata(&target).map_err(|error| lost(error, &staging))?.len() != size_bytes {
                    return Err(io::Error::other(
                        "a blob's file has another length than its upload's state says",
                    ));
                }
                // Whoever renamed it may have died before the name was durable.
                return target.parent().map_or(Ok(()), sync_directory);
            }
            if !others.is_empty() || !tail.is_empty() {
                join(base, *base_bytes, others, &tail)?;
            }
            if fs::metadata(base)?.len() != size_bytes {
                return Err(io::Error::other("the staged files have another length than their state says"));
            }
            rename_durably(base, &target)?;
            others.iter().try_for_each(|(other, _)| fs::remove_file(other))
        })
        .await?;
        Ok(key)
    }

    /// Removes a file; one that is gone already is a success.
    pub async fn delete(&self, name: &str) -> Result<(), Failure> {
        let path = self.path(name);
        blocking("deleting a file", move || match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
        .await
    }

    /// All of a small file; `None` where there is none.
    pub async fn read_small(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path(name);
        blocking("reading a file", move || match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        })
        .await
    }

    /// A small file, whole or not at all.
    pub async fn write_small(&self, name: &str, text: String) -> Result<(), Failure> {
        let (path, unfinished) = (self.path(name), self.path(&format!("staging/{name}")));
        blocking("writing a file", move || {
            match fs::remove_file(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = create_private(&unfinished)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            rename_durably(&unfinished, &path)
        })
        .await
    }

    /// The directories that `list` goes through. What else lies there is none of ours.
    pub async fn directories(&self) -> Result<Vec<String>, Failure> {
        let blobs = self.path("blobs");
        blocking("listing the storage directory", move || {
            let mut names = vec!["staging".to_owned()];
            for entry in fs::read_dir(blobs)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    names.push(format!("blobs/{}", entry.file_name().to_string_lossy()));
                }
            }
            Ok(names)
        })
        .await
    }

    /// What lies in one directory. A file that goes away meanwhile is left out.
    pub async fn list(&self, directory: String) -> Result<Vec<Found>, Failure> {
        let path = self.path(&directory);
        blocking("listing the storage directory", move || {
            let mut found = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let metadata = match entry.metadata() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    metadata => metadata?,
                };
                let name = format!("{directory}/{}", entry.file_name().to_string_lossy());
                found.push(Found {
                    upload: upload_of(&name),
                    place: if directory == "staging" { Place::Staging } else { Place::Blobs },
                    name,
                    size_bytes: metadata.len(),
                    modified_at: DateTime::<Utc>::from(metadata.modified()?),
                });
            }
            Ok(found)
        })
        .await
    }
}

impl FileSink {
    /// A fresh file; its name is the lease's, so nobody else writes to it.
    pub fn open(files: &Files, staged: &Staged, name: String) -> Result<Self, Failure> {
        segments(staged)?;
        let path = files.path(&name);
        let writing = spawn_blocking(move || create_private(&path));
        Ok(Self {
            files: files.clone(),
            name,
            bytes: 0,
            writing: Some(writing),
            flushing: None,
            flushed_bytes: 0,
        })
    }

    pub async fn push(&mut self, chunk: Bytes) -> Result<(), Failure> {
        let mut file = self.written().await?;
        if self.bytes - self.flushed_bytes >= FLUSH_BYTES
            && self.flushing.as_ref().is_none_or(JoinHandle::is_finished)
        {
            self.flushed().await?;
            let same = file.try_clone().map_err(|error| Failure::new("flushing a staged file", error))?;
            self.flushing = Some(spawn_blocking(move || same.sync_data()));
            self.flushed_bytes = self.bytes;
        }
        self.bytes += chunk.len() as u64;
        self.writing = Some(spawn_blocking(move || {
            file.write_all(&chunk)?;
            Ok(file)
        }));
        Ok(())
    }

    /// Waits for the step in flight.
    async fn written(&mut self) -> Result<File, Failure> {
        let doing = "writing a staged file";
        let writing = self.writing.take().ok_or_else(|| Failure::new(doing, "a step before it failed"))?;
        finished(writing).await?.map_err(|error| Failure::new(doing, error))
    }

    /// Waits for the flush in flight. The kernel reports a failed write once: to this one, then.
    async fn flushed(&mut self) -> Result<(), Failure> {
        match self.flushing.take() {
            Some(flushing) => {
                finished(flushing).await?.map_err(|error| Failure::new("flushing a staged file", error))
            }
            None => Ok(()),
        }
    }

    pub async fn close(mut self, staged: &mut Staged) -> Result<(), Failure> {
        let file = self.written().await?;
        self.flushed().await?;
        let staging = self.files.path("staging");
        blocking("making a staged file durable", move || {
            file.sync_all()?;
            sync_directory(&staging)
        })
        .await?;
        let mut segments = segments(staged)?.to_vec();
        segments.push(Segment { name: self.name, bytes: self.bytes });
        staged.pieces = Pieces::Files(segments);
        Ok(())
    }

    pub async fn discard(mut self) {
        // Whether or not the step in flight went well, the file goes.
        let _ = self.written().await;
        if let Err(failure) = self.files.delete(&self.name).await {
            tracing::warn!(error = failure.chain(), name = self.name, "a staged file is left to the sweep");
        }
    }
}

/// The staged files that a state names.
pub(super) fn segments(staged: &Staged) -> Result<&[Segment], Failure> {
    match &staged.pieces {
        Pieces::None => Ok(&[]),
        Pieces::Files(segments) => Ok(segments),
        Pieces::Parts(_) => Err(Failure::new(
            "going on with an upload",
            "it was begun in an object store and the storage is a directory now",
        )),
    }
}

/// A file that is not there is one that a finish has moved, under a digest that the upload does not have any
/// more: of bytes that were refused, and went on. Where all of the storage is away, nothing is lost.
fn lost(error: io::Error, staging: &Path) -> io::Error {
    if is_gone(&error, staging) { io::Error::other(LostUpload) } else { error }
}

/// Whether one file is missing, and not all of the storage.
fn is_gone(error: &io::Error, staging: &Path) -> bool {
    error.kind() == io::ErrorKind::NotFound && staging.is_dir()
}

/// Opens the file of a blob. Where all of the storage is away, it is not missing.
pub(super) fn open_blob(path: &Path, staging: &Path) -> io::Result<File> {
    File::open(path)
        .map_err(|error| if is_gone(&error, staging) { io::Error::other(MissingFile) } else { error })
}

/// Appends the other files and the tail to the first one, in place. The first one may be longer
/// than its state says, after a crash in the middle of this; then the same bytes are written again.
fn join(base: &Path, base_bytes: u64, others: &[(PathBuf, u64)], tail: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).open(base)?;
    file.seek(SeekFrom::Start(base_bytes))?;
    for (other, _) in others {
        // The kernel copies, or shares the blocks where the file system can.
        io::copy(&mut File::open(other)?, &mut file)?;
    }
    file.write_all(tail)?;
    file.sync_all()
}

/// Renames and makes the new name durable, and the directory where it had to be made.
fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    let parent = to.parent().ok_or_else(|| io::Error::other("a key has a directory"))?;
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_private(parent)?;
            parent.parent().map_or(Ok(()), sync_directory)?;
            fs::rename(from, to)?;
        }
        other => other?,
    }
    sync_directory(parent)
}

/// A directory, and those above it that are missing, for the service's own account: who may read what
/// is decided at the doors.
fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A new file for the service's own account.
fn create_private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Runs file work on a blocking thread.
pub(super) async fn blocking<T, F>(doing: &'static str, work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    finished(spawn_blocking(work)).await?.map_err(|error| Failure::new(doing, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn what_is_stored_is_the_services_own() {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data/objects");
        let files = Files::open(root.to_str().unwrap()).await.unwrap();
        files.check().await.unwrap();
        let (staged, stored) = (files.path("staging/one"), files.path("blobs/aa/one"));
        create_private(&staged).unwrap().write_all(b"one").unwrap();
        rename_durably(&staged, &stored).unwrap();
        for private in [root.as_path(), &files.path("staging"), &files.path("blobs"), &files.path("blobs/aa")]
        {
            assert_eq!(mode(private), 0o700, "{}", private.display());
        }
        assert_eq!(mode(&stored), 0o600);
    }
}
