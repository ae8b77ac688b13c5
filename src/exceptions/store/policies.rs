//! What is read of policies.

use crate::failure::Failure;
use crate::names::EnvironmentName;
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// The canonical forms of the policies in force of these environments.
pub async fn in_force(
    connection: &mut PgConnection,
    environments: &BTreeSet<&EnvironmentName>,
) -> Result<Vec<Vec<u8>>, Failure> {
    let names: Vec<&EnvironmentName> = environments.iter().copied().collect();
    sqlx::query_scalar!(
        "select d.body from policies p join policy_documents d on d.digest = p.digest
         join environments e on e.id = p.environment_id
         where p.ended_at is null and e.name = any($1)",
        &names as &[&EnvironmentName],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading the policies in force", error))
}
