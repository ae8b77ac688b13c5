//! The key file: JSON with one PKCS#8 key (base64 of its DER) for each role.

use super::durable::{Existing, write};
use super::private::{PrivateKeys, PublicKey, PublicKeys, generate};
use super::{KeyRole, OPENING};
use crate::config::SecretFileMode;
use crate::failure::Failure;
use crate::secret_files;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use zeroize::Zeroizing;

/// What stands in the file. The keys are borrowed from the text, which is wiped after parsing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    #[serde(rename = "about")]
    _about: Option<&'a str>,
    version: u32,
    #[serde(borrow)]
    summary: Option<&'a str>,
    attestation: Option<&'a str>,
    token: Option<&'a str>,
    webhook: Option<&'a str>,
    log: Option<&'a str>,
}

/// The public halves of a key file, as `proofmark key public` writes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicDocument {
    public_keys: BTreeMap<String, String>,
}

const ABOUT: &str = "The private keys of one Proofmark registry: keep them secret, and keep a backup.";
/// The form that is written here.
const VERSION: u32 = 2;
/// The first form, without a key for the role attestation.
const FIRST_VERSION: u32 = 1;

/// Makes new keys and writes them to a file that must not exist yet (mode 0600). Returns their public halves. The
/// file appears complete and durable or not at all.
pub fn init(path: &Path) -> Result<PublicKeys, Failure> {
    let keys = PrivateKeys::generate()?;
    write(path, document(&keys)?.as_bytes(), 0o600, Existing::Refused)?;
    Ok(keys.public())
}

/// Brings a key file of the first form over to the present one: the keys that it has stay, and the role attestation
/// gets a new one. `false` where there is nothing to do.
pub fn upgrade(path: &Path) -> Result<bool, Failure> {
    upgrade_by(path, SecretFileMode::of_environment())
}

pub(super) fn upgrade_by(path: &Path, rule: SecretFileMode) -> Result<bool, Failure> {
    let Some(first) = read_any(path, rule)?.old else { return Ok(false) };
    let [summary, token, webhook, log] = *first;
    // In the order of the roles.
    let keys = PrivateKeys([summary, generate()?, token, webhook, log]);
    write(path, document(&keys)?.as_bytes(), 0o600, Existing::Replaced)?;
    Ok(true)
}

/// The public halves: of a key file, or of what `proofmark key public` wrote.
pub fn public(path: &Path) -> Result<PublicKeys, Failure> {
    let failed = |why: String| Failure::new("reading public keys", format!("{}: {why}", path.display()));
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?);
    let Ok(document) = serde_json::from_str::<PublicDocument>(&text) else {
        return Ok(read(path, SecretFileMode::of_environment())?.public());
    };
    KeyRole::ALL
        .into_iter()
        .map(|role| {
            let key = document.public_keys.get(role.as_str()).and_then(|pem| PublicKey::from_pem(pem));
            key.map(|key| (role, key))
                .ok_or_else(|| failed(format!("it has no Ed25519 key for the role {role}")))
        })
        .collect()
}

/// The document of public halves.
pub fn public_document(keys: &PublicKeys) -> Result<serde_json::Value, Failure> {
    let keys = keys.iter().map(|(role, key)| Ok((role.as_str(), key.pem()?)));
    let keys = keys.collect::<Result<BTreeMap<_, _>, Failure>>()?;
    Ok(serde_json::json!({ "public_keys": keys }))
}

fn document(keys: &PrivateKeys) -> Result<Zeroizing<String>, Failure> {
    // Room for everything, so that no reallocation leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(2048));
    text.extend(["{\n  \"about\": \"", ABOUT, "\",\n  \"version\": ", &VERSION.to_string()]);
    for role in KeyRole::ALL {
        let der = keys.pkcs8(role)?;
        text.extend([",\n  \"", role.as_str(), "\": \""]);
        STANDARD.encode_string(der.as_bytes(), &mut text);
        text.push('"');
    }
    text.push_str("\n}\n");
    Ok(text)
}

/// A file of either form.
struct AnyForm {
    keys: Option<PrivateKeys>,
    /// Summary, token, webhook and log.
    old: Option<Box<[SigningKey; 4]>>,
}

/// Reads the file.
pub(super) fn read(path: &Path, rule: SecretFileMode) -> Result<PrivateKeys, Failure> {
    read_any(path, rule)?.keys.ok_or_else(|| {
        let path = path.display();
        Failure::new(
            OPENING,
            format!(
                "the key file {path} has version {FIRST_VERSION}, without a key for the role attestation; this build \
                 reads version {VERSION}: `proofmark key upgrade {path}` brings it over and keeps its keys (give every \
                 replica that one file)"
            ),
        )
    })
}

fn read_any(path: &Path, rule: SecretFileMode) -> Result<AnyForm, Failure> {
    let failed = |why: String| Failure::new(OPENING, format!("the key file {}: {why}", path.display()));
    let text = match secret_files::read_text(path, rule) {
        Ok(text) => text,
        Err(unusable) if unusable.is_missing() => {
            return Err(failed(
                "is missing. If this registry has run before, restore its key file from a backup: what it \
                 signed can only be continued with the same keys. For a new registry `proofmark key init` \
                 makes one"
                    .into(),
            ));
        }
        Err(unusable) => return Err(Failure::new(OPENING, unusable)),
    };
    // Serde's message may quote what it found; only its place is told.
    let document: Document<'_> = serde_json::from_str(&text).map_err(|error| {
        failed(format!(
            "line {}, column {} is not what `proofmark key init` writes",
            error.line(),
            error.column()
        ))
    })?;
    let key = |role: KeyRole, text: Option<&str>| {
        let text = text.ok_or_else(|| failed(format!("it has no {role} key")))?;
        let der = Zeroizing::new(STANDARD.decode(text).unwrap_or_default());
        SigningKey::from_pkcs8_der(&der)
            .map_err(|_| failed(format!("the {role} key is not an Ed25519 key as base64 of PKCS#8 DER")))
    };
    let summary = key(KeyRole::Summary, document.summary)?;
    let token = key(KeyRole::Token, document.token)?;
    let webhook = key(KeyRole::Webhook, document.webhook)?;
    let log = key(KeyRole::Log, document.log)?;
    match document.version {
        VERSION => {
            let attestation = key(KeyRole::Attestation, document.attestation)?;
            Ok(AnyForm { keys: Some(PrivateKeys([summary, attestation, token, webhook, log])), old: None })
        }
        FIRST_VERSION if document.attestation.is_none() => {
            Ok(AnyForm { keys: None, old: Some(Box::new([summary, token, webhook, log])) })
        }
        FIRST_VERSION => Err(failed("it has version 1 and an attestation key, which version 2 has".into())),
        other => Err(failed(format!("has version {other}; this build reads version {VERSION}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_file_round_trips_is_private_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/keys.json");
        let made = init(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path, SecretFileMode::Refuse).unwrap().public(), made);
        assert!(init(&path).unwrap_err().chain().contains("never overwritten"));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
        let written = directory.path().join("public.json");
        std::fs::write(&written, public_document(&made).unwrap().to_string()).unwrap();
        assert_eq!((public(&path).unwrap(), public(&written).unwrap()), (made.clone(), made));
    }

    #[test]
    fn a_key_file_of_the_first_form_is_refused_until_it_is_brought_over_with_its_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        let made = init(&path).unwrap();
        let mut old: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        old["version"] = 1.into();
        std::fs::write(&path, old.to_string()).unwrap();
        assert!(upgrade(&path).is_err(), "version 1 has no attestation key");
        old.as_object_mut().unwrap().remove("attestation");
        std::fs::write(&path, old.to_string()).unwrap();
        let Err(refused) = read(&path, SecretFileMode::Refuse) else { panic!("it was read") };
        assert!(refused.chain().contains("proofmark key upgrade"), "{}", refused.chain());
        assert!(upgrade(&path).unwrap() && !upgrade(&path).unwrap());
        let now = read(&path, SecretFileMode::Refuse).unwrap().public();
        for role in KeyRole::ALL {
            assert_eq!(now[&role] == made[&role], role != KeyRole::Attestation, "{role}");
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_broken_key_file_is_refused_without_telling_what_stood_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        std::fs::write(&path, r#"{"version":1,"summary":"hunter2","secret":"hunter2"}"#).unwrap();
        let Err(failure) = read(&path, SecretFileMode::Warn) else { panic!("it was read") };
        let said = failure.chain();
        assert!(said.contains("line 1") && !said.contains("hunter2"), "{said}");
    }
}
