//! Retention: what a repository keeps of its versions, and letting go of the rest.
//!
//! A plan says first what would go and why; only rules that are enforced take it. Each version goes in
//! a transaction of its own with all that belongs to it, under locks and looked at again: a tag, a pin
//! or a promotion that came meanwhile keeps it. Its blobs become garbage, which collection takes.
//!
//! Evidence goes with its version, except a FAILED and what is about another version too. Of superseded scan runs the
//! reports go. Only bytes go: what was stated and found stays in rows, and so do decisions.

mod family;
mod rules;

pub use rules::{Expired, Named, Retention, RetentionRule};

use super::referrers::subject_of_tag;
use super::store::{manifests, retention as store};
use super::{Holder, Repository, deletes, pins, repositories, tags};
use crate::access::Principal;
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, RepositoryName, Tag};
use crate::postgres::{Generation, Scopes, Tx, database_time};
use family::family;
use serde_json::json;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// A version that would go.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The manifest.
    pub digest: Digest,
    /// The tags that would be let go of with it; write-once names stay reserved for it.
    pub tags: BTreeSet<Tag>,
    /// Why no rule keeps it.
    pub why: Vec<String>,
    /// What goes with it: its referrers, and parts that nothing else needs.
    pub with: Vec<Digest>,
    /// What keeps it, whatever the rules say; nothing goes then.
    pub held_by: Vec<Holder>,
}

/// A repository with rules that are enforced.
#[derive(Clone, Debug)]
pub struct Enforced {
    /// The row's id.
    pub repository_id: i64,
    /// Its name.
    pub repository: RepositoryName,
    /// Its rules.
    pub retention: Retention,
}

/// What became of a version that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It went, with its family: so many manifests.
    Gone(usize),
    /// Something holds it.
    Held,
    /// What was judged has changed: it is to be judged anew.
    Changed,
}

/// The next repository whose retention is enforced, behind this one.
pub async fn next_enforced(connection: &mut PgConnection, after: i64) -> Result<Option<Enforced>, Failure> {
    store::next_enforced(connection, after).await
}

/// Superseded reports that are judged at once; the next run goes on.
const SUPERSEDED: i64 = 10_000;

/// The versions that the rules do not keep now, by digest, and where there are rules the reports of superseded scan
/// runs. The names of one repository are in memory while they are judged.
pub async fn expired(
    connection: &mut PgConnection,
    repository_id: i64,
    retention: &Retention,
) -> Result<BTreeMap<Digest, Expired>, Failure> {
    let now = database_time(connection).await?;
    let names = store::names(connection, repository_id).await?;
    let names = names.into_iter().filter(|named| subject_of_tag(&named.tag).is_none()).collect();
    let mut expired = retention.judge(names, now);
    if let Some(span) = retention.untagged_for {
        let before = now - span.delta();
        for untagged in store::untagged(connection, repository_id, before, None).await? {
            let why = format!(
                "no tag names it, no index lists it, it is of {} and {span} are kept",
                untagged.pushed_at.format("%Y-%m-%dT%H:%M:%SZ")
            );
            expired.insert(untagged.digest, Expired { why: vec![why], ..Expired::default() });
        }
    }
    if *retention != Retention::default() {
        for superseded in store::superseded(connection, repository_id, None, SUPERSEDED).await? {
            // It goes with its version.
            if !expired.contains_key(&superseded.manifest) {
                let why = format!("newer scan runs took the place of run {}", superseded.run);
                let report = Expired { why: vec![why], is_superseded_report: true, ..Expired::default() };
                expired.entry(superseded.report).or_insert(report);
            }
        }
    }
    Ok(expired)
}

/// What would happen to these: what goes with each, and what holds it. Changes nothing.
pub async fn plan(
    connection: &mut PgConnection,
    repository_id: i64,
    expired: impl IntoIterator<Item = (Digest, Expired)>,
) -> Result<Vec<Planned>, Failure> {
    let mut planned = Vec::new();
    for (digest, expired) in expired {
        let family = family(connection, repository_id, &digest).await?;
        let held_by = holding(&expired, family.holders);
        let with = family.members.into_keys().filter(|member| *member != digest).collect();
        planned.push(Planned { digest, tags: expired.tags, why: expired.why, with, held_by });
    }
    Ok(planned)
}

/// What holds it. That a version was promoted holds no report of a superseded run.
fn holding(expired: &Expired, mut holders: Vec<Holder>) -> Vec<Holder> {
    if expired.is_superseded_report {
        let of_promotion = |holder: &Holder| matches!(holder, Holder::BelongsTo { reason, .. } if pins::is_of_promotion(reason));
        holders.retain(|holder| !of_promotion(holder));
    }
    holders
}

/// Lets go of a version and its family, in the caller's transaction, unless something holds it or what
/// was judged has changed, however long ago that was. The order is that of every delete: the repository's
/// scope, the manifests by digest, their tags by name, the events.
pub async fn expire(
    tx: &mut Tx,
    enforced: &Enforced,
    digest: &Digest,
    expired: &Expired,
    by: &Principal,
) -> Result<Expiry, Failure> {
    Scopes::push(enforced.repository_id).lock(tx).await?;
    let repository = repositories::repository(tx, &enforced.repository).await?;
    let Some(repository) = repository else { return Ok(Expiry::Changed) };
    if store::retention(tx, repository.id).await?.as_ref() != Some(&enforced.retention) {
        return Ok(Expiry::Changed);
    }
    let seen = family(tx, repository.id, digest).await?;
    for member in seen.members.keys() {
        manifests::lock(tx, repository.id, member).await?;
    }
    // Again, behind the locks: what was tagged, listed, pinned or attached before them is seen now, and
    // what comes later finds them gone.
    let family = family(tx, repository.id, digest).await?;
    let own = family.members.get(digest).cloned().unwrap_or_default();
    let same = family.members.keys().eq(seen.members.keys());
    let unnamed = own.iter().all(|tag| expired.tags.contains(tag) || subject_of_tag(tag).is_some());
    let stands = stands(tx, enforced, digest, expired).await?;
    if expired.is_superseded_report && !(stands && unnamed) {
        // Nothing else rests on it.
        return Ok(Expiry::Held);
    }
    if !same || !unnamed || !stands {
        return Ok(Expiry::Changed);
    }
    if !holding(expired, family.holders).is_empty() {
        return Ok(Expiry::Held);
    }
    let members: Vec<Digest> = family.members.keys().cloned().collect();
    let mut named: Vec<(&Tag, &Digest)> = Vec::new();
    for (member, tags) in &family.members {
        named.extend(tags.iter().map(|tag| (tag, member)));
    }
    named.sort_unstable();
    let mut gone: BTreeMap<&Digest, Vec<&Tag>> = members.iter().map(|member| (member, Vec::new())).collect();
    for (tag, member) in named {
        if tags::remove(tx, &repository, by, tag, Some(member)).await?.is_some() {
            gone.entry(member).or_default().push(tag);
        }
    }
    let subjects = store::delete(tx, repository.id, &members).await?;
    tx.raise(subjects.iter().map(Generation::bytes));
    record(tx, &repository, (digest, &expired.why), &gone, by).await?;
    Ok(Expiry::Gone(members.len()))
}

/// Whether the version would be judged the same again: the names that the verdict rests on are what they
/// were, or still nothing names it.
async fn stands(
    connection: &mut PgConnection,
    enforced: &Enforced,
    digest: &Digest,
    expired: &Expired,
) -> Result<bool, Failure> {
    if expired.is_superseded_report {
        let found = store::superseded(connection, enforced.repository_id, Some(digest), 1).await?;
        return Ok(!found.is_empty());
    }
    if expired.names.is_empty() {
        let Some(span) = enforced.retention.untagged_for else { return Ok(false) };
        let before = database_time(connection).await? - span.delta();
        let found = store::untagged(connection, enforced.repository_id, before, Some(digest)).await?;
        return Ok(!found.is_empty());
    }
    let tags: Vec<Tag> = expired.rests_on().map(|named| named.tag.clone()).collect();
    let found = store::names_among(connection, enforced.repository_id, &tags).await?;
    let found: BTreeSet<Named> = found.into_iter().collect();
    Ok(expired.rests_on().all(|named| found.contains(named)))
}

/// An event for every manifest that went, with the tags that went with it, so that each one's story has
/// its end.
async fn record(
    tx: &mut Tx,
    repository: &Repository,
    (digest, why): (&Digest, &[String]),
    gone: &BTreeMap<&Digest, Vec<&Tag>>,
    by: &Principal,
) -> Result<(), Failure> {
    let at = database_time(tx).await?;
    for (member, tags) in gone {
        let facts = if *member == digest {
            json!({"tags": tags, "why": why})
        } else {
            json!({"tags": tags, "with": digest})
        };
        let event = Event {
            kind: Kind::ManifestExpired,
            at,
            principal: by,
            repository: Some((repository.id, &repository.name)),
            environment: None,
            digest: Some(member),
            facts,
            changes: deletes::changes(&repository.name, member, tags.iter().copied()),
        };
        ledger::append(tx, event).await?;
    }
    Ok(())
}
