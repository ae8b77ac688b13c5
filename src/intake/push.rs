//! Pushing a manifest, with the tags it claims or moves and the evidence it carries.

use super::carried::{Carried, Reading};
use super::platform::with_platform;
use crate::access::{Grant, Principal, Push};
use crate::attestation;
use crate::content::{self, Attached, Attachment, ParsedManifest, PushRefused, Repository, Stored};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, Tag};
use crate::postgres::{Db, Generation, Mode, Scopes, Tx, act, agreed_time};
use serde_json::json;
use std::collections::BTreeSet;

/// A manifest and the tags that are to name it: all of them, or nothing is pushed.
#[derive(Clone, Debug)]
pub struct PushManifest {
    /// The manifest, parsed, its digest checked against what the caller said.
    pub manifest: ParsedManifest,
    /// The tags; none is a push by digest alone.
    pub tags: BTreeSet<Tag>,
}

impl PushManifest {
    /// The scopes with that of the manifest, where it is given a name. An index that lists blobs
    /// takes its repository alone: none of them may become a manifest meanwhile.
    pub(super) fn with_names(&self, repository_id: i64, mut scopes: Scopes) -> Scopes {
        if self.manifest.lists_blobs() {
            scopes.repository = Some((repository_id, Mode::Exclusive));
        }
        if self.tags.is_empty() { scopes } else { scopes.naming(repository_id, &self.manifest.digest) }
    }
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Whether the repository had the manifest before.
    pub stored: Stored,
    /// The tags that name it only now.
    pub changed: Vec<Tag>,
}

/// Pushes in one transaction, tried once more when Postgres says that it lost a race. What the
/// manifest carries about another one is read first, within its bounds, and indexed with it.
pub async fn push_manifest(
    db: &Db,
    reading: Reading<'_>,
    grant: &Grant<Push>,
    push: &PushManifest,
) -> Result<Pushed, PushRefused> {
    let carried = Carried::read(db, reading, grant, push).await?;
    let manifest = with_platform(db, reading, grant, &push.manifest).await;
    let push = &PushManifest { manifest, tags: push.tags.clone() };
    act(|| attempt(db, grant, push, carried.as_ref())).await
}

async fn attempt(
    db: &Db,
    grant: &Grant<Push>,
    push: &PushManifest,
    carried: Option<&Carried>,
) -> Result<Pushed, PushRefused> {
    let mut tx = db.begin().await?;
    let scopes = |id| carried.map_or_else(|| Scopes::push(id), |carried| carried.scopes(id));
    let repository = enter(&mut tx, grant, |id| push.with_names(id, scopes(id))).await?;
    let pushed = push_within(&mut tx, grant, &repository, push).await?;
    if let Some(carried) = carried {
        carried.index(&mut tx, &repository, grant, &push.manifest.digest).await?;
    }
    tx.commit().await.map_err(|error| Failure::new("pushing a manifest", error))?;
    Ok(pushed)
}

/// The grant's repository under its scopes, with the rules read after the lock: no change of
/// rule can come between them and this transaction's end.
pub(super) async fn enter(
    tx: &mut Tx,
    grant: &Grant<Push>,
    scopes: impl FnOnce(i64) -> Scopes,
) -> Result<Repository, PushRefused> {
    let found = content::ensure_repository(tx, grant).await?;
    scopes(found.id).lock(tx).await?;
    let now = content::repository(tx, grant.repository()).await?;
    Ok(now.ok_or_else(|| Failure::new("pushing", "the repository has gone"))?)
}

/// Inside a transaction that entered the repository and linked what the manifest refers to: stores
/// the manifest, puts its tags, and appends the event. A push that changes nothing leaves no event; the first push of
/// somebody changes who its authors are.
pub(super) async fn push_within(
    tx: &mut Tx,
    grant: &Grant<Push>,
    repository: &Repository,
    push: &PushManifest,
) -> Result<Pushed, PushRefused> {
    let (manifest, principal) = (&push.manifest, grant.principal());
    let stored = content::put_manifest(tx, repository, principal, manifest).await?;
    let changed = content::put_tags(tx, repository, principal, &manifest.digest, &push.tags).await?;
    if stored == Stored::New {
        attestation::link_pushed(tx, repository.id, manifest).await?;
    }
    let new_author = content::note_author(tx, principal, manifest).await?;
    if stored == Stored::Known && changed.is_empty() && !new_author {
        return Ok(Pushed { stored, changed });
    }
    if stored == Stored::New {
        let new_bytes = manifest.body.len() as u64;
        if let Some(over) = content::over_quota(tx, repository, new_bytes).await? {
            return Err(over.into());
        }
    }
    note_pushed(tx, repository, principal, manifest, &changed).await?;
    Ok(Pushed { stored, changed })
}

/// The event of a manifest that was stored, or got names.
pub(super) async fn note_pushed(
    tx: &mut Tx,
    repository: &Repository,
    principal: &Principal,
    manifest: &ParsedManifest,
    tags: &[Tag],
) -> Result<(), Failure> {
    let event = Event {
        kind: Kind::ManifestPushed,
        at: agreed_time(tx).await?,
        principal,
        repository: Some((repository.id, &repository.name)),
        environment: None,
        digest: Some(&manifest.digest),
        facts: json!({
            "media_type": manifest.media_type,
            "artifact_type": manifest.effective_artifact_type(),
            "size_bytes": manifest.body.len(),
            "subject": manifest.subject,
            "tags": tags,
        }),
        changes: changes(repository, manifest, tags),
    };
    ledger::append(tx, event).await.map(|_| ())
}

/// The manifest, what it refers to, since that has one more referrer, and the names.
fn changes(repository: &Repository, manifest: &ParsedManifest, tags: &[Tag]) -> Vec<Generation> {
    let bytes = [&manifest.digest].into_iter().chain(&manifest.subject).map(Generation::bytes);
    bytes.chain(tags.iter().map(|tag| Generation::tag(&repository.name, tag))).collect()
}

/// Keeps evidence beside its subject, with the event of the manifest that does so, if it is new.
pub(super) async fn attach(
    tx: &mut Tx,
    repository: &Repository,
    principal: &Principal,
    attachment: Attachment<'_>,
) -> Result<Digest, Failure> {
    let Attached { manifest, stored } = content::attach(tx, repository, principal, attachment).await?;
    if stored == Stored::New {
        content::note_author(tx, principal, &manifest).await?;
        note_pushed(tx, repository, principal, &manifest, &[]).await?;
    }
    Ok(manifest.digest)
}
