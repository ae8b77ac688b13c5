//! Making trust files: the first, and each next one from the one before it.

use super::private::{PublicKey, PublicKeys};
use super::signed::{Draft, TrustFile};
use super::trust::{KeyRole, Names, Root, Trust, TrustedKey};
use crate::failure::Failure;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

const MAKING: &str = "making a trust file";

/// What the first trust file says.
#[derive(Debug)]
pub struct First<'a> {
    /// The registry's name, a host.
    pub public_name: &'a str,
    /// Who signs trust files.
    pub root: Root,
    /// The registry's public keys.
    pub keys: &'a PublicKeys,
    /// Since when they sign: now, or when a registry began that had no trust file.
    pub valid_from: DateTime<Utc>,
    /// Now.
    pub at: DateTime<Utc>,
}

impl First<'_> {
    /// The file, still without signatures.
    pub fn draft(self) -> Result<Draft, Failure> {
        let names = Names::of(self.public_name)?;
        let at = self.at.trunc_subsecs(0);
        let key = |key: &PublicKey| TrustedKey::new(key, self.valid_from.min(at));
        let keys = self.keys.iter().map(|(role, one)| Ok((*role, vec![key(one)?])));
        Draft::new(&Trust {
            version: 1,
            public_name: names.public_name,
            verifier_id: names.verifier_id,
            log_origin: names.log_origin,
            issued_at: at,
            root: self.root,
            keys: keys.collect::<Result<_, Failure>>()?,
        })
    }
}

/// What the next trust file changes.
#[derive(Debug)]
pub struct Next<'a> {
    /// The keys that sign from now on; those that differ take the place of the present ones.
    pub keys: Option<&'a PublicKeys>,
    /// How long the present ones go on beside them: while replicas are restarted with the new key file.
    pub overlap: TimeDelta,
    /// Ids of keys of which nothing is believed any more.
    pub revoked: &'a [String],
    /// Root keys that are new.
    pub added: Vec<PublicKey>,
    /// Ids of root keys that go.
    pub removed: &'a [String],
    /// How many root keys sign from now on.
    pub threshold: Option<usize>,
    /// Now.
    pub at: DateTime<Utc>,
}

impl Next<'_> {
    /// The file that follows, still without signatures: the roots of both sign it.
    pub fn draft(self, old: &TrustFile) -> Result<Draft, Failure> {
        let failed = |why: String| Failure::new(MAKING, why);
        if !old.is_known() {
            return Err(failed("a newer proofmark made the file before it: use that one".into()));
        }
        let at = self.at.trunc_subsecs(0);
        let mut trust = old.trust().clone();
        trust.version =
            trust.version.checked_add(1).ok_or_else(|| failed("it was the last version".into()))?;
        trust.issued_at = at;
        self.change_root(&mut trust.root)?;
        for (role, key) in self.keys.into_iter().flatten() {
            let keys = trust.keys.entry(*role).or_default();
            if keys.iter().any(|known| known.key_id == key.id()) {
                continue;
            }
            let end = at + self.overlap;
            for one in keys.iter_mut().filter(|one| one.valid_until.is_none_or(|until| until > end)) {
                one.valid_until = Some(end);
            }
            keys.insert(0, TrustedKey::new(key, at)?);
        }
        for id in self.revoked {
            let mut all = trust.keys.values_mut().flatten();
            let key = all.find(|key| key.key_id == *id);
            let key = key.ok_or_else(|| failed(format!("no key of it has the id {id}")))?;
            key.revoked_at.get_or_insert(at);
            key.valid_until = Some(key.valid_until.map_or(at, |end| end.min(at)));
        }
        if let Some(role) = KeyRole::ALL.into_iter().find(|role| trust.in_force(*role, at).next().is_none()) {
            return Err(failed(format!("no {role} key would be in force: give a new one with --keys")));
        }
        Draft::new(&trust)
    }

    fn change_root(&self, root: &mut Root) -> Result<(), Failure> {
        let failed = |why: String| Failure::new(MAKING, why);
        for id in self.removed {
            let before = root.keys.len();
            root.keys.retain(|key| key.id() != id);
            if root.keys.len() == before {
                return Err(failed(format!("no root key of it has the id {id}")));
            }
        }
        for key in &self.added {
            if root.keys.contains(key) {
                return Err(failed(format!("it has the root key {} already", key.id())));
            }
            root.keys.push(key.clone());
        }
        root.threshold = self.threshold.unwrap_or(root.threshold);
        if root.threshold == 0 || root.threshold > root.keys.len() {
            let (threshold, keys) = (root.threshold, root.keys.len());
            return Err(failed(format!(
                "{threshold} of {keys} root keys cannot sign: say another --threshold"
            )));
        }
        Ok(())
    }
}
