//! The names that a repository holds, as the registry lists them.

use super::plan::patterns;
use super::settings;
use crate::cli::connection::Registry;
use crate::cli::stop::Stop;
use crate::names::{Digest, Pattern, RepositoryName, Tag};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a repository holds of names, and which it lets float.
#[derive(Default)]
pub struct Names {
    held: BTreeMap<String, Held>,
    floating: Vec<Pattern>,
}

/// A name that is held.
#[derive(Deserialize)]
pub struct Held {
    name: String,
    /// What it names, or stays reserved for.
    pub digest: Digest,
    /// For ever.
    pub write_once: bool,
    /// It names nothing now.
    pub deleted: bool,
}

impl Names {
    /// Those of the repository; none where there is none that this token may see.
    pub async fn of(registry: &Registry, repository: &RepositoryName) -> Result<Self, Stop> {
        let query = [("repository", Some(repository.as_str())), ("limit", Some("1000"))];
        let mut names = Self::default();
        let take = |page: Vec<serde_json::Value>| {
            for item in page {
                let held: Held = serde_json::from_value(item)
                    .map_err(|error| Stop::Unanswered(format!("a list of tags: {error}")))?;
                names.held.insert(held.name.clone(), held);
            }
            Ok(true)
        };
        match registry.each_page("/api/v1/tags", &query, take).await {
            Err(stop) if stop.is("not-found") => return Ok(names),
            done => done?,
        }
        let rules = settings::repository(registry, repository.as_str()).await?;
        names.floating = rules.as_ref().map(patterns).unwrap_or_default();
        Ok(names)
    }

    /// How a name is held.
    pub fn held(&self, tag: &Tag) -> Option<&Held> {
        self.held.get(tag.as_str())
    }

    /// Whether the repository's rules let it float.
    pub fn lets_float(&self, tag: &Tag) -> bool {
        self.floating.iter().any(|pattern| pattern.matches(tag.as_str()))
    }
}
