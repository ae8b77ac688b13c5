//! What a log tells: which manifests and names each repository holds after all that happened.

use super::plan::{Part, Wrong};
use crate::cli::output::at;
use crate::names::Tag;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What the log tells, entry by entry from its first.
#[derive(Default)]
pub struct Told(BTreeMap<String, Holds>);

/// What one repository holds: digests of manifests, and of what its tags name.
#[derive(Default)]
struct Holds {
    manifests: BTreeSet<String>,
    tags: BTreeMap<String, String>,
}

impl Told {
    /// Takes the next event.
    pub fn follow(&mut self, event: &Value) {
        let Some(repository) = event["repository"].as_str() else { return };
        let holds = self.0.entry(repository.to_owned()).or_default();
        let (digest, facts) = (at(event, "/digest"), &event["facts"]);
        let tags = || facts["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        match at(event, "/kind").as_str() {
            "manifest.pushed" => {
                holds.tags.extend(tags().map(|tag| (tag.to_owned(), digest.clone())));
                holds.manifests.insert(digest);
            }
            "manifest.deleted" | "manifest.expired" => {
                holds.manifests.remove(&digest);
                holds.tags.retain(|_, named| *named != digest);
            }
            "tag.deleted" => drop(holds.tags.remove(&at(facts, "/tag"))),
            _ => {}
        }
    }

    /// Where it differs from what is there, in these repositories.
    pub fn differences<'a>(
        &self,
        repositories: &BTreeSet<String>,
        parts: impl Iterator<Item = &'a Part>,
        named: impl Iterator<Item = &'a (Part, Tag)>,
    ) -> Vec<Wrong> {
        let mut there: BTreeMap<String, Holds> = BTreeMap::new();
        for part in parts {
            there.entry(part.repository.to_string()).or_default().manifests.insert(part.digest.to_string());
        }
        for (part, tag) in named {
            let holds = there.entry(part.repository.to_string()).or_default();
            holds.tags.insert(tag.to_string(), part.digest.to_string());
        }
        let nothing = Holds::default();
        let differences = |name: &String| {
            let (says, has) = (self.0.get(name).unwrap_or(&nothing), there.get(name).unwrap_or(&nothing));
            says.differences(name, has)
        };
        repositories.iter().flat_map(differences).collect()
    }
}

impl Holds {
    fn differences(&self, repository: &str, there: &Self) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for digest in self.manifests.difference(&there.manifests) {
            let why = "the log says that it was pushed, and it is not here";
            wrong.push(Wrong::new(format!("{repository}@{digest}"), why));
        }
        for digest in there.manifests.difference(&self.manifests) {
            let why = "the log does not say that it was pushed";
            wrong.push(Wrong::new(format!("{repository}@{digest}"), why));
        }
        for name in self.tags.keys().chain(there.tags.keys()).collect::<HashSet<_>>() {
            let (says, has) = (self.tags.get(name), there.tags.get(name));
            if says != has {
                let shown = |digest: Option<&String>| digest.map_or("nothing", String::as_str).to_owned();
                let why = format!("the log says that it names {}; here it names {}", shown(says), shown(has));
                wrong.push(Wrong::new(format!("{repository}:{name}"), why));
            }
        }
        wrong
    }
}
