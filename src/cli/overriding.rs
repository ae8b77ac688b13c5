//! `override`: failed gates that are passed, for a reason and for a short time.

use super::artifact::{self, Named};
use super::connection::Registry;
use super::facts::{self, End};
use super::output::{Output, at};
use super::stop::Stop;
use super::time::Moment;
use crate::names::{EnvironmentName, RepositoryName};
use serde_json::json;

/// Pass failed gates of a version, for a reason and for a short time; another person reviews it
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark override create payments/api:1.4.2 --environment prod --gate approvals --gate promoted_in \\
    --expires-at 4h --reason 'incident 42: nobody else is awake'
  proofmark override list --not-reviewed
  proofmark override review 3 --reason 'it was right'
  proofmark override revoke 3 --reason 'the incident is over'

An override counts at once, for at most 30 days. It may pass the gates attestation, scan, promoted_in,
approvals and min_age; never a block, signed_by or provenance.")]
pub struct Override {
    #[command(subcommand)]
    command: OverrideCommand,
}

#[derive(clap::Subcommand, Debug)]
enum OverrideCommand {
    /// Create an override
    Create(Create),
    /// List overrides
    List(List),
    /// Record that you reviewed an override that another person created
    Review(facts::Second),
    /// Revoke an override
    Revoke(End),
}

#[derive(clap::Args, Debug)]
struct Create {
    /// repository:version or repository@digest
    artifact: Named,
    /// The environment
    #[arg(long, short, value_name = "NAME")]
    environment: EnvironmentName,
    /// A gate that it passes: attestation, scan, promoted_in, approvals or min_age
    #[arg(long = "gate", value_name = "GATE", required = true, value_delimiter = ',')]
    gates: Vec<String>,
    /// Why; it is recorded and shown
    #[arg(long)]
    reason: String,
    /// When it expires, e.g. 4h or 2026-12-31T00:00:00Z; at most 30 days ahead
    #[arg(long, value_name = "TIME")]
    expires_at: Moment,
}

#[derive(clap::Args, Debug)]
struct List {
    /// Only in this repository
    #[arg(long, short, value_name = "NAME")]
    repository: Option<RepositoryName>,
    /// Only in this environment
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// Only those that nobody reviewed yet
    #[arg(long)]
    not_reviewed: bool,
}

const PATH: &str = "/api/v1/overrides";

impl Override {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            OverrideCommand::Create(create) => create.run(registry, output).await,
            OverrideCommand::List(list) => list.run(registry, output).await,
            OverrideCommand::Review(second) => {
                facts::second(
                    registry,
                    output,
                    &format!("{PATH}/{}/review", second.id),
                    second,
                    "Reviewed override",
                )
                .await
            }
            OverrideCommand::Revoke(end) => facts::end(registry, output, PATH, end, "Revoked override").await,
        }
    }
}

impl Create {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let (repository, reference) = self.artifact.exact(registry.base())?;
        let digest = artifact::digest(registry, &repository, &reference).await?;
        let body = json!({ "repository": repository, "digest": digest, "environment": self.environment,
            "gates": self.gates, "reason": self.reason, "expires_at": self.expires_at.to_rfc3339() });
        let created = registry.post_once(PATH, &body).await?;
        output.answer(&created, || {
            let id = at(&created, "/id");
            let due = at(&created, "/review_due_at");
            format!(
                "Created override {id}; another person reviews it by {due}: proofmark override review {id}"
            )
        });
        Ok(())
    }
}

impl List {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let query = [
            ("repository", self.repository.as_ref().map(RepositoryName::as_str)),
            ("environment", self.environment.as_ref().map(EnvironmentName::as_str)),
            ("reviewed", self.not_reviewed.then_some("false")),
        ];
        let items = registry.list(PATH, &query, usize::MAX).await?;
        let columns = [
            ("id", "/id"),
            ("state", "/state"),
            ("repository", "/repository"),
            ("environment", "/environment"),
            ("digest", "/digest"),
            ("gates", "/gates"),
            ("by", "/created_by"),
            ("at", "/created_at"),
            ("expires", "/expires_at"),
            ("reviewed by", "/reviewed_by"),
            ("review due", "/review_due_at"),
            ("overdue", "/review_overdue"),
            ("reason", "/reason"),
        ];
        output.list(&items, &columns, "There are no overrides");
        Ok(())
    }
}
