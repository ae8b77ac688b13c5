//! `block`: these bytes run nowhere, or not there.

use super::artifact::{self, Named};
use super::connection::Registry;
use super::facts::{self, End};
use super::output::{Output, at};
use super::stop::Stop;
use super::time::Moment;
use crate::exceptions::MAX_BLOCKED_DIGESTS;
use crate::names::{EnvironmentName, RepositoryName};
use serde_json::{Value, json};

/// Block an artifact, at once, in one environment or everywhere
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark block payments/api:1.4.2 --reason 'CVE-2026-0001'
  proofmark block payments/api@sha256:... --environment prod --reason 'drops orders' --until 7d
  proofmark block payments/api:1.4.1 payments/api:1.4.2 --reason 'CVE-2026-0001'   (both or none)
  proofmark block list payments/api
  proofmark block lift 5 --reason 'it was the load balancer'

A block is on the bytes: it survives a push under another name.")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Block {
    #[command(subcommand)]
    command: Option<BlockCommand>,
    #[command(flatten)]
    place: Option<Place>,
}

#[derive(clap::Subcommand, Debug)]
enum BlockCommand {
    /// List the blocks of a repository's artifacts
    List {
        /// The repository
        repository: RepositoryName,
        /// Ended ones too
        #[arg(long)]
        ended: bool,
    },
    /// Lift a block
    Lift(End),
}

#[derive(clap::Args, Debug)]
struct Place {
    /// repository:version or repository@digest; up to 100 of one repository
    #[arg(required = true, num_args = 1.., value_name = "ARTIFACT")]
    artifacts: Vec<Named>,
    /// Only in this environment [default: everywhere]
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// Why; it is recorded and shown to whoever is refused
    #[arg(long)]
    reason: String,
    /// Until when, e.g. 7d or 2026-12-31T00:00:00Z [default: until it is lifted]
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

const PATH: &str = "/api/v1/blocks";

impl Block {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match (self.command, self.place) {
            (Some(BlockCommand::List { repository, ended }), _) => {
                let query = [("repository", Some(repository.as_str())), ("ended", ended.then_some("true"))];
                facts::list(registry, output, PATH, &query, "Nothing is blocked").await
            }
            (Some(BlockCommand::Lift(end)), _) => {
                facts::end(registry, output, PATH, end, "Lifted block").await
            }
            (None, Some(place)) => place.run(registry, output).await,
            (None, None) => Err(Stop::Usage("name an artifact".into())),
        }
    }
}

impl Place {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let count = self.artifacts.len();
        if count > MAX_BLOCKED_DIGESTS {
            return Err(Stop::Usage(format!(
                "one command blocks at most {MAX_BLOCKED_DIGESTS} artifacts, not {count}: use several"
            )));
        }
        let mut named = Vec::new();
        for artifact in &self.artifacts {
            named.push(artifact.exact(registry.base())?);
        }
        let Some((repository, _)) = named.first().cloned() else {
            return Err(Stop::Usage("name an artifact".into()));
        };
        if let Some((other, _)) = named.iter().find(|(other, _)| *other != repository) {
            return Err(Stop::Usage(format!(
                "{repository} and {other} are two repositories: block what is in each by a command of its own"
            )));
        }
        let mut digests = Vec::new();
        for (_, reference) in &named {
            digests.push(artifact::digest(registry, &repository, reference).await?);
        }
        let body = json!({ "repository": repository, "digests": digests, "environment": self.environment,
            "reason": self.reason, "until": self.until.map(Moment::to_rfc3339) });
        let mut placed = registry.post_once(PATH, &body).await?;
        let rows = placed.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        if let [only] = rows.as_slice() {
            placed = only.clone();
        }
        output.answer(&placed, || {
            let place = self.environment.map_or_else(|| "everywhere".to_owned(), |name| format!("in {name}"));
            let line = |row: &Value| {
                format!("Blocked {repository} {} {place} (block {})", at(row, "/digest"), at(row, "/id"))
            };
            rows.iter().map(line).collect::<Vec<_>>().join("\n")
        });
        Ok(())
    }
}
