//! An environment as a list: the current version of every repository in it, with its risks.

use super::Refused;
use super::answer::{Candidate, PromotedByOverride};
use super::evaluate::{self, Part};
use super::lane::environment_id;
use super::store::releases as store;
use crate::access::Lane;
use crate::exceptions::{self, HoldRow};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName, Tag};
use crate::policy::{AtRisk, NotToday};
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A repository in an environment.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReleaseRow {
    /// The repository.
    pub repository: RepositoryName,
    /// The current version: what known-good answers; nothing where no promoted version is good.
    pub digest: Option<Digest>,
    /// Its version.
    pub version: Option<Tag>,
    /// When it was promoted.
    pub promoted_at: Option<DateTime<Utc>>,
    /// By whom.
    pub promoted_by: Option<String>,
    /// Since when the same bytes stand there without a break.
    pub current_since: Option<DateTime<Utc>>,
    /// The recorded decision that allowed it.
    pub decision: Option<Digest>,
    /// Named, dated risks.
    pub at_risk: Vec<AtRisk>,
    /// Gates that would refuse it if it were promoted today.
    pub would_not_be_promoted_today: Vec<NotToday>,
    /// Overrides that its promotion used and that nobody reviewed yet.
    pub promoted_by_override: Vec<PromotedByOverride>,
    /// What holds for now but will not for ever.
    pub warnings: Vec<String>,
    /// Whether its newest promotion is blocked.
    pub blocked: bool,
    /// Holds that stop promotions here.
    pub holds: Vec<HoldRow>,
    /// Versions promoted later that are not good any more: the current version is not the newest promotion.
    pub fallback_from: Vec<Candidate>,
    /// Another platform of the newest version has another answer.
    pub platform_answers_differ: bool,
    /// When it was evaluated: the database's time.
    pub evaluated_at: Option<DateTime<Utc>>,
}

/// Which repositories a list shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReleaseFilter {
    /// At risk, or not.
    pub at_risk: Option<bool>,
    /// Whose newest promotion is blocked, or not.
    pub blocked: Option<bool>,
    /// Held, or not.
    pub held: Option<bool>,
    /// That would not be promoted today, or would be.
    pub would_not_be_promoted_today: Option<bool>,
    /// Where the current version is not the newest promotion, or is.
    pub fallback: Option<bool>,
}

impl ReleaseFilter {
    fn shows(self, row: &ReleaseRow) -> bool {
        let fits = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        fits(self.at_risk, !row.at_risk.is_empty())
            && fits(self.blocked, row.blocked)
            && fits(self.held, !row.holds.is_empty())
            && fits(self.would_not_be_promoted_today, !row.would_not_be_promoted_today.is_empty())
            && fits(self.fallback, !row.fallback_from.is_empty())
    }
}

/// A page of an environment.
#[derive(Debug)]
pub struct Releases {
    /// The repositories that the filter shows, by name.
    pub rows: Vec<ReleaseRow>,
    /// The last repository that was evaluated, when more follow: the next page begins behind it.
    pub next: Option<RepositoryName>,
}

/// The repositories of an environment behind `after`, by name, of those that the caller may see. So many are
/// evaluated, in one snapshot; the filter may leave fewer.
pub async fn releases(
    db: &Db,
    environment: &EnvironmentName,
    sees: impl Fn(&RepositoryName) -> bool,
    after: &str,
    limit: usize,
    filter: ReleaseFilter,
) -> Result<Releases, Refused> {
    let mut snapshot = db.snapshot().await?;
    let environment_id = environment_id(&mut snapshot, environment).await?;
    let (mut rows, mut evaluated, mut after, mut last) = (Vec::new(), 0, after.to_owned(), None);
    loop {
        let names = store::channels(&mut snapshot, environment_id, &after, CHANNELS).await?;
        let Some(end) = names.last() else { return Ok(Releases { rows, next: None }) };
        after = end.to_string();
        for name in names.into_iter().filter(|name| sees(name)) {
            if evaluated == limit {
                return Ok(Releases { rows, next: last });
            }
            evaluated += 1;
            last = Some(name.clone());
            let lane = Lane { repository: name, environment: environment.clone() };
            let row = release(&mut snapshot, lane).await?;
            if filter.shows(&row) {
                rows.push(row);
            }
        }
    }
}

/// Names read at once.
const CHANNELS: i64 = 1000;

async fn release(connection: &mut PgConnection, lane: Lane) -> Result<ReleaseRow, Failure> {
    let walk = evaluate::walk(connection, &lane, Part::Whole, false).await?;
    let holds = exceptions::holds_in(connection, &lane, MAX_HOLDS).await?;
    let repository = lane.repository;
    let blocked = walk.skipped.first().is_some_and(|newest| newest.blocked);
    let fallback_from: Vec<Candidate> = walk.skipped.into_iter().map(Candidate::from).collect();
    let mut row = ReleaseRow {
        repository,
        digest: None,
        version: None,
        promoted_at: None,
        promoted_by: None,
        current_since: None,
        decision: None,
        at_risk: Vec::new(),
        would_not_be_promoted_today: Vec::new(),
        promoted_by_override: Vec::new(),
        warnings: Vec::new(),
        blocked,
        holds,
        fallback_from,
        platform_answers_differ: walk.platforms_differ,
        evaluated_at: None,
    };
    if let Some(found) = walk.answer {
        row.promoted_by_override =
            PromotedByOverride::of(&found.case, &found.policies.in_force, &found.promotion);
        row.evaluated_at = Some(found.case.at);
        let (promotion, status) = (found.promotion, found.status);
        row.digest = Some(promotion.manifest);
        row.version = promotion.version;
        row.promoted_at = Some(promotion.promoted_at);
        row.promoted_by = Some(promotion.promoted_by);
        row.current_since = Some(promotion.standing_since);
        row.decision = Some(promotion.decision);
        row.at_risk = status.at_risk;
        row.would_not_be_promoted_today = status.would_not_be_promoted_today;
        row.warnings = status.warnings;
    }
    Ok(row)
}

/// Holds shown of one repository.
const MAX_HOLDS: i64 = 10;
