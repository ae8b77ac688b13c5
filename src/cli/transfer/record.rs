//! The record of a registry in a layout: what is no content, as sheets of JSON lines in one artifact.

use super::layout::{Entry, Layout, RECORD_TYPE};
use crate::cli::stop::Stop;
use crate::content::{self, OCI_IMAGE, TITLE};
use crate::names::{Algorithm, Digest, Hasher};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

/// The sheets, each a layer of the record with its name as title.
pub mod sheets {
    /// The log's entries, from the first on: `{index, event_id, principal, event}`.
    pub const EVENTS: &str = "events.ndjson";
    /// Repositories with their rules.
    pub const REPOSITORIES: &str = "repositories.ndjson";
    /// Every name that is held, deleted ones too, with its `repository`.
    pub const TAGS: &str = "tags.ndjson";
    /// Attestations with the verdict that they had.
    pub const ATTESTATIONS: &str = "attestations.ndjson";
    /// Scans as they were recorded.
    pub const SCANS: &str = "scans.ndjson";
    /// Signers, revoked ones too.
    pub const SIGNERS: &str = "signers.ndjson";
    /// Build types that were declared, ended declarations too.
    pub const BUILD_TYPES: &str = "build-types.ndjson";
    /// Environments.
    pub const ENVIRONMENTS: &str = "environments.ndjson";
    /// Policies in force, as they were written.
    pub const POLICIES: &str = "policies.ndjson";
    /// Blocks that are open.
    pub const BLOCKS: &str = "blocks.ndjson";
    /// Holds that are open.
    pub const HOLDS: &str = "holds.ndjson";
    /// Promotions with their `repository`: history, which no import repeats.
    pub const PROMOTIONS: &str = "promotions.ndjson";
    /// The decisions behind them, with every input.
    pub const DECISIONS: &str = "decisions.ndjson";
    /// The registry's trust file, by which its signed summaries are verified.
    pub const TRUST: &str = "trust.json";
}

const LINES: &str = "application/x-ndjson";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A sheet that is being written.
pub struct Sheet {
    layout: Layout,
    unfinished: PathBuf,
    file: BufWriter<File>,
    hasher: Hasher,
    size_bytes: u64,
}

impl Sheet {
    /// An empty one.
    pub fn begin(layout: &Layout) -> Result<Self, Stop> {
        let unfinished = layout.unfinished();
        let file = File::create(&unfinished).map_err(|error| layout.cannot("write", &unfinished, &error))?;
        let hasher = Hasher::new(Algorithm::Sha256);
        Ok(Self { layout: layout.clone(), unfinished, file: BufWriter::new(file), hasher, size_bytes: 0 })
    }

    /// Bytes as they are.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        let written = self.file.write_all(bytes);
        written.map_err(|error| self.layout.cannot("write", &self.unfinished, &error))
    }

    /// Documents, one a line.
    pub fn lines(&mut self, documents: &[Value]) -> Result<(), Stop> {
        documents.iter().try_for_each(|document| self.add(format!("{document}\n").as_bytes()))
    }

    /// Keeps it under its digest; the layer that names it.
    pub fn end(mut self, name: &str) -> Result<Value, Stop> {
        let flushed = self.file.flush();
        flushed.map_err(|error| self.layout.cannot("write", &self.unfinished, &error))?;
        let digest = self.hasher.finish();
        self.layout.keep(&self.unfinished, &digest)?;
        let media_type = if name == sheets::TRUST { "application/json" } else { LINES };
        Ok(json!({"mediaType": media_type, "digest": digest, "size": self.size_bytes,
                  "annotations": {(TITLE): name}}))
    }
}

/// The digest of a layer that was kept.
pub fn digest(layer: &Value) -> Option<Digest> {
    layer["digest"].as_str()?.parse().ok()
}

/// The manifest and the sheets of the record that the layout has, if it has one: the next export supersedes
/// them.
pub fn parts(layout: &Layout) -> BTreeSet<Digest> {
    let entries = layout.entries().unwrap_or_default();
    let records = entries.iter().filter(|entry| entry.is_record()).filter_map(|entry| {
        let layers = Record::open(layout, entry).ok()?.layers;
        Some(layers.into_values().chain([entry.digest.clone()]))
    });
    records.flatten().collect()
}

/// What the record says of itself, without a look at its sheets.
pub fn annotation(layout: &Layout, entry: &Entry, name: &str) -> Option<String> {
    let body = layout.read(&entry.digest).ok()?;
    serde_json::from_slice::<Annotated>(&body).ok()?.annotations.remove(name)
}

/// Stores the record's manifest over its layers, with what it says of itself.
pub fn keep(
    layout: &Layout,
    layers: &[Value],
    annotations: &BTreeMap<String, String>,
) -> Result<Entry, Stop> {
    layout.put(&Digest::sha256(b"{}"), b"{}")?;
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE, "artifactType": RECORD_TYPE,
        "config": {"mediaType": EMPTY, "digest": Digest::sha256(b"{}"), "size": 2},
        "layers": layers, "annotations": annotations});
    let body = manifest.to_string().into_bytes();
    let digest = Digest::sha256(&body);
    layout.put(&digest, &body)?;
    let media_type =
        OCI_IMAGE.parse().map_err(|error| Stop::Unanswered(format!("naming a manifest's type: {error}")))?;
    Ok(Entry {
        media_type,
        digest,
        size_bytes: body.len() as u64,
        repository: None,
        ref_name: None,
        artifact_type: Some(RECORD_TYPE.to_owned()),
    })
}

/// A record as it lies in a layout.
pub struct Record<'a> {
    layout: &'a Layout,
    layers: BTreeMap<String, Digest>,
    /// What it says of itself.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl<'a> Record<'a> {
    /// Reads its manifest, and looks at every byte of its sheets.
    pub fn open(layout: &'a Layout, entry: &Entry) -> Result<Self, Stop> {
        let damaged = |why: String| Stop::no("layout-damaged", format!("the layout's record: {why}"));
        let body = layout.read(&entry.digest).map_err(damaged)?;
        let parse = |body: Vec<u8>| -> Result<_, String> {
            let Annotated { annotations } = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
            let parsed = content::ParsedManifest::parse(body.into(), None, Algorithm::Sha256, usize::MAX);
            let layers = parsed.and_then(|parsed| parsed.layers()).map_err(|e| e.to_string())?;
            Ok((annotations, layers))
        };
        let (annotations, layers) = parse(body).map_err(damaged)?;
        let layers: BTreeMap<String, Digest> =
            layers.into_iter().filter_map(|layer| Some((layer.title()?.to_owned(), layer.digest))).collect();
        for digest in layers.values() {
            layout.verify(digest).map_err(damaged)?;
        }
        Ok(Self { layout, layers, annotations })
    }

    /// A sheet's lines, one after the other; none of a sheet that the record does not have.
    pub fn lines(&self, name: &str) -> Result<impl Iterator<Item = Result<Value, Stop>>, Stop> {
        let name = name.to_owned();
        let file = match self.layers.get(&name) {
            None => None,
            Some(digest) => {
                let opened = self.layout.file(digest);
                Some(opened.map_err(|error| self.layout.cannot("read", &self.layout.path(digest), &error))?)
            }
        };
        let lines = file.into_iter().flat_map(|file| BufReader::new(file).lines());
        Ok(lines.map(move |line| {
            let wrong = |why: String| Stop::no("layout-damaged", format!("the record's {name}: {why}"));
            let line = line.map_err(|error| wrong(error.to_string()))?;
            serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))
        }))
    }
}
