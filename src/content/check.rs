//! An audit of the tables: what must hold whatever happened. For fsck and for every test's end.

use super::store::check as store;
use crate::failure::Failure;
use sqlx::PgConnection;

/// Everything that should hold and does not, in words; empty is well. Each rule reads one
/// snapshot, so it may run beside pushes.
pub async fn check_content(connection: &mut PgConnection) -> Result<Vec<String>, Failure> {
    let mut violations = store::of_tags(connection).await?;
    violations.extend(store::of_manifests(connection).await?);
    violations.extend(store::of_usage(connection).await?);
    Ok(violations)
}
