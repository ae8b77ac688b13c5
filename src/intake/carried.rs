//! What a pushed manifest carries about another one: bundles and envelopes as referrers, cosign's
//! older tags, and documents with nothing to verify.

use super::PushManifest;
use crate::access::{Grant, Push};
use crate::attestation::{self, Carrier, Known, Received};
use crate::content::blobs::{self, Blob};
use crate::content::{self, Repository, StoredLayer};
use crate::failure::Failure;
use crate::names::{Digest, MediaType, Tag};
use crate::postgres::{Db, Scopes};
use crate::storage::{OwnRoom, Store, Taken};
use bytes::Bytes;
use sqlx::PgConnection;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// The attestations of a manifest that is about to be pushed. They are parsed before the transaction,
/// since what they say decides which scopes it takes.
pub(super) struct Carried {
    subject: Digest,
    received: Arc<[Received]>,
    /// Why there is nothing to verify, where that is so.
    opaque: Option<String>,
    /// The turn to read them.
    turn: Taken,
}

/// Signatures of one act at the most: each may be tried with every registered key.
pub(super) const MAX_SIGNATURES: usize = 1000;

/// From where a pushed manifest's attestations are read, and how much of them.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The object store.
    pub store: &'a Store,
    /// The memory that there is for them and for other documents.
    pub room: &'a OwnRoom,
    /// Bytes of all of them together.
    pub document_bytes: u64,
}

impl Carried {
    /// Reads the layers that are attestations, each once, together no more than the bounds. `None` when
    /// the manifest refers to nothing. Layers that are missing are the push's to refuse. No connection is
    /// held while bytes are read, and nothing is locked while signatures are verified.
    pub(super) async fn read(
        db: &Db,
        reading: Reading<'_>,
        grant: &Grant<Push>,
        push: &PushManifest,
    ) -> Result<Option<Self>, Failure> {
        let layers = push.manifest.layers();
        let layers = attestations_among(layers.map_err(|error| Failure::new("reading layers", error))?);
        let by_tag = || push.tags.iter().find_map(subject_of_tag).filter(|_| !layers.is_empty());
        let Some(subject) = push.manifest.subject.clone().or_else(by_tag) else { return Ok(None) };
        let turn = reading.room.take();
        let mut carried = Self { subject, received: Arc::new([]), opaque: None, turn };
        if layers.is_empty() {
            let kind = push.manifest.effective_artifact_type().map_or("unknown type", MediaType::as_str);
            carried.opaque = Some(format!("nothing in an artifact of {kind} is verified here"));
            return Ok(Some(carried));
        }
        let Some(located) = locate(db, grant, layers).await? else { return Ok(None) };
        let mut left_bytes = reading.document_bytes;
        let mut read = Vec::with_capacity(located.len());
        for (layer, blob) in located {
            let Some(bytes) = blob.read_whole(reading.store, reading.room, left_bytes).await? else {
                carried.opaque = Some(format!(
                    "its layers have more than the {} bytes that are read",
                    reading.document_bytes
                ));
                continue;
            };
            left_bytes -= bytes.len() as u64;
            read.push((layer, bytes));
        }
        let bytes = reading.document_bytes - left_bytes;
        let waited = carried.turn.wait_to_read(bytes).await;
        waited.map_err(|full| Failure::new("waiting to read attestations", full))?;
        let (received, all);
        (received, all, carried.turn) = parse(read, carried.turn).await?;
        if !all {
            carried.opaque =
                Some(format!("its layers have more than the {MAX_SIGNATURES} signatures that are tried"));
        }
        carried.received = received;
        Known::try_beforehand(db, carried.received.clone()).await?;
        Ok(Some(carried))
    }

    /// What the push that carries it locks.
    pub(super) fn scopes(&self, repository_id: i64) -> Scopes {
        if self.received.is_empty() {
            return Scopes::push(repository_id);
        }
        Received::scopes(&self.received, repository_id)
    }

    /// Indexes what is carried, in the push's transaction. Nothing is refused here: what no
    /// registered key signed is listed as that, and never counts.
    pub(super) async fn index(
        &self,
        connection: &mut PgConnection,
        repository: &Repository,
        grant: &Grant<Push>,
        manifest: &Digest,
    ) -> Result<(), Failure> {
        let carrier = Carrier { repository, principal: grant.principal(), manifest, subject: &self.subject };
        if !self.received.is_empty() {
            let known = Known::read(connection, &self.received).await?;
            // In one order everywhere, since two pushes may carry the same envelopes.
            let mut received: Vec<&Received> = self.received.iter().collect();
            received.sort_by_key(|one| one.digest());
            for one in received {
                attestation::record(connection, carrier, one, &known).await?;
            }
        }
        match &self.opaque {
            Some(why) => attestation::record_opaque(connection, carrier, why).await,
            None => Ok(()),
        }
    }
}

/// The layers that are attestations, each once.
fn attestations_among(mut layers: Vec<StoredLayer>) -> Vec<StoredLayer> {
    let mut seen = BTreeSet::new();
    layers.retain(|layer| {
        let by = Received::told_apart_by(&layer.media_type, &layer.annotations);
        by.is_some_and(|by| seen.insert((layer.digest.clone(), by)))
    });
    layers
}

/// Where the layers' bytes lie, as far as the repository has them; `None` without a repository.
async fn locate(
    db: &Db,
    grant: &Grant<Push>,
    layers: Vec<StoredLayer>,
) -> Result<Option<Vec<(StoredLayer, Blob)>>, Failure> {
    let mut connection = db.acquire().await?;
    let Some(repository) = content::repository(&mut connection, grant.repository()).await? else {
        return Ok(None);
    };
    let mut located = Vec::with_capacity(layers.len());
    for layer in layers {
        if let Some(blob) = blobs::find(&mut connection, repository.id, &layer.digest).await? {
            located.push((layer, blob));
        }
    }
    Ok(Some(located))
}

/// Parses on a thread that may take its time, in its turn even where nobody waits for it any more; says whether
/// all have no more signatures than are tried.
async fn parse(
    layers: Vec<(StoredLayer, Bytes)>,
    turn: Taken,
) -> Result<(Arc<[Received]>, bool, Taken), Failure> {
    let parsed = spawn_blocking(move || {
        let (mut received, mut left, mut all) = (Vec::new(), MAX_SIGNATURES, true);
        for (layer, bytes) in layers {
            let Some(one) = Received::layer(&layer.media_type, &layer.annotations, bytes) else { continue };
            // One without any has its cost too.
            match left.checked_sub(one.signatures().max(1)) {
                Some(less) => {
                    left = less;
                    received.push(one);
                }
                None => all = false,
            }
        }
        (received.into(), all, turn)
    });
    parsed.await.map_err(|error| Failure::new("reading attestations", error))
}

/// `sha256-<hex>.sig` and `.att` are cosign's names for what is about `sha256:<hex>`.
fn subject_of_tag(tag: &Tag) -> Option<Digest> {
    let stem = tag.as_str().strip_suffix(".sig").or_else(|| tag.as_str().strip_suffix(".att"))?;
    stem.replacen('-', ":", 1).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosigns_tags_name_their_subject() {
        let hex = "a".repeat(64);
        let subject = |tag: String| subject_of_tag(&tag.parse().unwrap()).map(|digest| digest.to_string());
        assert_eq!(subject(format!("sha256-{hex}.sig")), Some(format!("sha256:{hex}")));
        assert_eq!(subject(format!("sha256-{hex}.att")), Some(format!("sha256:{hex}")));
        for other in
            [format!("sha256-{hex}"), format!("sha256-{hex}.sbom"), "v1.sig".into(), "sha256-ab.sig".into()]
        {
            assert_eq!(subject(other.clone()), None, "{other}");
        }
    }
}
