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

/// One line for each violation about the manifests behind the first key up to the second, 100 at the
/// most of each kind.
pub async fn of_manifests(
    connection: &mut PgConnection,
    behind: (i64, &str),
    to: &(i64, String),
) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"
        with page as materialized (
          select * from manifests
          where (repository_id, digest) > ($1, $2) and (repository_id, digest) <= ($3, $4))
        (select 'a manifest is not the bytes of its digests: ' || r.name || '@' || m.digest as "violation!"
         from page m join repositories r on r.id = m.repository_id
         where m.digest not in (m.sha256, m.sha512)
            or m.sha256 <> 'sha256:' || encode(sha256(m.body), 'hex')
            or m.sha512 <> 'sha512:' || encode(sha512(m.body), 'hex')
         limit 100)
        union all
        (select 'an index does not hold a manifest that it lists: ' || r.name || '@' || m.digest || ' lists ' || (c ->> 'digest')
         from page m join repositories r on r.id = m.repository_id
         cross join lateral jsonb_array_elements(convert_from(m.body, 'UTF8')::jsonb -> 'manifests') c
         where m.media_type in ('application/vnd.oci.image.index.v1+json',
                                'application/vnd.docker.distribution.manifest.list.v2+json')
           and not exists (select from manifest_children k where k.repository_id = m.repository_id
                           and k.manifest = m.digest and k.child = c ->> 'digest')
           and not exists (select from manifest_blobs b where b.repository_id = m.repository_id
                           and b.manifest = m.digest and b.blob = c ->> 'digest')
         limit 100)
        union all
        (select 'a manifest does not hold its blob: ' || r.name || '@' || m.digest || ' needs ' || (c ->> 'digest')
         from page m join repositories r on r.id = m.repository_id
         cross join lateral (
           select convert_from(m.body, 'UTF8')::jsonb -> 'config' as c
           union all
           select jsonb_array_elements(convert_from(m.body, 'UTF8')::jsonb -> 'layers')) parts
         where m.media_type in ('application/vnd.oci.image.manifest.v1+json',
                                'application/vnd.docker.distribution.manifest.v2+json')
           and c ->> 'mediaType' not like 'application/vnd.oci.image.layer.nondistributable.%'
           and c ->> 'mediaType' not like 'application/vnd.docker.image.rootfs.foreign.%'
           and not exists (select from manifest_blobs b where b.repository_id = m.repository_id
                           and b.manifest = m.digest and b.blob = c ->> 'digest')
         limit 100)
        "#,
        behind.0,
        behind.1,
        to.0,
        to.1
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
                                           'sha512:' || encode(sha512(bytes), 'hex'))) as "wrong!"
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
