//! Views: a repository as an environment sees it. Read only; each question is judged now, as the
//! deployer's is, and writes nothing.

use super::facts::{self, Wanted};
use super::resolve::{self, NoKnownGood, Purpose, Question, known_good};
use super::store::{environments, promotions, views as store};
use crate::access::{Grant, Lane, Pull};
use crate::content;
use crate::failure::Failure;
use crate::names::{Digest, Reference, Tag};
use crate::policy::{Verdict, reasons};
use crate::postgres::Db;
use sqlx::PgConnection;
use std::sync::Arc;

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
    let mut connection = db.acquire().await?;
    let (digest, promotion) = match reference {
        Reference::Tag(tag) => {
            let digest = promotions::digest_of_version(&mut connection, &lane.repository, tag).await?;
            let digest = digest.ok_or_else(never)?;
            let (repository, environment) = (&lane.repository, &lane.environment);
            let promotion = promotions::carrying(&mut connection, repository, environment, &digest).await?;
            (digest, promotion)
        }
        Reference::Digest(_) => {
            // Whichever digest of the bytes is asked for: the one that they are stored under was promoted.
            let found = content::find(&mut connection, &grant.of_repository(), reference).await?;
            let digest = found.ok_or_else(never)?.digest;
            let promotion = store::promoted_with(&mut connection, lane, &digest).await?;
            (digest, promotion)
        }
    };
    match judge(&mut connection, lane, promotion, &digest).await? {
        None => Err(never()),
        Some(reasons) if reasons.is_empty() => Ok(match reference {
            Reference::Digest(asked) => asked.clone(),
            Reference::Tag(_) => digest,
        }),
        Some(reasons) => Err(NotShown::NotGood { lane: lane.clone(), reasons }),
    }
}

/// The known-good version, by the same judgement as the deployers' question.
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

/// Judges, today, the promotion that the digest came with. `None` where there is none; no reasons where it
/// is good.
async fn judge(
    connection: &mut PgConnection,
    lane: &Lane,
    promotion: Option<i64>,
    digest: &Digest,
) -> Result<Option<Vec<String>>, Failure> {
    if promotion.is_none() {
        return Ok(None);
    }
    let wanted =
        Wanted { repository: &lane.repository, environment: &lane.environment, digest: None, promotion };
    let Some(gathered) = facts::gather(connection, wanted).await? else { return Ok(None) };
    let release = Arc::clone(&gathered.release);
    let Some(promotion) = &release.promotion else { return Ok(None) };
    // An image of an index is judged for itself; the index, and what is no image, for all of it.
    let platforms = &gathered.facts.subject.platforms;
    let child = platforms.iter().find(|p| !p.is_document() && (p.digest == *digest || p.sha256 == *digest));
    let child = child.map(|platform| platform.digest.clone());
    let (_, standing) = resolve::judge(connection, promotion, gathered, child).await?;
    Ok(Some(match standing.verdict {
        Verdict::Allow => Vec::new(),
        Verdict::Deny | Verdict::Defer { .. } => reasons(&standing.gates),
    }))
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

/// Whether the blob is part of something that was promoted in the lane. Bytes alone are not judged: who
/// asks for them has the manifest that names them, which was.
pub async fn view_has_blob(db: &Db, grant: &Grant<Pull, Lane>, digest: &Digest) -> Result<bool, Failure> {
    let mut connection = db.acquire().await?;
    store::promoted_blob(&mut connection, grant.scope(), digest).await
}
