//! Views: a repository as an environment sees it. Read only; each question is evaluated now, as the
//! deployer's is, and writes nothing.

use super::evaluate::{self, Evaluation};
use super::resolve::{NoKnownGood, Purpose, Question, known_good};
use super::store::{environments, promotions, views as store};
use crate::access::{Grant, Lane, Pull};
use crate::content;
use crate::failure::Failure;
use crate::names::{Digest, Reference, Tag};
use crate::policy::reasons;
use crate::postgres::Db;
use sqlx::PgConnection;

/// The tag of a view that follows promotion: the known-good version.
pub const CURRENT: &str = "current";

/// Why a view does not show something.
#[derive(Debug, thiserror::Error)]
pub enum NotShown {
    /// There is no such environment, or no such repository.
    #[error("there is no view {lane}: the registry has no such {missing}")]
    NoView {
        /// What was asked for.
        lane: Lane,
        /// What there is not.
        missing: &'static str,
    },
    /// It was never promoted there.
    #[error("{what} was never promoted to {}", lane.environment)]
    NeverPromoted {
        /// What was asked for.
        what: String,
        /// Where.
        lane: Lane,
    },
    /// It was, and is not good any more; the reasons.
    #[error("it may not run in {} now: {}", lane.environment, reasons.join("; "))]
    NotGood {
        /// Where.
        lane: Lane,
        /// Why not.
        reasons: Vec<String>,
    },
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What a reference names in the view: `current` is the known-good version, other tags are versions that
/// were promoted (or that a promoted index holds), and a digest is that of a promoted manifest, of one that
/// it holds, or of one that refers to it: its signatures, its SBOM.
pub async fn view(db: &Db, grant: &Grant<Pull, Lane>, reference: &Reference) -> Result<Digest, NotShown> {
    let lane = grant.scope();
    let never = || NotShown::NeverPromoted { what: reference.to_string(), lane: lane.clone() };
    if matches!(reference, Reference::Tag(tag) if tag.as_str() == CURRENT) {
        return current(db, grant).await;
    }
    let mut snapshot = db.snapshot().await?;
    let (digest, by_tag) = match reference {
        Reference::Tag(tag) => {
            let digest = promotions::digest_of_version(&mut snapshot, &lane.repository, tag).await?;
            (digest.ok_or_else(never)?, true)
        }
        Reference::Digest(_) => {
            // By any digest of the bytes: the one that they are stored under was promoted.
            let found = content::find(&mut snapshot, &grant.of_repository(), reference).await?;
            (found.ok_or_else(never)?.digest, false)
        }
    };
    match shown(&mut snapshot, lane, &digest, by_tag).await? {
        None => Err(never()),
        Some(reasons) if reasons.is_empty() => Ok(match reference {
            Reference::Digest(requested) => requested.clone(),
            Reference::Tag(_) => digest,
        }),
        Some(reasons) => Err(NotShown::NotGood { lane: lane.clone(), reasons }),
    }
}

/// The known-good version, by the same evaluation as the deployers' question.
async fn current(db: &Db, grant: &Grant<Pull, Lane>) -> Result<Digest, NotShown> {
    let lane = grant.scope();
    let question = Question { purpose: Purpose::Deploy, platform: None, registry: "" };
    let never = || NotShown::NeverPromoted { what: lane.repository.to_string(), lane: lane.clone() };
    match known_good(db, grant, &question).await {
        Ok(good) => Ok(good.digest),
        Err(NoKnownGood::Failed(failure)) => Err(failure.into()),
        Err(NoKnownGood::UnknownEnvironment(_)) => {
            Err(NotShown::NoView { lane: lane.clone(), missing: "environment" })
        }
        Err(NoKnownGood::Because(candidates)) if candidates.is_empty() => Err(never()),
        Err(NoKnownGood::Because(candidates)) => Err(NotShown::NotGood {
            lane: lane.clone(),
            reasons: candidates.into_iter().flat_map(|candidate| candidate.reasons).collect(),
        }),
    }
}

/// Evaluates the digest, or what it refers to where it is no image itself. `None` where nothing of that was
/// promoted; no reasons where it is shown.
async fn shown(
    connection: &mut PgConnection,
    lane: &Lane,
    digest: &Digest,
    by_tag: bool,
) -> Result<Option<Vec<String>>, Failure> {
    let mut of = digest.clone();
    // A signature of a signature of an image is as deep as it gets in practice.
    for _ in 0..6 {
        match evaluate::digest(connection, lane, &of, by_tag).await? {
            Evaluation::Found(found, _) if found.is_allowed() => return Ok(Some(Vec::new())),
            Evaluation::Found(found, _) => return Ok(Some(reasons(&found.status.gates))),
            // A document that an index holds beside its images is shown while the index is.
            Evaluation::NotAnImage(index) if index != of && !by_tag => of = index,
            Evaluation::NotAnImage(_) | Evaluation::NeverPromoted => {
                if store::is_blocked(connection, lane, &of).await? {
                    return Ok(Some(vec![format!("not_blocked: {of} is blocked")]));
                }
                // A tag names a version; what only refers to one, or lies in it, is read by digest.
                match store::subject_of(connection, lane, &of).await? {
                    Some(subject) if !by_tag => of = subject,
                    Some(_) | None => return Ok(None),
                }
            }
        }
    }
    Ok(None)
}

/// A page of the view's tags, sorted, behind `last`, and whether more follow: `current` where there is a
/// known-good version, and the versions that were promoted and are still good. Each is judged, so a page
/// is short; it may hold fewer names than were asked for, and the next begins behind `read_to`.
pub async fn view_tags(
    db: &Db,
    grant: &Grant<Pull, Lane>,
    last: &str,
    limit: usize,
) -> Result<ViewTags, NotShown> {
    let lane = grant.scope();
    let mut connection = db.acquire().await?;
    let no_view = |missing| NotShown::NoView { lane: lane.clone(), missing };
    if environments::find(&mut connection, &lane.environment).await?.is_none() {
        return Err(no_view("environment"));
    }
    if content::repository(&mut connection, &lane.repository).await?.is_none() {
        return Err(no_view("repository"));
    }
    let asked = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut candidates = store::versions(&mut connection, lane, last, asked).await?;
    if CURRENT > last {
        candidates.retain(|tag| tag.as_str() != CURRENT);
        let at = candidates.partition_point(|tag| tag.as_str() < CURRENT);
        candidates.insert(at, CURRENT.parse().map_err(|error| Failure::new("naming a view's tag", error))?);
    }
    drop(connection);
    let more = candidates.len() > limit;
    candidates.truncate(limit);
    let read_to = candidates.last().cloned().filter(|_| more);
    let mut tags = Vec::with_capacity(candidates.len());
    for tag in candidates {
        match view(db, grant, &Reference::Tag(tag.clone())).await {
            Ok(_) => tags.push(tag),
            Err(NotShown::NeverPromoted { .. } | NotShown::NotGood { .. }) => {}
            Err(why @ (NotShown::NoView { .. } | NotShown::Failed(_))) => return Err(why),
        }
    }
    Ok(ViewTags { tags, read_to })
}

/// A page of a view's tags.
#[derive(Debug)]
pub struct ViewTags {
    /// The tags that answer now.
    pub tags: Vec<Tag>,
    /// Where the next page begins, when there is one.
    pub read_to: Option<Tag>,
}

/// Manifests that name one blob and are looked at for it.
const MAX_MANIFESTS_OF_A_BLOB: i64 = 100;

/// Whether a manifest that the view shows now names the blob.
pub async fn view_has_blob(db: &Db, grant: &Grant<Pull, Lane>, digest: &Digest) -> Result<bool, Failure> {
    let lane = grant.scope();
    let mut snapshot = db.snapshot().await?;
    let manifests = store::promoted_with_blob(&mut snapshot, lane, digest, MAX_MANIFESTS_OF_A_BLOB).await?;
    for manifest in manifests {
        if shown(&mut snapshot, lane, &manifest, false).await?.is_some_and(|reasons| reasons.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}
