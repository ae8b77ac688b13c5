//! `import --check`: a layout held against itself and against a registry. Changes nothing.

use super::AT_ONCE;
use super::import::Between;
use super::names::Names;
use super::plan::{Part, Plan, Selection, Wrong, parsed};
use super::record::{Record, sheets};
use super::settings::{self, Stops};
use super::told::Told;
use crate::cli::blob;
use crate::cli::output::{Output, at, text};
use crate::cli::stop::Stop;
use crate::names::{Digest, RepositoryName, Tag};
use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What is checked.
pub struct Check<'a> {
    pub between: &'a Between<'a>,
    pub selection: &'a Selection,
}

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct Checked {
    manifests: u64,
    blobs: u64,
    bytes: u64,
    tags: u64,
    /// Entries of the log that were followed.
    events: u64,
    /// Verdicts, scans and settings that were compared.
    compared: u64,
    wrong: Vec<Wrong>,
}

impl Check<'_> {
    /// The layout's own bytes first, then the registry, then what the record says of both.
    pub async fn run(&self, plan: &Plan, record: Option<&Record<'_>>) -> Result<Checked, Stop> {
        let mut checked = Checked { wrong: plan.wrong.clone(), ..Checked::default() };
        let mut hashed = HashSet::new();
        for part in &plan.manifests {
            checked.manifests += 1;
            self.manifest(part, &mut hashed, &mut checked).await?;
        }
        self.names(plan, record.is_some(), &mut checked).await?;
        if let Some(record) = record {
            self.events(plan, record, &mut checked)?;
            self.said(record, plan, &mut checked).await?;
            self.settings(record, &mut checked).await?;
        }
        Ok(checked)
    }

    /// A manifest and its blobs: in the layout byte for byte, in the registry by their digests.
    async fn manifest(
        &self,
        part: &Part,
        hashed: &mut HashSet<Digest>,
        checked: &mut Checked,
    ) -> Result<(), Stop> {
        let between = self.between;
        let what = part.to_string();
        let manifest = match parsed(between.layout, part) {
            Ok(manifest) => manifest,
            Err(why) => {
                checked.wrong.push(Wrong::new(what, why));
                return Ok(());
            }
        };
        for wanted in &manifest.blobs {
            let size_bytes = u64::try_from(wanted.size_bytes).unwrap_or_default();
            let is_absent = wanted.may_be_absent && !between.layout.has(&wanted.digest, size_bytes);
            if is_absent || !hashed.insert(wanted.digest.clone()) {
                continue;
            }
            let (layout, digest) = (between.layout.clone(), wanted.digest.clone());
            let verified = tokio::task::spawn_blocking(move || layout.verify(&digest)).await;
            match verified.map_err(|error| Stop::Unanswered(format!("hashing stopped: {error}")))? {
                Ok(bytes) => {
                    between.bar.inc(bytes);
                    checked.blobs += 1;
                    checked.bytes += bytes;
                }
                Err(why) => checked.wrong.push(Wrong::new(what.clone(), why)),
            }
        }
        let path = format!("/v2/{}/manifests/{}", part.repository, part.digest);
        if !between.registry.has(&path).await? {
            checked.wrong.push(Wrong::new(what, "the registry does not have it"));
            return Ok(());
        }
        let missing: Vec<Result<Option<Digest>, Stop>> = stream::iter(&manifest.blobs)
            .map(|wanted| async {
                let there = wanted.may_be_absent
                    || blob::is_there(between.registry, &part.repository, &wanted.digest).await?;
                Ok((!there).then(|| wanted.digest.clone()))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for digest in missing {
            if let Some(digest) = digest? {
                checked
                    .wrong
                    .push(Wrong::new(what.clone(), format!("the registry does not have its blob {digest}")));
            }
        }
        Ok(())
    }

    /// The log of the record, followed from its first entry: what it says is what the layout has.
    fn events(&self, plan: &Plan, record: &Record<'_>, checked: &mut Checked) -> Result<(), Stop> {
        let (mut told, mut last) = (Told::default(), None);
        let is_whole = record.annotations.get("dev.proofmark.log.whole").is_some_and(|whole| whole == "true");
        for line in record.lines(sheets::EVENTS)? {
            let line = line?;
            checked.events += 1;
            let index = line["index"].as_i64();
            let expected = last.map_or(0, |last: i64| last + 1);
            if is_whole && index != Some(expected) {
                let why = format!("entry {} follows where {expected} should", text(&line["index"]));
                checked.wrong.push(Wrong::new("the record's log", why));
            }
            last = index;
            told.follow(&line["event"]);
        }
        let size = record.annotations.get("dev.proofmark.log.size").and_then(|size| size.parse::<i64>().ok());
        if is_whole && size.is_some_and(|size| last != Some(size - 1)) {
            checked.wrong.push(Wrong::new("the record's log", "its last entries are missing"));
        }
        let mut names = BTreeSet::new();
        for line in record.lines(sheets::REPOSITORIES)? {
            names.insert(at(&line?, "/name"));
        }
        names.retain(|name| self.selection.has(name));
        checked.wrong.extend(told.differences(&names, plan.manifests.iter(), plan.tags.iter()));
        Ok(())
    }

    /// Every name names what it should; those that are held for ever are held so here, and those that were
    /// deleted are reserved for the same digests, or shown again for them.
    async fn names(&self, plan: &Plan, with_reserved: bool, checked: &mut Checked) -> Result<(), Stop> {
        let mut wanted: BTreeMap<RepositoryName, Vec<(Tag, String, bool)>> = BTreeMap::new();
        for (part, tag) in &plan.tags {
            let named = (tag.clone(), part.digest.to_string(), true);
            wanted.entry(part.repository.clone()).or_default().push(named);
        }
        let reserved = plan.reserved.iter().filter(|_| with_reserved);
        for (repository, name, digest) in reserved.flat_map(|(repository, names)| {
            names.iter().map(move |(name, digest)| (repository.parse(), name.parse(), digest))
        }) {
            if let (Ok(repository), Ok(tag)) = (repository, name) {
                wanted.entry(repository).or_default().push((tag, digest.clone(), false));
            }
        }
        for (repository, names) in wanted {
            let here = Names::of(self.between.registry, &repository).await?;
            for (tag, digest, is_shown) in names {
                checked.tags += 1;
                let floats = plan.floating.contains(&(repository.clone(), tag.clone()));
                let why = match here.held(&tag) {
                    None => Some("no name of this repository here".to_owned()),
                    Some(held) if held.digest.as_str() != digest => {
                        Some(format!("it is {} here, not {digest}", held.digest))
                    }
                    Some(held) if is_shown && held.deleted => Some("it was deleted here".to_owned()),
                    Some(held) if with_reserved && held.write_once == floats => {
                        Some("it is held for ever in one of the two and floats in the other".to_owned())
                    }
                    Some(_) => None,
                };
                checked.wrong.extend(why.map(|why| Wrong::new(format!("{repository}:{tag}"), why)));
            }
        }
        Ok(())
    }

    /// Attestations have the verdict that they had, where signers are meant; scans were recorded. Both outlive
    /// what they are about: what the layout does not hold is history.
    async fn said(&self, record: &Record<'_>, plan: &Plan, checked: &mut Checked) -> Result<(), Stop> {
        let judged = ["manifest", "envelope_digest", "verdict"];
        let judged = if self.selection.settings { &judged[..] } else { &judged[..2] };
        let holds = plan.holds();
        for (sheet, path, about, members) in [
            (sheets::ATTESTATIONS, "/api/v1/attestations", &["manifest"][..], judged),
            (
                sheets::SCANS,
                "/api/v1/scans",
                &["digest", "report"][..],
                &["digest", "scanner", "report", "finding_set"][..],
            ),
        ] {
            let identity = |line: &Value| {
                members.iter().map(|member| text(&line[*member])).collect::<Vec<_>>().join(" ")
            };
            // A sheet has its lines repository by repository.
            let (mut of, mut here) = (String::new(), BTreeSet::new());
            for line in record.lines(sheet)? {
                let line = line?;
                let repository = at(&line, "/repository");
                if !about.iter().all(|member| holds.contains(&(repository.clone(), text(&line[*member])))) {
                    continue;
                }
                if repository != of {
                    here.clear();
                    let query = [("repository", Some(repository.as_str())), ("limit", Some("1000"))];
                    let take = |page: Vec<Value>| {
                        here.extend(page.iter().map(identity));
                        Ok(true)
                    };
                    match self.between.registry.each_page(path, &query, take).await {
                        Err(stop) if stop.is("not-found") => {}
                        done => done?,
                    }
                    of.clone_from(&repository);
                }
                checked.compared += 1;
                if !here.contains(&identity(&line)) {
                    let why = format!("none here has {} {}", members.join(", "), identity(&line));
                    checked.wrong.push(Wrong::new(format!("{sheet} of {repository}"), why));
                }
            }
        }
        Ok(())
    }

    /// Signers, environments, policies, blocks and holds are here.
    async fn settings(&self, record: &Record<'_>, checked: &mut Checked) -> Result<(), Stop> {
        let registry = self.between.registry;
        if self.selection.settings {
            for (sheet, path, members) in [
                (sheets::SIGNERS, "/api/v1/signers", &["name", "key_id", "schemes", "compromised"][..]),
                (sheets::ENVIRONMENTS, "/api/v1/environments", &["name"][..]),
                (sheets::POLICIES, "/api/v1/policies", &["environment", "name", "digest"][..]),
            ] {
                let parts = |line: Value| {
                    if sheet == sheets::SIGNERS { settings::signer_keys(&line) } else { vec![line] }
                };
                let identity = |line: &Value| {
                    members.iter().map(|member| at(line, &format!("/{member}"))).collect::<Vec<_>>().join(" ")
                };
                let mut lines = record.lines(sheet)?.peekable();
                if lines.peek().is_none() {
                    continue;
                }
                let here = registry.list(path, &[("limit", Some("1000"))], usize::MAX).await?;
                let here: HashSet<String> =
                    here.into_iter().flat_map(parts).map(|part| identity(&part)).collect();
                for line in lines {
                    for part in parts(line?) {
                        let identity = identity(&part);
                        checked.compared += 1;
                        if !here.contains(&identity) {
                            let why = format!("there is none here that is {identity}");
                            checked.wrong.push(Wrong::new(sheet, why));
                        }
                    }
                }
            }
        }
        for (sheet, path) in [(sheets::BLOCKS, "/api/v1/blocks"), (sheets::HOLDS, "/api/v1/holds")] {
            let mut here: BTreeMap<Option<String>, Stops> = BTreeMap::new();
            for line in record.lines(sheet)? {
                let Some(stop) = settings::to_be_here(&line?, self.selection) else { continue };
                let repository = stop["repository"].as_str().map(str::to_owned);
                if !here.contains_key(&repository) {
                    let open = Stops::open(registry, path, repository.as_deref()).await?;
                    here.insert(repository.clone(), open);
                }
                checked.compared += 1;
                if !here.get(&repository).is_some_and(|open| open.cover(&stop)) {
                    let identity = settings::stop_identity(&stop);
                    checked.wrong.push(Wrong::new(sheet, format!("none here stops {identity} for as long")));
                }
            }
        }
        Ok(())
    }
}

impl Checked {
    /// Prints what was found; a no when anything is wrong.
    pub fn show(&self, output: Output) -> Result<(), Stop> {
        let mut document = json!(self);
        if !self.wrong.is_empty() {
            document["code"] = "differs".into();
            document["detail"] = format!("{} things are not as the layout says", self.wrong.len()).into();
            return Err(Stop::Refused(document));
        }
        output.answer(&document, || {
            format!(
                "The layout is whole and the registry has it: {} manifests, {} blobs of {} bytes, {} tags, {} events followed, {} verdicts, scans and settings compared",
                self.manifests, self.blobs, self.bytes, self.tags, self.events, self.compared
            )
        });
        Ok(())
    }
}
