//! Manifests by subject.

use crate::content::{Referrer, Referrers};
use crate::failure::Failure;
use crate::names::{Digest, MediaType};
use serde_json::Value;
use sqlx::PgConnection;

/// A page of what refers to the subject: so many manifests, and those behind the first only as long as all
/// before have fewer bytes than this.
pub async fn page(
    connection: &mut PgConnection,
    repository_id: i64,
    subject: &Digest,
    artifact_type: Option<&str>,
    last: &str,
    limit: i64,
    bytes: i64,
) -> Result<Referrers, Failure> {
    let rows = sqlx::query!(
        r#"with page as (
             select digest, octet_length(body)::bigint as size_bytes from manifests
             where repository_id = $1 and subject = $2 and digest > $4
               and ($3::text is null or coalesce(artifact_type, config_media_type) = $3)
             order by digest limit $5::bigint + 1),
           measured as (
             select digest, size_bytes, row_number() over (order by digest) as number, count(*) over () as found,
                    (sum(size_bytes) over (order by digest) - size_bytes)::bigint as before_bytes
             from page)
           select m.digest as "digest: Digest", m.media_type as "media_type: MediaType",
                  p.size_bytes as "size_bytes!", p.found as "found!",
                  coalesce(m.artifact_type, m.config_media_type) as "artifact_type: MediaType",
                  m.annotations as "annotations: Value"
           from measured p join manifests m on m.repository_id = $1 and m.digest = p.digest
           where p.number <= $5 and (p.before_bytes < $6 or p.number = 1)
           order by m.digest"#,
        repository_id,
        subject as &Digest,
        artifact_type,
        last,
        limit,
        bytes
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing referrers", error))?;
    let more = rows.first().is_some_and(|row| row.found.unsigned_abs() > rows.len() as u64);
    let page = rows.into_iter().map(|row| Referrer {
        digest: row.digest,
        media_type: row.media_type,
        size_bytes: row.size_bytes,
        artifact_type: row.artifact_type,
        annotations: row.annotations,
    });
    Ok(Referrers { page: page.collect(), more })
}
