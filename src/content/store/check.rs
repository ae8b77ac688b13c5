//! The audit's statements, each one snapshot.

use crate::failure::Failure;
use crate::names::Digest;
use sqlx::PgConnection;

/// One line for each violation about tags, 100 at the most of each kind.
pub async fn of_tags(connection: &mut PgConnection) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"
        (select 'a shown tag points at no manifest: ' || r.name || ':' || t.name || ' -> ' || t.digest as "violation!"
         from tags t join repositories r on r.id = t.repository_id
         where not exists (select from tags_hidden h where h.repository_id = t.repository_id and h.name = t.name)
           and not exists (select from manifests m where m.repository_id = t.repository_id and m.digest = t.digest)
         limit 100)
        union all
        (select 'a floating tag points at no manifest: ' || r.name || ':' || f.name || ' -> ' || f.digest
         from (select distinct on (repository_id, name) repository_id, name, digest from floating_tags
               order by repository_id, name, id desc) f
         join repositories r on r.id = f.repository_id
         where f.digest is not null
           and not exists (select from tags t where t.repository_id = f.repository_id and t.name = f.name)
           and not exists (select from manifests m where m.repository_id = f.repository_id and m.digest = f.digest)
         limit 100)
        union all
        (select 'a floating tag moved after it became write-once: ' || r.name || ':' || t.name
         from tags t join repositories r on r.id = t.repository_id
         where exists (select from floating_tags f where f.repository_id = t.repository_id and f.name = t.name
                       and f.moved_at > t.claimed_at)
         limit 100)
        "#
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing tags", error))
}

/// One line for each tag that is hidden and should not be, or the other way round, 100 at the most.
pub async fn hidden(connection: &mut PgConnection) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"select 'tags_hidden disagrees with tag_visibility: ' || r.name || ':' || coalesce(h.name, v.name) as "violation!"
         from (select distinct on (repository_id, name) repository_id, name, hidden from tag_visibility
               order by repository_id, name, id desc) v
         full join tags_hidden h on h.repository_id = v.repository_id and h.name = v.name
         join repositories r on r.id = coalesce(h.repository_id, v.repository_id)
         where coalesce(v.hidden, false) <> (h.name is not null)
         limit 100"#
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing hidden tags", error))
}

/// A page of manifests: how many, their bytes, and the last one.
pub struct ManifestsPage {
    /// Manifests.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last one, by repository and digest; none behind the end.
    pub last: Option<(i64, String)>,
}

/// The next manifests in the order of their key.
pub async fn manifests_page(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &str,
    limit: i64,
) -> Result<ManifestsPage, Failure> {
    let rows = sqlx::query!(
        r#"select repository_id, digest, octet_length(body)::bigint as "bytes!" from manifests
           where (repository_id, digest) > ($1, $2) order by repository_id, digest limit $3"#,
        repository_id,
        digest,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading manifests", error))?;
    Ok(ManifestsPage {
        rows: rows.len() as u64,
        bytes: rows.iter().map(|row| row.bytes.unsigned_abs()).sum(),
        last: rows.into_iter().next_back().map(|row| (row.repository_id, row.digest)),
    })
}

/// A manifest with what the tables say that it holds; names as they stand, since they may be wrong.
pub struct Held {
    pub repository_id: i64,
    pub repository: String,
    pub digest: String,
    pub sha256: String,
    pub sha512: String,
    pub media_type: String,
    pub body: Vec<u8>,
    pub children: Vec<String>,
    pub blobs: Vec<String>,
}

/// The next manifests behind the first key up to the second, each as one snapshot has it.
pub async fn held(
    connection: &mut PgConnection,
    behind: (i64, &str),
    to: &(i64, String),
    limit: i64,
) -> Result<Vec<Held>, Failure> {
    sqlx::query_as!(
        Held,
        r#"select m.repository_id, r.name as repository, m.digest, m.sha256, m.sha512, m.media_type, m.body,
                  array(select k.child from manifest_children k
                        where k.repository_id = m.repository_id and k.manifest = m.digest) as "children!",
                  array(select b.blob from manifest_blobs b
                        where b.repository_id = m.repository_id and b.manifest = m.digest) as "blobs!"
           from manifests m join repositories r on r.id = m.repository_id
           where (m.repository_id, m.digest) > ($1, $2) and (m.repository_id, m.digest) <= ($3, $4)
           order by m.repository_id, m.digest limit $5"#,
        behind.0,
        behind.1,
        to.0,
        to.1,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing manifests", error))
}

/// A page of blobs that may lie in their rows.
pub struct SmallBlobsPage {
    /// Those that were looked at.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are not what their digest says.
    pub wrong: Vec<Digest>,
    /// Those that are known to be damaged, wherever their bytes lay, and wait to be pushed again.
    pub damaged: Vec<Digest>,
    /// The last blob that was looked at; none behind the end.
    pub last: Option<String>,
}

/// Looks at the next blobs, by digest.
pub async fn of_small_blobs(
    connection: &mut PgConnection,
    last: &str,
    limit: i64,
) -> Result<SmallBlobsPage, Failure> {
    let rows = sqlx::query!(
        r#"with page as materialized (
             select digest, size_bytes, bytes, damaged_at from blobs where digest > $1 order by digest limit $2)
           select digest as "digest!: Digest", coalesce(octet_length(bytes), 0)::bigint as "bytes!",
                  bytes is not null and damaged_at is null
                    and (size_bytes <> octet_length(bytes)
                         or digest not in ('sha256:' || encode(sha256(bytes), 'hex'),
                                           'sha512:' || encode(sha512(bytes), 'hex'))) as "wrong!",
                  damaged_at is not null as "damaged!"
           from page order by digest"#,
        last,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing small blobs", error))?;
    Ok(SmallBlobsPage {
        rows: rows.len() as u64,
        bytes: rows.iter().map(|row| row.bytes.unsigned_abs()).sum(),
        last: rows.last().map(|row| row.digest.to_string()),
        damaged: rows.iter().filter(|row| row.damaged).map(|row| row.digest.clone()).collect(),
        wrong: rows.into_iter().filter(|row| row.wrong).map(|row| row.digest).collect(),
    })
}

/// One line for each repository that holds more or less than its usage says, 100 at the most.
pub async fn of_usage(connection: &mut PgConnection) -> Result<Vec<(i64, String)>, Failure> {
    let rows = sqlx::query!(
        r#"select r.id, 'a repository holds other bytes than its usage says: ' || r.name || ' holds ' || h.bytes
                  || ', counted are ' || u.bytes as "violation!"
           from repositories r
           cross join lateral (
             select (select coalesce(sum(b.size_bytes), 0) from blob_links l join blobs b on b.digest = l.digest
                     where l.repository_id = r.id)
                  + (select coalesce(sum(octet_length(m.body)), 0) from manifests m
                     where m.repository_id = r.id) as bytes) h
           cross join lateral (
             select coalesce(sum(s.bytes), 0) as bytes from repository_usage s where s.repository_id = r.id) u
           where h.bytes <> u.bytes limit 100"#
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing what repositories hold", error))?;
    Ok(rows.into_iter().map(|row| (row.id, row.violation)).collect())
}
