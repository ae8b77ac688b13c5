//! May what was promoted go on running? One evaluation for every interface: known-good, verify, views and the
//! artifact record ask it about a digest in a release channel. Nothing is written.

use super::answer::PromotedByOverride;
use super::facts::{self, Gathered, Promotion, Release, Wanted};
use super::store::promotions;
use crate::access::Lane;
use crate::failure::Failure;
use crate::names::{self, Digest};
use crate::policy::platforms::{self, Chosen};
use crate::policy::{
    Action, Case, Condition, Evidence, EvidenceKind, GateResult, Mode, Outcome, Platform, Policy, PolicySets,
    Position, Status, Verdict, evaluate_running, in_words, reasons,
};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Versions before the newest that an answer evaluates before it gives up, as a rollback does.
pub(super) const MAX_CANDIDATES: usize = 10;

/// Promotions that carry one digest and are evaluated for it, the newest first.
const MAX_CARRYING: i64 = 100;

/// A promoted version with its status.
pub(super) struct Evaluated {
    pub release: Arc<Release>,
    pub promotion: Promotion,
    pub policies: PolicySets,
    pub case: Case,
    pub position: Position,
    pub status: Status,
    /// A rollback went back over it: it is neither listed nor served by tag.
    pub skipped: bool,
    /// Several images fit the platform, and how to ask for one of them.
    several: Option<String>,
}

/// What a question is about, of an index: all of it, the image of a platform, or one image by its digest.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Whole,
    Platform(&'a names::Platform),
    Image(&'a Digest),
}

impl Evaluated {
    pub fn is_allowed(&self) -> bool {
        self.status.verdict == Verdict::Allow
    }

    fn skipped(&self) -> Skipped {
        let (promotion, reasons) = (self.promotion.clone(), reasons(&self.status.gates));
        let ended_by = &self.status.ended_by;
        let blocked = ended_by.contains(&Condition::Block) || ended_by.contains(&Condition::BlockOnChild);
        Skipped { promotion, reasons, named: false, blocked }
    }

    /// Only an image of it is blocked: it goes on for the other platforms.
    pub fn is_partly_blocked(&self) -> bool {
        self.status.ended_by == BTreeSet::from([Condition::BlockOnChild])
    }

    /// The same version and facts in another position.
    pub fn in_position(mut self, position: Position) -> Self {
        self.position = position;
        self.status = status(&self.policies, &self.case, &self.promotion, position);
        self.status.warnings.extend(self.several.clone());
        self
    }

    /// The same, named by a tag: what a rollback went back over runs by its digest only.
    fn by_tag(mut self) -> Self {
        if self.skipped && self.is_allowed() {
            let message =
                "a rollback went back over this version: its tag is not served, and what runs it by digest goes on".to_owned();
            self.status.verdict = Verdict::Deny;
            self.status.gates.push(never_promoted(message));
        }
        self
    }

    /// Whether platforms of the index have different answers.
    pub fn platforms_differ(&self) -> bool {
        let platforms = &self.case.facts.subject.platforms;
        let images: Vec<&Platform> = platforms.iter().filter(|platform| !platform.is_document()).collect();
        if images.len() < 2 {
            return false;
        }
        let blocked = platforms::blocked(&self.case.facts, self.case.at);
        let count = images.iter().filter(|image| blocked.contains(&image.sha256)).count();
        if count > 0 && count < images.len() {
            return true;
        }
        if images.len() > MAX_COMPARED {
            return false;
        }
        let mut case = self.case.clone();
        let mut verdicts = images.into_iter().map(|platform| {
            case.child = Some(platform.digest.clone());
            evaluate_running(&self.policies, &case, &self.promotion.recorded, self.position).verdict
        });
        let first = verdicts.next();
        verdicts.any(|verdict| Some(verdict) != first)
    }
}

/// Images of one index whose findings are compared; whether some are blocked is seen of any number.
const MAX_COMPARED: usize = 64;

/// Evaluates a promotion of the channel, its newest where none is named. `None` where there is none, or the
/// reason where it has no such part.
pub(super) async fn promoted(
    connection: &mut PgConnection,
    lane: &Lane,
    promotion: Option<i64>,
    part: Part<'_>,
    position: Option<Position>,
) -> Result<Option<Result<Evaluated, Missing>>, Failure> {
    promoted_with(connection, lane, promotion, part, position, None).await
}

/// The same, with the facts that another policy would look at.
async fn promoted_with(
    connection: &mut PgConnection,
    lane: &Lane,
    promotion: Option<i64>,
    part: Part<'_>,
    position: Option<Position>,
    also: Option<&Policy>,
) -> Result<Option<Result<Evaluated, Missing>>, Failure> {
    let Lane { repository, environment } = lane;
    let wanted = Wanted { repository, environment, digest: None, promotion, also };
    let Some(gathered) = facts::gather(connection, wanted).await? else { return Ok(None) };
    let release = Arc::clone(&gathered.release);
    let Some(promotion) = release.promotion.as_ref().map(|promotion| promotion.0.clone()) else {
        return Ok(None);
    };
    let chosen = match part {
        Part::Whole => Ok(None),
        Part::Platform(wanted) => child_for(wanted, &gathered),
        Part::Image(digest) => {
            image(digest, &gathered).map(|child| child.map(|digest| Chosen { digest, warning: None }))
        }
    };
    let (child, several) = match chosen {
        Ok(chosen) => chosen.map_or((None, None), |chosen| (Some(chosen.digest), chosen.warning)),
        Err(reason) => return Ok(Some(Err(Missing { promotion, reason }))),
    };
    let position = position.unwrap_or_else(|| gathered.position());
    let skipped = gathered.skipped;
    let Gathered { now, facts, policies, .. } = gathered;
    let recorded = Some(promotion.recorded.clone());
    let case = Case { action: Action::Promote, at: now, child, facts, recorded };
    let mut status = status(&policies, &case, &promotion, position);
    status.warnings.extend(several.clone());
    Ok(Some(Ok(Evaluated { release, promotion, policies, case, position, status, skipped, several })))
}

/// A promoted version without the part that was asked for.
pub(super) struct Missing {
    pub promotion: Promotion,
    pub reason: String,
}

fn status(policies: &PolicySets, case: &Case, promotion: &Promotion, position: Position) -> Status {
    let mut status = evaluate_running(policies, case, &promotion.recorded, position);
    let used = PromotedByOverride::of(case, &policies.in_force, promotion);
    status.warnings.extend(used.iter().filter_map(PromotedByOverride::warning));
    let until = in_words(promotion.valid_until);
    let message = if case.at < promotion.valid_until {
        format!("the verification summary is valid until {until}")
    } else {
        let message = format!("the verification summary was valid until {until}");
        status.warnings.push(format!("summary-expired: {message}; a job renews it"));
        message
    };
    status.gates.push(GateResult {
        evidence: vec![Evidence {
            kind: EvidenceKind::Promotion,
            id: promotion.id.to_string(),
            by: BTreeSet::new(),
        }],
        ..always("summary", Outcome::Pass, message, None)
    });
    status
}

/// A version that an answer skips.
pub(super) struct Skipped {
    pub promotion: Promotion,
    pub reasons: Vec<String>,
    /// A rollback that names it would take it.
    pub named: bool,
    /// It is blocked, or an image of it is.
    pub blocked: bool,
}

/// From the newest promotion of a channel back to the first version that is good.
pub(super) struct Walk {
    /// The version that known-good answers.
    pub answer: Option<Evaluated>,
    /// The versions before it in the walk.
    pub skipped: Vec<Skipped>,
    /// Another platform of the newest version has another answer.
    pub platforms_differ: bool,
}

/// What runs in a channel, and the newest version where it does not.
#[derive(Default)]
pub(super) struct Running {
    pub current: Option<Evaluated>,
    pub ended: Option<Evaluated>,
}

/// What runs in a channel, with the facts that another policy would look at.
pub(super) async fn running_with(
    connection: &mut PgConnection,
    lane: &Lane,
    also: &Policy,
) -> Result<Running, Failure> {
    let position = Some(Position::Current);
    let newest = promoted_with(connection, lane, None, Part::Whole, position, Some(also)).await?;
    let ended = match newest {
        None => return Ok(Running::default()),
        Some(Ok(newest)) if newest.is_allowed() || newest.is_partly_blocked() => {
            return Ok(Running { current: Some(newest), ended: None });
        }
        Some(newest) => newest.ok(),
    };
    let Some(current) = walk(connection, lane, Part::Whole, false).await?.answer else {
        return Ok(Running { current: None, ended });
    };
    let id = Some(current.promotion.id);
    let found = promoted_with(connection, lane, id, Part::Whole, position, Some(also)).await?;
    Ok(Running { current: found.and_then(Result::ok), ended })
}

/// Walks back. For a rollback the newest promotion is no candidate. Runs in one snapshot.
pub(super) async fn walk(
    connection: &mut PgConnection,
    lane: &Lane,
    part: Part<'_>,
    for_rollback: bool,
) -> Result<Walk, Failure> {
    let mut walk = Walk { answer: None, skipped: Vec::new(), platforms_differ: false };
    let before = match promoted(connection, lane, None, part, Some(Position::Current)).await? {
        None => return Ok(walk),
        Some(Err(missing)) => {
            let (promotion, reasons) = (missing.promotion, vec![missing.reason]);
            let id = promotion.id;
            if !for_rollback {
                walk.skipped.push(Skipped { promotion, reasons, named: false, blocked: false });
            }
            id
        }
        Some(Ok(newest)) => {
            walk.platforms_differ = newest.platforms_differ();
            let id = newest.promotion.id;
            if newest.is_allowed() && !for_rollback {
                walk.answer = Some(newest);
                return Ok(walk);
            }
            if !for_rollback {
                walk.skipped.push(newest.skipped());
            }
            id
        }
    };
    let Lane { repository, environment } = lane;
    for earlier in
        promotions::earlier(connection, repository, environment, Some(before), MAX_CANDIDATES).await?
    {
        let position = Some(Position::Candidate { named: false });
        match promoted(connection, lane, Some(earlier.promotion), part, position).await? {
            None => {}
            Some(Err(missing)) => {
                let (promotion, reasons) = (missing.promotion, vec![missing.reason]);
                walk.skipped.push(Skipped { promotion, reasons, named: false, blocked: false });
            }
            Some(Ok(found)) if found.is_allowed() => {
                walk.answer = Some(found.in_position(Position::Current));
                return Ok(walk);
            }
            Some(Ok(found)) => {
                let skipped = found.skipped();
                let named = found.in_position(Position::Candidate { named: true }).is_allowed();
                walk.skipped.push(Skipped { named, ..skipped });
            }
        }
    }
    Ok(walk)
}

/// A digest in a channel.
pub(super) enum Evaluation {
    /// Nothing that was promoted carries it.
    NeverPromoted,
    /// It is part of what was promoted, but no image.
    NotAnImage(Digest),
    /// The promotion that answers, and whether it is the current version.
    Found(Box<Evaluated>, bool),
}

/// Evaluates a digest, for each manifest that carries it by its newest promotion: allowed where one of them
/// allows. Of one that a tag names, what a rollback went back over is denied. Runs in one snapshot.
pub(super) async fn digest(
    connection: &mut PgConnection,
    lane: &Lane,
    digest: &Digest,
    by_tag: bool,
) -> Result<Evaluation, Failure> {
    let Lane { repository, environment } = lane;
    let mut carrying =
        promotions::carrying(connection, repository, environment, digest, MAX_CARRYING).await?;
    let Some(first) = carrying.first() else { return Ok(Evaluation::NeverPromoted) };
    let platform: Option<names::Platform> = first.platform.as_ref().and_then(|text| text.parse().ok());
    let part = platform.as_ref().map_or(Part::Whole, Part::Platform);
    let current = walk(connection, lane, part, false).await?.answer.map(|answer| answer.promotion.id);
    carrying.sort_by_key(|one| (Some(one.promotion) != current, std::cmp::Reverse(one.promotion)));
    let (mut refused, mut not_an_image) = (None, None);
    for one in carrying {
        let is_current = Some(one.promotion) == current;
        let position = is_current.then_some(Position::Current);
        let found = promoted(connection, lane, Some(one.promotion), Part::Image(digest), position).await?;
        match found {
            None => {}
            Some(Err(missing)) => not_an_image = Some(missing.promotion.manifest),
            Some(Ok(found)) => {
                let found = if by_tag && !is_current { found.by_tag() } else { found };
                if found.is_allowed() {
                    return Ok(Evaluation::Found(Box::new(found), is_current));
                }
                refused.get_or_insert((Box::new(found), is_current));
            }
        }
    }
    Ok(match (refused, not_an_image) {
        (Some((found, is_current)), _) => Evaluation::Found(found, is_current),
        (None, Some(index)) => Evaluation::NotAnImage(index),
        (None, None) => Evaluation::NeverPromoted,
    })
}

/// The image of an index by its digest; nothing where the digest is that of the version itself.
fn image(digest: &Digest, gathered: &Gathered) -> Result<Option<Digest>, String> {
    let subject = &gathered.facts.subject;
    if subject.digest == *digest || subject.sha256 == *digest || gathered.release.sha512 == *digest {
        return Ok(None);
    }
    let platform = subject.platforms.iter().find(|p| p.digest == *digest || p.sha256 == *digest);
    match platform.filter(|platform| !platform.is_document()) {
        Some(platform) => Ok(Some(platform.digest.clone())),
        // An index inside of an index counts for all of it.
        None if platform.is_none() && gathered.release.below.contains(digest) => Ok(None),
        None => Err(format!("{digest} is part of {}, but not an image that runs", subject.digest)),
    }
}

/// The child of an index that the platform runs. Of what is no index it is asked only whether it runs there,
/// if that is known.
fn child_for(wanted: &names::Platform, gathered: &Gathered) -> Result<Option<Chosen>, String> {
    let listed = &gathered.facts.subject.platforms;
    if listed.is_empty() {
        let own: Option<names::Platform> =
            gathered.release.platform.as_ref().and_then(|text| text.parse().ok());
        return match own {
            Some(own) if wanted.runs(&own).is_none() => {
                Err(format!("platform: the image is for {own}, not for {wanted}"))
            }
            _ => Ok(None),
        };
    }
    let blocked = platforms::blocked(&gathered.facts, gathered.now);
    let chosen = platforms::choose(wanted, listed, &blocked);
    chosen.map(Some).ok_or_else(|| format!("platform: the index has no image for {wanted}"))
}

/// The gate that fails where nothing was promoted.
pub(super) fn never_promoted(message: String) -> GateResult {
    always("promoted", Outcome::Fail, message, Some("promote it to the environment".to_owned()))
}

/// A gate that no policy demands.
fn always(gate: &'static str, outcome: Outcome, message: String, solution: Option<String>) -> GateResult {
    GateResult {
        gate,
        policy: None,
        mode: Mode::Enforce,
        outcome,
        message,
        warnings: Vec::new(),
        waived: Vec::new(),
        overridden: None,
        evidence: Vec::new(),
        solution,
    }
}
