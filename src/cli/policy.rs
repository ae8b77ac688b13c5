//! `policy`: what must hold before something is promoted.

use super::connection::{Registry, read};
use super::output::{Output, at};
use super::stop::Stop;
use crate::names::EnvironmentName;
use reqwest::Method;
use serde_json::Value;
use std::path::PathBuf;

/// Apply, list and show policies
#[derive(clap::Args, Debug)]
pub struct Policy {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(clap::Subcommand, Debug)]
enum PolicyCommand {
    /// Put a policy (YAML or JSON) in force; earlier versions are kept
    #[command(after_help = "Examples:
  proofmark policy apply policies/prod.yaml")]
    Apply {
        /// The policy; - is standard input
        file: PathBuf,
    },
    /// List the policies in force
    List {
        /// Only of this environment
        #[arg(long, short, value_name = "NAME")]
        environment: Option<EnvironmentName>,
    },
    /// Show a policy as it was written
    Show {
        /// The environment
        environment: EnvironmentName,
        /// The policy's name
        #[arg(default_value = "default")]
        name: String,
    },
}

const PATH: &str = "/api/v1/policies";

impl Policy {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            PolicyCommand::Apply { file } => {
                let body = (read(&file, "the policy")?, "application/yaml");
                let applied = registry.deliver(Method::PUT, PATH, &[], body).await?;
                output.answer(&applied, || {
                    let (name, environment) = (at(&applied, "/name"), at(&applied, "/environment"));
                    format!("Policy {name} of {environment} is in force\n{}", at(&applied, "/digest"))
                });
            }
            PolicyCommand::List { environment } => {
                let items = of(registry, environment.as_ref()).await?;
                let columns = [
                    ("environment", "/environment"),
                    ("name", "/name"),
                    ("repositories", "/repositories"),
                    ("since", "/at"),
                    ("digest", "/digest"),
                ];
                output.list(
                    &items,
                    &columns,
                    "No policy is in force: whatever is not blocked or held may be promoted",
                );
            }
            PolicyCommand::Show { environment, name } => {
                let items = of(registry, Some(&environment)).await?;
                let found = items.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(&name));
                let policy = found.ok_or_else(|| {
                    Stop::no("not-found", format!("{environment} has no policy of the name {name}"))
                })?;
                output.answer(policy, || at(policy, "/source"));
            }
        }
        Ok(())
    }
}

async fn of(registry: &Registry, environment: Option<&EnvironmentName>) -> Result<Vec<Value>, Stop> {
    registry.list(PATH, &[("environment", environment.map(EnvironmentName::as_str))], usize::MAX).await
}
