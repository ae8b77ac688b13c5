//! Rows of `repositories`.

use crate::content::{Repository, RepositoryRecord};
use crate::failure::Failure;
use crate::names::{Pattern, RepositoryName};
use sqlx::PgConnection;

/// The repository of this name.
pub async fn find(
    connection: &mut PgConnection,
    name: &RepositoryName,
) -> Result<Option<Repository>, Failure> {
    sqlx::query_as!(
        Repository,
        r#"select id, name as "name: RepositoryName", floating as "floating: Vec<Pattern>"
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
    description: &str,
    floating: &[Pattern],
    by: i64,
) -> Result<Option<i64>, Failure> {
    sqlx::query_scalar!(
        r#"insert into repositories(name, description, floating, created_by) values ($1, $2, $3, $4)
           on conflict on constraint a_repository_name_is_unique do nothing returning id"#,
        name as &RepositoryName,
        description,
        floating as &[Pattern],
        by
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("making a repository", error))
}

/// Changes what is given and leaves the rest.
pub async fn change(
    connection: &mut PgConnection,
    id: i64,
    description: Option<&str>,
    floating: Option<&[Pattern]>,
) -> Result<(), Failure> {
    sqlx::query!(
        "update repositories set description = coalesce($2, description), floating = coalesce($3, floating)
         where id = $1",
        id,
        description,
        floating as Option<&[Pattern]>
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
                  p.name as created_by, r.created_at
           from repositories r join principals p on p.id = r.created_by where r.name = $1"#,
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
                  p.name as created_by, r.created_at
           from repositories r join principals p on p.id = r.created_by
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
