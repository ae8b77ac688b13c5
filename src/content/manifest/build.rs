//! Manifests that the registry writes itself: pure functions of what they hold, so that the same
//! act twice is one manifest.

use super::{Manifest, OCI_IMAGE, ParsedManifest, Stored, TITLE, put_manifest};
use crate::access::Principal;
use crate::content::{PushRefused, Repository, blobs};
use crate::failure::Failure;
use crate::names::{Algorithm, Digest, MediaType};
use crate::storage::StoredBlob;
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::time::Duration;

/// The config's type where there is nothing to configure: OCI's empty descriptor, the blob `{}`.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A layer of a manifest that the registry writes.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The digest of its bytes, which are linked to the repository before it is stored.
    pub digest: Digest,
    /// How many they are.
    pub size_bytes: u64,
    /// Its media type.
    pub media_type: MediaType,
    /// Annotations of the layer, such as the file's name.
    pub annotations: BTreeMap<String, String>,
}

/// An artifact that the registry writes.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its type.
    pub artifact_type: MediaType,
    /// Its layers, in order.
    pub layers: Vec<Layer>,
    /// What it refers to: media type, digest and size.
    pub subject: Option<(MediaType, Digest, i64)>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// The manifest.
    pub fn manifest(&self) -> Result<ParsedManifest, Failure> {
        ParsedManifest::parse(self.body()?.into(), Some(OCI_IMAGE), Algorithm::Sha256, usize::MAX)
            .map_err(|error| Failure::new("reading the manifest just written", error))
    }

    /// Its bytes: RFC 8785 canonical JSON, nothing in it but what is given.
    pub(super) fn body(&self) -> Result<Vec<u8>, Failure> {
        let mut document = json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "artifactType": self.artifact_type,
            "config": descriptor(EMPTY, StoredBlob::empty_json().digest(), 2),
            "layers": self.layers.iter().map(Layer::descriptor).collect::<Vec<_>>(),
        });
        if let Some((media_type, digest, size_bytes)) = &self.subject {
            document["subject"] = json!({"mediaType": media_type, "digest": digest, "size": size_bytes});
        }
        if !self.annotations.is_empty() {
            document["annotations"] = json!(self.annotations);
        }
        serde_json_canonicalizer::to_vec(&document).map_err(|error| Failure::new("writing a manifest", error))
    }
}

impl Layer {
    fn descriptor(&self) -> Value {
        let mut descriptor = descriptor(self.media_type.as_str(), &self.digest, self.size_bytes);
        if !self.annotations.is_empty() {
            descriptor["annotations"] = json!(self.annotations);
        }
        descriptor
    }
}

fn descriptor(media_type: &str, digest: &Digest, size_bytes: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size_bytes})
}

/// Evidence about a manifest, to be kept beside it.
#[derive(Clone, Debug)]
pub struct Attachment<'a> {
    /// What it is about.
    pub subject: &'a Manifest,
    /// What it is.
    pub artifact_type: MediaType,
    /// Its bytes, each with its media type and the name that clients write them to; linked to the
    /// repository before.
    pub layers: Vec<(StoredBlob, MediaType, &'a str)>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// The manifest that keeps evidence.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The manifest.
    pub manifest: ParsedManifest,
    /// Whether the repository had it before.
    pub stored: Stored,
}

/// Builds the OCI manifest that refers to the subject, and stores it in the caller's transaction,
/// which holds the repository's scope, has linked the layers and appends the event. A pure function
/// of its input, so attaching the same again gives the same digest and changes nothing.
pub async fn attach(
    connection: &mut PgConnection,
    repository: &Repository,
    principal: &Principal,
    attachment: Attachment<'_>,
) -> Result<Attached, Failure> {
    let subject = attachment.subject;
    let layer = |(blob, media_type, name): (StoredBlob, _, &str)| Layer {
        digest: blob.digest().clone(),
        size_bytes: blob.size_bytes(),
        media_type,
        annotations: BTreeMap::from([(TITLE.to_owned(), name.to_owned())]),
    };
    let artifact = Artifact {
        artifact_type: attachment.artifact_type,
        layers: attachment.layers.into_iter().map(layer).collect(),
        subject: Some((subject.media_type.clone(), subject.digest.clone(), subject.size_bytes)),
        annotations: attachment.annotations,
    };
    let manifest = artifact.manifest()?;
    link_empty_config(connection, repository).await?;
    match put_manifest(connection, repository, principal, &manifest).await {
        Ok(stored) => Ok(Attached { manifest, stored }),
        Err(PushRefused::Failed(failure)) => Err(failure),
        // The layers were linked by the caller in this transaction; nothing else can be missing.
        Err(refused) => Err(Failure::new("attaching a manifest", refused)),
    }
}

/// Links the blob `{}`, the config of every artifact that the registry writes.
pub async fn link_empty_config(
    connection: &mut PgConnection,
    repository: &Repository,
) -> Result<(), Failure> {
    // Long enough for this transaction; from then on the manifest holds it.
    const GRACE: Duration = Duration::from_hours(1);
    blobs::link(connection, repository.id, &StoredBlob::empty_json(), GRACE).await?;
    Ok(())
}
