//! The trust file: what a verifier pins once, names and public keys by role.

use crate::failure::Failure;
use crate::names::{EnvironmentName, RepositoryName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a key is for; a key never signs for another role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// Verification summaries.
    Summary,
    /// Checkpoints of the log.
    Log,
    /// Short-lived tokens.
    Token,
    /// Webhooks.
    Webhook,
}

impl KeyRole {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Summary, Self::Log, Self::Token, Self::Webhook];

    /// The role's name in files and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Log => "log",
            Self::Token => "token",
            Self::Webhook => "webhook",
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

/// The form of trust files that is written and read here.
pub const TRUST_VERSION: u32 = 1;

/// The trust file. Who has it, and has it from a place they trust, needs nothing else of the
/// registry to check what it signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The form of this document.
    pub version: u32,
    /// The registry as a verifier of artifacts: `verifier.id` of its summaries.
    pub verifier_id: String,
    /// The name of its transparency log.
    pub log_origin: String,
    /// The name that the resource URIs of its summaries begin with.
    pub public_name: String,
    /// Public keys, newest first.
    pub keys: BTreeMap<KeyRole, Vec<TrustedKey>>,
}

/// A public key with the time in which it signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedKey {
    /// SHA-256 of the SubjectPublicKeyInfo's DER, hexadecimal.
    pub key_id: String,
    /// How it signs.
    pub scheme: TrustedScheme,
    /// SubjectPublicKeyInfo as PEM.
    pub public_key: String,
    /// It signs nothing before this.
    pub valid_from: DateTime<Utc>,
    /// It signs nothing from here on; null while it is in force.
    pub valid_until: Option<DateTime<Utc>>,
}

/// How the registry's own keys sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrustedScheme {
    /// Pure Ed25519.
    Ed25519,
}

impl Trust {
    /// The role's key that signs now.
    pub fn in_force(&self, role: KeyRole) -> Option<&TrustedKey> {
        self.keys.get(&role)?.iter().find(|key| key.valid_until.is_none())
    }

    /// What names the registry in its store: its oldest key's id, which no other registry has. `None` without keys.
    pub fn owner(&self) -> Option<&str> {
        self.oldest().map(|key| key.key_id.as_str())
    }

    /// When the registry began: when its oldest key did.
    pub fn began(&self) -> Option<DateTime<Utc>> {
        self.oldest().map(|key| key.valid_from)
    }

    fn oldest(&self) -> Option<&TrustedKey> {
        self.keys.get(&KeyRole::Log)?.iter().min_by_key(|key| key.valid_from)
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
