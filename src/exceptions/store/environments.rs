//! Rows of `environments`, by name.

use crate::failure::Failure;
use crate::names::EnvironmentName;
use sqlx::PgConnection;

/// The row's id.
pub async fn find(connection: &mut PgConnection, name: &EnvironmentName) -> Result<Option<i64>, Failure> {
    sqlx::query_scalar!("select id from environments where name = $1", name as &EnvironmentName)
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new("reading an environment", error))
}
