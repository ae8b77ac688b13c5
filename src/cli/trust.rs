//! `trust`: which registries this user believes, by the root of their trust files.

use super::checking::{confirmed, fetch, following};
use super::connection::{Connection, Registry};
use super::output::{Output, at};
use super::pins::{self, Pins};
use super::stop::Stop;
use crate::keys::TrustFile;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Pin a registry's trust file, by which its answers are checked
#[derive(clap::Args, Debug)]
pub struct Trust {
    #[command(subcommand)]
    command: TrustCommand,
}

#[derive(clap::Subcommand, Debug)]
enum TrustCommand {
    /// Pin the registry's trust file, after its root was compared
    #[command(after_help = "Examples:
  proofmark trust pin                                  (shows the root's fingerprint and asks)
  proofmark trust pin --fingerprint sha256:...         (for scripts: only if that is the root)
  proofmark trust pin trust.json                       (a file from a place that you trust)

The registry's operator has the fingerprint from `proofmark key trust show trust.json`.")]
    Pin {
        /// A trust file from a place that you trust; otherwise the registry is asked
        file: Option<PathBuf>,
        /// The root's fingerprint, from the registry's operator
        #[arg(long, value_name = "FINGERPRINT")]
        fingerprint: Option<String>,
    },
    /// Show what is pinned of the registry
    Show,
    /// Follow the registry to its newest trust file
    Update,
    /// Forget what is pinned of the registry
    Remove,
}

/// Versions that are looked through for a root's fingerprint that was written down long ago.
const MAX_VERSIONS_BACK: u32 = 1000;

impl Trust {
    /// Runs the command.
    pub async fn run(self, connection: &Connection, output: Output) -> Result<(), Stop> {
        let (pins, server) = (Pins::of_user()?, connection.url()?);
        match self.command {
            TrustCommand::Pin { file, fingerprint } => {
                let steps = match &file {
                    Some(path) => vec![from_file(path, fingerprint.as_deref())?],
                    None => from_registry(&connection.open()?, &pins, fingerprint.as_deref()).await?,
                };
                let pinned = pins.advance(&server, &steps)?;
                let pinned = pinned.ok_or_else(|| Stop::Unanswered("nothing was pinned".into()))?;
                must_be_pinned(&pinned, steps.last(), &server)?;
                show(&pinned, &server, &pins.path(&server), "Pinned", output)
            }
            TrustCommand::Show => {
                let pinned = pins.read(&server)?.ok_or_else(|| not_pinned(&server))?;
                show(&pinned, &server, &pins.path(&server), "Trusted", output)
            }
            TrustCommand::Update => {
                let pinned = pins.read(&server)?.ok_or_else(|| not_pinned(&server))?;
                let steps = following(&connection.open()?, &pinned).await?;
                let pinned = pins.advance(&server, &steps)?.unwrap_or(pinned);
                show(&pinned, &server, &pins.path(&server), "Trusted", output)
            }
            TrustCommand::Remove => {
                if !pins.remove(&server)? {
                    return Err(not_pinned(&server));
                }
                output.answer(&json!({ "server": server.as_str() }), || {
                    format!("Nothing is trusted of {server} any more")
                });
                Ok(())
            }
        }
    }
}

/// Says where an earlier pin stays, so that nobody takes it for the file that was to be pinned.
fn must_be_pinned(pinned: &TrustFile, given: Option<&TrustFile>, server: &reqwest::Url) -> Result<(), Stop> {
    let Some(given) = given.filter(|given| *given != pinned) else { return Ok(()) };
    let version = |file: &TrustFile| {
        let trust = file.trust();
        Ok::<_, Stop>(format!(
            "version {} ({}, root {})",
            trust.version,
            trust.public_name,
            trust.fingerprint()?
        ))
    };
    Err(Stop::no(
        "trust-refused",
        format!(
            "nothing was pinned: {} is pinned of {server} already, and {} does not follow it; where another root is to \
             be trusted, `proofmark trust remove` first",
            version(pinned)?,
            version(given)?
        ),
    ))
}

fn not_pinned(server: &reqwest::Url) -> Stop {
    Stop::no(
        "not-pinned",
        format!("nothing is pinned of {server}: proofmark trust pin --fingerprint ... does"),
    )
}

fn from_file(path: &Path, fingerprint: Option<&str>) -> Result<TrustFile, Stop> {
    let file = pins::read(path)?;
    match fingerprint {
        Some(expected) if !is(&file, expected)? => Err(other_root(expected, &file)?),
        Some(_) | None => Ok(file),
    }
}

/// The newest trust file of the registry, with those before it from one whose root was compared.
async fn from_registry(
    registry: &Registry,
    pins: &Pins,
    fingerprint: Option<&str>,
) -> Result<Vec<TrustFile>, Stop> {
    let newest = fetch(registry, None).await?;
    match fingerprint {
        Some(expected) => {
            // The root may have changed since somebody wrote its fingerprint down: an earlier version has it then.
            let mut file = newest.clone();
            while !is(&file, expected)? {
                let earliest = newest.version().saturating_sub(MAX_VERSIONS_BACK).max(1);
                let Some(version) = file.version().checked_sub(1).filter(|version| *version >= earliest)
                else {
                    return Err(other_root(expected, &newest)?);
                };
                file = match fetch(registry, Some(version)).await {
                    Ok(earlier) => earlier,
                    Err(stop) if stop.is("no-such-version") => return Err(other_root(expected, &newest)?),
                    Err(stop) => return Err(stop),
                };
                if file.version() != version {
                    return Err(other_root(expected, &newest)?);
                }
            }
            let mut steps = vec![file.clone()];
            steps.extend(following(registry, &file).await?);
            Ok(steps)
        }
        // What is pinned already answers for what follows it.
        None if pins.read(registry.base())?.is_some_and(|pinned| pinned == newest) => Ok(vec![newest]),
        None if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() => Err(Stop::Error(
            "no-trust",
            format!(
                "somebody must compare the root's fingerprint: give the one that the registry's operator has\n  \
                 proofmark trust pin --server {} --fingerprint sha256:...",
                registry.base().as_str().trim_end_matches('/')
            ),
        )),
        None if confirmed(registry.base(), &newest)? => Ok(vec![newest]),
        None => Err(Stop::no("not-trusted", "nothing was pinned")),
    }
}

fn is(file: &TrustFile, fingerprint: &str) -> Result<bool, Stop> {
    let hex = |text: &str| text.trim().trim_start_matches("sha256:").to_ascii_lowercase();
    Ok(hex(&file.trust().fingerprint()?) == hex(fingerprint))
}

fn other_root(expected: &str, found: &TrustFile) -> Result<Stop, Stop> {
    let found = found.trust().fingerprint()?;
    Ok(Stop::no(
        "trust-refused",
        format!("the root of this trust file is {found}, and {expected} was expected: nothing was pinned"),
    ))
}

fn show(
    file: &TrustFile,
    server: &reqwest::Url,
    path: &Path,
    done: &str,
    output: Output,
) -> Result<(), Stop> {
    let mut document = described(file)?;
    document["server"] = json!(server.as_str().trim_end_matches('/'));
    document["file"] = json!(path);
    output.answer(&document, || {
        format!("{done} of {server}, in {}\n\n{}", path.display(), in_words(&document))
    });
    Ok(())
}

/// A trust file as it is shown.
pub fn described(file: &TrustFile) -> Result<Value, Stop> {
    let trust = file.trust();
    let keys: Vec<Value> = trust
        .keys
        .iter()
        .flat_map(|(role, keys)| {
            keys.iter().map(|key| {
                json!({"role": role.as_str(), "key_id": key.key_id, "valid_from": key.valid_from,
                       "valid_until": key.valid_until, "revoked_at": key.revoked_at})
            })
        })
        .collect();
    let root: Vec<&str> = trust.root.keys.iter().map(crate::keys::PublicKey::id).collect();
    Ok(json!({
        "public_name": trust.public_name,
        "verifier_id": trust.verifier_id,
        "version": trust.version,
        "issued_at": trust.issued_at,
        "fingerprint": trust.fingerprint()?,
        "root": {"threshold": trust.root.threshold, "keys": root},
        "signed_by": file.signers(&trust.root),
        "keys": keys,
    }))
}

/// The same in words.
pub fn in_words(document: &Value) -> String {
    let keys = document["keys"].as_array().cloned().unwrap_or_default();
    let columns = [
        ("role", "/role"),
        ("key", "/key_id"),
        ("valid from", "/valid_from"),
        ("valid until", "/valid_until"),
        ("revoked", "/revoked_at"),
    ];
    format!(
        "{} ({}), version {} of {}\nroot {}\n{} of these root keys sign: {}\n\n{}",
        at(document, "/public_name"),
        at(document, "/verifier_id"),
        at(document, "/version"),
        at(document, "/issued_at"),
        at(document, "/fingerprint"),
        at(document, "/root/threshold"),
        at(document, "/root/keys"),
        super::output::table(&keys, &columns)
    )
}
