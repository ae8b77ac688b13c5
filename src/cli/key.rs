//! `key`: the registry's own keys; the private ones are made here, the public ones are asked for.

use super::connection::Connection;
use super::output::{Output, table};
use super::stop::Stop;
use crate::keys;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Make the registry's own keys, and show their public halves
#[derive(clap::Args, Debug)]
pub struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(clap::Subcommand, Debug)]
enum KeyCommand {
    /// Make a key file for a service with its own DATABASE_URL (PROOFMARK_KEYS)
    Init {
        /// The file to make; it must not exist
        #[arg(env = "PROOFMARK_KEYS")]
        file: PathBuf,
    },
    /// Show the trust file: the registry's names and public keys, what a verifier pins once
    #[command(after_help = "Examples:
  proofmark key show > trust.json      (then `proofmark verify --trust trust.json` needs no server)")]
    Show,
}

impl Key {
    /// Runs the command.
    pub async fn run(self, connection: &Connection, output: Output) -> Result<(), Stop> {
        match self.command {
            KeyCommand::Init { file } => {
                let made = keys::init(&file)?;
                let items: Vec<Value> =
                    made.iter().map(|(role, id)| json!({ "role": role.as_str(), "key_id": id })).collect();
                let document = json!({ "file": file, "keys": items });
                output.answer(&document, || {
                    let columns = [("role", "/role"), ("key", "/key_id")];
                    format!("Wrote {}; keep a backup of it\n\n{}", file.display(), table(&items, &columns))
                });
            }
            KeyCommand::Show => {
                let trust = connection.open()?.get("/.well-known/proofmark", &[]).await?;
                // The file is JSON for people too: it is meant to be kept.
                output.print(&format!("{trust:#}"));
            }
        }
        Ok(())
    }
}
