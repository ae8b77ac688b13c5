//! Overrides: somebody passes failed gates of one version in one release channel, for a reason and for a
//! short time. It counts at once; another person reviews it afterwards.

use super::reviews;
use super::shown::{Page, Shown};
use super::store::overrides as store;
use super::target::Target;
use super::{OverrideRow, OverrideState, Reason, Refused};
use crate::access::{Administer, Grant, Lane, Override, Principal};
use crate::failure::Failure;
use crate::ledger::{self, Kind};
use crate::names::{EnvironmentName, Reference, RepositoryName};
use crate::policy::{self, is_overridable};
use crate::postgres::{Db, Tx, act, agreed_time, database_time};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// How far ahead an override may expire. What is needed for longer belongs into the policy.
pub const MAX_OVERRIDE: TimeDelta = TimeDelta::days(30);

/// An override to create.
#[derive(Debug)]
pub struct NewOverride {
    /// The artifact, by digest or by version.
    pub artifact: Reference,
    /// The gates that it passes.
    pub gates: BTreeSet<String>,
    /// Why.
    pub reason: Reason,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
}

impl NewOverride {
    fn check(&self, at: DateTime<Utc>) -> Result<(), Refused> {
        let may = policy::Override::GATES.join(", ");
        if self.gates.is_empty() {
            return Err(Refused::Invalid(format!(
                "an override names the gates that it passes, out of {may}"
            )));
        }
        if let Some(gate) = self.gates.iter().find(|gate| !is_overridable(gate)) {
            return Err(Refused::NotOverridable { gate: gate.clone(), may });
        }
        if self.expires_at <= at {
            return Err(Refused::Invalid("expires_at must lie in the future".to_owned()));
        }
        if self.expires_at > at + MAX_OVERRIDE {
            let days = MAX_OVERRIDE.num_days();
            return Err(Refused::Invalid(format!(
                "expires_at is {}; an override expires within {days} days",
                self.expires_at
            )));
        }
        Ok(())
    }
}

/// Who reviews: another person who could have made the override, or an administrator.
#[derive(Debug)]
pub enum Reviewer {
    /// By the right to override.
    Override(Grant<Override, Lane>),
    /// By the right to administer.
    Administer(Grant<Administer, Lane>),
}

impl Reviewer {
    fn principal(&self) -> &Principal {
        match self {
            Self::Override(grant) => grant.principal(),
            Self::Administer(grant) => grant.principal(),
        }
    }

    fn lane(&self) -> &Lane {
        match self {
            Self::Override(grant) => grant.scope(),
            Self::Administer(grant) => grant.scope(),
        }
    }
}

/// What a list of overrides is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct OverrideFilter {
    /// In this repository.
    pub repository: Option<RepositoryName>,
    /// In this environment.
    pub environment: Option<EnvironmentName>,
    /// In this state.
    pub state: Option<OverrideState>,
    /// Reviewed, or not reviewed.
    pub reviewed: Option<bool>,
}

impl OverrideRow {
    /// Where it counts.
    pub fn lane(&self) -> Lane {
        Lane { repository: self.repository.clone(), environment: self.environment.clone() }
    }
}

async fn target(tx: &mut Tx, lane: &Lane) -> Result<Target, Refused> {
    Target::find(tx, Some(&lane.repository), Some(&lane.environment)).await
}

/// Passes failed gates. It can only help, so it waits for nobody.
pub async fn create_override(
    db: &Db,
    grant: &Grant<Override, Lane>,
    new: &NewOverride,
) -> Result<OverrideRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let target = target(&mut tx, grant.scope()).await?;
        let at = agreed_time(&mut tx).await?;
        new.check(at)?;
        let by = grant.principal();
        let id = store::insert(&mut tx, &target, new, at, by.id).await?;
        let id = id.ok_or_else(|| Refused::UnknownArtifact(new.artifact.to_string()))?;
        let row = find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        let facts = json!({
            "override": id,
            "gates": new.gates,
            "reason": new.reason.as_str(),
            "expires_at": new.expires_at,
            "origin": row.origin,
        });
        let event = target.event(Kind::OverrideCreated, at, by, Some(&row.digest), facts);
        ledger::append(&mut tx, event).await?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// Records that another person reviewed an override, also after it expired or was revoked. It can only help: one
/// whose review was overdue counts again.
pub async fn review_override(
    db: &Db,
    reviewer: &Reviewer,
    id: i64,
    reason: &Reason,
) -> Result<OverrideRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let by = reviewer.principal();
        let row = of_lane(&mut tx, reviewer.lane(), id).await?;
        let target = target(&mut tx, reviewer.lane()).await?;
        let at = agreed_time(&mut tx).await?;
        let given = store::lock(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        if given.reviewed {
            return Err(Refused::AlreadyReviewed(id));
        }
        if given.created_by == by.id {
            return Err(Refused::ReviewerIsCreator);
        }
        if store::is_author(&mut tx, id, by.id).await? {
            return Err(Refused::ReviewerIsAuthor);
        }
        store::review(&mut tx, id, at, by.id).await?;
        let facts = json!({"override": id, "reason": reason.as_str()});
        let event = target.event(Kind::OverrideReviewed, at, by, Some(&row.digest), facts);
        ledger::append(&mut tx, event).await?;
        let row = find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// Revokes an override: no promotion of its release channel is decided with it afterwards.
pub async fn revoke_override(
    db: &Db,
    grant: &Grant<Override, Lane>,
    id: i64,
    reason: &Reason,
) -> Result<OverrideRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let target = target(&mut tx, grant.scope()).await?;
        target.decisions().lock(&mut tx).await?;
        let at = database_time(&mut tx).await?;
        let by = grant.principal();
        let digest = store::end(&mut tx, &target, id, at, by.id).await?.ok_or(Refused::Unknown)?;
        let facts = json!({"override": id, "reason": reason.as_str()});
        let event = target.event(Kind::OverrideRevoked, at, by, Some(&digest), facts);
        ledger::append(&mut tx, event).await?;
        let row = find(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

async fn of_lane(tx: &mut Tx, lane: &Lane, id: i64) -> Result<OverrideRow, Refused> {
    find(tx, id).await?.filter(|row| row.lane() == *lane).ok_or(Refused::Unknown)
}

/// Overrides that are shown, the newest first, and where the next page begins.
pub async fn overrides(
    db: &Db,
    filter: &OverrideFilter,
    shown: impl Fn(&OverrideRow) -> bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Page<OverrideRow, i64>, Failure> {
    let mut connection = db.acquire().await?;
    let mut page = Shown::new(before, limit);
    while let Some(rows) = page.rows() {
        let found = store::list(&mut connection, filter, page.before(), rows).await?;
        page.take(found, |row| row.id, |row| Some(row).filter(&shown));
    }
    let mut page = page.done();
    reviews::fill_in(&mut connection, &mut page.items).await?;
    Ok(page)
}

async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<OverrideRow>, Failure> {
    let mut row = store::find(connection, id).await?;
    reviews::fill_in(connection, row.as_mut_slice()).await?;
    Ok(row)
}

/// An override by its id.
pub async fn find_override(db: &Db, id: i64) -> Result<Option<OverrideRow>, Failure> {
    find(&mut *db.acquire().await?, id).await
}
