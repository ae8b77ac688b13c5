//! Views: a repository as an environment sees it. Read only; each question is evaluated now, as the
//! deployer's is, and writes nothing.

use super::attached::Views;
use super::evaluate::{self, Evaluation};
use super::resolve::{NoKnownGood, Purpose, Question, known_good};
use super::store::{environments, promotions, views as store};
use crate::access::{Grant, Lane, View};
use crate::content::blobs::Blob;
use crate::content::{self, AttachedTag};
use crate::failure::Failure;
use crate::names::{Digest, Reference, Tag};
use crate::policy::reasons;
use crate::postgres::Db;
use sqlx::PgConnection;
use std::collections::{BTreeSet, VecDeque};

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
    /// A tag that is kept for signatures, attestations and SBOMs of what is served names something that could run.
    #[error(
        "{what} belongs to what is served in {}, but is no signature, attestation or SBOM: its layers must have their \
         media types and be text, and an index must list only referrers that cannot run", lane.environment
    )]
    NotADocument {
        /// What was asked for.
        what: String,
        /// Where.
        lane: Lane,
    },
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What a reference names in the view: `current` is the known-good version, other tags are versions that
/// were promoted (or that a promoted index holds), and a digest is that of a promoted manifest, of one that
/// it holds, or of one that refers to it: its signatures, its SBOM.
///
/// Clients that ask for no referrers find the same documents under `sha256-<hex>.sig`, `.att`, `.sbom` and
/// `sha256-<hex>`: these tags answer while the view serves the manifest of that digest, and so does the digest of what
/// they name now. They answer by name only and are not listed: no verifier looks for them in the list, and a client
/// that takes the newest of the listed tags must find versions there and nothing else.
pub async fn view(
    views: Views<'_>,
    grant: &Grant<View, Lane>,
    reference: &Reference,
) -> Result<Digest, NotShown> {
    let lane = grant.scope();
    let never = || NotShown::NeverPromoted { what: reference.to_string(), lane: lane.clone() };
    if matches!(reference, Reference::Tag(tag) if tag.as_str() == CURRENT) {
        return current(views.db, grant).await;
    }
    let mut snapshot = views.db.snapshot().await?;
    let (digest, shown) = match reference {
        Reference::Tag(tag) => {
            let version = promotions::digest_of_version(&mut snapshot, &lane.repository, tag).await?;
            let shown = match &version {
                Some(digest) => shown(views, &mut snapshot, lane, digest, true).await?,
                None => Shown::No,
            };
            match (version, AttachedTag::read(tag)) {
                (Some(digest), _) if !matches!(shown, Shown::No) => (digest, shown),
                (_, Some(attached)) => {
                    let found = content::find(&mut snapshot, &grant.of_repository(), reference).await?;
                    let digest = found.ok_or_else(never)?.digest;
                    let shown = by_tag(views, &mut snapshot, lane, tag, &digest, &attached.subject).await?;
                    (digest, shown)
                }
                (_, None) => return Err(never()),
            }
        }
        Reference::Digest(_) => {
            // By any digest of the bytes: the one that they are stored under was promoted.
            let found = content::find(&mut snapshot, &grant.of_repository(), reference).await?;
            let digest = found.ok_or_else(never)?.digest;
            let shown = shown(views, &mut snapshot, lane, &digest, false).await?;
            (digest, shown)
        }
    };
    drop(snapshot);
    let not_a_document = || NotShown::NotADocument { what: reference.to_string(), lane: lane.clone() };
    match shown {
        Shown::No => Err(never()),
        Shown::NotADocument => Err(not_a_document()),
        Shown::NotGood(reasons) => Err(NotShown::NotGood { lane: lane.clone(), reasons }),
        Shown::Yes { unread } if !views.are_text(&unread).await? => Err(not_a_document()),
        Shown::Yes { .. } => Ok(match reference {
            Reference::Digest(requested) => requested.clone(),
            Reference::Tag(_) => digest,
        }),
    }
}

/// The known-good version, by the same evaluation as the deployers' question.
async fn current(db: &Db, grant: &Grant<View, Lane>) -> Result<Digest, NotShown> {
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

/// What the view says of a manifest.
enum Shown {
    /// Nothing of what it belongs to was promoted.
    No,
    /// A tag for documents names it, and it could be something else.
    NotADocument,
    /// It may not run, or what it belongs to, for these reasons.
    NotGood(Vec<String>),
    /// It is shown if these layers are text.
    Yes { unread: Vec<Blob> },
}

/// Manifests that are evaluated for one question: a signature of a signature of an image is as deep as it gets in
/// practice.
const MAX_EVALUATED: usize = 12;

/// Evaluates the digest, or what it belongs to where it is no image itself: by its subject, or by a tag.
async fn shown(
    views: Views<'_>,
    connection: &mut PgConnection,
    lane: &Lane,
    digest: &Digest,
    by_tag: bool,
) -> Result<Shown, Failure> {
    let mut next = VecDeque::from([(digest.clone(), Vec::new())]);
    let mut seen = BTreeSet::from([digest.clone()]);
    let mut refused = None;
    for _ in 0..MAX_EVALUATED {
        let Some((of, unread)) = next.pop_front() else { break };
        let mut above = Vec::new();
        match evaluate::digest(connection, lane, &of, by_tag).await? {
            Evaluation::Found(found, _) if found.is_allowed() => return Ok(Shown::Yes { unread }),
            Evaluation::Found(found, _) => {
                refused.get_or_insert_with(|| reasons(&found.status.gates));
            }
            // A document that an index holds beside its images is shown while the index is.
            Evaluation::NotAnImage(index) if index != of && !by_tag => above.push((index, Vec::new())),
            Evaluation::NotAnImage(_) | Evaluation::NeverPromoted => {
                if store::is_blocked(connection, lane, &of).await? {
                    refused.get_or_insert_with(|| vec![format!("not_blocked: {of} is blocked")]);
                } else if !by_tag {
                    // A tag names a version; what only refers to one, or lies in it, is read by digest.
                    let subject = store::subject_of(connection, lane, &of).await?;
                    above.extend(subject.map(|subject| (subject, Vec::new())));
                    let attached = views.attached(connection, lane, &of).await?;
                    above.extend(attached.into_iter().map(|one| (one.subject, one.unread)));
                }
            }
        }
        for (digest, layers) in above {
            if seen.insert(digest.clone()) {
                next.push_back((digest, unread.iter().cloned().chain(layers).collect()));
            }
        }
    }
    Ok(refused.map_or(Shown::No, Shown::NotGood))
}

/// What the view says of a manifest under a tag for documents: it must be one, and the view must serve the manifest
/// that the tag is made of.
async fn by_tag(
    views: Views<'_>,
    connection: &mut PgConnection,
    lane: &Lane,
    tag: &Tag,
    digest: &Digest,
    subject: &Digest,
) -> Result<Shown, Failure> {
    let Some(repository) = content::repository(connection, &lane.repository).await? else {
        return Ok(Shown::No);
    };
    let Some(subject) = content::known(connection, repository.id, subject).await? else {
        return Ok(Shown::No);
    };
    let mut unread = match shown(views, connection, lane, &subject, false).await? {
        Shown::Yes { unread } => unread,
        not @ (Shown::No | Shown::NotADocument | Shown::NotGood(_)) => return Ok(not),
    };
    if store::is_blocked(connection, lane, digest).await? {
        return Ok(Shown::NotGood(vec![format!("not_blocked: {digest} is blocked")]));
    }
    let layers = views.document(connection, lane, tag, digest, &subject).await?;
    Ok(layers.map_or(Shown::NotADocument, |layers| {
        unread.extend(layers);
        Shown::Yes { unread }
    }))
}

/// A page of the view's tags, sorted, behind `last`, and whether more follow: `current` where there is a
/// known-good version, and the versions that were promoted and are still good. Each is judged, so a page
/// is short; it may hold fewer names than were asked for, and the next begins behind `read_to`.
pub async fn view_tags(
    views: Views<'_>,
    grant: &Grant<View, Lane>,
    last: &str,
    limit: usize,
) -> Result<ViewTags, NotShown> {
    let lane = grant.scope();
    let mut connection = views.db.acquire().await?;
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
        match view(views, grant, &Reference::Tag(tag.clone())).await {
            Ok(_) => tags.push(tag),
            Err(
                NotShown::NeverPromoted { .. } | NotShown::NotADocument { .. } | NotShown::NotGood { .. },
            ) => {}
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

/// Of these, manifests whose layers are read for it.
const MAX_READ_FOR_A_BLOB: usize = 10;

/// Whether a manifest that the view shows now names the blob.
pub async fn view_has_blob(
    views: Views<'_>,
    grant: &Grant<View, Lane>,
    digest: &Digest,
) -> Result<bool, Failure> {
    let lane = grant.scope();
    let mut snapshot = views.db.snapshot().await?;
    let manifests = store::promoted_with_blob(&mut snapshot, lane, digest, MAX_MANIFESTS_OF_A_BLOB).await?;
    let mut to_read = Vec::new();
    for manifest in manifests {
        match shown(views, &mut snapshot, lane, &manifest, false).await? {
            Shown::Yes { unread } if unread.is_empty() => return Ok(true),
            Shown::Yes { unread } if to_read.len() < MAX_READ_FOR_A_BLOB => to_read.push(unread),
            Shown::Yes { .. } | Shown::No | Shown::NotADocument | Shown::NotGood(_) => {}
        }
    }
    drop(snapshot);
    for unread in to_read {
        if views.are_text(&unread).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
