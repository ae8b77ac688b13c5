//! Pins: what must stay flows down to here as data.

use super::store::pins as store;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Why a version is pinned that is promoted to an environment.
pub fn promoted_to(environment: &EnvironmentName) -> String {
    format!("{PROMOTED}{environment}")
}

const PROMOTED: &str = "promoted to ";

/// Whether it is such a reason.
pub(super) fn is_of_promotion(reason: &str) -> bool {
    reason.starts_with(PROMOTED)
}

/// Holds the manifest for a reason, until a time or for good. Whoever promotes or deploys pins in
/// its own transaction; deletes, retention and collection read nothing but pins. The foreign key
/// settles the race with a delete.
pub async fn pin(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
    reason: &str,
    until: Option<DateTime<Utc>>,
) -> Result<(), Failure> {
    store::insert(connection, repository_id, digest, reason, until).await
}
