//! `audit`: what happened, by whom, in the order of the log.

use super::connection::Registry;
use super::output::Output;
use super::stop::Stop;
use crate::names::{Digest, EnvironmentName, RepositoryName};

/// Read the audit trail
#[derive(clap::Args, Debug)]
pub struct Audit {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(clap::Subcommand, Debug)]
enum AuditCommand {
    /// List events in the order of the log, which has no gaps
    #[command(after_help = "Examples:
  proofmark audit events --environment prod --kind promotion.allowed
  proofmark audit events --json | jq -c '.items[]' > trail.ndjson")]
    Events(Events),
}

#[derive(clap::Args, Debug)]
struct Events {
    /// Only about this repository
    #[arg(long, short, value_name = "NAME")]
    repository: Option<RepositoryName>,
    /// Only about this environment
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// Only about this digest
    #[arg(long)]
    digest: Option<Digest>,
    /// Only of this kind, e.g. promotion.allowed
    #[arg(long)]
    kind: Option<String>,
    /// Only by this principal
    #[arg(long)]
    principal: Option<String>,
    /// Events at the most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

impl Audit {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let AuditCommand::Events(events) = self.command;
        let query = [
            ("repository", events.repository.as_ref().map(RepositoryName::as_str)),
            ("environment", events.environment.as_ref().map(EnvironmentName::as_str)),
            ("digest", events.digest.as_ref().map(Digest::as_str)),
            ("kind", events.kind.as_deref()),
            ("principal", events.principal.as_deref()),
        ];
        let items = registry.list("/api/v1/audit/events", &query, events.limit).await?;
        let columns = [
            ("index", "/index"),
            ("at", "/at"),
            ("kind", "/kind"),
            ("by", "/principal"),
            ("repository", "/repository"),
            ("environment", "/environment"),
            ("digest", "/digest"),
        ];
        output.list(&items, &columns, "Nothing happened");
        Ok(())
    }
}
