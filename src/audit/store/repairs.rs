//! What repairs write.

use crate::failure::Failure;
use crate::names::{Digest, RepositoryName};
use crate::storage::Location;
use sqlx::PgConnection;

/// A blob with where its bytes should lie.
pub struct BlobRow {
    pub digest: Digest,
    pub size_bytes: u64,
    pub location: Location,
}

/// The blob, if it is marked as damaged or if it is not.
pub async fn blob(
    connection: &mut PgConnection,
    digest: &Digest,
    is_marked: bool,
) -> Result<Option<BlobRow>, Failure> {
    let row = sqlx::query!(
        "select size_bytes, object_key, bytes from blobs where digest = $1 and (damaged_at is not null) = $2",
        digest as &Digest,
        is_marked
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a blob to repair", error))?;
    Ok(row.map(|row| BlobRow {
        digest: digest.clone(),
        size_bytes: row.size_bytes.unsigned_abs(),
        location: match row.object_key {
            Some(key) => Location::Object(key),
            None => Location::Inline(row.bytes.unwrap_or_default().into()),
        },
    }))
}

/// The damaged blob with the next digest.
pub async fn next_damaged(
    connection: &mut PgConnection,
    after: Option<&Digest>,
) -> Result<Option<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select digest as "digest: Digest" from blobs
           where damaged_at is not null and digest > $1 order by digest limit 1"#,
        after.map_or("", Digest::as_str)
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("looking for a damaged blob", error))
}

/// Marks the blob as damaged, or as whole, if its bytes lie where they were looked at.
pub async fn mark(connection: &mut PgConnection, blob: &BlobRow, damaged: bool) -> Result<bool, Failure> {
    let (key, bytes) = match &blob.location {
        Location::Object(key) => (Some(key.as_str()), None),
        Location::Inline(bytes) => (None, Some(&bytes[..])),
    };
    sqlx::query!(
        "update blobs set damaged_at = case when $4 then clock_timestamp() end
         where digest = $1 and (damaged_at is null) = $4
           and object_key is not distinct from $2 and bytes is not distinct from $3",
        &blob.digest as &Digest,
        key,
        bytes,
        damaged
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(|error| Failure::new("marking a damaged blob", error))
}

/// The repositories that have the blob.
pub async fn having(connection: &mut PgConnection, digest: &Digest) -> Result<Vec<RepositoryName>, Failure> {
    sqlx::query_scalar!(
        r#"select r.name as "name: RepositoryName" from blob_links l join repositories r on r.id = l.repository_id
           where l.digest = $1"#,
        digest as &Digest
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading which repositories have a blob", error))
}

/// Appends what is missing between what a repository holds and what is counted; one statement, one
/// snapshot.
pub async fn count_anew(connection: &mut PgConnection, repository_id: i64) -> Result<bool, Failure> {
    sqlx::query!(
        "insert into repository_usage(repository_id, bytes, evidence_bytes)
         select $1, difference, of_evidence from (
           select (select coalesce(sum(b.size_bytes), 0) from blob_links l join blobs b on b.digest = l.digest
                   where l.repository_id = $1)
                + (select coalesce(sum(octet_length(m.body)), 0) from manifests m where m.repository_id = $1)
                - (select coalesce(sum(u.bytes), 0) from repository_usage u where u.repository_id = $1)
                  as difference,
                (select coalesce(sum(d.size_bytes), 0) from evidence_documents d where d.repository_id = $1)
                - (select coalesce(sum(u.evidence_bytes), 0) from repository_usage u where u.repository_id = $1)
                  as of_evidence) d
         where difference <> 0 or of_evidence <> 0",
        repository_id
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(|error| Failure::new("counting anew what a repository holds", error))
}

/// Makes `tags_hidden` what `tag_visibility` says. Whoever hides a name or shows it locks that one; all of them are
/// looked at here, so the tables are locked, or one that is shown meanwhile would be hidden. Returns the
/// repositories in which that changed anything.
pub async fn hide_by_history(connection: &mut PgConnection) -> Result<Vec<RepositoryName>, Failure> {
    sqlx::query!("lock table tag_visibility, tags_hidden in share row exclusive mode")
        .execute(&mut *connection)
        .await
        .map_err(|error| Failure::new("locking the names that are hidden", error))?;
    sqlx::query_scalar!(
        r#"with history as (
           select distinct on (repository_id, name) repository_id, name, hidden from tag_visibility
           order by repository_id, name, id desc),
         shown as (
           delete from tags_hidden h where not exists (
             select from history v where v.repository_id = h.repository_id and v.name = h.name and v.hidden)
           returning repository_id),
         hidden as (
           insert into tags_hidden(repository_id, name)
           select repository_id, name from history where hidden on conflict do nothing returning repository_id)
         select r.name as "name: RepositoryName" from repositories r
         where r.id in (select repository_id from shown union all select repository_id from hidden)"#
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("hiding tags by their history", error))
}
