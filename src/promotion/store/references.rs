//! Where bytes that are asked about without a repository may have been promoted.

use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use sqlx::PgConnection;

/// Repositories after `last`, by name, that have a manifest of this digest and of which something was
/// promoted to the environment.
pub async fn promoted_from(
    connection: &mut PgConnection,
    environment: &EnvironmentName,
    digest: &Digest,
    last: &str,
    limit: usize,
) -> Result<Vec<RepositoryName>, Failure> {
    sqlx::query_scalar!(
        r#"with holding as (
             select repository_id from manifests where sha256 = $2
             union
             select repository_id from manifests where sha512 = $2 and digest = $2)
           select r.name as "name: RepositoryName" from environments e cross join holding h
           join repositories r on r.id = h.repository_id
           where e.name = $1 and r.name > $3
             and exists (select from promotions p where p.repository_id = r.id and p.environment_id = e.id)
           order by r.name limit $4"#,
        environment as &EnvironmentName,
        digest as &Digest,
        last,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for the repositories of a digest", error))
}
