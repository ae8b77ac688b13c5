//! `approve`: a person says yes.

use super::artifact::{self, Named};
use super::connection::Registry;
use super::facts::{self, End};
use super::output::{Output, at};
use super::stop::Stop;
use super::time::Moment;
use crate::names::{EnvironmentName, RepositoryName};
use serde_json::{Value, json};

/// Approve an artifact for an environment
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark approve payments/api:1.4.2 --environment prod --reason 'reviewed the change'
  proofmark approve list                       (what waits for approvals)
  proofmark approve list payments/api          (approvals of a repository)
  proofmark approve revoke 17 --reason 'looked again'")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Approve {
    #[command(subcommand)]
    command: Option<ApproveCommand>,
    #[command(flatten)]
    give: Option<Give>,
}

#[derive(clap::Subcommand, Debug)]
enum ApproveCommand {
    /// List promotions that wait for approvals, or the approvals of a repository's artifacts
    List {
        /// The repository whose approvals to list [default: list what waits for approvals]
        repository: Option<RepositoryName>,
        /// Only what waits to be promoted to this environment
        #[arg(long, short, value_name = "NAME", conflicts_with = "repository")]
        environment: Option<EnvironmentName>,
        /// Ended ones too
        #[arg(long)]
        ended: bool,
    },
    /// Take an approval back
    Revoke(End),
}

#[derive(clap::Args, Debug)]
struct Give {
    /// repository:version or repository@digest
    artifact: Named,
    /// Where it may go
    #[arg(long, short, value_name = "NAME")]
    environment: EnvironmentName,
    /// Why; it is recorded
    #[arg(long)]
    reason: String,
    /// Until when, e.g. 30d or 2026-12-31T00:00:00Z [default: until it is taken back]
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

const PATH: &str = "/api/v1/approvals";

impl Approve {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match (self.command, self.give) {
            (Some(ApproveCommand::List { repository: None, environment, .. }), _) => {
                let environment = environment.as_ref().map(EnvironmentName::as_str);
                let query = [("pending", Some("true")), ("environment", environment)];
                let mut items = registry.list(PATH, &query, usize::MAX).await?;
                for item in &mut items {
                    let waits = item.get("waits_for").and_then(Value::as_array).cloned().unwrap_or_default();
                    let waits: Vec<String> = waits.iter().map(|gate| at(gate, "/message")).collect();
                    item["needs"] = json!(waits.join("; "));
                }
                let columns = [
                    ("repository", "/repository"),
                    ("environment", "/environment"),
                    ("version", "/version"),
                    ("digest", "/digest"),
                    ("requested", "/requested_at"),
                    ("by", "/requested_by"),
                    ("needs", "/needs"),
                ];
                output.list(&items, &columns, "Nothing waits for approvals");
                Ok(())
            }
            (Some(ApproveCommand::List { repository: Some(repository), ended, .. }), _) => {
                let query = [("repository", Some(repository.as_str())), ("ended", ended.then_some("true"))];
                facts::list(registry, output, PATH, &query, "Nothing is approved").await
            }
            (Some(ApproveCommand::Revoke(end)), _) => {
                facts::end(registry, output, PATH, end, "Took back approval").await
            }
            (None, Some(give)) => give.run(registry, output).await,
            (None, None) => Err(Stop::Usage("name an artifact and an environment".into())),
        }
    }
}

impl Give {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let (repository, reference) = self.artifact.exact(registry.base())?;
        let digest = artifact::digest(registry, &repository, &reference).await?;
        let body = json!({ "repository": repository, "digest": digest, "environment": self.environment,
            "reason": self.reason, "until": self.until.map(Moment::to_rfc3339) });
        let given = registry.post_once(PATH, &body).await?;
        output.answer(&given, || {
            format!(
                "Approved {repository} {digest} for {} (approval {})",
                self.environment,
                at(&given, "/id")
            )
        });
        Ok(())
    }
}
