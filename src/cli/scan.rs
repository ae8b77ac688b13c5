//! `scan`: reports of scanners, and what they found.

use super::artifact::{self, Named};
use super::connection::{Registry, read};
use super::output::{Output, at};
use super::stop::Stop;
use super::time::{Moment, past};
use crate::names::{EnvironmentName, ScannerName};
use reqwest::Method;
use serde_json::json;
use std::path::PathBuf;

/// Record scan reports and look at findings
#[derive(clap::Args, Debug)]
pub struct Scan {
    #[command(subcommand)]
    command: ScanCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ScanCommand {
    /// Record a report of Trivy or Grype (JSON) about an artifact
    #[command(after_help = "Examples:
  trivy image --format json payments/api:1.4.2 | proofmark scan record - payments/api:1.4.2")]
    Record {
        /// The report; - is standard input
        report: PathBuf,
        /// repository:version or repository@digest
        artifact: Named,
        /// Record it under this name instead of the scanner's own; names of real scanners are not taken
        #[arg(long, value_name = "NAME")]
        scanner: Option<ScannerName>,
        /// How new the scanner's database was, for reports that do not say
        #[arg(long, value_name = "TIME", value_parser = past)]
        database_updated_at: Option<Moment>,
        /// What the scanner looked for, for reports that do not say: vulnerabilities, secrets, misconfigurations,
        /// licenses
        #[arg(long, value_name = "KINDS")]
        kinds: Option<String>,
    },
    /// Retract a scan that should not count; its record stays
    Revoke {
        /// The scan's id
        id: i64,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// List the scans of an artifact
    List {
        /// repository:version or repository@digest
        artifact: Named,
    },
    /// List findings, of an artifact or of everything
    Findings(Findings),
}

#[derive(clap::Args, Debug)]
struct Findings {
    /// repository:version or repository@digest [default: everything one may see]
    artifact: Option<Named>,
    /// Only this vulnerability, by its id or an alias
    #[arg(long, value_name = "ID")]
    vulnerability: Option<String>,
    /// Only this severity: critical, high, medium, low, negligible or unknown
    #[arg(long)]
    severity: Option<String>,
    /// Only what is promoted to this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// Findings at the most
    #[arg(long, value_name = "N", default_value_t = 500)]
    limit: usize,
}

impl Scan {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            ScanCommand::Record { report, artifact, scanner, database_updated_at, kinds } => {
                let database = database_updated_at.map(Moment::to_rfc3339);
                let (repository, reference) = artifact.exact(registry.base())?;
                let digest = artifact::digest(registry, &repository, &reference).await?;
                let query = [
                    ("repository", Some(repository.as_str())),
                    ("digest", Some(digest.as_str())),
                    ("scanner", scanner.as_ref().map(ScannerName::as_str)),
                    ("database_updated_at", database.as_deref()),
                    ("kinds", kinds.as_deref()),
                ];
                let body = (read(&report, "the report")?, "application/json");
                let recorded = registry.deliver(Method::POST, "/api/v1/scans", &query, body).await?;
                output.answer(&recorded, || {
                    format!(
                        "Recorded scan {} by {} of {}: {}",
                        at(&recorded, "/id"),
                        at(&recorded, "/scanner"),
                        at(&recorded, "/digest"),
                        at(&recorded, "/counts")
                    )
                });
                for warning in recorded["warnings"].as_array().into_iter().flatten() {
                    output.remark(&format!("warning: {}", warning.as_str().unwrap_or_default()));
                }
            }
            ScanCommand::Revoke { id, reason } => {
                let path = format!("/api/v1/scans/{id}/revocation");
                let retracted = registry.post(&path, &json!({"reason": reason})).await?;
                output.answer(&retracted, || format!("Retracted scan {id}"));
            }
            ScanCommand::List { artifact } => {
                let (repository, reference) = artifact.exact(registry.base())?;
                let digest = artifact::digest(registry, &repository, &reference).await?;
                let query = [("repository", Some(repository.as_str())), ("digest", Some(digest.as_str()))];
                let items = registry.list("/api/v1/scans", &query, usize::MAX).await?;
                let columns = [
                    ("id", "/id"),
                    ("scanner", "/scanner"),
                    ("scanned", "/scanned_at"),
                    ("database", "/database_updated_at"),
                    ("counts for", "/current_for"),
                    ("bound by", "/bound_by"),
                    ("findings", "/counts"),
                ];
                output.list(&items, &columns, "Nobody recorded a scan of this artifact");
            }
            ScanCommand::Findings(findings) => findings.run(registry, output).await?,
        }
        Ok(())
    }
}

impl Findings {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let about = match &self.artifact {
            Some(named) => {
                let (repository, reference) = named.exact(registry.base())?;
                Some((artifact::digest(registry, &repository, &reference).await?, repository))
            }
            None => None,
        };
        let query = [
            ("repository", about.as_ref().map(|(_, repository)| repository.as_str())),
            ("digest", about.as_ref().map(|(digest, _)| digest.as_str())),
            ("vulnerability", self.vulnerability.as_deref()),
            ("severity", self.severity.as_deref()),
            ("environment", self.environment.as_ref().map(EnvironmentName::as_str)),
        ];
        let items = registry.list("/api/v1/findings", &query, self.limit.saturating_add(1)).await?;
        if let (true, Some((digest, repository))) = (items.is_empty(), &about) {
            let query = [
                ("repository", Some(repository.as_str())),
                ("digest", Some(digest.as_str())),
                ("limit", Some("1")),
            ];
            if registry.list("/api/v1/scans", &query, 1).await?.is_empty() {
                output.remark("Nobody recorded a scan of this artifact");
            }
        }
        let columns = [
            ("severity", "/severity"),
            ("vulnerability", "/vulnerability"),
            ("package", "/package"),
            ("installed", "/installed"),
            ("fixed in", "/fixed_in"),
            ("title", "/title"),
        ];
        output.part(items, self.limit, &columns, "Nothing is found");
        Ok(())
    }
}
