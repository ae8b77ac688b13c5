//! Rows of trust files, with the events that took them over.

use crate::failure::Failure;
use sqlx::PgConnection;

/// A trust file.
pub struct File {
    pub version: i32,
    pub document: Vec<u8>,
    /// The digests that events of its version name.
    pub told: Vec<String>,
}

/// All of them, in order.
pub async fn files(connection: &mut PgConnection) -> Result<Vec<File>, Failure> {
    sqlx::query_as!(
        File,
        r#"with told as materialized (
             select id_said(facts_said(leaf), 'version') as version, array_agg(facts_said(leaf) ->> 'sha256') as digests
             from events where kind = 'registry.trust-updated' group by 1)
           select t.version, t.document, coalesce(array_remove(told.digests, null), '{}') as "told!"
           from trust_files t left join told on told.version = t.version order by t.version"#
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing the trust files", error))
}

/// The registry's verifier id.
pub async fn names(connection: &mut PgConnection) -> Result<Option<String>, Failure> {
    crate::keys::verifier_id(connection).await
}

/// Ids and roles of the keys of before trust files.
pub async fn registered(connection: &mut PgConnection) -> Result<Vec<(String, String)>, Failure> {
    let rows = sqlx::query!("select key_id, role from registry_keys order by key_id")
        .fetch_all(connection)
        .await
        .map_err(|error| Failure::new("auditing the keys of before trust files", error))?;
    Ok(rows.into_iter().map(|row| (row.key_id, row.role)).collect())
}
