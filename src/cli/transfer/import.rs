//! `import`: an OCI image layout into a registry.

use super::check::Check;
use super::layout::{Entry, Layout};
use super::names::Names;
use super::plan::{Part, Plan, Selection, Wrong, parsed};
use super::record::Record;
use super::{AT_ONCE, PAUSES, settings};
use crate::cli::blob;
use crate::cli::connection::Registry;
use crate::cli::output::Output;
use crate::cli::stop::Stop;
use crate::content::Descriptor;
use crate::names::{Digest, Pattern, RepositoryName, Tag};
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;

/// Bring an OCI image layout into a registry, or hold one against the other
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark import backup/ --settings
  proofmark import backup/ --repository 'payments/*'
  proofmark import backup/ --check
  proofmark import from-skopeo/ --into mirror/alpine

Everything goes through the registry's own doors: bytes are hashed, signatures verified and scan reports read
anew, as if they came today. Names that were deleted stay reserved, what was blocked is blocked. What is here
stays as it is; what stands in the way (a name that names another digest) is listed, and the rest is brought.
Who promoted what is history, kept in the record's events and decisions: promote again. An import that was cut
off is repeated; what is there already is not sent again.")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Import {
    /// The layout's directory
    directory: PathBuf,
    /// Repositories, as a pattern; may be repeated [default: all of the layout]
    #[arg(long, short, value_name = "PATTERN")]
    repository: Vec<Pattern>,
    /// Where all manifests go, whatever the layout says; nothing but them and their names is brought
    #[arg(long, value_name = "REPOSITORY", conflicts_with_all = ["repository", "settings", "record"])]
    into: Option<RepositoryName>,
    /// Bring manifests and their names alone: no rules, reserved names, scans, blocks
    #[arg(long, conflicts_with = "settings")]
    content_only: bool,
    /// Bring what rules the whole registry too: signers, environments, policies and holds of environments
    #[arg(long, conflicts_with = "repository")]
    settings: bool,
    /// Move floating names that are elsewhere here, and show names that were deleted here
    #[arg(long)]
    move_tags: bool,
    /// Keep the export's record, the events of the registry that it came from, as an artifact of this repository
    #[arg(long, value_name = "REPOSITORY", conflicts_with = "check")]
    record: Option<RepositoryName>,
    /// Change nothing: say what of the layout is damaged, and what of it the registry does not have
    #[arg(long)]
    check: bool,
}

/// What an import did.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Manifests that were pushed, and those that were there.
    pub manifests: u64,
    pub known_manifests: u64,
    /// Blobs whose bytes were sent, and how many bytes.
    pub blobs: u64,
    pub bytes: u64,
    /// Tags that name what they should.
    pub tags: u64,
    /// Names that are held only now: deleted ones, and such as float by today's rules.
    pub reserved: u64,
    /// Rules, signers, environments, policies, blocks, holds and scans.
    pub settings: u64,
    /// What is otherwise than in the layout on purpose.
    pub notes: Vec<String>,
    /// What could not be brought, and why.
    pub wrong: Vec<Wrong>,
}

/// The layout and the registry between which an import runs.
pub struct Between<'a> {
    pub registry: &'a Registry,
    pub layout: &'a Layout,
    pub bar: ProgressBar,
    /// Where a blob is that was pushed or found: others are mounted from there.
    whereabouts: HashMap<Digest, RepositoryName>,
}

impl Import {
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let layout = Layout::open(&self.directory)?;
        let selection = Selection { patterns: self.repository, into: self.into, settings: self.settings };
        let mut plan = Plan::of(&layout, &selection)?;
        let entry = plan.record.take();
        let record = entry.as_ref().map(|entry| Record::open(&layout, entry)).transpose()?;
        if let Some(record) = &record {
            plan.read_names(record, &selection)?;
        }
        let read = record.as_ref().filter(|_| !self.content_only);
        let doing = if self.check { "checking" } else { "importing" };
        let bar = output.bar(None, doing);
        let mut between = Between { registry, layout: &layout, bar, whereabouts: HashMap::new() };
        if self.check {
            let checked = Check { between: &between, selection: &selection }.run(&plan, read).await?;
            return checked.show(output);
        }
        let mut outcome = between.bring(plan, read, &selection, self.move_tags).await?;
        if let (Some(entry), Some(repository)) = (&entry, &self.record) {
            between.keep_record(entry, repository, &mut outcome).await?;
        }
        between.bar.finish_and_clear();
        show(&outcome, output)
    }
}

impl Between<'_> {
    /// Rules first, since they say which tags may move. What was blocked is blocked, and names that are held are
    /// held, before anything has a name; what is said about content comes when it is there, and last what
    /// bounds it.
    async fn bring(
        &mut self,
        mut plan: Plan,
        record: Option<&Record<'_>>,
        selection: &Selection,
        move_tags: bool,
    ) -> Result<Outcome, Stop> {
        let mut outcome = Outcome { wrong: std::mem::take(&mut plan.wrong), ..Outcome::default() };
        if let Some(record) = record {
            settings::before(self.registry, record, selection, &mut outcome).await?;
        }
        for part in &plan.manifests {
            self.push(part, &mut outcome).await?;
        }
        if let Some(record) = record {
            settings::stops(self.registry, record, selection, &mut outcome).await?;
            for (repository, names) in &plan.reserved {
                settings::reserve(self.registry, repository, names, &mut outcome).await?;
            }
        }
        let wanted = self.names_to_put(&plan, move_tags, &mut outcome).await?;
        self.name(&wanted, &mut outcome).await?;
        if let Some(record) = record {
            settings::after(self, record, selection, &plan, &mut outcome).await?;
        }
        Ok(outcome)
    }

    /// A manifest with its blobs, unless it is there.
    async fn push(&mut self, part: &Part, outcome: &mut Outcome) -> Result<(), Stop> {
        let manifest = match parsed(self.layout, part) {
            Ok(manifest) => manifest,
            Err(why) => {
                outcome.wrong.push(Wrong::new(part.to_string(), why));
                return Ok(());
            }
        };
        let path = format!("/v2/{}/manifests/{}", part.repository, part.digest);
        if self.registry.has(&path).await? {
            outcome.known_manifests += 1;
            let found = manifest.blobs.into_iter().map(|blob| (blob.digest, part.repository.clone()));
            self.whereabouts.extend(found);
            return Ok(());
        }
        let blobs: Vec<_> = stream::iter(&manifest.blobs)
            .map(|blob| self.blob(part, blob))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for brought in blobs {
            match brought {
                Ok((digest, bytes)) => {
                    outcome.blobs += u64::from(bytes > 0);
                    outcome.bytes += bytes;
                    self.whereabouts.insert(digest, part.repository.clone());
                }
                Err(stop) => return refused(stop, outcome, &part.to_string()),
            }
        }
        match self.put(part, manifest.body.to_vec(), &[]).await {
            Ok(()) => outcome.manifests += 1,
            Err(stop) => refused(stop, outcome, &part.to_string())?,
        }
        Ok(())
    }

    /// A blob, found, mounted or sent; with how many bytes were sent. What may be absent from a registry may be
    /// absent from a layout too, and is then the push's to judge.
    async fn blob(&self, part: &Part, wanted: &Descriptor) -> Result<(Digest, u64), Stop> {
        let (repository, digest) = (&part.repository, &wanted.digest);
        let done = |bytes| Ok((digest.clone(), bytes));
        if blob::is_there(self.registry, repository, digest).await? {
            return done(0);
        }
        if let Some(from) = self.whereabouts.get(digest).filter(|from| *from != repository)
            && blob::mount(self.registry, repository, from, digest).await?
        {
            return done(0);
        }
        let size_bytes = u64::try_from(wanted.size_bytes).unwrap_or_default();
        if !self.layout.has(digest, size_bytes) {
            if wanted.may_be_absent {
                return done(0);
            }
            return Err(Stop::no(
                "layout-damaged",
                format!("the layout has no {digest} of {size_bytes} bytes"),
            ));
        }
        let mut pauses = PAUSES.iter();
        loop {
            let file = self.layout.file(digest);
            let file = file.map_err(|error| self.layout.cannot("read", &self.layout.path(digest), &error))?;
            match (blob::push(self.registry, repository, digest, file, &self.bar).await, pauses.next()) {
                (Ok(()), _) => return done(size_bytes),
                (Err(Stop::Unanswered(_)), Some(pause)) => tokio::time::sleep(*pause).await,
                (Err(stop), _) => return Err(stop),
            }
        }
    }

    /// The manifest under its digest, with names.
    async fn put(&self, part: &Part, body: Vec<u8>, tags: &[&Tag]) -> Result<(), Stop> {
        let query: Vec<(&str, &str)> = tags.iter().map(|tag| ("tag", tag.as_str())).collect();
        let path = format!("/v2/{}/manifests/{}", part.repository, part.digest);
        let request = self.registry.request(Method::PUT, &path).query(&query).body(body);
        self.registry.send(request.header(CONTENT_TYPE, part.media_type.as_str())).await.map(|_| ())
    }

    /// The names that are not here yet. Those that would have to be taken from something are listed as in the
    /// way, unless they are to be moved; so are those that float where they come from and would be held here for
    /// ever.
    async fn names_to_put(
        &self,
        plan: &Plan,
        move_tags: bool,
        outcome: &mut Outcome,
    ) -> Result<Vec<(Part, Tag)>, Stop> {
        let mut here: HashMap<RepositoryName, Names> = HashMap::new();
        let mut wanted = Vec::new();
        for (part, tag) in &plan.tags {
            if !here.contains_key(&part.repository) {
                let names = Names::of(self.registry, &part.repository).await?;
                here.insert(part.repository.clone(), names);
            }
            let Some(names) = here.get(&part.repository) else { continue };
            let floats_there = plan.floating.contains(&(part.repository.clone(), tag.clone()));
            let reserved = plan.reserved.get(part.repository.as_str());
            let is_reserved = reserved.is_some_and(|names| names.contains_key(tag.as_str()));
            let why = match names.held(tag) {
                Some(held) if held.digest == part.digest && !held.deleted => {
                    outcome.tags += 1;
                    continue;
                }
                Some(held) if held.digest == part.digest => (!move_tags && !is_reserved)
                    .then(|| "it was deleted here; --move-tags shows it again".to_owned()),
                Some(held) if !held.write_once => (!move_tags)
                    .then(|| format!("it floats and names {} here; --move-tags moves it", held.digest)),
                Some(held) => Some(format!("it is held for {} here", held.digest)),
                None if floats_there && !names.lets_float(tag) => Some(
                    "it floats where it comes from and would be held for ever here: let its rules float it"
                        .into(),
                ),
                None => None,
            };
            match why {
                Some(why) => outcome.wrong.push(Wrong::new(format!("{}:{tag}", part.repository), why)),
                None => wanted.push((part.clone(), tag.clone())),
            }
        }
        Ok(wanted)
    }

    /// Tags in their order, those of one manifest that follow each other in one request; one that is taken
    /// stands in nobody else's way.
    async fn name(&self, tags: &[(Part, Tag)], outcome: &mut Outcome) -> Result<(), Stop> {
        for named in tags.chunk_by(|(one, _), (other, _)| one == other) {
            for some in named.chunks(MAX_TAGS) {
                let Some((part, _)) = some.first() else { continue };
                let names: Vec<&Tag> = some.iter().map(|(_, tag)| tag).collect();
                // A manifest that could not be pushed is in the list of what is wrong already.
                let Ok(body) = self.layout.read(&part.digest) else { continue };
                match self.put(part, body.clone(), &names).await {
                    Ok(()) => outcome.tags += names.len() as u64,
                    Err(Stop::Refused(_)) if names.len() > 1 => {
                        for tag in names {
                            match self.put(part, body.clone(), &[tag]).await {
                                Ok(()) => outcome.tags += 1,
                                Err(stop) => refused(stop, outcome, &format!("{}:{tag}", part.repository))?,
                            }
                        }
                    }
                    Err(stop) => refused(stop, outcome, &format!("{}:{}", part.repository, names[0]))?,
                }
            }
        }
        Ok(())
    }

    async fn keep_record(
        &mut self,
        entry: &Entry,
        repository: &RepositoryName,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let (digest, media_type) = (entry.digest.clone(), entry.media_type.clone());
        self.push(&Part { repository: repository.clone(), digest, media_type }, outcome).await
    }
}

/// Tags of one request.
const MAX_TAGS: usize = 50;

/// A no is listed and the import goes on; anything else ends it.
pub fn refused(stop: Stop, outcome: &mut Outcome, what: &str) -> Result<(), Stop> {
    match stop {
        Stop::Refused(problem) => {
            let why = problem["detail"].as_str().map_or_else(|| problem.to_string(), str::to_owned);
            outcome.wrong.push(Wrong::new(what, why));
            Ok(())
        }
        Stop::Usage(why) | Stop::Error("forbidden", why) => {
            outcome.wrong.push(Wrong::new(what, why));
            Ok(())
        }
        stop @ (Stop::Unanswered(_) | Stop::Error(..)) => Err(stop),
    }
}

fn show(outcome: &Outcome, output: Output) -> Result<(), Stop> {
    outcome.notes.iter().for_each(|note| output.remark(note));
    let mut document = json!(outcome);
    if !outcome.wrong.is_empty() {
        document["code"] = "not-all-imported".into();
        document["detail"] =
            format!("{} things could not be brought; the rest is there", outcome.wrong.len()).into();
        return Err(Stop::Refused(document));
    }
    output.answer(&document, || {
        format!(
            "Imported {} manifests ({} were there), {} blobs of {} bytes, {} tags, {} reserved names, {} settings and scans",
            outcome.manifests,
            outcome.known_manifests,
            outcome.blobs,
            outcome.bytes,
            outcome.tags,
            outcome.reserved,
            outcome.settings
        )
    });
    Ok(())
}
