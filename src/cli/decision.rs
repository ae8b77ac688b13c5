//! `decision`: why the answer was what it was.

use super::connection::Registry;
use super::output::{Output, at};
use super::stop::{Stop, gates_in_words};
use crate::names::Digest;
use serde_json::{Value, json};

/// Show a decision, or judge it again from its recorded inputs
#[derive(clap::Args, Debug)]
pub struct Decision {
    #[command(subcommand)]
    command: DecisionCommand,
}

#[derive(clap::Subcommand, Debug)]
enum DecisionCommand {
    /// Show every gate and every input of a decision
    Show {
        /// The decision's id, a digest
        id: Digest,
    },
    /// Judge the recorded inputs again and compare the answers
    Replay {
        /// The decision's id, a digest
        id: Digest,
    },
}

impl Decision {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            DecisionCommand::Show { id } => {
                let decision = registry.get(&format!("/api/v1/decisions/{id}"), &[]).await?;
                output.answer(&decision, || in_words(&decision));
                Ok(())
            }
            DecisionCommand::Replay { id } => {
                let replayed = registry.post(&format!("/api/v1/decisions/{id}/replay"), &json!({})).await?;
                if replayed.get("same").and_then(Value::as_bool) != Some(true) {
                    let mut problem = replayed;
                    problem["code"] = json!("decision-differs");
                    problem["detail"] = json!("judged again from its recorded inputs it comes out otherwise");
                    return Err(Stop::Refused(problem));
                }
                output.answer(&replayed, || format!("The same answer again: {}", at(&replayed, "/verdict")));
                Ok(())
            }
        }
    }
}

fn in_words(decision: &Value) -> String {
    let gates = decision.get("gates").and_then(Value::as_array).cloned().unwrap_or_default();
    format!(
        "{}: {} {} to {}, decided {} for {}{}",
        at(decision, "/verdict"),
        at(decision, "/repository"),
        at(decision, "/digest"),
        at(decision, "/environment"),
        at(decision, "/decided_at"),
        at(decision, "/decided_by"),
        gates_in_words(&gates)
    )
}
