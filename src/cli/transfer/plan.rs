//! What an import is to bring: the manifests of a layout in an order in which they can be pushed, and their
//! names.

use super::layout::{Entry, Layout};
use super::record::{Record, sheets};
use crate::cli::output::at;
use crate::cli::stop::Stop;
use crate::content::ParsedManifest;
use crate::names::{Digest, MediaType, Pattern, RepositoryName, Tag};
use chrono::DateTime;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// Which of a layout's manifests are meant, and where to.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Repositories that are meant; all when there is no pattern.
    pub patterns: Vec<Pattern>,
    /// Where everything goes, whatever the layout says of its repositories; its record is then no more than
    /// another artifact that is not brought.
    pub into: Option<RepositoryName>,
    /// Whether what rules the whole registry is meant too: signers, environments, policies.
    pub settings: bool,
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
    /// Names that float where they come from.
    pub floating: HashSet<(RepositoryName, Tag)>,
    /// Names to be held before anything is named, by repository: those that were deleted, with the digest that
    /// they stay reserved for, and those that were held for ever before a rule let such names float.
    pub reserved: BTreeMap<String, BTreeMap<String, String>>,
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
                plan.record = Some(entry).filter(|_| selection.into.is_none());
                continue;
            }
            let Some(repository) = selection.into.clone().or_else(|| entry.repository.clone()) else {
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

    /// Takes from the record what names were and are: the tags in the order in which they were given, so that
    /// the newest version stays the newest; which of them float; and which are to be reserved.
    pub fn read_names(&mut self, record: &Record<'_>, selection: &Selection) -> Result<(), Stop> {
        let rules = floating_rules(record)?;
        let mut since = HashMap::new();
        for line in record.lines(sheets::TAGS)? {
            let line = line?;
            let (repository, name) = (at(&line, "/repository"), at(&line, "/name"));
            if !selection.has(&repository) {
                continue;
            }
            let at_time = DateTime::parse_from_rfc3339(&at(&line, "/since")).ok();
            since.insert((repository.clone(), name.clone()), at_time);
            let matches = |pattern: &Pattern| pattern.matches(&name);
            let floats_today = rules.get(&repository).is_some_and(|rules| rules.iter().any(matches));
            if line["write_once"] == false {
                self.floating.extend(repository.parse().ok().zip(name.parse().ok()));
            } else if line["deleted"] == true || floats_today {
                self.reserved.entry(repository).or_default().insert(name, at(&line, "/digest"));
            }
        }
        self.tags.sort_by_cached_key(|(part, tag)| {
            since.get(&(part.repository.to_string(), tag.to_string())).copied().flatten()
        });
        Ok(())
    }

    /// Every manifest of the plan, by its repository and digest as they are written.
    pub fn holds(&self) -> HashSet<(String, String)> {
        self.manifests.iter().map(|part| (part.repository.to_string(), part.digest.to_string())).collect()
    }
}

/// The names that each repository of the record lets float.
fn floating_rules(record: &Record<'_>) -> Result<HashMap<String, Vec<Pattern>>, Stop> {
    let mut rules = HashMap::new();
    for line in record.lines(sheets::REPOSITORIES)? {
        let line = line?;
        rules.insert(at(&line, "/name"), patterns(&line));
    }
    Ok(rules)
}

/// What a repository, as a list shows it, lets float.
pub fn patterns(repository: &Value) -> Vec<Pattern> {
    let floating = repository["tags"]["floating"].as_array().into_iter().flatten();
    floating.filter_map(|pattern| pattern.as_str()?.parse().ok()).collect()
}

/// A manifest as it lies in the layout.
pub fn parsed(layout: &Layout, part: &Part) -> Result<ParsedManifest, String> {
    let body = layout.read(&part.digest)?;
    let media_type = Some(part.media_type.as_str());
    ParsedManifest::parse(body.into(), media_type, part.digest.algorithm(), usize::MAX)
        .map_err(|error| error.to_string())
}
