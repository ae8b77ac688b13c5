//! `approve`: a person says yes.

use super::artifact::{self, Named};
use super::connection::Registry;
use super::facts::{self, End};
use super::output::{Output, at};
use super::stop::Stop;
use super::time::Moment;
use crate::names::{EnvironmentName, RepositoryName};
use serde_json::json;

/// Approve an artifact for an environment
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark approve payments/api:1.4.2 --environment prod --reason 'reviewed the change'
  proofmark approve list payments/api
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
    /// List the approvals of a repository's artifacts
    List {
        /// The repository
        repository: RepositoryName,
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
            (Some(ApproveCommand::List { repository, ended }), _) => {
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
