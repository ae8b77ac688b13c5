//! `audit`: what happened, by whom, in the order of the log.

use super::connection::{Query, Registry};
use super::output::Output;
use super::stop::Stop;
use super::time::{Moment, past};
use crate::names::{Digest, RepositoryName};
use reqwest::Method;
use tokio::io::AsyncWriteExt;

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
  proofmark audit events --repository payments/api --kind promotion.allowed
  proofmark audit events --export ndjson > trail.ndjson")]
    Events(Events),
    /// List security events, the newest first: refused credentials and access, and who read the audit trail
    #[command(after_help = "Examples:
  proofmark audit security --since 24h
  proofmark audit security --kind authentication.failed")]
    Security(Security),
}

#[derive(clap::Args, Debug)]
struct Security {
    /// Only of this kind: authentication.failed, access.refused, audit.read or audit.exported
    #[arg(long)]
    kind: Option<String>,
    /// Only by this principal
    #[arg(long)]
    principal: Option<String>,
    /// Only those of which the last happened at or after this time, e.g. 12h (ago) or 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Moment>,
    /// Only those of which the first happened before this time
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<Moment>,
    /// Maximum number of security events
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

#[derive(clap::Args, Debug)]
struct Events {
    /// Only about this repository; the whole log needs the auditor's right on everything
    #[arg(long, short, value_name = "NAME")]
    repository: Option<RepositoryName>,
    /// Only about this digest
    #[arg(long)]
    digest: Option<Digest>,
    /// Only of this kind, e.g. promotion.allowed
    #[arg(long)]
    kind: Option<String>,
    /// Only by this principal
    #[arg(long)]
    principal: Option<String>,
    /// Only at or after this time, e.g. 12h (ago) or 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Moment>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<Moment>,
    /// Events at the most
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = "export")]
    limit: usize,
    /// Stream all of it
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    export: Option<Export>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Export {
    /// One JSON object a line
    Ndjson,
    /// A table for spreadsheets
    Csv,
}

const PATH: &str = "/api/v1/audit/events";

impl Audit {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            AuditCommand::Events(events) => events.run(registry, output).await,
            AuditCommand::Security(security) => security.run(registry, output).await,
        }
    }
}

impl Security {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let (since, until) = (self.since.map(Moment::to_rfc3339), self.until.map(Moment::to_rfc3339));
        let query = [
            ("kind", self.kind.as_deref()),
            ("principal", self.principal.as_deref()),
            ("since", since.as_deref()),
            ("until", until.as_deref()),
        ];
        let items = registry.list("/api/v1/security-events", &query, self.limit.saturating_add(1)).await?;
        let columns = [
            ("last at", "/last_at"),
            ("kind", "/kind"),
            ("count", "/count"),
            ("by", "/principal"),
            ("from", "/client_address"),
            ("action", "/action"),
            ("repository", "/repository"),
        ];
        output.part(items, self.limit, &columns, "Nothing happened");
        Ok(())
    }
}

impl Events {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let events = self;
        let since = events.since.map(Moment::to_rfc3339);
        let until = events.until.map(Moment::to_rfc3339);
        let format = events.export.map(|export| match export {
            Export::Ndjson => "ndjson",
            Export::Csv => "csv",
        });
        let query = [
            ("repository", events.repository.as_ref().map(RepositoryName::as_str)),
            ("digest", events.digest.as_ref().map(Digest::as_str)),
            ("kind", events.kind.as_deref()),
            ("principal", events.principal.as_deref()),
            ("since", since.as_deref()),
            ("until", until.as_deref()),
            ("format", format),
        ];
        if format.is_some() {
            return export(registry, &query).await;
        }
        let items = registry.list(PATH, &query, events.limit.saturating_add(1)).await?;
        let columns = [
            ("index", "/index"),
            ("at", "/event/at"),
            ("kind", "/event/kind"),
            ("by", "/principal"),
            ("repository", "/event/repository"),
            ("environment", "/event/environment"),
            ("digest", "/event/digest"),
        ];
        output.part(items, events.limit, &columns, "Nothing happened");
        Ok(())
    }
}

/// Streams the log to standard output; a stream that breaks off is an error, never a shorter log.
async fn export(registry: &Registry, query: Query<'_>) -> Result<(), Stop> {
    let mut response = registry.send(registry.request(Method::GET, PATH).query(query)).await?;
    let mut out = tokio::io::stdout();
    while let Some(chunk) = response.chunk().await.map_err(|error| registry.unanswered(&error))? {
        match out.write_all(&chunk).await {
            // A reader that has seen enough (`| head`) ends nothing.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => {
                written.map_err(|error| Stop::Unanswered(format!("cannot write the events: {error}")))?;
            }
        }
    }
    out.flush().await.map_err(|error| Stop::Unanswered(format!("cannot write the events: {error}")))
}
