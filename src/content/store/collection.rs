//! What collection reads and deletes. Each page looks at a bounded number of rows by their key.

use crate::clock;
use crate::content::{Garbage, Why};
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName};
use crate::postgres::MAX_CLOCK_DIFFERENCE;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::time::Duration;

/// A link that was looked at.
pub struct LinkSeen {
    pub repository_id: i64,
    pub digest: Digest,
    /// Past its grace, and no manifest refers to it in this snapshot.
    pub unneeded: bool,
}

/// Nothing is deleted that is still protected at this time: a clock of Postgres that is ahead ends no protection.
fn latest_time() -> DateTime<Utc> {
    clock::now() + MAX_CLOCK_DIFFERENCE
}

/// The next links in the order of their key.
pub async fn links_page(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &str,
    limit: i64,
) -> Result<Vec<LinkSeen>, Failure> {
    sqlx::query_as!(
        LinkSeen,
        r#"with page as materialized (
             select repository_id, digest, protected_until from blob_links
             where (repository_id, digest) > ($1, $2) order by repository_id, digest limit $3)
           select p.repository_id as "repository_id!", p.digest as "digest!: Digest",
                  p.protected_until < least(clock_timestamp(), $4) and not exists (
                    select from manifest_blobs m
                    where m.repository_id = p.repository_id and m.blob = p.digest) as "unneeded!"
           from page p order by p.repository_id, p.digest"#,
        repository_id,
        digest,
        limit,
        latest_time(),
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for links that nothing needs", error))
}

/// A link that is locked.
pub struct LinkLocked {
    pub repository_id: i64,
    pub digest: Digest,
}

/// Locks the links for deletion; those that somebody else has locked, such as a push that is under
/// way, are left out.
pub async fn lock_links(
    connection: &mut PgConnection,
    repositories: &[i64],
    digests: &[Digest],
) -> Result<Vec<LinkLocked>, Failure> {
    sqlx::query_as!(
        LinkLocked,
        r#"select l.repository_id, l.digest as "digest: Digest"
           from unnest($1::bigint[], $2::text[]) as u(repository_id, digest)
           join blob_links l on l.repository_id = u.repository_id and l.digest = u.digest
           order by l.repository_id, l.digest for update of l skip locked"#,
        repositories,
        digests as &[Digest]
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("locking links that nothing needs", error))
}

/// A link that was deleted.
pub struct LinkGone {
    pub repository_id: i64,
    pub repository: RepositoryName,
    pub digest: Digest,
    pub size_bytes: i64,
}

/// Deletes those of the locked links that nothing needs in this statement's snapshot, which is newer
/// than the locks.
pub async fn delete_links(
    connection: &mut PgConnection,
    repositories: &[i64],
    digests: &[Digest],
) -> Result<Vec<LinkGone>, Failure> {
    sqlx::query_as!(
        LinkGone,
        r#"with gone as (
             delete from blob_links l using unnest($1::bigint[], $2::text[]) as u(repository_id, digest)
             where l.repository_id = u.repository_id and l.digest = u.digest
               and l.protected_until < least(clock_timestamp(), $3)
               and not exists (select from manifest_blobs m
                               where m.repository_id = l.repository_id and m.blob = l.digest)
             returning l.repository_id, l.digest)
           select g.repository_id, r.name as "repository: RepositoryName", g.digest as "digest: Digest",
                  b.size_bytes
           from gone g join repositories r on r.id = g.repository_id join blobs b on b.digest = g.digest
           order by g.repository_id, g.digest"#,
        repositories,
        digests as &[Digest],
        latest_time(),
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("deleting links that nothing needs", error))
}

/// A blob that was looked at.
pub struct BlobSeen {
    pub digest: Digest,
    pub size_bytes: i64,
    /// No repository has it in this snapshot.
    pub unneeded: bool,
}

impl BlobSeen {
    /// As a list shows it.
    pub fn garbage(self) -> Garbage {
        Garbage {
            repository: None,
            digest: Some(self.digest),
            object: None,
            size_bytes: self.size_bytes,
            why: Why::Unlinked,
            since: None,
        }
    }
}

/// The next blobs in the order of their digests.
pub async fn blobs_page(
    connection: &mut PgConnection,
    digest: &str,
    limit: i64,
) -> Result<Vec<BlobSeen>, Failure> {
    sqlx::query_as!(
        BlobSeen,
        r#"with page as materialized (
             select digest, size_bytes from blobs where digest > $1 order by digest limit $2)
           select p.digest as "digest!: Digest", p.size_bytes as "size_bytes!",
                  not exists (select from blob_links l where l.digest = p.digest) as "unneeded!"
           from page p order by p.digest"#,
        digest,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for blobs that no repository has", error))
}

/// Locks the blobs for deletion; those that somebody is linking are left out.
pub async fn lock_blobs(connection: &mut PgConnection, digests: &[Digest]) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select digest as "digest: Digest" from blobs where digest = any($1)
           order by digest for update skip locked"#,
        digests as &[Digest]
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("locking blobs that no repository has", error))
}

/// Deletes those of the locked blobs that no repository has in this statement's snapshot, and dooms
/// their bytes. Returns how many, and their bytes.
pub async fn delete_blobs(connection: &mut PgConnection, digests: &[Digest]) -> Result<(u64, u64), Failure> {
    let row = sqlx::query!(
        r#"with gone as (
             delete from blobs b where b.digest = any($1)
               and not exists (select from blob_links l where l.digest = b.digest)
             returning b.object_key, b.size_bytes),
           doomed as (
             insert into doomed_objects(object_key, size_bytes)
             select object_key, size_bytes from gone where object_key is not null)
           select count(*) as "count!", coalesce(sum(size_bytes), 0)::bigint as "bytes!" from gone"#,
        digests as &[Digest]
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("deleting blobs that no repository has", error))?;
    Ok((row.count.unsigned_abs(), row.bytes.unsigned_abs()))
}

/// Bytes whose blob was collected.
pub struct Doomed {
    pub object_key: String,
    pub size_bytes: i64,
    /// When its blob was collected.
    pub at: DateTime<Utc>,
}

impl Doomed {
    /// As a list shows it.
    pub fn garbage(self) -> Garbage {
        Garbage {
            repository: None,
            digest: None,
            object: Some(self.object_key),
            size_bytes: self.size_bytes,
            why: Why::BlobCollected,
            since: Some(self.at),
        }
    }
}

/// The next objects whose delay is over, in the order of their keys.
pub async fn doomed_page(
    connection: &mut PgConnection,
    key: &str,
    delay: Duration,
    limit: i64,
) -> Result<Vec<Doomed>, Failure> {
    sqlx::query_as!(
        Doomed,
        "select object_key, size_bytes, doomed_at as at from doomed_objects
         where object_key > $1 and doomed_at <= least(clock_timestamp(), $4) - make_interval(secs => $2)
         order by object_key limit $3",
        key,
        delay.as_secs_f64(),
        limit,
        latest_time(),
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for bytes whose blob was collected", error))
}

/// Forgets objects that are gone from the store.
pub async fn forget_doomed(connection: &mut PgConnection, keys: &[String]) -> Result<(), Failure> {
    sqlx::query!("delete from doomed_objects where object_key = any($1)", keys)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("forgetting deleted bytes", error))?;
    Ok(())
}

/// A window of links: what of it is garbage, and where it ends (nowhere: there are no more links).
pub struct GarbagePage {
    pub items: Vec<Garbage>,
    pub last: Option<(i64, String)>,
}

/// The garbage among the next links, with its repository's name and whether anybody else has it.
pub async fn links_garbage(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &str,
    limit: i64,
) -> Result<GarbagePage, Failure> {
    let seen = links_page(connection, repository_id, digest, limit).await?;
    let last = seen.last().map(|link| (link.repository_id, link.digest.to_string()));
    let (repositories, digests): (Vec<i64>, Vec<Digest>) =
        seen.into_iter().filter(|link| link.unneeded).map(|link| (link.repository_id, link.digest)).unzip();
    let rows = sqlx::query!(
        r#"select r.name as "repository: RepositoryName", l.digest as "digest: Digest", b.size_bytes,
                  l.protected_until,
                  exists (select from blob_links o where o.digest = l.digest
                          and (o.protected_until >= clock_timestamp()
                               or exists (select from manifest_blobs m where m.repository_id = o.repository_id
                                          and m.blob = o.digest))) as "elsewhere!"
           from unnest($1::bigint[], $2::text[]) as u(repository_id, digest)
           join blob_links l on l.repository_id = u.repository_id and l.digest = u.digest
           join blobs b on b.digest = l.digest join repositories r on r.id = l.repository_id
           order by l.repository_id, l.digest"#,
        &repositories,
        &digests as &[Digest]
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing links that nothing needs", error))?;
    let items = rows.into_iter().map(|row| Garbage {
        repository: Some(row.repository),
        digest: Some(row.digest),
        object: None,
        size_bytes: row.size_bytes,
        why: if row.elsewhere { Why::Unreferenced } else { Why::UnreferencedEverywhere },
        since: Some(row.protected_until),
    });
    Ok(GarbagePage { items: items.collect(), last })
}
