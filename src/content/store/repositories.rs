//! Rows of `repositories`.

use crate::content::Repository;
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
