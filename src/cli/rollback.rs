//! `rollback`: back to the newest earlier version that the policy still allows.

use super::connection::Registry;
use super::output::{Output, at};
use super::stop::Stop;
use crate::names::{EnvironmentName, Reference, RepositoryName};
use serde_json::{Value, json};

/// Go back to the newest earlier version that the policy allows now
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark rollback payments/api --environment prod --reason 'errors since 12:40'

Promotions of the repository to the environment are held afterwards: `proofmark hold lift` lets them
on again.")]
pub struct Rollback {
    /// The repository
    repository: RepositoryName,
    /// The environment
    #[arg(long, short, value_name = "NAME")]
    environment: EnvironmentName,
    /// Why; it is recorded
    #[arg(long)]
    reason: String,
    /// Back to this version or digest [default: the newest earlier one that the policy allows]
    #[arg(long, value_name = "VERSION")]
    to: Option<Reference>,
}

impl Rollback {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let mut body =
            json!({ "repository": self.repository, "environment": self.environment, "reason": self.reason });
        if let Some(to) = &self.to {
            body["to"] = json!(to.to_string());
        }
        let back = registry.post_once("/api/v1/rollbacks", &body).await?;
        output.answer(&back, || {
            format!(
                "{} is back at {} in {}\n{}",
                self.repository,
                at(&back, "/version"),
                self.environment,
                at(&back, "/digest")
            )
        });
        let lane = [
            ("repository", Some(self.repository.as_str())),
            ("environment", Some(self.environment.as_str())),
        ];
        // What was done is done, whether or not its hold can be looked up.
        let holds = registry.list("/api/v1/holds", &lane, usize::MAX).await.unwrap_or_default();
        let of_lane = |hold: &&Value| lane.iter().all(|(member, name)| hold[*member].as_str() == *name);
        if let Some(hold) = holds.iter().find(of_lane) {
            output.remark(&format!(
                "Promotions are held there: `proofmark hold lift {} --reason ...` lets them go on",
                at(hold, "/id")
            ));
        }
        Ok(())
    }
}
