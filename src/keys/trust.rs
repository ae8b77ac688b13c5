//! What a trust file says: the registry's names, its root keys, and its public keys by role.

use super::private::PublicKey;
use crate::failure::Failure;
use crate::names::{EnvironmentName, RepositoryName};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// What a key is for; a key never signs for another role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyRole {
    /// Verification summaries.
    Summary,
    /// What the registry attests itself.
    Attestation,
    /// Short-lived tokens.
    Token,
    /// Webhooks.
    Webhook,
    /// Checkpoints of the log.
    Log,
}

impl KeyRole {
    /// Every role, in order.
    pub const ALL: [Self; 5] = [Self::Summary, Self::Attestation, Self::Token, Self::Webhook, Self::Log];

    /// The role's name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Attestation => "attestation",
            Self::Token => "token",
            Self::Webhook => "webhook",
            Self::Log => "log",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The form of trust files that is written and read here. A member that older builds may not ignore gets a new
/// one; every other member that they do not know is ignored, and is under the signatures all the same.
pub const TRUST_FORMAT: &str = "proofmark-trust-v1";

/// What a trust file says. Who has one from a place they trust needs nothing else of the registry to check what it
/// signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Rises by one with each trust file of a registry.
    pub version: u32,
    /// The name that the resource URIs of its summaries begin with.
    pub public_name: String,
    /// The registry as a verifier of artifacts: `verifier.id` of its summaries.
    pub verifier_id: String,
    /// The name of its transparency log.
    pub log_origin: String,
    /// When the file was made.
    pub issued_at: DateTime<Utc>,
    /// Who signs trust files.
    pub root: Root,
    /// Public keys, newest first.
    pub keys: BTreeMap<KeyRole, Vec<TrustedKey>>,
}

/// The role root: so many of these keys sign a trust file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// How many.
    pub threshold: usize,
    /// Each a key of its own.
    pub keys: Vec<PublicKey>,
}

/// A public key with the time in which it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// SHA-256 of the SubjectPublicKeyInfo's DER, hexadecimal.
    pub key_id: String,
    /// How it signs.
    pub scheme: TrustedScheme,
    /// SubjectPublicKeyInfo as PEM.
    pub public_key: String,
    /// It signs nothing before this.
    pub valid_from: DateTime<Utc>,
    /// It signs nothing from here on.
    pub valid_until: Option<DateTime<Utc>>,
    /// Nothing that it signed is believed, whatever time that names: it was revoked then.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// How the registry's own keys sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedScheme {
    /// Pure Ed25519.
    Ed25519,
}

impl TrustedScheme {
    /// The scheme's name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
        }
    }
}

impl TrustedKey {
    /// A key that signs from a time on.
    pub fn new(key: &PublicKey, valid_from: DateTime<Utc>) -> Result<Self, Failure> {
        Ok(Self {
            key_id: key.id().to_owned(),
            scheme: TrustedScheme::Ed25519,
            public_key: key.pem()?,
            valid_from,
            valid_until: None,
            revoked_at: None,
        })
    }

    /// Whether it signs at a time.
    pub fn is_in_force(&self, at: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.valid_from <= at && self.valid_until.is_none_or(|end| at < end)
    }

    fn written(&self) -> Value {
        json!({
            "key_id": self.key_id,
            "scheme": self.scheme.as_str(),
            "public_key": self.public_key,
            "valid_from": time(self.valid_from),
            "valid_until": self.valid_until.map(time),
            "revoked_at": self.revoked_at.map(time),
        })
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

impl Trust {
    /// The role's keys that sign at a time.
    pub fn in_force(&self, role: KeyRole, at: DateTime<Utc>) -> impl Iterator<Item = &TrustedKey> {
        self.keys.get(&role).into_iter().flatten().filter(move |key| key.is_in_force(at))
    }

    /// What names the registry in its store: its oldest log key's id, which no other registry has. `None` without
    /// keys.
    pub fn owner(&self) -> Option<&str> {
        let keys = self.keys.get(&KeyRole::Log)?;
        keys.iter().min_by_key(|key| key.valid_from).map(|key| key.key_id.as_str())
    }

    /// What a summary for this repository in this environment is about: the environment's view, so
    /// that a summary for staging is none for prod.
    pub fn resource_uri(&self, environment: &EnvironmentName, repository: &RepositoryName) -> String {
        format!("{}/env/{environment}/{repository}", self.public_name)
    }

    /// The name of the summary's signed expiry: a field of ours in a predicate of others.
    pub fn valid_until_field(&self) -> String {
        valid_until_field(&self.verifier_id)
    }

    /// What people compare before they trust a registry: a digest of its name, its verifier id and its root. It
    /// changes only with the root.
    pub fn fingerprint(&self) -> Result<String, Failure> {
        let mut keys: Vec<&str> = self.root.keys.iter().map(PublicKey::id).collect();
        keys.sort_unstable();
        let root = json!({"threshold": self.root.threshold, "keys": keys});
        let said = json!({"public_name": self.public_name, "verifier_id": self.verifier_id, "root": root});
        let bytes = serde_json_canonicalizer::to_vec(&said)
            .map_err(|error| Failure::new("making the fingerprint of a root", error))?;
        Ok(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
    }

    /// The document that is signed.
    pub(super) fn written(&self) -> Result<Value, Failure> {
        let root = self.root.keys.iter().map(|key| {
            Ok(json!({"key_id": key.id(), "scheme": TrustedScheme::Ed25519.as_str(), "public_key": key.pem()?}))
        });
        let root = root.collect::<Result<Vec<Value>, Failure>>()?;
        let keys: BTreeMap<&str, Vec<Value>> = self
            .keys
            .iter()
            .map(|(role, keys)| (role.as_str(), keys.iter().map(TrustedKey::written).collect()))
            .collect();
        Ok(json!({
            "format": TRUST_FORMAT,
            "version": self.version,
            "public_name": self.public_name,
            "verifier_id": self.verifier_id,
            "log_origin": self.log_origin,
            "issued_at": time(self.issued_at),
            "root": {"threshold": self.root.threshold, "keys": root},
            "keys": keys,
        }))
    }
}

/// The name of the signed expiry in the summaries of a verifier.
pub fn valid_until_field(verifier_id: &str) -> String {
    format!("{verifier_id}/valid_until")
}

/// The name of the time at which a result was signed: a field of ours in its predicate.
pub fn signed_at_field(verifier_id: &str) -> String {
    format!("{verifier_id}/signed_at")
}

/// The names that an identity is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) public_name: String,
    pub(super) verifier_id: String,
    pub(super) log_origin: String,
}

impl Names {
    /// Names from a host with an optional port and path. They are written once and stay, whatever
    /// address or URL the service has later.
    pub(super) fn of(public_name: &str) -> Result<Self, Failure> {
        let name = public_name.trim_end_matches('/');
        let visible = name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:/[]".contains(&b));
        if name.is_empty() || name.len() > 200 || !visible || name.contains("//") {
            return Err(Failure::new(
                "naming the registry",
                format!(
                    "{public_name:?} cannot be the registry's public name: PROOFMARK_PUBLIC_NAME is a host \
                     with an optional port and path, such as registry.example"
                ),
            ));
        }
        Ok(Self {
            public_name: name.to_owned(),
            verifier_id: format!("https://{name}/proofmark"),
            log_origin: format!("{name}/log"),
        })
    }

    /// Those that a trust file states.
    pub(super) fn stated(trust: &Trust) -> Self {
        Self {
            public_name: trust.public_name.clone(),
            verifier_id: trust.verifier_id.clone(),
            log_origin: trust.log_origin.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_host_and_not_a_url() {
        let names = Names::of("registry.example:5000/").unwrap();
        assert_eq!(names.verifier_id, "https://registry.example:5000/proofmark");
        assert_eq!(names.log_origin, "registry.example:5000/log");
        for bad in ["", "https://registry.example", "a b", "registry.example/\n", "é.example"] {
            assert!(Names::of(bad).is_err(), "{bad}");
        }
    }
}
