//! What an import is to bring: the manifests of a layout in an order in which they can be pushed, and their
//! names.

use super::layout::{Entry, Layout};
use super::record::{Record, sheets};
use crate::cli::output::at;
use crate::cli::stop::Stop;
use crate::content::ParsedManifest;
use crate::names::{Digest, MediaType, Pattern, RepositoryName, Tag};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// Which of a layout's manifests are meant, and where to.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Repositories that are meant; all when there is no pattern.
    pub patterns: Vec<Pattern>,
    /// Where manifests go whose repository the layout does not say.
    pub into: Option<RepositoryName>,
}

impl Selection {
    /// Whether the repository is meant.
    pub fn has(&self, repository: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(repository))
    }
}

/// A manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.digest)
    }
}

/// What could not be brought, or is not as it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Wrong {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Wrong {
    /// Something with why it is wrong.
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into() }
    }
}

/// What an import brings.
#[derive(Default)]
pub struct Plan {
    /// Every manifest, what an index lists before it.
    pub manifests: Vec<Part>,
    /// The names by which they are to be found, in the order in which they were given.
    pub tags: Vec<(Part, Tag)>,
    /// The record, where the layout is an export of ours.
    pub record: Option<Entry>,
    /// What of the layout cannot be used.
    pub wrong: Vec<Wrong>,
}

impl Plan {
    /// Reads the layout's index and every manifest that it leads to.
    pub fn of(layout: &Layout, selection: &Selection) -> Result<Self, Stop> {
        let (mut plan, mut seen) = (Self::default(), HashSet::new());
        for entry in layout.entries()? {
            if entry.is_record() {
                plan.record = Some(entry);
                continue;
            }
            let Some(repository) = entry.repository.clone().or_else(|| selection.into.clone()) else {
                return Err(Stop::Usage(format!(
                    "the layout does not say of which repository {} is: give --into REPOSITORY",
                    entry.digest
                )));
            };
            if !selection.has(repository.as_str()) {
                continue;
            }
            let part =
                Part { repository, digest: entry.digest.clone(), media_type: entry.media_type.clone() };
            plan.reach(layout, part.clone(), &mut seen);
            match entry.tag() {
                None => {}
                Some(Ok(tag)) => plan.tags.push((part, tag)),
                Some(Err(name)) => plan.wrong.push(Wrong::new(name, "this is no tag's name here")),
            }
        }
        Ok(plan)
    }

    /// The manifest behind all that it lists. Steps are kept apart from the stack: a chain of indexes may be
    /// as long as somebody likes.
    fn reach(&mut self, layout: &Layout, part: Part, seen: &mut HashSet<Part>) {
        let mut steps = vec![(part, false)];
        while let Some((part, is_reached)) = steps.pop() {
            if is_reached {
                self.manifests.push(part);
            } else if seen.insert(part.clone()) {
                match parsed(layout, &part) {
                    Err(why) => {
                        self.wrong.push(Wrong::new(part.to_string(), why));
                    }
                    Ok(manifest) => {
                        steps.push((part.clone(), true));
                        steps.extend(manifest.children.into_iter().rev().map(|child| {
                            let repository = part.repository.clone();
                            (Part { repository, digest: child.digest, media_type: child.media_type }, false)
                        }));
                    }
                }
            }
        }
    }

    /// Puts the tags in the order in which the record says that they were given: the newest version stays
    /// the newest.
    pub fn order_tags(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        let mut since = HashMap::new();
        for line in record.lines(sheets::TAGS)? {
            let line = line?;
            since.insert((at(&line, "/repository"), at(&line, "/name")), at(&line, "/since"));
        }
        self.tags.sort_by_cached_key(|(part, tag)| {
            since.get(&(part.repository.to_string(), tag.to_string())).cloned().unwrap_or_default()
        });
        Ok(())
    }

    /// Names that were deleted: each repository's, with the digest that they stay reserved for.
    pub fn reserved(
        record: &Record<'_>,
        selection: &Selection,
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, Stop> {
        let mut reserved: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for line in record.lines(sheets::TAGS)? {
            let line = line?;
            let repository = at(&line, "/repository");
            if line["deleted"] == true && selection.has(&repository) {
                reserved.entry(repository).or_default().insert(at(&line, "/name"), at(&line, "/digest"));
            }
        }
        Ok(reserved)
    }
}

/// A manifest as it lies in the layout.
pub fn parsed(layout: &Layout, part: &Part) -> Result<ParsedManifest, String> {
    let body = layout.read(&part.digest)?;
    let media_type = Some(part.media_type.as_str());
    ParsedManifest::parse(body.into(), media_type, part.digest.algorithm(), usize::MAX)
        .map_err(|error| error.to_string())
}
