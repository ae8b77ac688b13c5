//! Until when an override is reviewed: the smallest time that the policies in force state for its channel.

use super::OverrideRow;
use super::store::policies as store;
use crate::access::Lane;
use crate::failure::Failure;
use crate::names::EnvironmentName;
use crate::policy::{Policy, override_review};
use crate::postgres::database_time;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// The policies in force of some environments, and the time now.
pub(super) struct ReviewTimes {
    policies: Vec<Policy>,
    now: DateTime<Utc>,
}

impl ReviewTimes {
    pub async fn read(
        connection: &mut PgConnection,
        environments: &BTreeSet<&EnvironmentName>,
    ) -> Result<Self, Failure> {
        let bodies = if environments.is_empty() {
            Vec::new()
        } else {
            store::in_force(connection, environments).await?
        };
        let policies = bodies.iter().map(|body| Policy::from_canonical(body)).collect::<Result<_, _>>()?;
        Ok(Self { policies, now: database_time(connection).await? })
    }

    /// When the review of an override of this age is due, and whether that time is over.
    pub fn due(&self, lane: &Lane, created_at: DateTime<Utc>) -> (DateTime<Utc>, bool) {
        let covering =
            self.policies.iter().filter(|policy| policy.covers(&lane.repository, &lane.environment));
        let due = created_at + override_review(covering).delta();
        (due, due <= self.now)
    }
}

/// Writes into rows that nobody reviewed when that is due.
pub(super) async fn fill_in(connection: &mut PgConnection, rows: &mut [OverrideRow]) -> Result<(), Failure> {
    let open = |row: &&mut OverrideRow| row.reviewed_by.is_none();
    let environments: BTreeSet<EnvironmentName> =
        rows.iter_mut().filter(open).map(|row| row.environment.clone()).collect();
    if environments.is_empty() {
        return Ok(());
    }
    let times = ReviewTimes::read(connection, &environments.iter().collect()).await?;
    for row in rows.iter_mut().filter(open) {
        let (due, overdue) = times.due(&row.lane(), row.created_at);
        (row.review_due_at, row.review_overdue) = (Some(due), overdue);
    }
    Ok(())
}
