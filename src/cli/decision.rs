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
        let answer = match self.command {
            DecisionCommand::Show { id } => registry.get(&format!("/api/v1/decisions/{id}"), &[]).await?,
            DecisionCommand::Replay { id } => {
                registry.post(&format!("/api/v1/decisions/{id}/replay"), &json!({})).await?
            }
        };
        output.answer(&answer, || {
            let gates = answer.get("gates").and_then(Value::as_array).cloned().unwrap_or_default();
            format!("{} {}{}", at(&answer, "/verdict"), at(&answer, "/id"), gates_in_words(&gates))
        });
        Ok(())
    }
}
