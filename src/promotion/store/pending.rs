//! Decisions that refused for want of approvals.

use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;

/// The newest refused request for a version in a release channel.
pub struct Requested {
    pub repository: RepositoryName,
    pub environment: EnvironmentName,
    pub digest: Digest,
    pub by: String,
    pub at: DateTime<Utc>,
}

/// The newest decision on each version in each channel, where it refused for want of approvals and the version
/// was not promoted since; the newest first.
pub async fn refused(
    connection: &mut PgConnection,
    repository: Option<&RepositoryName>,
    environment: Option<&EnvironmentName>,
    within: TimeDelta,
    limit: i64,
) -> Result<Vec<Requested>, Failure> {
    let within = PgInterval::try_from(within).map_err(|error| Failure::new("reading a time", error))?;
    sqlx::query_as!(
        Requested,
        r#"select r.name as "repository: RepositoryName", e.name as "environment: EnvironmentName",
             d.manifest as "digest: Digest", w.name as by, d.decided_at as at
           from (
             select distinct on (d.repository_id, d.environment_id, d.manifest) d.*
             from decisions d
             where d.decided_at > clock_timestamp() - $3::interval
               and ($1::text is null or d.repository_id = (select id from repositories where name = $1))
               and ($2::text is null or d.environment_id = (select id from environments where name = $2))
             order by d.repository_id, d.environment_id, d.manifest, d.decided_at desc
           ) d
           join repositories r on r.id = d.repository_id join environments e on e.id = d.environment_id
           join principals w on w.id = d.decided_by
           where d.outcome <> 'allow'
             and d.result @? '$.gates[*] ? (@.gate == "approvals" && @.outcome == "fail")'
             and not exists (select from promotions p where p.repository_id = d.repository_id
               and p.environment_id = d.environment_id and p.manifest = d.manifest
               and p.promoted_at >= d.decided_at)
           order by d.decided_at desc limit $4"#,
        repository as Option<&RepositoryName>,
        environment as Option<&EnvironmentName>,
        within,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for promotions that wait for approvals", error))
}
