//! `repository`: names, rules, and what is in them.

use super::artifact::{self, Named};
use super::connection::{Registry, read_text};
use super::output::{Output, at, table};
use super::stop::Stop;
use crate::names::{Pattern, RepositoryName};
use serde_json::{Value, json};
use std::path::PathBuf;

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

--floating replaces the repository's own patterns. cosign's tags and the referrers fallback (sha256-<digest>.sig and
the like), which their clients write again, may move in every repository.
No change of rule lets a write-once name move.")]
    Set(Set),
    /// Show what a repository's retention does not keep, why, and what holds it; change nothing
    Retention {
        /// The repository
        name: RepositoryName,
        /// Versions at the most
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
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

#[derive(clap::Args, Debug)]
struct Set {
    /// The repository
    name: RepositoryName,
    /// What it is, for people
    #[arg(long)]
    description: Option<String>,
    /// Tags that may move, as a pattern; may be repeated, and replaces the repository's own patterns
    #[arg(long, value_name = "PATTERN")]
    floating: Vec<Pattern>,
    /// Bytes that it may hold, blobs and manifests
    #[arg(long, value_name = "BYTES", conflicts_with = "no_quota")]
    quota: Option<u64>,
    /// Let it hold as much as there is room for
    #[arg(long)]
    no_quota: bool,
    /// Bytes of evidence that it may hold: envelopes and scan reports
    #[arg(long, value_name = "BYTES", conflicts_with = "no_evidence_quota")]
    evidence_quota: Option<u64>,
    /// Let it hold as much evidence as the default says
    #[arg(long)]
    no_evidence_quota: bool,
    /// A JSON file with what is kept of its versions
    #[arg(long, value_name = "FILE", conflicts_with = "no_retention")]
    retention: Option<PathBuf>,
    /// Keep everything
    #[arg(long)]
    no_retention: bool,
}

impl Repository {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            RepositoryCommand::List => {
                let items = registry.list("/api/v1/repositories", &[], usize::MAX).await?;
                let columns = [
                    ("name", "/name"),
                    ("bytes", "/used_bytes"),
                    ("quota", "/quota_bytes"),
                    ("evidence", "/evidence_used_bytes"),
                    ("evidence quota", "/evidence_quota_bytes"),
                    ("created", "/created_at"),
                    ("by", "/created_by"),
                    ("description", "/description"),
                ];
                output.list(&items, &columns, "There are no repositories that you may see");
            }
            RepositoryCommand::Set(set) => set.run(registry, output).await?,
            RepositoryCommand::Retention { name, limit } => {
                let query = [("repository", Some(name.as_str()))];
                let items = registry.list("/api/v1/retention", &query, limit.saturating_add(1)).await?;
                let columns = [
                    ("digest", "/digest"),
                    ("tags", "/tags"),
                    ("why", "/why"),
                    ("goes with it", "/with"),
                    ("held by", "/held_by"),
                ];
                output.part(items, limit, &columns, "The rules keep everything");
            }
            RepositoryCommand::Artifacts { name, limit } => {
                let query = [("repository", Some(name.as_str()))];
                let items = registry.list("/api/v1/artifacts", &query, limit.saturating_add(1)).await?;
                let columns = [
                    ("digest", "/digest"),
                    ("versions", "/versions"),
                    ("type", "/artifact_type"),
                    ("bytes", "/size_bytes"),
                    ("pushed", "/pushed_at"),
                    ("by", "/pushed_by"),
                ];
                output.part(items, limit, &columns, "There are no artifacts");
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

impl Set {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let mut body = json!({ "name": self.name });
        if let Some(description) = self.description {
            body["description"] = description.into();
        }
        if !self.floating.is_empty() {
            body["tags"] = json!({ "floating": self.floating });
        }
        if self.quota.is_some() || self.no_quota {
            body["quota_bytes"] = json!(self.quota);
        }
        if self.evidence_quota.is_some() || self.no_evidence_quota {
            body["evidence_quota_bytes"] = json!(self.evidence_quota);
        }
        if let Some(file) = &self.retention {
            let rules = serde_json::from_str(&read_text(file, "the retention")?);
            body["retention"] =
                rules.map_err(|error| Stop::Usage(format!("{} is not JSON: {error}", file.display())))?;
        } else if self.no_retention {
            body["retention"] = Value::Null;
        }
        let set = registry.put("/api/v1/repositories", &body).await?;
        output.answer(&set, || {
            format!(
                "{}: floating tags {}; quota {}, {} bytes used; evidence quota {}, {} bytes used",
                self.name,
                // Digests in names are given by their length, as 64 times `?`.
                at(&set, "/tags/floating").replace(&"?".repeat(64), "?…").replace("?…?…", "?…"),
                at(&set, "/quota_bytes"),
                at(&set, "/used_bytes"),
                at(&set, "/evidence_quota_bytes"),
                at(&set, "/evidence_used_bytes")
            )
        });
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
