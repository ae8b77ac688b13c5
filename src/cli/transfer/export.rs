//! `export`: repositories into an OCI image layout, with what is said about them and what happened to them.

use super::layout::{Entry, Layout};
use super::plan::{Part, Wrong};
use super::record::{self, Sheet, sheets};
use super::told::Told;
use super::{AT_ONCE, PAUSES};
use crate::cli::connection::{Query, Registry};
use crate::cli::output::{Output, at};
use crate::cli::stop::Stop;
use crate::cli::{artifact, blob};
use crate::content::{Descriptor, ParsedManifest};
use crate::names::{Digest, MediaType, Pattern, Reference, RepositoryName, Tag};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::Duration;

/// Write repositories, with their attestations and events, into an OCI image layout
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark export backup/
  proofmark export payments/ --repository 'payments/*'
  skopeo copy oci:backup:payments/api:1.4.2 docker://elsewhere.example/payments/api:1.4.2

The token needs the reader's and the auditor's right on the repositories; what it may not read beside them
(signers, policies) is left out, and named. An export that was cut off goes on where it was when it is
repeated; nothing that is there already is fetched again.")]
pub struct Export {
    /// The layout's directory: empty, or an earlier export to bring up to date
    directory: PathBuf,
    /// Repositories, as a pattern; may be repeated [default: all that one may see]
    #[arg(long, short, value_name = "PATTERN")]
    repository: Vec<Pattern>,
    /// Hash what an earlier export left before it is taken for whole; what is damaged is fetched again
    #[arg(long)]
    verify: bool,
}

/// An export looks again while the log tells something else than was listed: what came meanwhile, or what is
/// committed and not in the log yet (the sequencer looks four times a second).
const ROUNDS: usize = 8;
const PAUSE: Duration = Duration::from_millis(400);
/// Where the record says whose it is.
const VERIFIER: &str = "dev.proofmark.verifier";

/// A manifest as the registry lists it.
#[derive(Deserialize)]
struct Listed {
    digest: Digest,
    media_type: MediaType,
    manifest_size_bytes: u64,
    artifact_type: Option<String>,
    versions: Vec<Tag>,
    floating_tags: Vec<Tag>,
}

/// What an export has come to.
#[derive(Default)]
struct Exported {
    entries: Vec<Entry>,
    parts: Vec<Part>,
    tags: Vec<(Part, Tag)>,
    /// Settings that this token may not read.
    left_out: Vec<&'static str>,
    blobs: HashSet<Digest>,
    bytes: u64,
    log_size: i64,
    /// Whether the log is there from its first entry to its last, and not these repositories' part of it.
    is_whole_log: bool,
    /// Where the log tells something else than was listed (what changed while the export ran), and what the
    /// registry lists and does not give.
    differences: Vec<Wrong>,
}

impl Exported {
    /// One descriptor for each name of a manifest, or one without any.
    fn list(&mut self, repository: &RepositoryName, manifest: &Listed) {
        let entry = |tag: Option<&Tag>| Entry {
            media_type: manifest.media_type.clone(),
            digest: manifest.digest.clone(),
            size_bytes: manifest.manifest_size_bytes,
            repository: Some(repository.clone()),
            ref_name: tag.map(|tag| format!("{repository}:{tag}")),
            artifact_type: manifest.artifact_type.clone(),
        };
        let (digest, media_type) = (manifest.digest.clone(), manifest.media_type.clone());
        let part = Part { repository: repository.clone(), digest, media_type };
        let tags: Vec<&Tag> = manifest.versions.iter().chain(&manifest.floating_tags).collect();
        if tags.is_empty() {
            self.entries.push(entry(None));
        }
        for tag in tags {
            self.entries.push(entry(Some(tag)));
            self.tags.push((part.clone(), tag.clone()));
        }
        self.parts.push(part);
    }
}

/// The registry and the layout between which an export runs.
struct Between<'a> {
    registry: &'a Registry,
    layout: Layout,
    repositories: Vec<Value>,
    trust: Value,
    verify: bool,
    bar: ProgressBar,
}

impl Export {
    /// Content first, then what is said about it; the index last, so that a layout that has one is whole.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let repositories = self.repositories(registry).await?;
        let trust = registry.get("/.well-known/proofmark", &[]).await?;
        let layout = Layout::create(&self.directory)?;
        layout.tidy()?;
        let bar = output.bar(None, "exporting");
        let between = Between { registry, layout, repositories, trust, verify: self.verify, bar };
        between.covers_what_is_there()?;
        let exported = between.export().await?;
        between.bar.finish_and_clear();
        let document = json!({
            "directory": self.directory,
            "repositories": between.repositories.len(),
            "manifests": exported.parts.len(),
            "blobs": exported.blobs.len(),
            "fetched_bytes": exported.bytes,
            "events": exported.log_size,
            "left_out": exported.left_out,
            "differences": exported.differences,
        });
        for name in &exported.left_out {
            output.remark(&format!("{name} is left out: this token may not read it"));
        }
        if !exported.differences.is_empty() {
            let mut problem = document;
            problem["code"] = "not-all-exported".into();
            problem["detail"] = "not all is as it should be: export again when less is pushed".into();
            return Err(Stop::Refused(problem));
        }
        output.answer(&document, || {
            format!(
                "Exported {} repositories: {} manifests, {} blobs, the log up to {}\n{}",
                at(&document, "/repositories"),
                at(&document, "/manifests"),
                at(&document, "/blobs"),
                exported.log_size,
                self.directory.display()
            )
        });
        Ok(())
    }

    async fn repositories(&self, registry: &Registry) -> Result<Vec<Value>, Stop> {
        let mut all = registry.list("/api/v1/repositories", &[("limit", Some("1000"))], usize::MAX).await?;
        let wanted =
            |name: &str| self.repository.is_empty() || self.repository.iter().any(|p| p.matches(name));
        all.retain(|repository| wanted(&at(repository, "/name")));
        if all.is_empty() {
            return Err(Stop::no("nothing-to-export", "there is no such repository that this token may see"));
        }
        Ok(all)
    }
}

impl Between<'_> {
    async fn export(&self) -> Result<Exported, Stop> {
        let mut exported = Exported::default();
        let (mut layers, mut superseded) = (Vec::new(), record::parts(&self.layout));
        let names: BTreeSet<String> = self.names().map(|name| name.to_string()).collect();
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            exported.differences = self.content(&mut exported).await?;
            let (events, told) = self.events(&mut exported).await?;
            superseded.extend(record::digest(&events));
            layers = vec![events];
            let differences = told.differences(&names, exported.parts.iter(), exported.tags.iter());
            exported.differences.extend(differences);
            if exported.differences.is_empty() {
                break;
            }
        }
        layers.extend(self.sheets(&mut exported).await?);
        let annotations = BTreeMap::from([
            ("dev.proofmark.server".to_owned(), self.registry.base().to_string()),
            ("dev.proofmark.log.size".to_owned(), exported.log_size.to_string()),
            (VERIFIER.to_owned(), at(&self.trust, "/signed/verifier_id")),
            ("dev.proofmark.log.whole".to_owned(), exported.is_whole_log.to_string()),
        ]);
        let kept = record::keep(&self.layout, &layers, &annotations)?;
        // A record that was imported is content of its repository.
        let listed: HashSet<&Digest> =
            exported.blobs.iter().chain(exported.parts.iter().map(|part| &part.digest)).collect();
        let current: HashSet<Digest> =
            layers.iter().filter_map(record::digest).chain([kept.digest.clone()]).collect();
        superseded.retain(|digest| !listed.contains(digest) && !current.contains(digest));
        exported.entries.push(kept);
        self.layout.list(&exported.entries)?;
        superseded.iter().try_for_each(|digest| self.layout.forget(digest))?;
        Ok(exported)
    }

    /// What the directory lists is of this registry and these repositories; otherwise the new index would
    /// leave it out.
    fn covers_what_is_there(&self) -> Result<(), Stop> {
        let other = |what: &str| {
            Err(Stop::Usage(format!(
                "the directory lists {what}, which this export would leave out: give another one"
            )))
        };
        let names: HashSet<RepositoryName> = self.names().collect();
        for entry in self.layout.entries_if_any()? {
            if entry.is_record() {
                let verifier = record::annotation(&self.layout, &entry, VERIFIER);
                if verifier.is_some_and(|verifier| verifier != at(&self.trust, "/signed/verifier_id")) {
                    return other("what another registry holds");
                }
            } else if !entry.repository.as_ref().is_some_and(|name| names.contains(name)) {
                return other(&entry.ref_name.unwrap_or_else(|| entry.digest.to_string()));
            }
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = RepositoryName> {
        self.repositories.iter().filter_map(|repository| at(repository, "/name").parse().ok())
    }

    /// Every manifest with its blobs, the oldest first: in this order they can be pushed again.
    /// Returns what it lists and does not give.
    async fn content(&self, exported: &mut Exported) -> Result<Vec<Wrong>, Stop> {
        let mut missing = Vec::new();
        exported.entries.clear();
        exported.parts.clear();
        exported.tags.clear();
        for repository in self.names() {
            let query = [("repository", Some(repository.as_str())), ("limit", Some("1000"))];
            let mut listed = self.registry.list("/api/v1/artifacts", &query, usize::MAX).await?;
            listed.reverse();
            for item in listed {
                let manifest: Listed = serde_json::from_value(item)
                    .map_err(|error| Stop::Unanswered(format!("a list of artifacts: {error}")))?;
                // What was deleted meanwhile is looked at again in the next round.
                match self.manifest(&repository, &manifest, exported).await {
                    Ok(true) => exported.list(&repository, &manifest),
                    Ok(false) => {}
                    Err(Stop::Refused(problem)) => {
                        let what = format!("{repository}@{}", manifest.digest);
                        missing.push(Wrong::new(what, at(&problem, "/detail")));
                    }
                    Err(stop) => return Err(stop),
                }
            }
        }
        Ok(missing)
    }

    /// One manifest, then its blobs; false when the repository does not have it any more.
    async fn manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Listed,
        exported: &mut Exported,
    ) -> Result<bool, Stop> {
        let body = if let Ok(body) = self.layout.read(&manifest.digest) {
            body
        } else {
            let reference = Reference::Digest(manifest.digest.clone());
            match artifact::fetch(self.registry, repository, &reference).await {
                Ok(fetched) => self.layout.put(&fetched.digest, &fetched.body).map(|()| fetched.body)?,
                Err(stop) if stop.is("MANIFEST_UNKNOWN") => return Ok(false),
                Err(stop) => return Err(stop),
            }
        };
        let media_type = Some(manifest.media_type.as_str());
        let parsed = ParsedManifest::parse(body.into(), media_type, manifest.digest.algorithm(), usize::MAX);
        let parsed = parsed.map_err(|error| {
            Stop::no("manifest-unreadable", format!("{repository}@{}: {error}", manifest.digest))
        })?;
        let missing: Vec<Descriptor> =
            parsed.blobs.into_iter().filter(|blob| !exported.blobs.contains(&blob.digest)).collect();
        let fetched: Vec<Option<(Digest, u64)>> = stream::iter(&missing)
            .map(|blob| self.blob(repository, blob))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        for (digest, bytes) in fetched.into_iter().flatten() {
            exported.bytes += bytes;
            exported.blobs.insert(digest);
        }
        Ok(true)
    }

    /// A blob, with how many bytes of it had to be fetched; `None` for one that need not be there.
    async fn blob(
        &self,
        repository: &RepositoryName,
        wanted: &Descriptor,
    ) -> Result<Option<(Digest, u64)>, Stop> {
        let size_bytes = u64::try_from(wanted.size_bytes).unwrap_or_default();
        let digest = &wanted.digest;
        if self.layout.has(digest, size_bytes) && self.is_intact(digest).await? {
            return Ok(Some((digest.clone(), 0)));
        }
        if wanted.may_be_absent && !blob::is_there(self.registry, repository, digest).await? {
            return Ok(None);
        }
        let mut pauses = PAUSES.iter();
        loop {
            match (self.fetch(repository, (digest, size_bytes)).await, pauses.next()) {
                (Err(Stop::Unanswered(_)), Some(pause)) => tokio::time::sleep(*pause).await,
                (fetched, _) => return fetched.map(|()| Some((digest.clone(), size_bytes))),
            }
        }
    }

    /// Whether what lies there already is what it should be, where that is asked for.
    async fn is_intact(&self, digest: &Digest) -> Result<bool, Stop> {
        if !self.verify {
            return Ok(true);
        }
        let (layout, digest) = (self.layout.clone(), digest.clone());
        let verified = tokio::task::spawn_blocking(move || layout.verify(&digest)).await;
        verified
            .map(|verified| verified.is_ok())
            .map_err(|error| Stop::Unanswered(format!("hashing stopped: {error}")))
    }

    async fn fetch(&self, repository: &RepositoryName, (digest, size): (&Digest, u64)) -> Result<(), Stop> {
        let unfinished = self.layout.unfinished();
        let failed = |error| self.layout.cannot("write", &unfinished, &error);
        let file = tokio::fs::File::create(&unfinished).await.map_err(failed)?;
        let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file);
        let fetched = blob::stream(self.registry, repository, (digest, size), &self.bar, &mut file).await;
        let kept = fetched.and_then(|()| self.layout.keep(&unfinished, digest));
        if kept.is_err() {
            // The next export tidies what cannot be removed now.
            let _ = std::fs::remove_file(&unfinished);
        }
        kept
    }

    /// The log's entries, all that this token may read, and what they tell.
    async fn events(&self, exported: &mut Exported) -> Result<(Value, Told), Stop> {
        let mut sheet = Sheet::begin(&self.layout)?;
        let mut told = Told::default();
        exported.log_size = match self.log(&[], &mut sheet, &mut told).await {
            Ok(size) => {
                exported.is_whole_log = true;
                size
            }
            Err(stop) if is_out_of_sight(&stop) => {
                let mut size = 0;
                for name in self.names() {
                    size = self.log(&[("repository", Some(name.as_str()))], &mut sheet, &mut told).await?;
                }
                size
            }
            Err(stop) => return Err(stop),
        };
        Ok((sheet.end(sheets::EVENTS)?, told))
    }

    /// Copies the log into the sheet and follows it; says how many entries it has.
    async fn log(&self, query: Query<'_>, sheet: &mut Sheet, told: &mut Told) -> Result<i64, Stop> {
        let request = self.registry.request(reqwest::Method::GET, "/api/v1/audit/events");
        let request = request.query(&[("format", "ndjson")]).query(query);
        let mut response = self.registry.send(request).await?;
        let size = response.headers().get("x-log-size").and_then(|size| size.to_str().ok()?.parse().ok());
        let mut rest = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.registry.unanswered(&error))? {
            rest.extend_from_slice(&chunk);
            let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            for line in rest[..end].split(|byte| *byte == b'\n') {
                let entry: Value = serde_json::from_slice(line)
                    .map_err(|error| Stop::Unanswered(format!("an event of the log: {error}")))?;
                told.follow(&entry["event"]);
            }
            sheet.add(&rest[..=end])?;
            rest.drain(..=end);
        }
        match size {
            Some(size) if rest.is_empty() => Ok(size),
            Some(_) | None => Err(Stop::Unanswered("the log broke off in the middle of an event".into())),
        }
    }

    /// What is said about the content, and the rules around it.
    async fn sheets(&self, exported: &mut Exported) -> Result<Vec<Value>, Stop> {
        let mut repositories = Sheet::begin(&self.layout)?;
        repositories.lines(&self.repositories)?;
        let mut layers = vec![repositories.end(sheets::REPOSITORIES)?];
        for (name, path) in [
            (sheets::TAGS, "/api/v1/tags"),
            (sheets::ATTESTATIONS, "/api/v1/attestations"),
            (sheets::SCANS, "/api/v1/scans"),
            (sheets::BLOCKS, "/api/v1/blocks"),
            (sheets::HOLDS, "/api/v1/holds"),
            (sheets::PROMOTIONS, "/api/v1/promotions"),
        ] {
            layers.push(self.sheet_by_repository(name, path).await?);
        }
        layers.push(self.decisions().await?);
        for (name, path) in [
            (sheets::SIGNERS, "/api/v1/signers"),
            (sheets::BUILD_TYPES, "/api/v1/build-types"),
            (sheets::ENVIRONMENTS, "/api/v1/environments"),
            (sheets::POLICIES, "/api/v1/policies"),
        ] {
            match self.registry.list(path, &[("limit", Some("1000"))], usize::MAX).await {
                Ok(items) => {
                    let mut sheet = Sheet::begin(&self.layout)?;
                    sheet.lines(&items)?;
                    layers.push(sheet.end(name)?);
                }
                Err(stop) if is_out_of_sight(&stop) => exported.left_out.push(name),
                Err(stop) => return Err(stop),
            }
        }
        let mut trust = Sheet::begin(&self.layout)?;
        trust.lines(std::slice::from_ref(&self.trust))?;
        layers.push(trust.end(sheets::TRUST)?);
        Ok(layers)
    }

    /// A list that is asked for repository by repository, with the repository in each line, and the one in
    /// whose list it stood: a block that was placed in another repository counts there too.
    async fn sheet_by_repository(&self, name: &'static str, path: &str) -> Result<Value, Stop> {
        let mut sheet = Sheet::begin(&self.layout)?;
        for repository in self.names() {
            let query = [("repository", Some(repository.as_str())), ("limit", Some("1000"))];
            let take = |mut items: Vec<Value>| {
                for item in &mut items {
                    item["listed_in"] = json!(repository);
                    if item.get("repository").is_none() {
                        item["repository"] = json!(repository);
                    }
                }
                sheet.lines(&items).map(|()| true)
            };
            self.registry.each_page(path, &query, take).await?;
        }
        sheet.end(name)
    }

    /// The decisions behind the promotions, each once.
    async fn decisions(&self) -> Result<Value, Stop> {
        let (mut sheet, mut seen) = (Sheet::begin(&self.layout)?, HashSet::new());
        for repository in self.names() {
            let query = [("repository", Some(repository.as_str())), ("limit", Some("1000"))];
            for promotion in self.registry.list("/api/v1/promotions", &query, usize::MAX).await? {
                let id = at(&promotion, "/decision");
                if seen.insert(id.clone()) {
                    sheet.lines(&[self.registry.get(&format!("/api/v1/decisions/{id}"), &[]).await?])?;
                }
            }
        }
        sheet.end(sheets::DECISIONS)
    }
}

/// Whether the answer is that the token may not read it.
fn is_out_of_sight(stop: &Stop) -> bool {
    stop.is("forbidden") || stop.is("not-found")
}
