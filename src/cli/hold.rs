//! `hold`: no promotions for now.

use super::connection::Registry;
use super::facts::{self, End};
use super::output::{Output, at};
use super::stop::Stop;
use super::time::Moment;
use crate::names::{EnvironmentName, RepositoryName};
use serde_json::json;

/// Stop promotions of an environment, of a repository, or of one in the other
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark hold --environment prod --reason 'incident 42' --until 12h
  proofmark hold list
  proofmark hold lift 3 --reason 'incident 42 is over'

What runs keeps its yes; rollbacks go on.")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Hold {
    #[command(subcommand)]
    command: Option<HoldCommand>,
    #[command(flatten)]
    place: Option<Place>,
}

#[derive(clap::Subcommand, Debug)]
enum HoldCommand {
    /// List holds
    List {
        /// Only what stops this repository
        #[arg(long, short, value_name = "NAME")]
        repository: Option<RepositoryName>,
        /// Only what stops this environment
        #[arg(long, short, value_name = "NAME")]
        environment: Option<EnvironmentName>,
        /// Ended ones too
        #[arg(long)]
        ended: bool,
    },
    /// Lift a hold
    Lift(End),
}

#[derive(clap::Args, Debug)]
struct Place {
    /// The repository [default: all]
    #[arg(long, short, value_name = "NAME")]
    repository: Option<RepositoryName>,
    /// The environment [default: all]
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// Why; it is recorded and shown to whoever is refused
    #[arg(long)]
    reason: String,
    /// Until when, e.g. 12h or 2026-12-31T00:00:00Z [default: until it is lifted]
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

const PATH: &str = "/api/v1/holds";

impl Hold {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match (self.command, self.place) {
            (Some(HoldCommand::List { repository, environment, ended }), _) => {
                let query = [
                    ("repository", repository.as_ref().map(RepositoryName::as_str)),
                    ("environment", environment.as_ref().map(EnvironmentName::as_str)),
                    ("ended", ended.then_some("true")),
                ];
                facts::list(registry, output, PATH, &query, "Nothing is held").await
            }
            (Some(HoldCommand::Lift(end)), _) => facts::end(registry, output, PATH, end, "Lifted hold").await,
            (None, Some(place)) => {
                let body = json!({ "repository": place.repository, "environment": place.environment,
                    "reason": place.reason, "until": place.until.map(Moment::to_rfc3339) });
                let placed = registry.post_once(PATH, &body).await?;
                output.answer(&placed, || format!("Promotions are held (hold {})", at(&placed, "/id")));
                Ok(())
            }
            (None, None) => Err(Stop::Usage("name an environment or a repository".into())),
        }
    }
}
