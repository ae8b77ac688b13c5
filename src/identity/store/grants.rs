//! Rows of grants, and the generation that every change of authority raises.

use crate::access::{Binding, Role};
use crate::identity::grants::GrantRow;
use crate::identity::principals::Allowed;
use crate::names::{EnvironmentName, Pattern};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Gives the role, to a token or to the principal itself, at the time of its event; `None` when it holds just this one
/// already.
pub async fn insert(
    connection: &mut PgConnection,
    (principal_id, token): (i64, Option<Uuid>),
    binding: &Binding,
    created_by: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<Option<i64>> {
    let environments = environments(binding);
    sqlx::query_scalar!(
        r#"insert into grants(principal_id, role, repositories, environments, created_by, created_at, token_id)
           values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning id"#,
        principal_id,
        binding.role as Role,
        &binding.repositories as &Pattern,
        environments.as_deref() as Option<&[EnvironmentName]>,
        created_by,
        at,
        token
    )
    .fetch_optional(connection)
    .await
}

/// The principal's own open grant of just this role.
pub async fn find(
    connection: &mut PgConnection,
    principal_id: i64,
    binding: &Binding,
) -> sqlx::Result<Option<i64>> {
    let environments = environments(binding);
    sqlx::query_scalar!(
        r#"select id from grants
           where principal_id = $1 and role = $2 and repositories = $3 and ended_at is null and token_id is null
             and environments is not distinct from $4"#,
        principal_id,
        binding.role as Role,
        &binding.repositories as &Pattern,
        environments.as_deref() as Option<&[EnvironmentName]>
    )
    .fetch_optional(connection)
    .await
}

/// Its environments as they are kept: each once, in order.
fn environments(binding: &Binding) -> Option<Vec<EnvironmentName>> {
    binding.environments.as_ref().map(|names| names.iter().cloned().collect())
}

/// What a principal may do with a token: by the grants that were made with the token, where there are some, and by its
/// own otherwise.
pub async fn bindings(
    connection: &mut PgConnection,
    principal_id: i64,
    token: Option<Uuid>,
) -> sqlx::Result<Vec<Binding>> {
    let rows = sqlx::query!(
        r#"select role as "role: Role", repositories as "repositories: Pattern",
                  environments as "environments: Vec<EnvironmentName>"
           from grants where principal_id = $1 and ended_at is null
             and token_id is not distinct from (select t.id from tokens t where t.id = $2 and t.has_grants)"#,
        principal_id,
        token
    )
    .fetch_all(connection)
    .await?;
    let bindings = rows.into_iter().map(|row| Binding {
        role: row.role,
        repositories: row.repositories,
        environments: row.environments.map(BTreeSet::from_iter),
    });
    Ok(bindings.collect())
}

pub async fn list(
    connection: &mut PgConnection,
    after: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<GrantRow>> {
    sqlx::query_as!(
        GrantRow,
        r#"select g.id, p.name as principal, g.role as "role: Role", g.repositories as "repositories: Pattern",
                  g.environments as "environments: Vec<EnvironmentName>", g.token_id as token, g.created_at, g.ended_at
           from grants g join principals p on p.id = g.principal_id
           where $1::bigint is null or g.id > $1 order by g.id limit $2"#,
        after,
        limit
    )
    .fetch_all(connection)
    .await
}

/// Ends the grants of a token; their roles.
pub async fn end_of_token(
    connection: &mut PgConnection,
    token: Uuid,
    by: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<Vec<Role>> {
    sqlx::query_scalar!(
        r#"update grants set ended_at = $3, ended_by = $2 where token_id = $1 and ended_at is null
           returning role as "role: Role""#,
        token,
        by,
        at
    )
    .fetch_all(connection)
    .await
}

/// The open grants by which a principal may do something now: its own while a token of it that has no grants of its own
/// holds, and those of its tokens that hold.
pub async fn live(connection: &mut PgConnection, principal_id: i64) -> sqlx::Result<Vec<Allowed>> {
    let rows = sqlx::query!(
        r#"select g.id, g.token_id, g.role as "role: Role", g.repositories as "repositories: Pattern",
                  g.environments as "environments: Vec<EnvironmentName>"
           from grants g where g.principal_id = $1 and g.ended_at is null and (g.principal_id = 1 or exists (
             select from tokens t where t.principal_id = g.principal_id and token_is_live(t)
               and g.token_id is not distinct from case when t.has_grants then t.id end))
           order by g.id"#,
        principal_id
    )
    .fetch_all(connection)
    .await?;
    let allowed = rows.into_iter().map(|row| Allowed {
        grant: row.id,
        token: row.token_id,
        binding: Binding {
            role: row.role,
            repositories: row.repositories,
            environments: row.environments.map(BTreeSet::from_iter),
        },
    });
    Ok(allowed.collect())
}

/// The roles of a token's own open grants.
pub async fn roles_of_token(connection: &mut PgConnection, token: Uuid) -> sqlx::Result<Vec<Role>> {
    sqlx::query_scalar!(
        r#"select role as "role: Role" from grants where token_id = $1 and ended_at is null"#,
        token
    )
    .fetch_all(connection)
    .await
}

/// Whether somebody can administer everything.
pub async fn an_administrator_remains(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select an_administrator_remains() as "remains!""#).fetch_one(connection).await
}

/// The role of an open grant; it never changes.
pub async fn role(connection: &mut PgConnection, id: i64) -> sqlx::Result<Option<Role>> {
    sqlx::query_scalar!(r#"select role as "role: Role" from grants where id = $1 and ended_at is null"#, id)
        .fetch_optional(connection)
        .await
}

/// Ends the grant and returns whose it was; `None` when there is no such grant that is still open.
pub async fn end(
    connection: &mut PgConnection,
    id: i64,
    by: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "update grants set ended_at = $3, ended_by = $2 where id = $1 and ended_at is null returning principal_id",
        id,
        by,
        at
    )
    .fetch_optional(connection)
    .await
}

pub async fn generation(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!("select generation from access_generation").fetch_one(connection).await
}

pub async fn raise_generation(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("update access_generation set generation = generation + 1").execute(connection).await?;
    Ok(())
}
