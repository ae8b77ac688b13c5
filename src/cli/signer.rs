//! `signer`: the keys whose signatures count.

use super::connection::{Registry, read_text};
use super::output::{Output, at};
use super::stop::Stop;
use super::time::{Moment, past};
use crate::names::Pattern;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Register, list and revoke the keys whose signatures count
#[derive(clap::Args, Debug)]
pub struct Signer {
    #[command(subcommand)]
    command: SignerCommand,
}

#[derive(clap::Subcommand, Debug)]
enum SignerCommand {
    /// Register a public key
    #[command(after_help = "Examples:
  proofmark signer add ci --key ci.pub --repositories 'payments/*' \\
    --predicate-type https://slsa.dev/provenance/v1")]
    Add(Add),
    /// List signers, revoked ones included
    List,
    /// Distrust a key, from now, from a time, or altogether
    Revoke {
        /// The signer's name
        name: String,
        /// Why; it is recorded
        #[arg(long)]
        reason: String,
        /// Distrust what was received at or after this time, e.g. 12h (ago) or 2026-12-31T00:00:00Z [default: now]
        #[arg(long, value_name = "TIME", value_parser = past)]
        at: Option<Moment>,
        /// The key was stolen: distrust everything it ever signed
        #[arg(long, conflicts_with = "at")]
        compromised: bool,
    },
}

#[derive(clap::Args, Debug)]
struct Add {
    /// A name for the signer, as policies use it
    name: String,
    /// The public key as PEM; - is standard input
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// How it signs: ed25519, ed25519ph (cosign), ecdsa-p256, ecdsa-p384 or rsa [default: by the key]
    #[arg(long)]
    scheme: Option<String>,
    /// Repositories it is believed for; may be repeated
    #[arg(long, value_name = "PATTERN", default_value = "**")]
    repositories: Vec<Pattern>,
    /// Predicate types it is believed for, as patterns; may be repeated
    #[arg(long, value_name = "PATTERN", default_value = "**")]
    predicate_type: Vec<String>,
    /// Believe what was received from then on [default: whenever it was received]
    #[arg(long, value_name = "TIME")]
    valid_from: Option<Moment>,
    /// Until when it is believed
    #[arg(long, value_name = "TIME")]
    valid_until: Option<Moment>,
}

impl Signer {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            SignerCommand::Add(add) => add.run(registry, output).await,
            SignerCommand::List => {
                let items = registry.list("/api/v1/signers", &[], usize::MAX).await?;
                let columns = [
                    ("name", "/name"),
                    ("scheme", "/scheme"),
                    ("repositories", "/repositories"),
                    ("types", "/predicate_types"),
                    ("key", "/key_id"),
                    ("valid until", "/valid_until"),
                    ("revoked", "/revocation/reason"),
                ];
                output.list(&items, &columns, "No signer is registered");
                Ok(())
            }
            SignerCommand::Revoke { name, reason, at, compromised } => {
                let at = at.map(Moment::to_rfc3339);
                let body = json!({ "reason": reason, "at": at, "compromised": compromised });
                let revoked = registry.post(&format!("/api/v1/signers/{name}/revocation"), &body).await?;
                output.answer(&revoked, || format!("Revoked {name}: {reason}"));
                Ok(())
            }
        }
    }
}

impl Add {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let public_key = read_text(&self.key, "the public key")?;
        if public_key.contains("PRIVATE KEY") {
            let file = self.key.display();
            return Err(Stop::Usage(format!(
                "{file} is a private key, which stays where it is: `openssl pkey -in {file} -pubout` prints its public half"
            )));
        }
        let mut body = json!({
            "name": self.name,
            "public_key": public_key,
            "repositories": self.repositories,
            "predicate_types": self.predicate_type,
        });
        let optional = [
            ("scheme", self.scheme),
            ("valid_from", self.valid_from.map(Moment::to_rfc3339)),
            ("valid_until", self.valid_until.map(Moment::to_rfc3339)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                body[name] = value.into();
            }
        }
        let added = registry.post("/api/v1/signers", &body).await?;
        // The same registration again is answered with the signer as it is, which may be revoked.
        if let Some(reason) = added.pointer("/revocation/reason").and_then(Value::as_str) {
            let detail = format!(
                "{} with this key was revoked ({reason}); a revocation is never taken back",
                self.name
            );
            return Err(Stop::no("signer-revoked", detail));
        }
        output.answer(&added, || format!("Registered {} with key {}", self.name, at(&added, "/key_id")));
        Ok(())
    }
}
