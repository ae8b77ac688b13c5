//! Rows of `promotion_refusals`.

use crate::failure::Failure;
use crate::names::Digest;
use crate::promotion::lane::Place;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// What makes a refusal the same as another.
pub struct Refusal<'a> {
    /// Who asked.
    pub principal: i64,
    /// Where.
    pub place: &'a Place,
    /// What.
    pub sha256: &'a Digest,
    /// What refuses.
    pub grounds: &'a Digest,
}

/// Counts the refusal with the record of the same since then; that record's decision.
pub async fn count_again(
    connection: &mut PgConnection,
    refusal: &Refusal<'_>,
    since: DateTime<Utc>,
    at: DateTime<Utc>,
) -> Result<Option<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"update promotion_refusals set times = times + 1, last_at = $7
           where id = (select max(r.id) from promotion_refusals r
             where r.principal_id = $1 and r.first_at > $6 and r.repository_id = $2 and r.environment_id = $3
               and r.sha256 = $4 and r.grounds = $5)
           returning decision as "decision: Digest""#,
        refusal.principal,
        refusal.place.repository_id,
        refusal.place.environment_id,
        refusal.sha256 as &Digest,
        refusal.grounds as &Digest,
        since,
        at,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("counting a refusal", error))
}

/// How many refusals of the principal were recorded since then.
pub async fn recorded_since(
    connection: &mut PgConnection,
    principal: i64,
    since: DateTime<Utc>,
) -> Result<i64, Failure> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from promotion_refusals where principal_id = $1 and first_at > $2"#,
        principal,
        since,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("counting refusals", error))
}

/// Records a refusal with its decision.
pub async fn insert(
    connection: &mut PgConnection,
    refusal: &Refusal<'_>,
    decision: &Digest,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into promotion_refusals(principal_id, repository_id, environment_id, sha256, grounds, decision,
           first_at, last_at) values ($1, $2, $3, $4, $5, $6, $7, $7)",
        refusal.principal,
        refusal.place.repository_id,
        refusal.place.environment_id,
        refusal.sha256 as &Digest,
        refusal.grounds as &Digest,
        decision as &Digest,
        at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("recording a refusal", error))?;
    Ok(())
}
