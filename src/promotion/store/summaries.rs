//! Rows of `summaries`: renewed verification summaries.

use crate::access::Lane;
use crate::failure::Failure;
use crate::names::{EnvironmentName, RepositoryName};
use crate::promotion::lane::Place;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Release channels whose newest summary ends before this time, the earliest first.
pub async fn ending(
    connection: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Lane>, Failure> {
    let rows = sqlx::query!(
        r#"select r.name as "repository: RepositoryName", e.name as "environment: EnvironmentName"
           from release_channels c join repositories r on r.id = c.repository_id
           join environments e on e.id = c.environment_id
           where c.summary_until < $1 order by c.summary_until limit $2"#,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for summaries to renew", error))?;
    Ok(rows
        .into_iter()
        .map(|row| Lane { repository: row.repository, environment: row.environment })
        .collect())
}

/// Writes a renewed summary.
pub async fn insert(
    connection: &mut PgConnection,
    promotion: i64,
    envelope: &[u8],
    valid_until: DateTime<Utc>,
    at: DateTime<Utc>,
    event_id: i64,
) -> Result<(), Failure> {
    sqlx::query!(
        r#"insert into summaries(promotion_id, envelope, valid_until, created_at, event_id)
           values ($1, $2, $3, $4, $5)"#,
        promotion,
        envelope,
        valid_until,
        at,
        event_id,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("writing a renewed summary", error))?;
    Ok(())
}

/// When the summaries of the channel are looked at again.
pub async fn look_again(
    connection: &mut PgConnection,
    place: &Place,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    sqlx::query!(
        r#"update release_channels set summary_until = $3 where repository_id = $1 and environment_id = $2"#,
        place.repository_id,
        place.environment_id,
        at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("dating the renewal of a summary", error))?;
    Ok(())
}
