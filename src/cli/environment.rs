//! `environment`: the places of the promotion path.

use super::connection::Registry;
use super::output::Output;
use super::stop::Stop;
use crate::names::EnvironmentName;
use serde_json::json;

/// Make and list environments
#[derive(clap::Args, Debug)]
pub struct Environment {
    #[command(subcommand)]
    command: EnvironmentCommand,
}

#[derive(clap::Subcommand, Debug)]
enum EnvironmentCommand {
    /// Make an environment, or describe it anew
    Create {
        /// Its name, such as staging
        name: EnvironmentName,
        /// What it is, for people [default: as it was]
        #[arg(long)]
        description: Option<String>,
    },
    /// List environments
    List,
}

impl Environment {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            EnvironmentCommand::Create { name, description } => {
                let body = json!({ "name": name, "description": description });
                let made = registry.put("/api/v1/environments", &body).await?;
                output.answer(&made, || format!("Environment {name} is there"));
            }
            EnvironmentCommand::List => {
                let items = registry.list("/api/v1/environments", &[], usize::MAX).await?;
                output.list(
                    &items,
                    &[("name", "/name"), ("description", "/description")],
                    "There are no environments",
                );
            }
        }
        Ok(())
    }
}
