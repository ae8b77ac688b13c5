//! Verifying: from an envelope to a statement that a known key signed.

use super::envelope::{Envelope, Material};
use super::statement::{Statement, Unreadable};
use crate::trust::PublicKey;
use std::cell::LazyCell;
use std::collections::BTreeSet;

/// Known keys signed exactly these bytes, and this is what they say. Made only here. Whether a key
/// is trusted for it is another question, judged when it is read.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    content: T,
    keys: BTreeSet<usize>,
}

impl<T> Verified<T> {
    /// What was signed.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// Which of the known keys signed it, by their place in what [`verify`] was given.
    pub fn keys(&self) -> impl Iterator<Item = usize> {
        self.keys.iter().copied()
    }
}

/// Why an envelope proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// An empty list of signatures.
    #[error("it has no signature")]
    NoSignature,
    /// Signed with a certificate.
    #[error("it is signed with a certificate, and certificates of keyless signing are not verified here yet")]
    Certificate,
    /// No known key verifies any signature.
    #[error("no registered key verifies its signature")]
    UnknownKey,
    /// A known key signed something that is not read here.
    #[error("{0}")]
    Foreign(String),
    /// A known key signed something that cannot be read.
    #[error("{0}")]
    Malformed(String),
}

impl From<Unreadable> for Unproved {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Malformed(why) => Self::Malformed(why),
            Unreadable::Foreign(why) => Self::Foreign(why),
        }
    }
}

/// Verifies first, then reads. Hints are not asked: every key may try every signature, and a key
/// counts once, however many signatures it made.
pub fn verify(envelope: &Envelope, keys: &[&PublicKey]) -> Result<Verified<Statement>, Unproved> {
    verify_read(envelope, keys, || Statement::read(&envelope.payload))
}

/// The same for what may have been read before.
pub(super) fn verify_read<T>(
    envelope: &Envelope,
    keys: &[&PublicKey],
    read: impl FnOnce() -> Result<T, Unreadable>,
) -> Result<Verified<T>, Unproved> {
    let keys = signed_by(envelope, keys).keys;
    if keys.is_empty() {
        return Err(why_not(envelope));
    }
    Ok(Verified { content: read()?, keys })
}

/// What some keys make of an envelope's signatures.
#[derive(Default)]
pub(super) struct Signed {
    /// The places of the keys that signed it.
    pub(super) keys: BTreeSet<usize>,
    /// Whether it has a signature that none of them made: another key may have.
    pub(super) waits: bool,
}

/// Holds every signature against every key.
pub(super) fn signed_by(envelope: &Envelope, keys: &[&PublicKey]) -> Signed {
    let message = LazyCell::new(|| envelope.message());
    let mut signed = Signed::default();
    for (at, signature) in envelope.signatures.iter().enumerate() {
        if signature.material == Material::Certificate {
            continue;
        }
        let Some(made_by) = keys.iter().find(|key| envelope.is_made_by(at, key, || &**message)) else {
            signed.waits = true;
            continue;
        };
        // Two signers may have one key, where an earlier version allowed it: the signature is of both.
        let same = |key: &&PublicKey| (key.id(), key.scheme()) == (made_by.id(), made_by.scheme());
        signed.keys.extend(keys.iter().enumerate().filter(|(_, key)| same(key)).map(|(place, _)| place));
    }
    signed
}

/// Why an envelope that no known key signed proves nothing.
pub(super) fn why_not(envelope: &Envelope) -> Unproved {
    match envelope.signatures.as_slice() {
        [] => Unproved::NoSignature,
        all if all.iter().all(|signature| signature.material == Material::Certificate) => {
            Unproved::Certificate
        }
        _ => Unproved::UnknownKey,
    }
}
