//! `policy`: what must hold before something is promoted.

use super::connection::{Registry, read};
use super::output::{Output, at, text};
use super::stop::Stop;
use crate::names::{EnvironmentName, RepositoryName};
use reqwest::Method;
use serde_json::{Value, json};
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
        /// Only those that cover this repository
        #[arg(long, short, value_name = "NAME")]
        repository: Option<RepositoryName>,
        /// Earlier versions too
        #[arg(long)]
        history: bool,
    },
    /// End a policy; where no other covers a repository, nothing is allowed from then on
    End {
        /// The environment
        environment: EnvironmentName,
        /// The policy's name
        #[arg(default_value = "default")]
        name: String,
        /// Why; it is recorded
        #[arg(long)]
        reason: String,
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
                    let words =
                        format!("Policy {name} of {environment} is in force\n{}", at(&applied, "/digest"));
                    let warnings = applied.get("warnings").and_then(Value::as_array).into_iter().flatten();
                    warnings.fold(words, |words, warning| words + "\n  warning: " + &text(warning))
                });
            }
            PolicyCommand::List { environment, repository, history } => {
                let query = [
                    ("environment", environment.as_ref().map(EnvironmentName::as_str)),
                    ("repository", repository.as_ref().map(RepositoryName::as_str)),
                    ("history", history.then_some("true")),
                ];
                let items = registry.list(PATH, &query, usize::MAX).await?;
                let columns = [
                    ("environment", "/environment"),
                    ("name", "/name"),
                    ("repositories", "/repositories"),
                    ("since", "/at"),
                    ("digest", "/digest"),
                ];
                output.list(&items, &columns, "No policy is in force: nothing may be promoted");
            }
            PolicyCommand::End { environment, name, reason } => {
                let path = format!("{PATH}/{environment}/{name}/revocation");
                registry.post(&path, &json!({ "reason": reason })).await?;
                output.answer(&json!({ "environment": environment, "name": name }), || {
                    format!("Policy {name} of {environment} is no longer in force")
                });
            }
            PolicyCommand::Show { environment, name } => {
                let query = [("environment", Some(environment.as_str()))];
                let items = registry.list(PATH, &query, usize::MAX).await?;
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
