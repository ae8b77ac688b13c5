//! Rows of `repositories`.

use crate::content::{Repository, RepositoryRecord, Retention, Rules};
use crate::failure::Failure;
use crate::names::{Pattern, RepositoryName};
use sqlx::PgConnection;
use sqlx::types::Json;

/// The repository of this name.
pub async fn find(
    connection: &mut PgConnection,
    name: &RepositoryName,
) -> Result<Option<Repository>, Failure> {
    sqlx::query_as!(
        Repository,
        r#"select id, name as "name: RepositoryName", floating as "floating: Vec<Pattern>", quota_bytes
           from repositories where name = $1"#,
        name as &RepositoryName
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a repository", error))
}

/// Makes the repository; `None` when somebody else did.
pub async fn insert(
    connection: &mut PgConnection,
    name: &RepositoryName,
    rules: &Rules,
    by: i64,
) -> Result<Option<i64>, Failure> {
    sqlx::query_scalar!(
        r#"insert into repositories(name, description, floating, quota_bytes, retention, created_by, evidence_quota_bytes)
           values ($1, $2, $3, $4, $5, $6, $7)
           on conflict on constraint a_repository_name_is_unique do nothing returning id"#,
        name as &RepositoryName,
        rules.description.as_deref().unwrap_or_default(),
        rules.floating.as_deref().unwrap_or_default() as &[Pattern],
        rules.quota_bytes.value().copied(),
        rules.retention.value().map(Json) as Option<Json<&Retention>>,
        by,
        rules.evidence_quota_bytes.value().copied(),
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("making a repository", error))
}

/// Changes what is given and leaves the rest.
pub async fn change(connection: &mut PgConnection, id: i64, rules: &Rules) -> Result<(), Failure> {
    sqlx::query!(
        "update repositories set description = coalesce($2, description), floating = coalesce($3, floating),
           quota_bytes = case when $4 then $5 else quota_bytes end,
           retention = case when $6 then $7 else retention end,
           evidence_quota_bytes = case when $8 then $9 else evidence_quota_bytes end
         where id = $1",
        id,
        rules.description.as_deref(),
        rules.floating.as_deref() as Option<&[Pattern]>,
        rules.quota_bytes.is_given(),
        rules.quota_bytes.value().copied(),
        rules.retention.is_given(),
        rules.retention.value().map(Json) as Option<Json<&Retention>>,
        rules.evidence_quota_bytes.is_given(),
        rules.evidence_quota_bytes.value().copied(),
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("changing a repository", error))?;
    Ok(())
}

/// The repository as people see it.
pub async fn record(
    connection: &mut PgConnection,
    name: &RepositoryName,
) -> Result<Option<RepositoryRecord>, Failure> {
    sqlx::query_as!(
        RepositoryRecord,
        r#"select r.id, r.name as "name: RepositoryName", r.description, r.floating as "floating: Vec<Pattern>",
                  p.name as created_by, r.created_at, r.quota_bytes, r.evidence_quota_bytes,
                  r.retention as "retention: Json<Retention>",
                  u.bytes as "used_bytes!", u.evidence_bytes as "evidence_used_bytes!"
           from repositories r join principals p on p.id = r.created_by cross join lateral (
             select coalesce(sum(bytes), 0)::bigint as bytes, coalesce(sum(evidence_bytes), 0)::bigint as evidence_bytes
             from repository_usage where repository_id = r.id) u
           where r.name = $1"#,
        name as &RepositoryName
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a repository", error))
}

/// Repositories after `last` whose names begin with one of the prefixes, by name.
pub async fn page(
    connection: &mut PgConnection,
    prefixes: &[String],
    last: &str,
    limit: i64,
) -> Result<Vec<RepositoryRecord>, Failure> {
    sqlx::query_as!(
        RepositoryRecord,
        r#"select r.id, r.name as "name: RepositoryName", r.description, r.floating as "floating: Vec<Pattern>",
                  p.name as created_by, r.created_at, r.quota_bytes, r.evidence_quota_bytes,
                  r.retention as "retention: Json<Retention>",
                  u.bytes as "used_bytes!", u.evidence_bytes as "evidence_used_bytes!"
           from repositories r join principals p on p.id = r.created_by cross join lateral (
             select coalesce(sum(bytes), 0)::bigint as bytes, coalesce(sum(evidence_bytes), 0)::bigint as evidence_bytes
             from repository_usage where repository_id = r.id) u
           where r.name > $2 and exists (select from unnest($1::text[]) prefix where starts_with(r.name, prefix))
           order by r.name limit $3"#,
        prefixes,
        last,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing repositories", error))
}
