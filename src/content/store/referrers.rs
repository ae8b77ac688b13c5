//! Manifests by subject.

use crate::content::Referrer;
use crate::failure::Failure;
use crate::names::{Digest, MediaType};
use serde_json::Value;
use sqlx::PgConnection;

/// A page of what refers to the subject.
pub async fn page(
    connection: &mut PgConnection,
    repository_id: i64,
    subject: &Digest,
    artifact_type: Option<&str>,
    last: &str,
    limit: i64,
) -> Result<Vec<Referrer>, Failure> {
    sqlx::query_as!(
        Referrer,
        r#"select digest as "digest: Digest", media_type as "media_type: MediaType",
                  octet_length(body)::bigint as "size_bytes!",
                  coalesce(artifact_type, config_media_type) as "artifact_type: MediaType",
                  annotations as "annotations: Value"
           from manifests
           where repository_id = $1 and subject = $2 and digest > $4
             and ($3::text is null or coalesce(artifact_type, config_media_type) = $3)
           order by digest limit $5"#,
        repository_id,
        subject as &Digest,
        artifact_type,
        last,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing referrers", error))
}
