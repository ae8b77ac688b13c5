//! Rows of `environments`.

use crate::failure::Failure;
use crate::names::EnvironmentName;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

pub use crate::exceptions::find_environment as find;

/// An environment as a list shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnvironmentRow {
    /// Its name.
    pub name: EnvironmentName,
    /// What it is.
    pub description: String,
    /// Since when it is known.
    pub created_at: DateTime<Utc>,
}

/// An environment that was made or described.
#[derive(Debug)]
pub struct Put {
    /// Its row's id.
    pub id: i64,
    /// What it is, now.
    pub description: String,
    /// Whether it was not there before.
    pub new: bool,
}

/// Makes it, or describes it where there is a description.
pub async fn put(
    connection: &mut PgConnection,
    name: &EnvironmentName,
    description: Option<&str>,
    by: i64,
) -> Result<Put, Failure> {
    sqlx::query_as!(
        Put,
        r#"insert into environments(name, description, created_by) values ($1, coalesce($2, ''), $3)
           on conflict on constraint an_environment_name_is_unique
             do update set description = coalesce($2, environments.description)
           returning id, description, xmax = 0 as "new!""#,
        name as &EnvironmentName,
        description,
        by,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("writing an environment", error))
}

/// By name, after this one.
pub async fn list(
    connection: &mut PgConnection,
    after: &str,
    limit: i64,
) -> Result<Vec<EnvironmentRow>, Failure> {
    sqlx::query_as!(
        EnvironmentRow,
        r#"select name as "name: EnvironmentName", description, created_at from environments
           where name > $1 order by name limit $2"#,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing environments", error))
}
