//! An OCI image layout on disk (image specification 1.1, "OCI Image Layout"): `oci-layout`, `index.json` and
//! `blobs/<algorithm>/<hex>`.

use crate::cli::stop::Stop;
use crate::names::{Algorithm, Digest, Hasher, MediaType, RepositoryName, Tag};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The name that other tools find a manifest by, `<repository>:<tag>` here.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The repository that a manifest is of.
const REPOSITORY: &str = "dev.proofmark.repository";
/// The manifest that holds what is no content: events, settings, evidence as it was judged.
pub const RECORD_TYPE: &str = "application/vnd.proofmark.record.v1";

/// An index or a manifest that is larger is none.
const MAX_JSON_BYTES: u64 = 1 << 30;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// A layout's directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

/// A descriptor of `index.json`: a manifest, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The manifest's media type.
    pub media_type: MediaType,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size_bytes: u64,
    /// The repository, where the layout says it.
    pub repository: Option<RepositoryName>,
    /// The name as other tools write it, where it has one.
    pub ref_name: Option<String>,
    /// What kind of artifact it is, where the descriptor says it.
    pub artifact_type: Option<String>,
}

impl Entry {
    /// The tag: what stands behind the last colon of the name.
    pub fn tag(&self) -> Option<Result<Tag, String>> {
        let name = self.ref_name.as_deref()?;
        let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
        Some(tag.parse().map_err(|_| name.to_owned()))
    }

    /// Whether it is the record of the registry that it came from.
    pub fn is_record(&self) -> bool {
        self.repository.is_none() && self.artifact_type.as_deref() == Some(RECORD_TYPE)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: MediaType,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl From<&Entry> for Descriptor {
    fn from(entry: &Entry) -> Self {
        let repository = entry.repository.as_ref().map(|name| (REPOSITORY.to_owned(), name.to_string()));
        let name = entry.ref_name.clone().map(|name| (REF_NAME.to_owned(), name));
        Self {
            media_type: entry.media_type.clone(),
            digest: entry.digest.clone(),
            size: entry.size_bytes,
            artifact_type: entry.artifact_type.clone(),
            annotations: repository.into_iter().chain(name).collect(),
        }
    }
}

impl Descriptor {
    fn entry(mut self) -> Result<Entry, String> {
        let repository = self.annotations.remove(REPOSITORY).map(|name| {
            name.parse().map_err(|error: crate::names::InvalidRepositoryName| format!("{name}: {error}"))
        });
        Ok(Entry {
            media_type: self.media_type,
            digest: self.digest,
            size_bytes: self.size,
            repository: repository.transpose()?,
            ref_name: self.annotations.remove(REF_NAME),
            artifact_type: self.artifact_type,
        })
    }
}

impl Layout {
    /// A directory to write into: a layout, or one that is empty or not there yet.
    pub fn create(root: &Path) -> Result<Self, Stop> {
        let layout = Self { root: root.to_owned() };
        let marker = root.join("oci-layout");
        let made = || -> io::Result<bool> {
            fs::create_dir_all(root)?;
            if !marker.exists() {
                if fs::read_dir(root)?.next().is_some() {
                    return Ok(false);
                }
                fs::write(&marker, json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
            }
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                fs::create_dir_all(root.join("blobs").join(algorithm.as_str()))?;
            }
            Ok(true)
        };
        match made() {
            Ok(true) => Ok(layout),
            Ok(false) => Err(Stop::Usage(format!(
                "{} holds other files: give an empty directory, or an earlier export to go on with",
                root.display()
            ))),
            Err(error) => Err(layout.cannot("write", root, &error)),
        }
    }

    /// A layout that is there.
    pub fn open(root: &Path) -> Result<Self, Stop> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let layout = Self { root: root.to_owned() };
        let marker = fs::read(root.join("oci-layout")).ok();
        let version = marker.and_then(|bytes| serde_json::from_slice::<Marker>(&bytes).ok());
        match version {
            Some(marker) if marker.image_layout_version.starts_with("1.") => Ok(layout),
            None if !root.is_dir() => Err(Stop::Usage(format!("there is no directory {}", root.display()))),
            Some(_) | None => Err(Stop::Usage(format!(
                "{} is no OCI image layout: its file oci-layout should say imageLayoutVersion 1.0.0",
                root.display()
            ))),
        }
    }

    /// Where the bytes of a digest lie.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// A name in the layout's own directory for what is being written.
    pub fn unfinished(&self) -> PathBuf {
        self.root.join(format!(".unfinished-{}", uuid::Uuid::new_v4()))
    }

    /// Whether the bytes are here, by their length; a link to elsewhere is none of the layout.
    pub fn has(&self, digest: &Digest, size_bytes: u64) -> bool {
        fs::symlink_metadata(self.path(digest)).is_ok_and(|file| file.is_file() && file.len() == size_bytes)
    }

    /// Gives what was written beside its name, once it is durable.
    pub fn keep(&self, unfinished: &Path, digest: &Digest) -> Result<(), Stop> {
        let target = self.path(digest);
        let kept = || {
            File::open(unfinished)?.sync_all()?;
            fs::rename(unfinished, &target)
        };
        kept().map_err(|error| self.cannot("write", &target, &error))
    }

    /// Keeps bytes under their SHA-256, or under the digest that they were found to have.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Stop> {
        let unfinished = self.unfinished();
        fs::write(&unfinished, bytes).map_err(|error| self.cannot("write", &unfinished, &error))?;
        self.keep(&unfinished, digest)
    }

    /// Removes bytes that nothing lists any more; those that are gone already are a success.
    pub fn forget(&self, digest: &Digest) -> Result<(), Stop> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.cannot("remove", &path, &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A manifest's bytes, if they have its digest.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            self.file(digest)?.take(MAX_JSON_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| format!("{digest} cannot be read: {error}"))?;
        if Digest::of(digest.algorithm(), &bytes) == *digest {
            return Ok(bytes);
        }
        Err(format!("{digest} has other bytes than its name says"))
    }

    /// Hashes a blob's bytes; says how many there are.
    pub fn verify(&self, digest: &Digest) -> Result<u64, String> {
        let hash = || -> io::Result<(u64, Digest)> {
            let (mut file, mut hasher) = (self.file(digest)?, Hasher::new(digest.algorithm()));
            let (mut buffer, mut length) = (vec![0; READ_BYTES], 0);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok((length, hasher.finish())),
                    count => {
                        hasher.update(&buffer[..count]);
                        length += count as u64;
                    }
                }
            }
        };
        match hash() {
            Ok((length, found)) if found == *digest => Ok(length),
            Ok((_, found)) => Err(format!("{digest} has the bytes of {found}")),
            Err(error) => Err(format!("{digest} cannot be read: {error}")),
        }
    }

    /// The file of a digest, which must be one.
    pub fn file(&self, digest: &Digest) -> io::Result<File> {
        let path = self.path(digest);
        if !fs::symlink_metadata(&path)?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        File::open(path)
    }

    /// What `index.json` lists, in its order.
    pub fn entries(&self) -> Result<Vec<Entry>, Stop> {
        let path = self.root.join("index.json");
        let file = File::open(&path).map_err(|error| self.cannot("read", &path, &error))?;
        let wrong = |why: String| Stop::Usage(format!("{} is no image index: {why}", path.display()));
        let index: Index = serde_json::from_reader(io::BufReader::new(file.take(MAX_JSON_BYTES)))
            .map_err(|error| wrong(error.to_string()))?;
        index.manifests.into_iter().map(|descriptor| descriptor.entry().map_err(wrong)).collect()
    }

    /// The same of a layout that may have no index yet.
    pub fn entries_if_any(&self) -> Result<Vec<Entry>, Stop> {
        if self.root.join("index.json").exists() { self.entries() } else { Ok(Vec::new()) }
    }

    /// Writes `index.json` beside and renames it: a crash leaves the old one or the new one.
    pub fn list(&self, entries: &[Entry]) -> Result<(), Stop> {
        let (path, unfinished) = (self.root.join("index.json"), self.unfinished());
        let index = json!({"schemaVersion": 2, "mediaType": crate::content::OCI_INDEX,
                           "manifests": entries.iter().map(Descriptor::from).collect::<Vec<_>>()});
        let write = || {
            let mut file = io::BufWriter::new(File::create(&unfinished)?);
            serde_json::to_writer(&mut file, &index)?;
            file.flush()?;
            file.get_ref().sync_all()?;
            // What the index lists has its name before the index has.
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                File::open(self.root.join("blobs").join(algorithm.as_str()))?.sync_all()?;
            }
            fs::rename(&unfinished, &path)?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(|error: io::Error| self.cannot("write", &path, &error))
    }

    /// Removes what an export that was cut off left half written.
    pub fn tidy(&self) -> Result<(), Stop> {
        let tidy = || {
            for entry in fs::read_dir(&self.root)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(".unfinished-") {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        tidy().map_err(|error: io::Error| self.cannot("write", &self.root, &error))
    }

    /// Why the command stops at this file.
    #[allow(clippy::unused_self, reason = "a layout's own errors")]
    pub fn cannot(&self, what: &str, path: &Path, error: &io::Error) -> Stop {
        Stop::Usage(format!("cannot {what} {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: Option<&str>) -> Entry {
        Entry {
            media_type: crate::content::OCI_IMAGE.parse().unwrap(),
            digest: Digest::sha256(b"manifest"),
            size_bytes: 8,
            repository: Some("payments/api".parse().unwrap()),
            ref_name: name.map(str::to_owned),
            artifact_type: None,
        }
    }

    #[test]
    fn an_index_comes_back_as_it_was_written_and_bytes_only_as_they_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let entries = [entry(Some("payments/api:1.4.2")), entry(None)];
        layout.list(&entries).unwrap();
        let layout = Layout::open(directory.path()).unwrap();
        assert_eq!(layout.entries().unwrap(), entries);
        assert_eq!(entries[0].tag().unwrap().unwrap().as_str(), "1.4.2");

        let digest = Digest::sha256(b"manifest");
        assert!(layout.read(&digest).is_err() && !layout.has(&digest, 8));
        layout.put(&digest, b"manifest").unwrap();
        assert!(layout.has(&digest, 8) && !layout.has(&digest, 9));
        assert_eq!((layout.read(&digest).unwrap(), layout.verify(&digest)), (b"manifest".to_vec(), Ok(8)));
        fs::write(layout.path(&digest), b"manifesT").unwrap();
        assert!(layout.read(&digest).is_err() && layout.verify(&digest).is_err());
        fs::remove_file(layout.path(&digest)).unwrap();
        fs::write(directory.path().join("elsewhere"), b"manifest").unwrap();
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), layout.path(&digest)).unwrap();
        assert!(!layout.has(&digest, 8) && layout.verify(&digest).is_err(), "links are not followed");
    }

    #[test]
    fn a_directory_with_other_files_is_no_layout_and_none_is_written_into_it() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("notes.txt"), b"mine").unwrap();
        assert!(matches!(Layout::create(directory.path()), Err(Stop::Usage(_))));
        assert!(matches!(Layout::open(directory.path()), Err(Stop::Usage(_))));
    }
}
