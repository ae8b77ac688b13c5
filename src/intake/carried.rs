//! What a pushed manifest carries about another one: bundles and envelopes as referrers, cosign's
//! older tags, and documents with nothing to verify.

use super::PushManifest;
use crate::access::{Grant, Push};
use crate::attestation::{self, Carrier, Known, Received};
use crate::content::{self, Repository, blobs};
use crate::failure::Failure;
use crate::names::{Digest, MediaType, Tag};
use crate::postgres::{Db, Scopes};
use crate::storage::{Room, Store};
use bytes::Bytes;
use serde::Deserialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// The attestations of a manifest that is about to be pushed. They are parsed before the transaction,
/// since what they say decides which scopes it takes.
pub(super) struct Carried {
    subject: Digest,
    received: Vec<Received>,
    /// Why there is nothing to verify, where that is so.
    opaque: Option<String>,
}

/// Signatures of one act at the most: each may be tried with every registered key.
pub(super) const MAX_SIGNATURES: usize = 1000;

/// From where a pushed manifest's attestations are read, and how much of them.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The object store.
    pub store: &'a Store,
    /// The memory that there is for them and for other documents.
    pub room: &'a Room,
    /// Bytes of all of them together.
    pub document_bytes: u64,
}

#[derive(Default, Deserialize)]
struct Layers {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: MediaType,
    digest: Digest,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Carried {
    /// Reads the layers that are attestations, together no more than the bounds. `None` when the
    /// manifest refers to nothing. Layers that are missing are the push's to refuse.
    pub(super) async fn read(
        db: &Db,
        reading: Reading<'_>,
        grant: &Grant<Push>,
        push: &PushManifest,
    ) -> Result<Option<Self>, Failure> {
        let mut layers = layers(&push.manifest.body);
        layers.retain(|layer| Received::is_layer(&layer.media_type));
        let by_tag = || push.tags.iter().find_map(subject_of_tag).filter(|_| !layers.is_empty());
        let Some(subject) = push.manifest.subject.clone().or_else(by_tag) else { return Ok(None) };
        let mut carried = Self { subject, received: Vec::new(), opaque: None };
        if layers.is_empty() {
            let kind = push.manifest.effective_artifact_type().map_or("unknown type", MediaType::as_str);
            carried.opaque = Some(format!("nothing in an artifact of {kind} is verified here"));
            return Ok(Some(carried));
        }
        let mut connection = db.pool().acquire().await.map_err(Failure::from)?;
        let Some(repository) = content::repository(&mut connection, grant.repository()).await? else {
            return Ok(None);
        };
        let (mut left_bytes, mut left_signatures) = (reading.document_bytes, MAX_SIGNATURES);
        for layer in layers {
            let Some(blob) = blobs::find(&mut connection, repository.id, &layer.digest).await? else {
                continue;
            };
            let Some(bytes) = blob.read_whole(reading.store, reading.room, left_bytes).await? else {
                carried.opaque = Some(format!(
                    "its layers have more than the {} bytes that are read",
                    reading.document_bytes
                ));
                continue;
            };
            left_bytes -= bytes.len() as u64;
            let Some(one) = Received::layer(&layer.media_type, &layer.annotations, bytes) else { continue };
            let Some(left) = left_signatures.checked_sub(one.signatures()) else {
                carried.opaque =
                    Some(format!("its layers have more than the {MAX_SIGNATURES} signatures that are tried"));
                continue;
            };
            left_signatures = left;
            carried.received.push(one);
        }
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

/// The layers of a manifest that was parsed already; an index has none.
fn layers(body: &Bytes) -> Vec<Layer> {
    serde_json::from_slice::<Layers>(body).unwrap_or_default().layers
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
