//! Storing a manifest, inside the caller's transaction.

use super::{Descriptor, ParsedManifest, parse};
use crate::access::Principal;
use crate::content::store::manifests as store;
use crate::content::{PushRefused, Repository};
use crate::failure::Failure;
use sqlx::PgConnection;
use std::collections::HashMap;

/// What storing a manifest did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The repository did not have it.
    New,
    /// It was there; it stays at least until this transaction ends.
    Known,
}

/// Levels of indexes in indexes at the most.
const MAX_NESTING: i32 = 4;

/// Stores the manifest in the repository, whose scope the caller holds: locks the links of its
/// blobs, then its children, each by digest, then inserts. A manifest that is there already is
/// locked against deletion; one that is deleted just then is inserted again, so that a tag put
/// afterwards in this transaction always points at something.
pub async fn put_manifest(
    connection: &mut PgConnection,
    repository: &Repository,
    principal: &Principal,
    parsed: &ParsedManifest,
) -> Result<Stored, PushRefused> {
    require_blobs(connection, repository, &parsed.blobs).await?;
    let children_bytes = require_children(connection, repository, &parsed.children).await?;
    require_apart(connection, repository, parsed).await?;
    let own_bytes = parsed.declared_size_bytes().unwrap_or(i64::MAX);
    let total_size_bytes = own_bytes.saturating_add(children_bytes);
    loop {
        if store::insert(connection, repository.id, principal.id, parsed, total_size_bytes).await? {
            return Ok(Stored::New);
        }
        if store::keep(connection, repository.id, &parsed.digest).await? {
            return Ok(Stored::Known);
        }
    }
}

/// Notes that the principal pushed these bytes: an author of them, here and in every other repository, and when they
/// are gone from all of them. Whether that is new.
pub async fn note_author(
    connection: &mut PgConnection,
    principal: &Principal,
    manifest: &ParsedManifest,
) -> Result<bool, Failure> {
    store::note_author(connection, &manifest.sha256, principal.id).await
}

/// Locks the links of the blobs, so that no collection takes them before the manifest refers to
/// them, and compares sizes.
async fn require_blobs(
    connection: &mut PgConnection,
    repository: &Repository,
    blobs: &[Descriptor],
) -> Result<(), PushRefused> {
    if blobs.is_empty() {
        return Ok(());
    }
    let found = store::keep_links(connection, repository.id, &digests(blobs)).await?;
    let sizes: HashMap<_, _> = found.into_iter().map(|row| (row.digest, row.size_bytes)).collect();
    let absent = |part: &&Descriptor| !part.may_be_absent && !sizes.contains_key(&part.digest);
    let missing: Vec<_> = blobs.iter().filter(absent).map(|part| part.digest.clone()).collect();
    if !missing.is_empty() {
        return Err(PushRefused::BlobsUnknown(missing));
    }
    compare_sizes(blobs, &sizes)
}

/// A runtime that finds no better entry takes one without a platform and asks for it as a manifest,
/// whatever the index calls it: so nothing is a manifest here and an index's blob at once. An index
/// that lists blobs is stored under its repository's exclusive scope, all others share it.
async fn require_apart(
    connection: &mut PgConnection,
    repository: &Repository,
    parsed: &ParsedManifest,
) -> Result<(), PushRefused> {
    let own = [parsed.digest.clone(), parsed.sha256.clone(), parsed.sha512.clone()];
    if let Some(index) = store::index_with_blob(connection, repository.id, &own).await? {
        return Err(PushRefused::ListedAsBlob { digest: parsed.digest.clone(), index });
    }
    if parsed.lists_blobs()
        && let Some(digest) = store::any_of(connection, repository.id, &digests(&parsed.blobs)).await?
    {
        return Err(PushRefused::ListedAsBlob { digest, index: parsed.digest.clone() });
    }
    Ok(())
}

/// Locks the children against deletion; returns what they add to the index's size beyond their own
/// bytes.
async fn require_children(
    connection: &mut PgConnection,
    repository: &Repository,
    children: &[Descriptor],
) -> Result<i64, PushRefused> {
    if children.is_empty() {
        return Ok(0);
    }
    let found = store::keep_manifests(connection, repository.id, &digests(children)).await?;
    let sizes: HashMap<_, _> = found.iter().map(|row| (row.digest.clone(), row.size_bytes)).collect();
    let absent = |part: &&Descriptor| !sizes.contains_key(&part.digest);
    let missing: Vec<_> = children.iter().filter(absent).map(|part| part.digest.clone()).collect();
    if !missing.is_empty() {
        return Err(PushRefused::ChildrenUnknown(missing));
    }
    compare_sizes(children, &sizes)?;
    let indexes: Vec<_> =
        found.iter().filter(|row| parse::is_index(&row.media_type)).map(|row| row.digest.clone()).collect();
    if !indexes.is_empty()
        && store::nesting(connection, repository.id, &indexes, MAX_NESTING).await? >= MAX_NESTING
    {
        return Err(PushRefused::NestedTooDeep(MAX_NESTING));
    }
    let beyond = found.iter().map(|row| row.total_size_bytes.saturating_sub(row.size_bytes));
    Ok(beyond.fold(0, i64::saturating_add))
}

fn compare_sizes(
    parts: &[Descriptor],
    sizes: &HashMap<crate::names::Digest, i64>,
) -> Result<(), PushRefused> {
    let differs = |part: &&Descriptor| sizes.get(&part.digest).is_some_and(|size| *size != part.size_bytes);
    match parts.iter().find(differs) {
        None => Ok(()),
        Some(part) => Err(PushRefused::SizeDiffers {
            digest: part.digest.clone(),
            declared_bytes: part.size_bytes,
            actual_bytes: sizes.get(&part.digest).copied().unwrap_or_default(),
        }),
    }
}

fn digests(parts: &[Descriptor]) -> Vec<crate::names::Digest> {
    parts.iter().map(|part| part.digest.clone()).collect()
}

impl From<sqlx::Error> for PushRefused {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(Failure::new("storing a manifest", error))
    }
}
