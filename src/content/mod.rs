//! Content: repositories, uploads, blobs, manifests, tags, referrers, pins, collection of garbage.
//!
//! Knows what a repository holds and which names point where. Promises that a write-once name never
//! moves, that a manifest's blobs and children are there, and that what is pinned stays. Never
//! judges what content means: evidence and promotion are rooms below.

pub mod blobs;
mod catalog;
mod check;
mod collection;
mod deletes;
mod documents;
mod manifest;
mod pins;
mod quotas;
mod referrers;
mod refused;
mod repositories;
mod retention;
mod rules;
mod store;
mod tags;
pub mod uploads;

pub use catalog::{
    ArtifactCursor, ArtifactFilter, ArtifactRecord, RepositoryRecord, artifact, artifacts, repository_record,
    visible_repositories,
};
pub use check::{check_manifests, check_names, check_small_blobs, check_usage, manifests_page};
pub use collection::{
    Collected, Collection, CollectionRules, DeletedObjects, Garbage, GarbageCursor, Next, Why, garbage,
};
pub use deletes::{delete, holders};
pub use documents::{Texts, document_layers};
pub use manifest::{
    Artifact, Attached, Attachment, Bodies, Descriptor, Filename, Found, InvalidFilename, InvalidManifest,
    Layer, Manifest, OCI_IMAGE, OCI_INDEX, ParsedManifest, Stored, StoredLayer, TITLE, attach, config_fits,
    file_manifest, find, known, link_empty_config, manifest, note_author, platform_of_config, put_manifest,
};
pub use pins::{pin, promoted_to};
pub use quotas::{OverQuota, Usage, count_evidence, over_evidence_quota, over_quota, usage};
pub use referrers::{AttachedTag, REFERRERS_BYTES, Referrer, Referrers, referrers};
pub use refused::{DeleteRefused, Holder, PushRefused, ReserveRefused};
pub use repositories::{Repository, all_floating, ensure_repository, repository};
pub use retention::{
    Enforced, Expired, Expiry, Named, Planned, Retention, RetentionRule, expire, expired, next_enforced, plan,
};
pub use rules::{Change, PutRepository, Rules, put_repository};
pub use tags::{Holding, NameRecord, NamedBy, holding, list_tags, names, put_tags, reserve, tags_of};
pub use uploads::Uploads;
