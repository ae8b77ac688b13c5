//! `repository`: names, rules, and what is in them.

use super::artifact::{self, Named};
use super::connection::Registry;
use super::output::{Output, at, table};
use super::stop::Stop;
use crate::names::{Pattern, RepositoryName};
use serde_json::{Value, json};

/// List repositories, set their rules, and look at what is in them
#[derive(clap::Args, Debug)]
pub struct Repository {
    #[command(subcommand)]
    command: RepositoryCommand,
}

#[derive(clap::Subcommand, Debug)]
enum RepositoryCommand {
    /// List the repositories one may see
    List,
    /// Make a repository or change its rules; a first push makes one with the default rules
    #[command(after_help = "Examples:
  proofmark repository set payments/api --floating latest --floating 'edge-*'

No change of rule lets a write-once name move.")]
    Set {
        /// The repository
        name: RepositoryName,
        /// What it is, for people
        #[arg(long)]
        description: Option<String>,
        /// Tags that may move, as a pattern; may be repeated, and replaces what was there
        #[arg(long, value_name = "PATTERN")]
        floating: Vec<Pattern>,
    },
    /// List the artifacts in a repository, the newest first
    Artifacts {
        /// The repository
        name: RepositoryName,
        /// Artifacts at the most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Show an artifact: its files, its versions, and what refers to it
    Show {
        /// repository:version or repository@digest
        artifact: Named,
    },
}

impl Repository {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            RepositoryCommand::List => {
                let items = registry.list("/api/v1/repositories", &[], usize::MAX).await?;
                let columns = [
                    ("name", "/name"),
                    ("floating tags", "/tags/floating"),
                    ("created", "/created_at"),
                    ("by", "/created_by"),
                    ("description", "/description"),
                ];
                output.list(&items, &columns, "There are no repositories that you may see");
            }
            RepositoryCommand::Set { name, description, floating } => {
                let mut body = json!({ "name": name });
                if let Some(description) = description {
                    body["description"] = description.into();
                }
                if !floating.is_empty() {
                    body["tags"] = json!({ "floating": floating });
                }
                let set = registry.put("/api/v1/repositories", &body).await?;
                output.answer(&set, || format!("{name}: floating tags {}", at(&set, "/tags/floating")));
            }
            RepositoryCommand::Artifacts { name, limit } => {
                let query = [("repository", Some(name.as_str()))];
                let items = registry.list("/api/v1/artifacts", &query, limit).await?;
                let columns = [
                    ("digest", "/digest"),
                    ("versions", "/versions"),
                    ("type", "/artifact_type"),
                    ("bytes", "/size_bytes"),
                    ("pushed", "/pushed_at"),
                    ("by", "/pushed_by"),
                ];
                output.list(&items, &columns, "There are no artifacts");
            }
            RepositoryCommand::Show { artifact } => {
                let (repository, reference) = artifact.exact(registry.base())?;
                let digest = artifact::digest(registry, &repository, &reference).await?;
                let query = [("repository", Some(repository.as_str()))];
                let record = registry.get(&format!("/api/v1/artifacts/{digest}"), &query).await?;
                output.answer(&record, || in_words(&record));
            }
        }
        Ok(())
    }
}

fn in_words(record: &Value) -> String {
    let items = |name: &str| record.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let files =
        [("file", "/filename"), ("bytes", "/size_bytes"), ("digest", "/digest"), ("type", "/media_type")];
    let referrers = [("referred to by", "/digest"), ("type", "/artifact_type"), ("bytes", "/size_bytes")];
    let mut words = format!(
        "{}\nversions {}; pushed {} by {}\n\n{}",
        at(record, "/reference"),
        at(record, "/versions"),
        at(record, "/pushed_at"),
        at(record, "/pushed_by"),
        table(&items("files"), &files),
    );
    if !items("referrers").is_empty() {
        words.push_str("\n\n");
        words.push_str(&table(&items("referrers"), &referrers));
    }
    words
}
