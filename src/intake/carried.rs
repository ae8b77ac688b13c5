//! What a pushed manifest carries about another one: bundles and envelopes as referrers, cosign's
//! older tags, and documents with nothing to verify.

use super::PushManifest;
use super::brought::Brought;
use super::scan_statement::{ScanReading, ScanStatements};
use crate::access::{Grant, Push};
use crate::attestation::{self, Carrier, Known, Received, Through};
use crate::content::blobs::{self, Blob};
use crate::content::{self, PushRefused, Repository, StoredLayer};
use crate::cpu;
use crate::failure::Failure;
use crate::names::{Digest, MediaType, Tag};
use crate::postgres::{Db, Scopes, Tx};
use crate::storage::{OwnRoom, Store, Taken};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The attestations of a manifest that is about to be pushed. They are parsed before the transaction,
/// since what they say decides which scopes it takes.
pub(super) struct Carried {
    received: Arc<[Received]>,
    /// Of each, the manifest that carries it and what it is about.
    origins: Vec<Origin>,
    /// The reports of scanners among them.
    scans: ScanStatements,
    /// What the pushed manifest is about, and why there is nothing to verify, where that is so.
    opaque: Option<(Digest, String)>,
    /// Pending envelopes of the repository.
    max_pending: u32,
    /// Bytes of evidence of a repository without a quota.
    evidence_bytes: u64,
    /// The turn to read them.
    turn: Taken,
}

struct Origin {
    manifest: Digest,
    subject: Digest,
    blob: Digest,
}

/// A layer that is an attestation.
struct Layer {
    stored: StoredLayer,
    manifest: Digest,
    /// What it is about; of a bare statement the statement says it.
    subject: Option<Digest>,
}

/// Signatures of one act at the most: each may be tried with every registered key.
pub(super) const MAX_SIGNATURES: usize = 1000;

/// Documents beside the images of an index that are read with one push.
const MAX_DOCUMENTS: usize = 128;

/// From where a pushed manifest's attestations are read, and how much of them.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The object store.
    pub store: &'a Store,
    /// The memory that there is for them and for other documents.
    pub room: &'a OwnRoom,
    /// Bytes of all of them together.
    pub document_bytes: u64,
    /// How reports of scanners among them are read.
    pub scans: ScanReading<'a>,
}

impl Carried {
    /// Reads the layers that are attestations, each once, together no more than the bounds. `None` when
    /// there are none and the manifest refers to nothing. Layers that are missing are the push's to refuse.
    /// No connection is held while bytes are read, and nothing is locked while signatures are verified.
    pub(super) async fn read(
        db: &Db,
        reading: Reading<'_>,
        grant: &Grant<Push>,
        push: &PushManifest,
    ) -> Result<Option<Self>, Failure> {
        let own = push.manifest.layers().map_err(|error| Failure::new("reading layers", error))?;
        let own = attestations_among(own);
        let by_tag = || push.tags.iter().find_map(subject_of_tag).filter(|_| !own.is_empty());
        let subject = push.manifest.subject.clone().or_else(by_tag);
        let opaque = subject.clone().filter(|_| own.is_empty()).map(|subject| {
            let kind = push.manifest.effective_artifact_type().map_or("unknown type", MediaType::as_str);
            (subject, format!("nothing in an artifact of {kind} is verified here"))
        });
        let mut layers = documents(db, grant, push).await?;
        layers.extend(Layer::of(own, &push.manifest.digest, subject.as_ref()));
        let turn = reading.room.take();
        let mut carried = Self {
            received: Arc::new([]),
            origins: Vec::new(),
            scans: ScanStatements::default(),
            opaque,
            max_pending: reading.scans.max_pending,
            evidence_bytes: reading.scans.evidence_bytes,
            turn,
        };
        if layers.is_empty() {
            return Ok(carried.opaque.is_some().then_some(carried));
        }
        let Some(located) = locate(db, grant, layers).await? else { return Ok(None) };
        carried.read_layers(reading, located, subject).await?;
        Known::try_beforehand(db, carried.received.clone()).await?;
        Ok(Some(carried))
    }

    async fn read_layers(
        &mut self,
        reading: Reading<'_>,
        located: Vec<(Layer, Blob)>,
        subject: Option<Digest>,
    ) -> Result<(), Failure> {
        let mut left_bytes = reading.document_bytes;
        let mut read = Vec::with_capacity(located.len());
        for (layer, blob) in located {
            let Some(bytes) = blob.read_whole(reading.store, reading.room, left_bytes).await? else {
                let why =
                    format!("its layers have more than the {} bytes that are read", reading.document_bytes);
                self.opaque = layer.subject.map(|subject| (subject, why)).or(self.opaque.take());
                continue;
            };
            left_bytes -= bytes.len() as u64;
            read.push((layer, bytes));
        }
        let waited = self.turn.wait_to_read(reading.document_bytes - left_bytes).await;
        waited.map_err(|full| Failure::new("waiting to read attestations", full))?;
        let parsed = parse(read, std::mem::replace(&mut self.turn, reading.room.take())).await?;
        self.turn = parsed.turn;
        if !parsed.all {
            let why = format!("its layers have more than the {MAX_SIGNATURES} signatures that are tried");
            self.opaque = subject.map(|subject| (subject, why)).or(self.opaque.take());
        }
        self.scans = ScanStatements::read(reading.scans, &parsed.received).await?;
        self.received = parsed.received.into();
        self.origins = parsed.origins;
        Ok(())
    }

    /// What the push that carries it locks.
    pub(super) fn scopes(&self, repository_id: i64) -> Scopes {
        if self.received.is_empty() {
            return Scopes::push(repository_id);
        }
        Received::scopes(&self.received, repository_id)
    }

    /// Indexes what is carried, in the push's transaction. Nothing is refused for who signed it: what no
    /// registered key signed is listed as that, and never counts. The last thing of the transaction.
    pub(super) async fn index(
        &self,
        tx: &mut Tx,
        repository: &Repository,
        grant: &Grant<Push>,
        manifest: &Digest,
    ) -> Result<(), PushRefused> {
        let (principal, through) = (grant.principal(), Through::Push);
        if let Some((subject, why)) = &self.opaque {
            let carrier = Carrier { repository, principal, manifest, subject, through };
            attestation::record_opaque(tx, carrier, why).await?;
        }
        if !self.received.is_empty() {
            let known = Known::read(tx, repository.id, self.max_pending, &self.received).await?;
            // In one order everywhere, since two pushes may carry the same envelopes.
            let mut received: Vec<_> = self.received.iter().zip(&self.origins).enumerate().collect();
            received.sort_by_key(|(_, (one, origin))| (one.digest(), &origin.subject));
            let mut brought = Brought::default();
            for (place, (one, Origin { manifest, subject, blob })) in received {
                let carrier = Carrier { repository, principal, manifest, subject, through };
                let recorded = attestation::record(tx, carrier, one, &known).await?;
                self.scans.record(tx, place, one, carrier, recorded.id).await?;
                brought.attestation(blob, one.body().len() as u64, &recorded);
            }
            if let Some(over) = brought.count(tx, repository.id, self.evidence_bytes).await? {
                return Err(over.into());
            }
        }
        Ok(())
    }
}

impl Layer {
    /// The layers of a manifest. Where nothing says what they are about, only bare statements do.
    fn of(
        layers: Vec<StoredLayer>,
        manifest: &Digest,
        subject: Option<&Digest>,
    ) -> impl Iterator<Item = Self> {
        let known = subject.is_some();
        let layers =
            layers.into_iter().filter(move |layer| known || Received::is_bare_statement(&layer.media_type));
        layers.map(move |stored| Self { stored, manifest: manifest.clone(), subject: subject.cloned() })
    }
}

/// The bare statements of the documents that an index lists beside its images, as far as they are not
/// recorded for the images that the index says they are about.
async fn documents(db: &Db, grant: &Grant<Push>, push: &PushManifest) -> Result<Vec<Layer>, Failure> {
    let children = push.manifest.children.iter();
    let named: BTreeSet<(&Digest, &Digest)> =
        children.filter_map(|child| Some((&child.digest, child.describes.as_ref()?))).collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let mut connection = db.acquire().await?;
    let Some(repository) = content::repository(&mut connection, grant.repository()).await? else {
        return Ok(Vec::new());
    };
    let mut layers = Vec::new();
    for (document, image) in named.into_iter().take(MAX_DOCUMENTS) {
        if attestation::is_carried(&mut connection, repository.id, document, image).await? {
            continue;
        }
        if let Some(stored) = content::manifest(&mut connection, repository.id, document).await? {
            let mut own = attestations_among(stored.layers()?);
            own.retain(|layer| Received::is_bare_statement(&layer.media_type));
            layers.extend(Layer::of(own, document, Some(image)));
        }
    }
    Ok(layers)
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
    layers: Vec<Layer>,
) -> Result<Option<Vec<(Layer, Blob)>>, Failure> {
    let mut connection = db.acquire().await?;
    let Some(repository) = content::repository(&mut connection, grant.repository()).await? else {
        return Ok(None);
    };
    let mut located = Vec::with_capacity(layers.len());
    for layer in layers {
        if let Some(blob) = blobs::find(&mut connection, repository.id, &layer.stored.digest).await? {
            located.push((layer, blob));
        }
    }
    Ok(Some(located))
}

/// What was parsed.
struct Parsed {
    received: Vec<Received>,
    origins: Vec<Origin>,
    /// Whether all have no more signatures than are tried.
    all: bool,
    turn: Taken,
}

/// Parses on a thread that may take its time, in its turn even where nobody waits for it any more. A bare
/// statement that says nothing of what it is about is left out.
async fn parse(layers: Vec<(Layer, Bytes)>, turn: Taken) -> Result<Parsed, Failure> {
    cpu::run("reading attestations", move || {
        let (mut received, mut origins, mut left, mut all) = (Vec::new(), Vec::new(), MAX_SIGNATURES, true);
        for (Layer { stored, manifest, subject }, bytes) in layers {
            let Some(one) = Received::layer(&stored.media_type, &stored.annotations, bytes) else { continue };
            let Some(subject) = subject.or_else(|| one.first_subject()) else { continue };
            // One without any has its cost too.
            match left.checked_sub(one.signatures().max(1)) {
                Some(less) => {
                    left = less;
                    received.push(one);
                    origins.push(Origin { manifest, subject, blob: stored.digest });
                }
                None => all = false,
            }
        }
        Parsed { received, origins, all, turn }
    })
    .await
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
