//! Rows of `policies` and `policy_documents`.

use crate::access::{Action, Role};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Pattern};
use crate::policy::Policy;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A version of a policy as a list shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyRow {
    /// Newer versions have higher ones.
    pub id: i64,
    /// The environment it guards.
    pub environment: EnvironmentName,
    /// Its name.
    pub name: String,
    /// The name of this version.
    pub digest: Digest,
    /// The repositories it covers.
    pub repositories: Vec<Pattern>,
    /// Since when it is in force.
    pub at: DateTime<Utc>,
    /// Who put it in force.
    pub by: String,
    /// Until when it was.
    pub ended_at: Option<DateTime<Utc>>,
    /// The policy as it was written.
    pub source: String,
}

/// The canonical bodies of some versions.
pub async fn bodies(
    connection: &mut PgConnection,
    digests: &[Digest],
) -> Result<Vec<(Digest, Vec<u8>)>, Failure> {
    let rows = sqlx::query!(
        r#"select digest as "digest: Digest", body from policy_documents where digest = any($1)"#,
        digests as &[Digest],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading policies", error))?;
    Ok(rows.into_iter().map(|row| (row.digest, row.body)).collect())
}

/// The version in force.
pub async fn in_force(
    connection: &mut PgConnection,
    environment_id: i64,
    name: &str,
) -> Result<Option<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select digest as "digest: Digest" from policies
           where environment_id = $1 and name = $2 and ended_at is null"#,
        environment_id,
        name,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading the policy in force", error))
}

/// The environments that the policies in force look back to.
pub async fn earlier_environments(
    connection: &mut PgConnection,
    environment_id: i64,
) -> Result<Vec<i64>, Failure> {
    sqlx::query_scalar!(
        r#"select e.id from environments e where e.name in (
             select unnest(p.earlier_environments) from policies p
             where p.environment_id = $1 and p.ended_at is null)"#,
        environment_id,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading the environments before this one", error))
}

/// Ends the version in force, if there is one.
pub async fn end(
    connection: &mut PgConnection,
    environment_id: i64,
    name: &str,
    at: DateTime<Utc>,
    by: i64,
) -> Result<Option<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"update policies set ended_at = $3, ended_by = $4
           where environment_id = $1 and name = $2 and ended_at is null returning digest as "digest: Digest""#,
        environment_id,
        name,
        at,
        by,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("ending a policy", error))
}

/// Puts a version in force; its document is kept once, under its digest.
pub async fn insert(
    connection: &mut PgConnection,
    environment_id: i64,
    policy: &Policy,
    digest: &Digest,
    source: &str,
    at: DateTime<Utc>,
    by: i64,
) -> Result<(), Failure> {
    let repositories: Vec<Pattern> = policy.repositories.iter().cloned().collect();
    let severities: Vec<String> =
        policy.denied_severities().into_iter().map(|severity| severity.as_str().to_owned()).collect();
    let earlier: Vec<EnvironmentName> = policy.earlier_environments().into_iter().cloned().collect();
    sqlx::query!(
        r#"with document as (
             insert into policy_documents(digest, body, source) values ($3, $4, $5) on conflict (digest) do nothing)
           insert into policies(environment_id, name, digest, repositories, denied_severities, earlier_environments, at, by)
           values ($1, $2, $3, $6, $7, $8, $9, $10)"#,
        environment_id,
        policy.name.as_str(),
        digest as &Digest,
        policy.canonical()?,
        source,
        &repositories as &[Pattern],
        &severities,
        &earlier as &[EnvironmentName],
        at,
        by,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("putting a policy in force", error))?;
    Ok(())
}

/// The names of all who hold a role that includes approving.
pub async fn approvers(connection: &mut PgConnection) -> Result<Vec<String>, Failure> {
    let roles: Vec<&str> =
        Role::ALL.into_iter().filter(|role| role.includes(Action::Approve)).map(Role::as_str).collect();
    sqlx::query_scalar!(
        "select distinct w.name from grants g join principals w on w.id = g.principal_id
         where g.ended_at is null and g.role = any($1)",
        &roles as &[&str],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for a policy's approvers", error))
}

/// Those of the names that no signer has.
pub async fn unknown_signers(
    connection: &mut PgConnection,
    names: &[String],
) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"select n as "name!" from unnest($1::text[]) n
           where not exists (select from signers s where s.name = n) order by n"#,
        names,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for a policy's signers", error))
}

/// Versions, the newest first.
pub async fn list(
    connection: &mut PgConnection,
    environment: Option<&EnvironmentName>,
    history: bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<PolicyRow>, Failure> {
    sqlx::query_as!(
        PolicyRow,
        r#"select p.id, e.name as "environment: EnvironmentName", p.name, p.digest as "digest: Digest",
             p.repositories as "repositories: Vec<Pattern>", p.at, w.name as by, p.ended_at, d.source
           from policies p join policy_documents d on d.digest = p.digest join environments e on e.id = p.environment_id join principals w on w.id = p.by
           where ($1::text is null or e.name = $1) and ($2 or p.ended_at is null)
             and ($3::bigint is null or p.id < $3)
           order by p.id desc limit $4"#,
        environment as Option<&EnvironmentName>,
        history,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing policies", error))
}
