//! Trust files as they are written: `{"signed": {...}, "signatures": [{"keyid", "sig"}]}`. Each signature is
//! over DSSE's PAE of the canonical JSON (RFC 8785) of `signed`, so that jq shows what is signed and nothing beside
//! it is believed.

use super::dsse::pae;
use super::private::PublicKey;
use super::root::RootKey;
use super::trust::{KeyRole, Root, TRUST_FORMAT, Trust, TrustedKey, TrustedScheme};
use crate::failure::Failure;
use crate::json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// The payload type of what the root signs.
const PAYLOAD_TYPE: &str = "application/vnd.proofmark.trust+json";
/// Maximum bytes of a trust file.
pub const MAX_TRUST_BYTES: usize = 65_536;
/// Maximum keys of a role, and maximum signatures.
const MAX_KEYS: usize = 64;
/// Maximum bytes of a name.
const MAX_NAME: usize = 300;
/// Maximum nesting and maximum number of values of the document.
const BOUNDS: json::Bounds = json::Bounds { depth: 16, values: 8192 };

/// Why a trust file is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each is its own sentence")]
pub enum TrustRefused {
    #[error("a trust file has at most {MAX_TRUST_BYTES} bytes")]
    TooLarge,
    #[error("this is not a trust file: {0}")]
    Malformed(String),
    #[error(
        "this trust file is of the older form, which nobody signed: it is not used any more. Pin the registry's \
         signed one instead: proofmark trust pin --fingerprint FINGERPRINT (the registry's operator has it from \
         `proofmark key trust show`)"
    )]
    Unsigned,
    #[error("the trust file's format is {0:?}, and this build reads {TRUST_FORMAT:?}: use a newer proofmark")]
    OtherFormat(String),
    #[error(
        "version {version} of the trust file is signed by {have} of its own root keys, and {need} must sign it \
         (proofmark key trust sign adds a signature)"
    )]
    OwnRoot { version: u32, have: usize, need: usize },
    #[error(
        "version {version} of the trust file is signed by {have} of the root keys of version {before}, and {need} of \
         them must sign it: it was made without the root of the registry that is trusted here"
    )]
    EarlierRoot { version: u32, before: u32, have: usize, need: usize },
    #[error("the trust file's {what} is {found:?}, and {expected:?} is trusted: it is another registry's")]
    OtherRegistry { what: &'static str, found: String, expected: String },
    #[error(
        "the trust file is version {found}, and version {trusted} is trusted already: the registry went back to an \
         older one"
    )]
    Older { found: u32, trusted: u32 },
    #[error(
        "there are two trust files of version {version}: the one that is trusted has the digest {trusted}, and this \
         one {found}. One of them was not made by the registry's operator, or its root signed twice"
    )]
    Fork { version: u32, found: String, trusted: String },
    #[error(
        "the trust file is version {found}: version {next} comes first, which each one after it builds on"
    )]
    Gap { found: u32, next: u32 },
}

/// A trust file that is read and of which nothing is known yet: signatures may be missing.
#[derive(Clone, Debug)]
pub struct Draft {
    trust: Trust,
    /// As it was received, with members that this build does not know.
    signed: Value,
    canonical: Vec<u8>,
    signatures: BTreeMap<String, Vec<u8>>,
}

/// A trust file that its own root signed. Made only by [`Draft::complete`]. Whether that root is the right one is
/// decided by who has an earlier version, or compared the fingerprint.
#[derive(Clone, Debug)]
pub struct TrustFile(Draft);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    signed: Value,
    signatures: Vec<WrittenSignature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSignature {
    keyid: String,
    sig: String,
}

#[derive(Deserialize)]
struct Signed {
    version: u32,
    public_name: String,
    verifier_id: String,
    log_origin: String,
    issued_at: DateTime<Utc>,
    root: SignedRoot,
    keys: BTreeMap<String, Vec<SignedKey>>,
}

#[derive(Deserialize)]
struct SignedRoot {
    threshold: usize,
    keys: Vec<SignedKey>,
}

#[derive(Deserialize)]
struct SignedKey {
    key_id: String,
    scheme: String,
    public_key: String,
    valid_from: Option<DateTime<Utc>>,
    valid_until: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

fn malformed(why: impl Into<String>) -> TrustRefused {
    TrustRefused::Malformed(why.into())
}

impl Draft {
    /// What is to be signed.
    pub(super) fn new(trust: &Trust) -> Result<Self, Failure> {
        let signed = trust.written()?;
        Self::of(signed, BTreeMap::new()).map_err(|refused| Failure::new("making a trust file", refused))
    }

    /// Reads a trust file without asking who signed it.
    pub fn read(bytes: &[u8]) -> Result<Self, TrustRefused> {
        if bytes.len() > MAX_TRUST_BYTES {
            return Err(TrustRefused::TooLarge);
        }
        let document = |error: serde_json::Error| malformed(error.to_string());
        json::check(bytes, BOUNDS, json::Shape::Any).map_err(document)?;
        let value: Value = serde_json::from_slice(bytes).map_err(document)?;
        if value.get("signed").is_none() && value.get("verifier_id").is_some() {
            return Err(TrustRefused::Unsigned);
        }
        let written: Written = serde_json::from_value(value).map_err(document)?;
        if written.signatures.len() > MAX_KEYS {
            return Err(malformed(format!("it has more than {MAX_KEYS} signatures")));
        }
        let mut signatures = BTreeMap::new();
        for one in written.signatures {
            let bytes = STANDARD.decode(&one.sig).map_err(|_| malformed("a signature is not base64"))?;
            if signatures.insert(one.keyid.clone(), bytes).is_some() {
                return Err(malformed(format!("it has two signatures by {}", one.keyid)));
            }
        }
        Self::of(written.signed, signatures)
    }

    fn of(signed: Value, signatures: BTreeMap<String, Vec<u8>>) -> Result<Self, TrustRefused> {
        let document = |error: serde_json::Error| malformed(error.to_string());
        match signed.get("format").and_then(Value::as_str) {
            Some(TRUST_FORMAT) => {}
            Some(other) => return Err(TrustRefused::OtherFormat(other.chars().take(80).collect())),
            None => return Err(malformed("it names no format")),
        }
        let canonical = serde_json_canonicalizer::to_vec(&signed).map_err(document)?;
        let trust = serde_json::from_value::<Signed>(signed.clone()).map_err(document)?.trust()?;
        Ok(Self { trust, signed, canonical, signatures })
    }

    /// What it says; nothing of it is believed yet.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The file: JSON for people and jq.
    pub fn bytes(&self) -> Vec<u8> {
        let signatures: Vec<Value> = self
            .signatures
            .iter()
            .map(|(keyid, sig)| serde_json::json!({"keyid": keyid, "sig": STANDARD.encode(sig)}))
            .collect();
        let mut text = format!("{:#}", serde_json::json!({"signed": self.signed, "signatures": signatures}));
        text.push('\n');
        text.into_bytes()
    }

    /// The digest of what is signed. Two files of one content may differ in who has signed so far.
    pub fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(Sha256::digest(&self.canonical)))
    }

    fn message(&self) -> Vec<u8> {
        pae(PAYLOAD_TYPE, &self.canonical)
    }

    /// Adds the signature of a root key.
    pub fn sign(&mut self, key: &RootKey) {
        self.signatures.insert(key.public().id().to_owned(), key.sign(&self.message()));
    }

    /// Which keys of a root signed it. A key counts once: it is known by its own bytes, and the name that a
    /// signature gives it only says which key to try.
    pub fn signers(&self, root: &Root) -> BTreeSet<String> {
        let message = self.message();
        let signed = root.keys.iter().filter(|key| {
            self.signatures.get(key.id()).is_some_and(|signature| key.verifies(&message, signature))
        });
        signed.map(|key| key.id().to_owned()).collect()
    }

    /// Believes it as far as its own root goes.
    pub fn complete(self) -> Result<TrustFile, TrustRefused> {
        let (have, need) = (self.signers(&self.trust.root).len(), self.trust.root.threshold);
        if have < need {
            return Err(TrustRefused::OwnRoot { version: self.trust.version, have, need });
        }
        Ok(TrustFile(self))
    }

    /// Whether a build of this version would write all that it says.
    pub(super) fn is_known(&self) -> bool {
        let written =
            self.trust.written().ok().and_then(|signed| serde_json_canonicalizer::to_vec(&signed).ok());
        written.as_ref() == Some(&self.canonical)
    }
}

impl Deref for TrustFile {
    type Target = Draft;
    fn deref(&self) -> &Draft {
        &self.0
    }
}

impl PartialEq for TrustFile {
    /// The same content; who signed it beside those that it needed is no difference.
    fn eq(&self, other: &Self) -> bool {
        self.0.canonical == other.0.canonical
    }
}

impl TrustFile {
    /// Reads a trust file that its own root signed.
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustRefused> {
        Draft::read(bytes)?.complete()
    }

    /// What it says.
    pub fn trust(&self) -> &Trust {
        &self.0.trust
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.0.trust.version
    }

    /// Whether another file follows this one: `true` for the next version, signed by the roots of both; `false` for
    /// this one again. Everything else is refused: another registry's, an older one, another one of this version, one
    /// that leaves a version out, and one that too few keys of this one's root signed.
    pub fn is_followed_by(&self, next: &Self) -> Result<bool, TrustRefused> {
        let (old, new) = (self.trust(), next.trust());
        for (what, expected, found) in [
            ("public_name", &old.public_name, &new.public_name),
            ("verifier_id", &old.verifier_id, &new.verifier_id),
            ("log_origin", &old.log_origin, &new.log_origin),
        ] {
            if expected != found {
                let (found, expected) = (found.clone(), expected.clone());
                return Err(TrustRefused::OtherRegistry { what, found, expected });
            }
        }
        if new.version < old.version {
            return Err(TrustRefused::Older { found: new.version, trusted: old.version });
        }
        if new.version == old.version {
            return if self == next {
                Ok(false)
            } else {
                let (found, trusted) = (next.digest(), self.digest());
                Err(TrustRefused::Fork { version: old.version, found, trusted })
            };
        }
        if new.version - old.version > 1 {
            return Err(TrustRefused::Gap { found: new.version, next: old.version + 1 });
        }
        let (have, need) = (next.signers(&old.root).len(), old.root.threshold);
        if have < need {
            let (version, before) = (new.version, old.version);
            return Err(TrustRefused::EarlierRoot { version, before, have, need });
        }
        Ok(true)
    }
}

impl Signed {
    fn trust(self) -> Result<Trust, TrustRefused> {
        for (what, name) in [
            ("public_name", &self.public_name),
            ("verifier_id", &self.verifier_id),
            ("log_origin", &self.log_origin),
        ] {
            if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(malformed(format!("its {what} is not a name of visible ASCII characters")));
            }
        }
        if self.version == 0 {
            return Err(malformed("versions begin at 1"));
        }
        let mut seen = BTreeSet::new();
        let root = self.root.read(&mut seen)?;
        let mut keys = BTreeMap::new();
        for (role, written) in self.keys {
            at_most(&role, written.len())?;
            // A role that a newer build knows has keys that this one never uses.
            let Some(role) = KeyRole::parse(&role) else { continue };
            let mut of_role = Vec::new();
            for key in written {
                if let Some(public) = key.read(&mut seen)? {
                    of_role.push(key.trusted(&public, role)?);
                }
            }
            keys.insert(role, of_role);
        }
        Ok(Trust {
            version: self.version,
            public_name: self.public_name,
            verifier_id: self.verifier_id,
            log_origin: self.log_origin,
            issued_at: self.issued_at,
            root,
            keys,
        })
    }
}

fn at_most(role: &str, count: usize) -> Result<(), TrustRefused> {
    if count > MAX_KEYS {
        return Err(malformed(format!("it has more than {MAX_KEYS} keys of the role {role:.80}")));
    }
    Ok(())
}

impl SignedRoot {
    fn read(self, seen: &mut BTreeSet<String>) -> Result<Root, TrustRefused> {
        at_most("root", self.keys.len())?;
        let mut keys = Vec::new();
        for key in self.keys {
            keys.extend(key.read(seen)?);
        }
        if self.threshold == 0 || self.threshold > keys.len() {
            return Err(malformed(format!(
                "its root has the threshold {} and {} keys that can be read here",
                self.threshold,
                keys.len()
            )));
        }
        Ok(Root { threshold: self.threshold, keys })
    }
}

impl SignedKey {
    /// The key; none where its scheme is one of a newer build, which can verify nothing here. Each key stands once
    /// in the file, in one role, under its own id.
    fn read(&self, seen: &mut BTreeSet<String>) -> Result<Option<PublicKey>, TrustRefused> {
        if self.scheme != TrustedScheme::Ed25519.as_str() {
            return Ok(None);
        }
        let said = self.key_id.chars().take(80).collect::<String>();
        let key = PublicKey::from_pem(&self.public_key)
            .ok_or_else(|| malformed(format!("the key {said:?} is not an Ed25519 key as PEM")))?;
        if key.id() != self.key_id {
            return Err(malformed(format!("the key with the key_id {said:?} is {}", key.id())));
        }
        if !seen.insert(self.key_id.clone()) {
            return Err(malformed(format!("the key {said} stands in it twice")));
        }
        Ok(Some(key))
    }

    fn trusted(&self, key: &PublicKey, role: KeyRole) -> Result<TrustedKey, TrustRefused> {
        let valid_from = self
            .valid_from
            .ok_or_else(|| malformed(format!("the {role} key {} has no valid_from", key.id())))?;
        Ok(TrustedKey {
            key_id: self.key_id.clone(),
            scheme: TrustedScheme::Ed25519,
            public_key: self.public_key.clone(),
            valid_from,
            valid_until: self.valid_until,
            revoked_at: self.revoked_at,
        })
    }
}

#[cfg(test)]
#[path = "signed_tests.rs"]
mod tests;
