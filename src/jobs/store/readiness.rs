//! What `/readyz` reads.

use crate::failure::Failure;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The database's time, and the newest event's. Ids are drawn before commits and a clock may have been set back,
/// so the newest is looked for among the last hundred.
pub async fn times(connection: &mut PgConnection) -> Result<(DateTime<Utc>, Option<DateTime<Utc>>), Failure> {
    let row = sqlx::query!(
        r#"select clock_timestamp() as "database!",
                  (select max(at) from (select at from events order by id desc limit 100) e) as newest"#
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("reading the times of the database and its events", error))?;
    Ok((row.database, row.newest))
}
