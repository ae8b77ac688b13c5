//! `signer`: the keys whose signatures count.

use super::connection::{Registry, read_text};
use super::output::{Output, at};
use super::stop::Stop;
use super::time::{Moment, past};
use crate::names::Pattern;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Register, list and revoke the keys whose signatures count
#[derive(clap::Args, Debug)]
pub struct Signer {
    #[command(subcommand)]
    command: SignerCommand,
}

#[derive(clap::Subcommand, Debug)]
enum SignerCommand {
    /// Register a signer with its first public key
    #[command(after_help = "Examples:
  proofmark signer add ci --key ci.pub --repositories 'payments/*' \\
    --predicate-type https://slsa.dev/provenance/v1
  proofmark signer add release --key release.pub --scheme ed25519 --scheme ed25519ph")]
    Add(Add),
    /// Add a key to a signer, or schemes and a longer validity to a key that it has
    #[command(after_help = "Examples:
  proofmark signer add-key ci --key ci-2027.pub
  proofmark signer add-key ci --key ci.pub --scheme ed25519ph --valid-until 2027-12-31T00:00:00Z")]
    AddKey(AddKey),
    /// List signers, revoked ones included
    List,
    /// Show a signer with its keys and their revocations
    Show {
        /// The signer's name
        name: String,
    },
    /// Distrust a signer or one of its keys, from now, from a time, or altogether
    #[command(after_help = "Examples:
  proofmark signer revoke ci --key-id 3f5a... --reason 'rotated to the key of 2027'
  proofmark signer revoke ci --compromised --reason 'laptop stolen' --dry-run")]
    Revoke(Revoke),
}

#[derive(clap::Args, Debug)]
struct Add {
    /// A name for the signer, as policies use it
    name: String,
    #[command(flatten)]
    key: Given,
    /// Repositories it is believed for; may be repeated
    #[arg(long, value_name = "PATTERN", default_value = "**")]
    repositories: Vec<Pattern>,
    /// Predicate types it is believed for, as patterns; may be repeated
    #[arg(long, value_name = "PATTERN", default_value = "**")]
    predicate_type: Vec<String>,
}

#[derive(clap::Args, Debug)]
struct AddKey {
    /// The signer's name
    name: String,
    #[command(flatten)]
    key: Given,
}

#[derive(clap::Args, Debug)]
struct Given {
    /// The public key as PEM, or a certificate whose key is taken; - is standard input
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// How it signs: ed25519, ed25519ph (cosign), ecdsa-p256, ecdsa-p384 or rsa; may be repeated [default: by the key]
    #[arg(long)]
    scheme: Vec<String>,
    /// Believe what was received from then on [default: whenever it was received]
    #[arg(long, value_name = "TIME")]
    valid_from: Option<Moment>,
    /// Until when it is believed
    #[arg(long, value_name = "TIME")]
    valid_until: Option<Moment>,
}

#[derive(clap::Args, Debug)]
struct Revoke {
    /// The signer's name
    name: String,
    /// Why; it is recorded
    #[arg(long)]
    reason: String,
    /// Only this key [default: all keys that the signer has now]
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// Distrust what was received at or after this time, e.g. 12h (ago) or 2026-12-31T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = past)]
    at: Option<Moment>,
    /// The key was stolen: distrust everything it ever signed
    #[arg(long, conflicts_with = "at")]
    compromised: bool,
    /// Show what runs and would end, and revoke nothing
    #[arg(long)]
    dry_run: bool,
}

impl Signer {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            SignerCommand::Add(add) => add.run(registry, output).await,
            SignerCommand::AddKey(add) => add.run(registry, output).await,
            SignerCommand::List => {
                let items = registry.list("/api/v1/signers", &[], usize::MAX).await?;
                let columns = [
                    ("name", "/name"),
                    ("status", "/status"),
                    ("scheme", "/scheme"),
                    ("repositories", "/repositories"),
                    ("types", "/predicate_types"),
                    ("key", "/key_id"),
                    ("valid until", "/valid_until"),
                    ("revoked", "/revocation/reason"),
                ];
                // A line for each key.
                let lines: Vec<Value> = items.iter().flat_map(by_key).collect();
                let shown = if output.is_json() { &items } else { &lines };
                output.list(shown, &columns, "No signer is registered");
                Ok(())
            }
            SignerCommand::Show { name } => {
                let signer = registry.get(&format!("/api/v1/signers/{name}"), &[]).await?;
                output.answer(&signer, || shown(&signer));
                Ok(())
            }
            SignerCommand::Revoke(revoke) => revoke.run(registry, output).await,
        }
    }
}

/// The signer once for each of its keys.
fn by_key(signer: &Value) -> Vec<Value> {
    let keys = signer["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |key: &Value| {
        let mut line = signer.clone();
        for member in ["status", "key_id", "valid_until", "revocation"] {
            line[member] = key[member].clone();
        }
        line["scheme"] = key["schemes"].clone();
        line
    };
    keys.iter().map(line).collect()
}

fn shown(signer: &Value) -> String {
    let list = |value: &Value| {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![
        format!("{} ({})", at(signer, "/name"), at(signer, "/status")),
        format!("repositories: {}", list(&signer["repositories"])),
        format!("predicate types: {}", list(&signer["predicate_types"])),
    ];
    for key in signer["keys"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let until = at(key, "/valid_until");
        let until = if until == "-" { "without an end".to_owned() } else { format!("until {until}") };
        lines.push(format!("key {} ({})", at(key, "/key_id"), at(key, "/status")));
        lines.push(format!("  schemes: {}", list(&key["schemes"])));
        lines.push(format!("  valid: from {} {until}", at(key, "/valid_from")));
        for revocation in key["revocations"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let how =
                if revocation["compromised"] == true { "compromised, distrusted" } else { "distrusted" };
            lines.push(format!(
                "  revoked: {how} from {} ({}, by {} at {})",
                at(revocation, "/distrusted_from"),
                at(revocation, "/reason"),
                at(revocation, "/revoked_by"),
                at(revocation, "/revoked_at"),
            ));
        }
    }
    lines.extend(warnings(signer));
    lines.join("\n")
}

fn warnings(signer: &Value) -> Vec<String> {
    let warnings = signer["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    warnings.iter().filter_map(Value::as_str).map(|warning| format!("Warning: {warning}")).collect()
}

impl Given {
    /// The members of a request.
    fn body(self) -> Result<Value, Stop> {
        let public_key = read_text(&self.key, "the public key")?;
        refuse_private(&public_key, &self.key)?;
        let mut body = json!({"public_key": public_key, "schemes": self.scheme});
        for (name, time) in [("valid_from", self.valid_from), ("valid_until", self.valid_until)] {
            if let Some(time) = time {
                body[name] = time.to_rfc3339().into();
            }
        }
        Ok(body)
    }
}

fn refuse_private(public_key: &str, file: &Path) -> Result<(), Stop> {
    if !public_key.contains("PRIVATE KEY") {
        return Ok(());
    }
    let file = file.display();
    Err(Stop::Usage(format!(
        "{file} is a private key, which stays where it is: `openssl pkey -in {file} -pubout` prints its public half"
    )))
}

/// What follows a registration in words.
fn status(signer: &Value) -> String {
    let mut lines = Vec::new();
    if signer["status"] == "verifying" {
        lines.push(format!(
            "Pending envelopes are being verified; until then gates that name {} are deferred",
            at(signer, "/name")
        ));
    }
    lines.extend(warnings(signer));
    lines.iter().fold(String::new(), |text, line| text + "\n" + line)
}

impl Add {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let mut body = self.key.body()?;
        body["name"] = self.name.as_str().into();
        body["repositories"] = json!(self.repositories);
        body["predicate_types"] = json!(self.predicate_type);
        let added = registry.post("/api/v1/signers", &body).await?;
        // The same registration again is answered with the signer as it is, which may be revoked.
        if let Some(reason) = added.pointer("/revocation/reason").and_then(Value::as_str) {
            let detail = format!(
                "{} with this key was revoked ({reason}); a revocation is never taken back",
                self.name
            );
            return Err(Stop::no("signer-revoked", detail));
        }
        let registered =
            || format!("Registered {} with key {}{}", self.name, at(&added, "/key_id"), status(&added));
        output.answer(&added, registered);
        Ok(())
    }
}

impl AddKey {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let body = self.key.body()?;
        let added = registry.post(&format!("/api/v1/signers/{}/keys", self.name), &body).await?;
        output.answer(&added, || {
            let keys = added["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
            let ids = keys.iter().fold(String::new(), |text, key| {
                format!("{text}\n  {} ({})", at(key, "/key_id"), at(key, "/status"))
            });
            let noun = if keys.len() == 1 { "key" } else { "keys" };
            format!("{} has {} {noun} now:{ids}{}", self.name, keys.len(), status(&added))
        });
        Ok(())
    }
}

impl Revoke {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let Self { name, reason, key_id, at: time, compromised, dry_run } = self;
        let time = time.map(Moment::to_rfc3339);
        let body = json!({"reason": reason, "key_id": key_id, "at": time, "compromised": compromised});
        let query = if dry_run { "?dry_run=true" } else { "" };
        let revoked = registry.post(&format!("/api/v1/signers/{name}/revocation{query}"), &body).await?;
        output.answer(&revoked, || {
            let done = if dry_run { "Would revoke" } else { "Revoked" };
            format!("{done} {name}: {reason}{}", resting(&revoked))
        });
        Ok(())
    }
}

/// What runs and rests on the keys, in words.
fn resting(revoked: &Value) -> String {
    let Some(resting) = revoked.get("rests_on").filter(|resting| !resting.is_null()) else {
        return "\nWhat runs and rests on it took too long to find; --dry-run of the same asks again"
            .to_owned();
    };
    let versions = resting["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines =
        vec![format!("{} running versions rest on it, {} end", resting["count"], resting["ends"])];
    for version in versions {
        let gates = version["gates"].as_array().map(Vec::as_slice).unwrap_or_default();
        let gates = gates.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
        let name = at(version, "/version");
        let what = if name == "-" { at(version, "/digest") } else { name };
        lines.push(format!(
            "  {} {what} in {}: {} ({gates})",
            at(version, "/repository"),
            at(version, "/environment"),
            at(version, "/consequence").replace('_', " "),
        ));
    }
    lines.iter().fold(String::new(), |text, line| text + "\n" + line)
}
