//! Tags: write-once names, and those that a repository's rules let float.

use super::store::tags as store;
use super::{PushRefused, Repository, ReserveRefused, repository};
use crate::access::{Administer, Grant, Principal};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, RepositoryName, Tag};
use crate::postgres::{Db, Generation, Scopes, act, agreed_time};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// Points the tags at the manifest, which the caller stored or locked in this transaction under the
/// repository's scope: all of them, or the caller rolls back. In the order of their names, so that
/// two pushes of the same names never wait for each other. Returns those that changed.
pub async fn put_tags(
    connection: &mut PgConnection,
    repository: &Repository,
    principal: &Principal,
    digest: &Digest,
    tags: &BTreeSet<Tag>,
) -> Result<Vec<Tag>, PushRefused> {
    let mut changed = Vec::new();
    for tag in tags {
        let floats = repository.floats(tag);
        if floats {
            // Before the look whether it is held: whoever reserves it holds this lock, too.
            store::lock_floating(connection, repository.id, tag).await?;
        }
        let moved = if floats && store::held(connection, repository.id, tag).await?.is_none() {
            float(connection, repository, principal, digest, tag).await?
        } else {
            claim(connection, repository, principal, digest, tag).await?
        };
        if moved {
            changed.push(tag.clone());
        }
    }
    Ok(changed)
}

/// What a name is held by in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nobody holds it; the next push claims it, for ever.
    Free,
    /// The rules let it move.
    Floating,
    /// It is held for this digest.
    Held {
        /// For ever.
        current: Digest,
        /// Whether it was deleted.
        hidden: bool,
    },
}

/// What the name is held by now.
pub async fn holding(
    connection: &mut PgConnection,
    repository: &Repository,
    tag: &Tag,
) -> Result<Holding, Failure> {
    Ok(match store::held(connection, repository.id, tag).await? {
        Some(held) => Holding::Held { current: held.digest, hidden: held.hidden },
        None if repository.floats(tag) => Holding::Floating,
        None => Holding::Free,
    })
}

/// Claims a write-once name, or finds it held: for the same digest is a success, which shows it
/// again if it was deleted; for another is refused.
async fn claim(
    connection: &mut PgConnection,
    repository: &Repository,
    principal: &Principal,
    digest: &Digest,
    tag: &Tag,
) -> Result<bool, PushRefused> {
    if store::claim(connection, repository.id, tag, digest, principal.id).await? {
        return Ok(true);
    }
    let held = store::held(connection, repository.id, tag).await?;
    let held = held.ok_or_else(|| Failure::new("claiming a tag", "it is held and is not there"))?;
    if held.digest != *digest {
        return Err(PushRefused::TagTaken { tag: tag.clone(), current: held.digest, hidden: held.hidden });
    }
    if !held.hidden {
        return Ok(false);
    }
    store::lock(connection, repository.id, tag).await?;
    Ok(store::set_hidden(connection, repository.id, tag, false, principal.id).await?)
}

/// Moves a floating name, which the caller locked; false when it is there already.
async fn float(
    connection: &mut PgConnection,
    repository: &Repository,
    principal: &Principal,
    digest: &Digest,
    tag: &Tag,
) -> Result<bool, Failure> {
    if store::floating(connection, repository.id, tag).await?.as_ref() == Some(digest) {
        return Ok(false);
    }
    store::float(connection, repository.id, tag, Some(digest), principal.id).await?;
    Ok(true)
}

/// Lets go of a name: hides it when it is write-once, else appends a deletion. Returns what it named
/// under its lock, `None` when that is nothing (any more). `only` deletes it only where it names this
/// digest.
pub(super) async fn remove(
    connection: &mut PgConnection,
    repository: &Repository,
    principal: &Principal,
    tag: &Tag,
    only: Option<&Digest>,
) -> Result<Option<Digest>, Failure> {
    let wanted = |digest: &Digest| only.is_none_or(|only| only == digest);
    store::lock_floating(connection, repository.id, tag).await?;
    if let Some(held) = store::held(connection, repository.id, tag).await? {
        if !wanted(&held.digest) {
            return Ok(None);
        }
        store::lock(connection, repository.id, tag).await?;
        let hidden = store::set_hidden(connection, repository.id, tag, true, principal.id).await?;
        return Ok(hidden.then_some(held.digest));
    }
    let current = store::floating(connection, repository.id, tag).await?.filter(wanted);
    if current.is_some() {
        store::float(connection, repository.id, tag, None, principal.id).await?;
    }
    Ok(current)
}

/// A tag that points at a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedBy {
    /// The tag.
    pub tag: Tag,
    /// Whether it is held for that digest for ever.
    pub write_once: bool,
}

/// The names that point at the manifest now, sorted.
pub async fn tags_of(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Vec<NamedBy>, Failure> {
    store::naming(connection, repository_id, digest).await
}

/// A page of the names that point at something, sorted, after `last`, one a line; `None` when there is no
/// such repository.
pub async fn list_tags(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    last: &str,
    limit: i64,
) -> Result<Option<String>, Failure> {
    store::page_shown(connection, repository, last, limit).await
}

/// A name as the repository keeps it, whether or not it names something now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRecord {
    /// The name.
    pub tag: Tag,
    /// What it names, or for a deleted one: what it stays reserved for.
    pub digest: Digest,
    /// Whether it is held for that digest for ever.
    pub write_once: bool,
    /// Whether it was deleted, or never shown: it names nothing now.
    pub deleted: bool,
    /// Since when it names that digest.
    pub since: DateTime<Utc>,
}

/// A page of all names that are held, sorted, after `last`: write-once ones, deleted or not, and floating
/// ones that point at something.
pub async fn names(
    connection: &mut PgConnection,
    repository_id: i64,
    last: &str,
    limit: i64,
) -> Result<Vec<NameRecord>, Failure> {
    let mut names = store::page_held(connection, repository_id, last, limit).await?;
    let floating = store::page_floating(connection, repository_id, last, limit).await?;
    names.extend(floating.into_iter().map(|row| NameRecord {
        tag: row.name,
        digest: row.digest,
        write_once: false,
        deleted: false,
        since: row.moved_at,
    }));
    names.sort_unstable_by(|one, other| one.tag.cmp(&other.tag));
    names.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(names)
}

/// Holds names for digests without showing them, as those that were deleted are held: whoever pushes such a
/// name must push that digest. So a registry that is rebuilt elsewhere gives no old name to new bytes. All or
/// nothing; a name that is held for its digest already stays as it is, and one that floats there stays shown.
/// Returns those that are held only now.
pub async fn reserve(
    db: &Db,
    grant: &Grant<Administer>,
    names: &BTreeMap<Tag, Digest>,
) -> Result<Vec<Tag>, ReserveRefused> {
    act(|| attempt_reservation(db, grant, names)).await
}

/// One transaction: the repository's scope, then each name in order, as a push takes them, and its event.
async fn attempt_reservation(
    db: &Db,
    grant: &Grant<Administer>,
    names: &BTreeMap<Tag, Digest>,
) -> Result<Vec<Tag>, ReserveRefused> {
    let mut tx = db.begin().await?;
    let found = repository(&mut tx, grant.repository()).await?.ok_or(ReserveRefused::Unknown)?;
    Scopes::push(found.id).lock(&mut tx).await?;
    let repository = repository(&mut tx, grant.repository()).await?.ok_or(ReserveRefused::Unknown)?;
    let mut reserved = Vec::new();
    for (tag, digest) in names {
        if reserve_one(&mut tx, &repository, grant.principal(), tag, digest).await? {
            reserved.push(tag.clone());
        }
    }
    for tag in &reserved {
        let event = Event {
            kind: Kind::TagReserved,
            at: agreed_time(&mut tx).await?,
            principal: grant.principal(),
            repository: Some((repository.id, &repository.name)),
            environment: None,
            digest: names.get(tag),
            facts: json!({"tag": tag}),
            // A mutable name of these bytes is a version now. Its reservation makes nobody their author: only
            // who pushes bytes is one.
            changes: [Generation::tag(&repository.name, tag)]
                .into_iter()
                .chain(names.get(tag).map(Generation::bytes))
                .collect(),
        };
        ledger::append(&mut tx, event).await?;
    }
    tx.commit().await.map_err(|error| Failure::new("reserving names", error))?;
    Ok(reserved)
}

/// Claims the name, whatever today's rules let move: a name once held write-once never does. It is hidden,
/// unless it shows that digest now. False when it is held for the digest already.
async fn reserve_one(
    connection: &mut PgConnection,
    repository: &Repository,
    principal: &Principal,
    tag: &Tag,
    digest: &Digest,
) -> Result<bool, ReserveRefused> {
    store::lock_floating(connection, repository.id, tag).await?;
    let floating = store::floating(connection, repository.id, tag).await?;
    if let Some(current) = &floating
        && current != digest
    {
        return Err(ReserveRefused::Taken { tag: tag.clone(), current: current.clone(), hidden: false });
    }
    if store::claim(connection, repository.id, tag, digest, principal.id).await? {
        if floating.is_none() {
            store::lock(connection, repository.id, tag).await?;
            store::set_hidden(connection, repository.id, tag, true, principal.id).await?;
        }
        return Ok(true);
    }
    let held = store::held(connection, repository.id, tag).await?;
    let held = held.ok_or_else(|| Failure::new("reserving a name", "it is held and is not there"))?;
    if held.digest == *digest {
        return Ok(false);
    }
    Err(ReserveRefused::Taken { tag: tag.clone(), current: held.digest, hidden: held.hidden })
}
