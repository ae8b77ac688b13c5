//! `principal` and `access`: who there is, who may not come any more, and who may do what.

use super::connection::Registry;
use super::output::{Output, at, table};
use super::stop::Stop;
use crate::names::{EnvironmentName, RepositoryName};
use serde_json::{Value, json};

/// List principals, disable and enable them
#[derive(clap::Args, Debug)]
pub struct Principal {
    #[command(subcommand)]
    command: PrincipalCommand,
}

#[derive(clap::Subcommand, Debug)]
enum PrincipalCommand {
    /// List principals
    List,
    /// End a principal's tokens, grants and approvals; it gets no other until it is enabled
    #[command(after_help = "Examples:
  proofmark principal disable ann --reason 'left the company'

Its blocks, holds and waivers stay; the answer lists them.")]
    Disable(Named),
    /// Let a disabled principal be given tokens and grants again
    Enable(Named),
}

#[derive(clap::Args, Debug)]
struct Named {
    /// The principal's name
    name: String,
    /// Why; it is recorded
    #[arg(long)]
    reason: String,
}

impl Principal {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            PrincipalCommand::List => {
                let items = registry.list("/api/v1/principals", &[], usize::MAX).await?;
                let columns = [
                    ("id", "/id"),
                    ("name", "/name"),
                    ("tokens", "/tokens"),
                    ("grants", "/grants"),
                    ("made", "/created_at"),
                    ("disabled", "/disabled_at"),
                    ("reason", "/disabled_reason"),
                ];
                output.list(&items, &columns, "There are no principals");
            }
            PrincipalCommand::Disable(named) => {
                let done = named.post(registry, "revocation").await?;
                output.answer(&done, || disabled_in_words(&named.name, &done));
            }
            PrincipalCommand::Enable(named) => {
                let done = named.post(registry, "restoration").await?;
                output.answer(&done, || format!("Enabled {}: give it a token and grants", named.name));
            }
        }
        Ok(())
    }
}

impl Named {
    async fn post(&self, registry: &Registry, act: &str) -> Result<Value, Stop> {
        let query = [("name", Some(self.name.as_str()))];
        let found = registry.list("/api/v1/principals", &query, 1).await?;
        let Some(principal) = found.first() else {
            return Err(Stop::no("not-found", format!("there is no principal {}", self.name)));
        };
        let path = format!("/api/v1/principals/{}/{act}", at(principal, "/id"));
        registry.post(&path, &json!({ "reason": self.reason })).await
    }
}

fn disabled_in_words(name: &str, done: &Value) -> String {
    let count = |pointer: &str| done.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
    let stays: Vec<String> = ["blocks", "holds", "waivers", "overrides"]
        .into_iter()
        .filter(|kind| count(&format!("/stays/{kind}")) > 0)
        .map(|kind| format!("{kind} {}", at(done, &format!("/stays/{kind}"))))
        .collect();
    let stays = if stays.is_empty() {
        "nothing of it stays".to_owned()
    } else {
        format!("these stay: {}", stays.join(", "))
    };
    format!(
        "Disabled {name}: {} tokens, {} grants and {} approvals ended; {stays}",
        count("/tokens"),
        count("/grants"),
        count("/approvals"),
    )
}

/// Ask whether a principal may do something, and by which grants
#[derive(clap::Args, Debug)]
pub struct Access {
    #[command(subcommand)]
    command: AccessCommand,
}

#[derive(clap::Subcommand, Debug)]
enum AccessCommand {
    /// Whether it may; exit code 1 when not
    #[command(after_help = "Examples:
  proofmark access check ann promote --repository payments/api --environment prod")]
    Check {
        /// The principal's name
        principal: String,
        /// The action, such as promote or pull
        action: String,
        /// The repository [default: all]
        #[arg(long, short, value_name = "NAME")]
        repository: Option<RepositoryName>,
        /// The environment [default: all, or regardless of any]
        #[arg(long, short, value_name = "NAME")]
        environment: Option<EnvironmentName>,
    },
}

impl Access {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let AccessCommand::Check { principal, action, repository, environment } = self.command;
        let body = json!({ "principal": principal, "action": action, "repository": repository,
            "environment": environment });
        let answer = registry.post("/api/v1/access/check", &body).await?;
        if answer.get("allowed").and_then(Value::as_bool) != Some(true) {
            return Err(Stop::no("not-allowed", format!("{principal} may not {action} there")));
        }
        output.answer(&answer, || {
            let grants = answer.get("grants").and_then(Value::as_array).cloned().unwrap_or_default();
            let columns = [
                ("grant", "/id"),
                ("role", "/role"),
                ("repositories", "/repositories"),
                ("environments", "/environments"),
                ("token", "/token"),
            ];
            format!("{principal} may {action} there, by\n\n{}", table(&grants, &columns))
        });
        Ok(())
    }
}
