//! The audit's statements, each one snapshot.

use crate::failure::Failure;
use crate::names::Digest;
use sqlx::PgConnection;

/// A name of a repository with all that the tables say of it; text as it stands, since it may be wrong.
pub struct Named {
    pub repository_id: i64,
    pub repository: String,
    pub tag: String,
    /// What it is held for write-once.
    pub held: Option<String>,
    /// What it floats to by its history; a deletion is nothing.
    pub floats: Option<String>,
    /// Whether `tags_hidden` has it, and whether it should by its history.
    pub is_hidden: bool,
    pub was_hidden: bool,
    /// Whether its floating history goes on behind the claim that ended it.
    pub moved_on: bool,
    /// The manifest that it names now, if that is there.
    pub found: Option<String>,
}

/// The next names behind this one, by repository and name, as one snapshot has them. Each table gives
/// its own next names, so that none is walked whole; floating ones by skip scan.
pub async fn names(
    connection: &mut PgConnection,
    behind: (i64, &str),
    limit: i64,
) -> Result<Vec<Named>, Failure> {
    sqlx::query_as!(
        Named,
        r#"with recursive floating(repository_id, name, n) as (
             (select repository_id, name, 1::bigint from floating_tags where (repository_id, name) > ($1, $2)
              order by repository_id, name limit 1)
             union all
             select next.repository_id, next.name, f.n + 1 from floating f cross join lateral (
               select t.repository_id, t.name from floating_tags t
               where (t.repository_id, t.name) > (f.repository_id, f.name)
               order by t.repository_id, t.name limit 1) next
             where f.n < $3),
           page as materialized (
             (select repository_id, name from floating)
             union
             (select repository_id, name from tags where (repository_id, name) > ($1, $2)
              order by repository_id, name limit $3)
             union
             (select repository_id, name from tags_hidden where (repository_id, name) > ($1, $2)
              order by repository_id, name limit $3)
             order by repository_id, name limit $3)
           select p.repository_id as "repository_id!",
             coalesce(r.name, 'repository ' || p.repository_id) as "repository!", p.name as "tag!",
             t.digest as "held?", f.digest as "floats?",
             h.name is not null as "is_hidden!", coalesce(v.hidden, false) as "was_hidden!",
             coalesce(f.moved_at > t.claimed_at, false) as "moved_on!", m.digest as "found?"
           from page p left join repositories r on r.id = p.repository_id
             left join tags t on t.repository_id = p.repository_id and t.name = p.name
             left join tags_hidden h on h.repository_id = p.repository_id and h.name = p.name
             left join lateral (select hidden from tag_visibility v
                                where v.repository_id = p.repository_id and v.name = p.name
                                order by v.id desc limit 1) v on true
             left join lateral (select digest, moved_at from floating_tags f
                                where f.repository_id = p.repository_id and f.name = p.name
                                order by f.id desc limit 1) f on true
             left join manifests m on m.repository_id = p.repository_id
               and m.digest = case when t.name is null then f.digest when h.name is null then t.digest end
           order by p.repository_id, p.name"#,
        behind.0,
        behind.1,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing tags", error))
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
    pub config_digest: Option<String>,
    pub file: Option<String>,
    pub body: Vec<u8>,
    pub children: Vec<String>,
    pub blobs: Vec<String>,
}

/// The next manifests behind the first key up to the second, each as one snapshot has it; so many that
/// their bodies have few bytes together, and one at the least. A blob or a child counts as held while all
/// rows that hold it are there.
pub async fn held(
    connection: &mut PgConnection,
    behind: (i64, &str),
    to: &(i64, String),
    bytes: i64,
) -> Result<Vec<Held>, Failure> {
    sqlx::query_as!(
        Held,
        r#"select m.repository_id, coalesce(r.name, 'repository ' || m.repository_id) as "repository!", m.digest, m.sha256, m.sha512, m.media_type,
                  m.config_digest, m.file, m.body,
                  array(select k.child from manifest_children k
                          join manifests c on c.repository_id = k.repository_id and c.digest = k.child
                        where k.repository_id = m.repository_id and k.manifest = m.digest) as "children!",
                  array(select b.blob from manifest_blobs b
                          join blob_links l on l.repository_id = b.repository_id and l.digest = b.blob
                          join blobs s on s.digest = b.blob
                        where b.repository_id = m.repository_id and b.manifest = m.digest) as "blobs!"
           from (select *, sum(octet_length(body)) over (order by repository_id, digest) - octet_length(body) as before
                 from manifests
                 where (repository_id, digest) > ($1, $2) and (repository_id, digest) <= ($3, $4)) m
             left join repositories r on r.id = m.repository_id
           where m.before <= $5
           order by m.repository_id, m.digest"#,
        behind.0,
        behind.1,
        to.0,
        to.1,
        bytes
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

/// What a repository holds and what is counted.
pub struct UsageRow {
    pub repository_id: i64,
    pub repository: String,
    /// Links and manifests that were looked at.
    pub rows: i64,
    pub held_bytes: i64,
    pub counted_bytes: i64,
    /// Of evidence.
    pub evidence_bytes: i64,
    pub counted_evidence_bytes: i64,
}

/// The next repository behind this one: one snapshot for each, since only both sides of the comparison
/// have to be of one.
pub async fn usage(connection: &mut PgConnection, behind: i64) -> Result<Option<UsageRow>, Failure> {
    sqlx::query_as!(
        UsageRow,
        r#"select r.id as repository_id, r.name as repository, l.rows + m.rows + d.rows as "rows!",
             (l.bytes + m.bytes)::bigint as "held_bytes!", u.bytes as "counted_bytes!",
             d.bytes as "evidence_bytes!", u.evidence_bytes as "counted_evidence_bytes!"
           from (select id, name from repositories where id > $1 order by id limit 1) r
           cross join lateral (
             select count(*) as rows, coalesce(sum(b.size_bytes), 0) as bytes
             from blob_links l join blobs b on b.digest = l.digest where l.repository_id = r.id) l
           cross join lateral (
             select count(*) as rows, coalesce(sum(octet_length(body)), 0) as bytes
             from manifests where repository_id = r.id) m
           cross join lateral (
             select count(*) as rows, coalesce(sum(size_bytes), 0)::bigint as bytes
             from evidence_documents where repository_id = r.id) d
           cross join lateral (
             select coalesce(sum(bytes), 0)::bigint as bytes, coalesce(sum(evidence_bytes), 0)::bigint as evidence_bytes
             from repository_usage where repository_id = r.id) u"#,
        behind
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("auditing what repositories hold", error))
}
