//! The key file: JSON with one PKCS#8 key (base64 of its DER) for each role.

use super::private::{PrivateKeys, key_id};
use super::{KeyRole, OPENING};
use crate::failure::Failure;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use serde::Deserialize;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// What stands in the file. The keys are borrowed from the text, which is wiped after parsing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    #[serde(rename = "about")]
    _about: Option<&'a str>,
    version: u32,
    summary: &'a str,
    log: &'a str,
    token: &'a str,
    webhook: &'a str,
}

const ABOUT: &str = "The private keys of one Proofmark registry: keep them secret, and keep a backup.";

/// Makes new keys and writes them to a file that must not exist yet (mode 0600). Returns the ids of
/// the public keys by role. The file appears complete and durable or not at all: it is written and
/// synced under another name first.
pub fn init(path: &Path) -> Result<Vec<(KeyRole, String)>, Failure> {
    let failed =
        |error: std::io::Error| Failure::new("writing the key file", format!("{}: {error}", path.display()));
    let keys = PrivateKeys::generate()?;
    let text = document(&keys)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let staged = directory.join(format!(".keys-{}", uuid::Uuid::new_v4()));
    let written = write(&staged, text.as_bytes()).and_then(|()| match std::fs::hard_link(&staged, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(std::io::Error::new(error.kind(), "the file exists; keys are never overwritten"))
        }
        other => other,
    });
    let removed = std::fs::remove_file(&staged);
    written.map_err(failed)?;
    removed.map_err(failed)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(KeyRole::ALL.map(|role| (role, key_id(&keys.key(role).verifying_key()))).to_vec())
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn document(keys: &PrivateKeys) -> Result<Zeroizing<String>, Failure> {
    // Room for everything, so that no reallocation leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(2048));
    text.extend(["{\n  \"about\": \"", ABOUT, "\",\n  \"version\": 1"]);
    for role in KeyRole::ALL {
        let der = keys.pkcs8(role)?;
        text.extend([",\n  \"", role.as_str(), "\": \""]);
        STANDARD.encode_string(der.as_bytes(), &mut text);
        text.push('"');
    }
    text.push_str("\n}\n");
    Ok(text)
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<PrivateKeys, Failure> {
    let failed = |why: String| Failure::new(OPENING, format!("the key file {}: {why}", path.display()));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(failed(
                "is missing. If this registry has run before, restore its key file from a backup: what it \
                 signed can only be continued with the same keys. For a new registry `proofmark key init` \
                 makes one"
                    .into(),
            ));
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    warn_when_open(path);
    // Serde's message may quote what it found; only its place is told.
    let document: Document<'_> = serde_json::from_str(&text).map_err(|error| {
        failed(format!(
            "line {}, column {} is not what `proofmark key init` writes",
            error.line(),
            error.column()
        ))
    })?;
    if document.version != 1 {
        return Err(failed(format!("has version {}; this build reads version 1", document.version)));
    }
    let key = |role: KeyRole, text: &str| {
        let der = Zeroizing::new(STANDARD.decode(text).unwrap_or_default());
        SigningKey::from_pkcs8_der(&der)
            .map_err(|_| failed(format!("the {role} key is not an Ed25519 key as base64 of PKCS#8 DER")))
    };
    Ok(PrivateKeys {
        summary: key(KeyRole::Summary, document.summary)?,
        log: key(KeyRole::Log, document.log)?,
        token: key(KeyRole::Token, document.token)?,
        webhook: key(KeyRole::Webhook, document.webhook)?,
    })
}

/// Secrets mounted by an orchestrator are often readable by a group: said, not refused.
fn warn_when_open(path: &Path) {
    if let Ok(metadata) = path.metadata()
        && Permissions::mode(&metadata.permissions()) & 0o077 != 0
    {
        tracing::warn!(file = %path.display(), "the key file can be read by other users than its owner");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_round_trips_is_private_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/keys.json");
        let ids = init(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let keys = read(&path).unwrap();
        for (role, id) in ids {
            assert_eq!(key_id(&keys.key(role).verifying_key()), id);
        }
        assert!(init(&path).unwrap_err().chain().contains("never overwritten"));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_broken_key_file_is_refused_without_telling_what_stood_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        std::fs::write(&path, r#"{"version":1,"summary":"hunter2","secret":"hunter2"}"#).unwrap();
        let Err(failure) = read(&path) else { panic!("it was read") };
        let said = failure.chain();
        assert!(said.contains("line 1") && !said.contains("hunter2"), "{said}");
    }
}
