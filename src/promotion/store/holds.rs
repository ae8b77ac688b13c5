//! The rows of `holds` that a decision reads.

use super::releases::Release;
use crate::failure::Failure;
use crate::policy::Hold;
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// The open holds that stop promotions of the release: on its lane, its repository or its environment.
pub async fn stopping(connection: &mut PgConnection, release: &Release) -> Result<BTreeSet<Hold>, Failure> {
    let rows = sqlx::query_as!(
        Hold,
        r#"select h.id as "id!", h.why as "why!", h.until, w.name as "by!" from (
             select * from holds where environment_id = $2 and repository_id is null and ended_at is null
             union all
             select * from holds where environment_id = $2 and repository_id = $1 and ended_at is null
             union all
             select * from holds where environment_id is null and repository_id = $1 and ended_at is null
           ) h join principals w on w.id = h.by"#,
        release.repository_id,
        release.environment_id,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading the holds of a release", error))?;
    Ok(rows.into_iter().collect())
}
