//! `grant`: roles given to principals.

use super::connection::Registry;
use super::output::{Output, at};
use super::stop::Stop;
use crate::access::Role;
use crate::names::{EnvironmentName, Pattern};
use serde_json::json;

/// Give, list and take back roles
#[derive(clap::Args, Debug)]
pub struct Grant {
    #[command(subcommand)]
    command: GrantCommand,
}

#[derive(clap::Subcommand, Debug)]
enum GrantCommand {
    /// Give a principal a role
    #[command(after_help = "Examples:
  proofmark grant give alice --role promoter --repositories 'payments/*' --environment prod
  proofmark grant give anonymous --role reader --repositories 'public/**'   (opens them for pulling)")]
    Give {
        /// Who is given the role; `anonymous` is everybody
        principal: String,
        /// reader, pusher, attester, scanner, approver, promoter, security, deployer, runner, auditor or admin
        #[arg(long)]
        role: Role,
        /// The repositories it covers
        #[arg(long, value_name = "PATTERN", default_value = "**")]
        repositories: Pattern,
        /// An environment it covers; may be repeated [default: all]
        #[arg(long, value_name = "NAME")]
        environment: Vec<EnvironmentName>,
    },
    /// List grants, ended ones included
    List,
    /// Take a grant back
    Revoke {
        /// The grant's id, as `proofmark grant list` shows it
        id: i64,
    },
}

impl Grant {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            GrantCommand::Give { principal, role, repositories, environment } => {
                let environments = (!environment.is_empty()).then_some(environment);
                let body = json!({ "principal": principal, "role": role, "repositories": repositories,
                    "environments": environments });
                let given = registry.post("/api/v1/grants", &body).await?;
                output.answer(&given, || {
                    format!("{principal} is now {role} on {repositories} (grant {})", at(&given, "/id"))
                });
            }
            GrantCommand::List => {
                let items = registry.list("/api/v1/grants", &[], usize::MAX).await?;
                let columns = [
                    ("id", "/id"),
                    ("principal", "/principal"),
                    ("role", "/role"),
                    ("repositories", "/repositories"),
                    ("environments", "/environments"),
                    ("token", "/token"),
                    ("given", "/created_at"),
                    ("ended", "/ended_at"),
                ];
                output.list(&items, &columns, "There are no grants");
            }
            GrantCommand::Revoke { id } => {
                registry.delete(&format!("/api/v1/grants/{id}")).await?;
                output.answer(&json!({ "id": id, "revoked": true }), || format!("Took back grant {id}"));
            }
        }
        Ok(())
    }
}
