//! Deleting manifests and tags: a right of its own, and never what something holds.

use super::referrers::subject_of_tag;
use super::store::{manifests, pins};
use super::{DeleteRefused, Holder, Repository, repositories, tags};
use crate::access::{Delete, Grant, Principal};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, Reference, RepositoryName, Tag};
use crate::postgres::{Db, Generation, Scopes, Tx, act, agreed_time, constraint};
use serde_json::json;
use sqlx::PgConnection;

/// Deletes a tag, or a manifest with the tags that name it; nothing on a refusal. A write-once name
/// is hidden and stays reserved for its digest, a floating one gets a deletion as its last row.
pub async fn delete(db: &Db, grant: &Grant<Delete>, reference: &Reference) -> Result<(), DeleteRefused> {
    act(|| attempt(db, grant, reference)).await
}

/// One transaction: the repository's scope, the manifest, its tags by name, the event.
async fn attempt(db: &Db, grant: &Grant<Delete>, reference: &Reference) -> Result<(), DeleteRefused> {
    let mut tx = db.begin().await?;
    let repository = repositories::repository(&mut tx, grant.repository()).await?;
    let repository = repository.ok_or(DeleteRefused::Unknown)?;
    Scopes::push(repository.id).lock(&mut tx).await?;
    let principal = grant.principal();
    let (kind, digest, tags, facts) = match reference {
        Reference::Tag(tag) => {
            let digest = delete_tag(&mut tx, &repository, principal, tag).await?;
            (Kind::TagDeleted, digest, vec![tag.clone()], json!({"tag": tag}))
        }
        Reference::Digest(digest) => {
            let known = super::known(&mut tx, repository.id, digest).await?;
            let digest = known.ok_or(DeleteRefused::Unknown)?;
            let tags = delete_manifest(&mut tx, &repository, principal, &digest).await?;
            let facts = json!({"tags": tags});
            (Kind::ManifestDeleted, digest, tags, facts)
        }
    };
    let at = agreed_time(&mut tx).await?;
    let event = Event {
        kind,
        at,
        principal,
        repository: Some((repository.id, &repository.name)),
        environment: None,
        digest: Some(&digest),
        facts,
        changes: changes(&repository.name, &digest, &tags),
    };
    ledger::append(&mut tx, event).await?;
    tx.commit().await.map_err(|error| Failure::new("deleting", error))?;
    Ok(())
}

/// What goes with a manifest, or with names of it.
pub(super) fn changes<'a>(
    repository: &RepositoryName,
    digest: &Digest,
    tags: impl IntoIterator<Item = &'a Tag>,
) -> Vec<Generation> {
    let tags = tags.into_iter().map(|tag| Generation::tag(repository, tag));
    tags.chain([Generation::bytes(digest)]).collect()
}

/// Lets go of the name; returns what it named by then, read under its lock.
async fn delete_tag(
    connection: &mut PgConnection,
    repository: &Repository,
    principal: &Principal,
    tag: &Tag,
) -> Result<Digest, DeleteRefused> {
    // A signature that clients find by its tag alone is lost with the tag.
    if let Some(subject) = subject_of_tag(tag) {
        let pinned = belongs_to(connection, repository.id, &[subject]).await?;
        if !pinned.is_empty() {
            return Err(DeleteRefused::Held(pinned));
        }
    }
    let current = pins::current_in(connection, repository.id, tag).await?;
    if !current.is_empty() {
        let holders = current.into_iter().map(|environment| Holder::Current { environment });
        return Err(DeleteRefused::Held(holders.collect()));
    }
    tags::remove(connection, repository, principal, tag, None).await?.ok_or(DeleteRefused::Unknown)
}

/// Locks the manifest first: pushes, promotions and indexes that lock it before are then seen, and
/// those that come after find it gone.
async fn delete_manifest(
    tx: &mut Tx,
    repository: &Repository,
    principal: &Principal,
    digest: &Digest,
) -> Result<Vec<Tag>, DeleteRefused> {
    if !manifests::lock(tx, repository.id, digest).await? {
        return Err(DeleteRefused::Unknown);
    }
    let holders = holders(tx, repository.id, digest).await?;
    if !holders.is_empty() {
        return Err(DeleteRefused::Held(holders));
    }
    let mut gone = Vec::new();
    for name in tags::tags_of(tx, repository.id, digest).await? {
        // One that floated away meanwhile names another manifest now, and stays.
        if tags::remove(tx, repository, principal, &name.tag, Some(digest)).await?.is_some() {
            gone.push(name.tag);
        }
    }
    match manifests::delete(tx, repository.id, digest).await {
        Ok(subject) => {
            tx.raise(subject.iter().map(Generation::bytes));
            Ok(gone)
        }
        Err(error) => match constraint(&error).filter(|_| is_foreign_key(&error)) {
            Some(name) => Err(DeleteRefused::Held(vec![Holder::Reference(name.to_owned())])),
            None => Err(Failure::new("deleting a manifest", error).into()),
        },
    }
}

fn is_foreign_key(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

/// What holds the manifest now: its own pins, the indexes that list it, and the pins of what it belongs
/// to: a subject's evidence and an index's children stay with it.
pub async fn holders(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Vec<Holder>, Failure> {
    let pinned = pins::open(connection, repository_id, digest).await?;
    let listed = pins::parents(connection, repository_id, digest).await?;
    let pinned = pinned.into_iter().map(|pin| Holder::Pin { reason: pin.reason, until: pin.until });
    let mut holders: Vec<Holder> = pinned.chain(listed.into_iter().map(Holder::Index)).collect();
    let names = tags::tags_of(connection, repository_id, digest).await?;
    let mut from: Vec<Digest> = names.iter().filter_map(|name| subject_of_tag(&name.tag)).collect();
    from.extend(pins::above(connection, repository_id, digest).await?);
    holders.extend(belongs_to(connection, repository_id, &from).await?);
    Ok(holders)
}

/// The pins of these manifests and of all that they belong to.
async fn belongs_to(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
) -> Result<Vec<Holder>, Failure> {
    if digests.is_empty() {
        return Ok(Vec::new());
    }
    let pinned = pins::open_above(connection, repository_id, digests).await?;
    let holder =
        |pin: pins::PinAbove| Holder::BelongsTo { digest: pin.digest, reason: pin.reason, until: pin.until };
    Ok(pinned.into_iter().map(holder).collect())
}
