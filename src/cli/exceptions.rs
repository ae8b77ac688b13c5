//! `exceptions`: all that people decided beside the policies, in one list.

use super::connection::Registry;
use super::output::Output;
use super::stop::Stop;
use super::time::Moment;
use crate::names::{EnvironmentName, RepositoryName};

/// List approvals, blocks, holds, waivers and overrides, with what needs attention
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark exceptions
  proofmark exceptions --repository payments/api --environment prod
  proofmark exceptions --kind waiver --ending-before 7d")]
pub struct Exceptions {
    /// Only what counts in this repository
    #[arg(long, short, value_name = "NAME")]
    repository: Option<RepositoryName>,
    /// Only what counts in this environment
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// Only this kind
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only what expires before this time, e.g. 7d or 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    ending_before: Option<Moment>,
    /// Expired and ended ones too
    #[arg(long)]
    ended: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    Approval,
    Block,
    Hold,
    Override,
    Waiver,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Block => "block",
            Self::Hold => "hold",
            Self::Override => "override",
            Self::Waiver => "waiver",
        }
    }
}

impl Exceptions {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let ending_before = self.ending_before.map(Moment::to_rfc3339);
        let query = [
            ("repository", self.repository.as_ref().map(RepositoryName::as_str)),
            ("environment", self.environment.as_ref().map(EnvironmentName::as_str)),
            ("kind", self.kind.map(Kind::as_str)),
            ("ending_before", ending_before.as_deref()),
            ("ended", self.ended.then_some("true")),
        ];
        let items = registry.list("/api/v1/exceptions", &query, usize::MAX).await?;
        let columns = [
            ("kind", "/kind"),
            ("id", "/id"),
            ("repository", "/scope/repository"),
            ("repositories", "/scope/repositories"),
            ("environment", "/scope/environment"),
            ("digest", "/scope/digest"),
            ("by", "/created_by"),
            ("at", "/created_at"),
            ("expires", "/expires_at"),
            ("ended", "/ended_at"),
            ("origin", "/origin"),
            ("rank", "/rank"),
            ("attention", "/needs_attention"),
            ("reason", "/reason"),
        ];
        output.list(&items, &columns, "There are no exceptions");
        Ok(())
    }
}
