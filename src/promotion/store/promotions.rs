//! Rows of `promotions`, and what a promotion reads of content.

use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName, Tag};
use crate::promotion::lane::Place;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A promotion as a list shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct PromotionRow {
    /// Its id.
    pub id: i64,
    /// The environment.
    pub environment: EnvironmentName,
    /// What was promoted.
    pub digest: Digest,
    /// By which version.
    pub version: Option<Tag>,
    /// `promote` or `rollback`.
    pub kind: String,
    /// Why.
    pub reason: String,
    /// The decision.
    pub decision: Digest,
    /// Until when its summary is valid.
    pub valid_until: DateTime<Utc>,
    /// By whom.
    pub promoted_by: String,
    /// When.
    pub promoted_at: DateTime<Utc>,
    /// Since when the same bytes stand there without a break.
    pub standing_since: DateTime<Utc>,
}

/// The newest promotions of the repository, by id.
pub async fn list(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    environment: Option<&EnvironmentName>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<PromotionRow>, Failure> {
    sqlx::query_as!(
        PromotionRow,
        r#"select p.id, e.name as "environment: EnvironmentName", p.manifest as "digest: Digest",
             p.version as "version: Tag", p.kind, p.reason, p.decision as "decision: Digest", p.valid_until,
             w.name as promoted_by, p.promoted_at, p.standing_since
           from repositories r
           join environments e on $2::text is null or e.name = $2
           cross join lateral (
             select * from promotions q
             where q.repository_id = r.id and q.environment_id = e.id and ($3::bigint is null or q.id < $3)
             order by q.id desc limit $4
           ) p
           join principals w on w.id = p.promoted_by
           where r.name = $1 order by p.id desc limit $4"#,
        repository as &RepositoryName,
        environment as Option<&EnvironmentName>,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing promotions", error))
}

/// Keeps the manifest until the end of the transaction; whether it is there.
pub async fn keep_manifest(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<bool, Failure> {
    let found = sqlx::query_scalar!(
        r#"select true as "there!" from manifests where repository_id = $1 and digest = $2 for key share"#,
        repository_id,
        digest as &Digest,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("keeping a manifest", error))?;
    Ok(found.is_some())
}

/// The digest of a write-once tag that is not hidden.
pub async fn digest_of(
    connection: &mut PgConnection,
    repository_id: i64,
    version: &Tag,
) -> Result<Option<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select t.digest as "digest: Digest" from tags t where t.repository_id = $1 and t.name = $2
           and not exists (select from tags_hidden h where h.repository_id = $1 and h.name = $2)"#,
        repository_id,
        version as &Tag,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a version", error))
}

/// The digest of a write-once tag, by the repository's name.
pub async fn digest_of_version(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    version: &Tag,
) -> Result<Option<Digest>, Failure> {
    match crate::content::repository(connection, repository).await? {
        Some(repository) => digest_of(connection, repository.id, version).await,
        None => Ok(None),
    }
}

/// The newest version that the manifest was given.
pub async fn version_of(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Tag>, Failure> {
    sqlx::query_scalar!(
        r#"select t.name as "name: Tag" from tags t where t.repository_id = $1 and t.digest = $2
           and not exists (select from tags_hidden h where h.repository_id = $1 and h.name = t.name)
           order by t.claimed_at desc, t.name limit 1"#,
        repository_id,
        digest as &Digest,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a manifest's version", error))
}

/// The one file of an artifact.
pub struct FileOf {
    pub digest: Digest,
    pub name: Option<String>,
}

/// The file, where the manifest is an artifact of exactly one: whoever has the file in hand can
/// check the summary without the manifest. A file that has the bytes of some repository's manifest is
/// left out: whoever reads the summary and not what kind a subject is would take one for the other.
pub async fn file_of(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<FileOf>, Failure> {
    sqlx::query_as!(
        FileOf,
        r#"select layer ->> 'digest' as "digest!: Digest",
             layer -> 'annotations' ->> 'org.opencontainers.image.title' as name
           from (
             select convert_from(body, 'UTF8')::jsonb -> 'layers' as layers from manifests
             where repository_id = $1 and digest = $2 and artifact_type is not null and length(body) < 65536
               and config_media_type = 'application/vnd.oci.empty.v1+json'
           ) m cross join lateral (select m.layers -> 0 as layer) l
           where jsonb_typeof(layers) = 'array' and jsonb_array_length(layers) = 1
             and not exists (select from manifests other where other.sha256 = layer ->> 'digest')"#,
        repository_id,
        digest as &Digest,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading an artifact's file", error))
}

/// The manifests that carry these attestations, kept until the end of the transaction. One that was
/// deleted before carries nothing any more; its envelope is stored all the same.
pub async fn carriers(
    connection: &mut PgConnection,
    repository_id: i64,
    attestations: &[i64],
) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select m.digest as "digest: Digest" from manifests m
           where m.repository_id = $1 and m.digest in (
             select a.manifest from attestations a where a.id = any($2) and a.repository_id = $1)
           order by m.digest for key share"#,
        repository_id,
        attestations,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("keeping what carries a promotion's evidence", error))
}

/// A promotion to write.
pub struct NewPromotion<'a> {
    pub place: &'a Place,
    pub digest: &'a Digest,
    pub sha256: Digest,
    pub version: Option<&'a Tag>,
    pub decision: &'a Digest,
    pub kind: &'a str,
    pub reason: &'a str,
    pub summary: &'a [u8],
    pub valid_until: DateTime<Utc>,
    pub event_id: i64,
    pub by: i64,
    pub at: DateTime<Utc>,
    pub recorded: Value,
    /// The promotion that a rollback goes back to.
    pub target: Option<i64>,
}

/// A promotion that was written.
pub struct Inserted {
    pub id: i64,
    /// Whether nothing was promoted there before.
    pub first: bool,
}

/// Writes it behind the lane's newest, under the lane's exclusive lock: a renewal keeps the time
/// since when the bytes stand and the way back. A rollback takes over the way back of the promotion
/// that it goes back to, so that nothing it went away from ever lies behind it.
pub async fn insert(connection: &mut PgConnection, new: NewPromotion<'_>) -> Result<Inserted, Failure> {
    sqlx::query_as!(
        Inserted,
        r#"with recursive newest as (
             select id, sha256, standing_since, previous_id from promotions
             where repository_id = $1 and environment_id = $2 order by id desc limit 1),
           back(id, sha256, previous_id, step) as (
             (select id, sha256, previous_id, 0 from promotions
              where $7 = 'rollback' and repository_id = $1 and environment_id = $2 and sha256 = $4
              order by id desc limit 1)
             union all
             select p.id, p.sha256, p.previous_id, b.step + 1
             from back b cross join newest n join promotions p on p.id = b.previous_id
             where b.sha256 in ($4, n.sha256) and b.step < $14),
           written as (
           insert into promotions(repository_id, environment_id, manifest, sha256, version, decision, kind, reason,
             summary, valid_until, event_id, promoted_by, promoted_at, standing_since, previous_id, recorded, target_id)
           select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::timestamptz,
             case when n.sha256 = $4 then n.standing_since else $13 end,
             case when n.sha256 = $4 then n.previous_id
                  when $7 = 'rollback' then (select b.id from back b where b.sha256 not in ($4, n.sha256))
                  else n.id end, $15, $16
           from (select) always left join newest n on true returning id, repository_id, environment_id, valid_until)
           insert into release_channels(environment_id, repository_id, promotion_id, summary_until)
           select environment_id, repository_id, id, valid_until from written
           on conflict (environment_id, repository_id) do update
             set promotion_id = excluded.promotion_id, summary_until = excluded.summary_until
           returning promotion_id as "id!", not exists (select from newest) as "first!""#,
        new.place.repository_id,
        new.place.environment_id,
        new.digest as &Digest,
        &new.sha256 as &Digest,
        new.version as Option<&Tag>,
        new.decision as &Digest,
        new.kind,
        new.reason,
        new.summary,
        new.valid_until,
        new.event_id,
        new.by,
        new.at,
        MAX_CHANGES,
        new.recorded,
        new.target,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("writing a promotion", error))
}

/// A promotion that carries a digest.
pub struct Carrying {
    pub promotion: i64,
    /// The platform under which an index holds it.
    pub platform: Option<String>,
}

/// The promotions, in this lane, of these bytes or of an index that holds them: for each manifest its newest
/// one, the newest first.
pub async fn carrying(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    environment: &EnvironmentName,
    digest: &Digest,
    limit: i64,
) -> Result<Vec<Carrying>, Failure> {
    sqlx::query_as!(
        Carrying,
        r#"with recursive lane as (
             select r.id as repository_id, e.id as environment_id from repositories r cross join environments e
             where r.name = $1 and e.name = $2),
           above(digest, platform, depth) as (
             select m.digest, null::text collate "C", 0 from lane l join manifests m on m.repository_id = l.repository_id
               and (m.digest = $3 or m.sha256 = $3)
             union
             select c.manifest, coalesce(a.platform, c.platform), a.depth + 1 from above a cross join lane l
             join manifest_children c on c.repository_id = l.repository_id and c.child = a.digest
             where a.depth < 4)
           select p.id as "promotion!", min(a.platform) as platform from lane l cross join above a
           join manifests m on m.repository_id = l.repository_id and m.digest = a.digest
           cross join lateral (
             select q.id from promotions q where q.repository_id = l.repository_id
               and q.environment_id = l.environment_id and q.sha256 = m.sha256
             order by q.id desc limit 1) p
           group by p.id, m.sha256, l.repository_id, l.environment_id
           -- Those of blocked bytes come last: they take no place from one that may allow. A block from elsewhere that
           -- counts here by a wider pattern is found when they are evaluated.
           order by exists (select from blocks b where b.sha256 = m.sha256 and b.ended_at is null
               and (b.repository_id = l.repository_id or b.repositories && array['**', $1])
               and (b.environment_id is null or b.environment_id = l.environment_id)
               and (b.until is null or b.until > (select decision_time()))), p.id desc
           limit $4"#,
        repository as &RepositoryName,
        environment as &EnvironmentName,
        digest as &Digest,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for promotions of a digest", error))
}

/// An earlier version of a lane.
pub struct Earlier {
    /// Its newest promotion.
    pub promotion: i64,
    pub digest: Digest,
    pub version: Option<Tag>,
}

/// Changes of version that are walked back over at the most: who goes to and fro between two
/// versions must not make a question slow.
const MAX_CHANGES: i32 = 1000;

/// The versions before the lane's newest promotion (or before that one), the newest first, each of
/// other bytes than it and than all after it.
pub async fn earlier(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    environment: &EnvironmentName,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<Earlier>, Failure> {
    let limit = i32::try_from(limit).unwrap_or(i32::MAX);
    sqlx::query_as!(
        Earlier,
        r#"with recursive back(id, repository_id, environment_id, sha256, manifest, version, previous_id, seen, is_new, step) as (
             (select p.id, p.repository_id, p.environment_id, p.sha256, p.manifest, p.version, p.previous_id,
                array[p.sha256], false, 0
              from repositories r cross join environments e
              join promotions p on p.repository_id = r.id and p.environment_id = e.id
              where r.name = $1 and e.name = $2 and p.id <= coalesce($3, 9223372036854775807)
              order by p.id desc limit 1)
             union all
             select p.id, p.repository_id, p.environment_id, p.sha256, p.manifest, p.version, p.previous_id,
               case when p.sha256 = any(b.seen) then b.seen else b.seen || p.sha256 end,
               p.sha256 <> all(b.seen), b.step + 1
             from back b join promotions p on p.id = b.previous_id
             where cardinality(b.seen) <= $4 and b.step < $5)
           select b.id as "promotion!", b.manifest as "digest!: Digest", b.version as "version: Tag" from back b
           where b.is_new and not exists (
             select from (select max(n.id) as id from promotions n where n.repository_id = b.repository_id
                            and n.environment_id = b.environment_id and n.sha256 = b.sha256) last
             cross join lateral (
               select k.kind from promotions k where k.repository_id = b.repository_id
                 and k.environment_id = b.environment_id and k.id > last.id order by k.id limit 1) after
             where after.kind = 'rollback')
           order by b.step"#,
        repository as &RepositoryName,
        environment as &EnvironmentName,
        before,
        limit,
        MAX_CHANGES,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading earlier promotions", error))
}

/// The newest promotion of these bytes, where the lane can go back to them: they stood there before what
/// stands there now, and are no version that it went back from.
pub async fn lies_behind(
    connection: &mut PgConnection,
    place: &Place,
    digest: &Digest,
) -> Result<Option<i64>, Failure> {
    sqlx::query_scalar!(
        r#"with recursive back(id, repository_id, environment_id, sha256, previous_id, step) as (
             (select id, repository_id, environment_id, sha256, previous_id, 0 from promotions
              where repository_id = $1 and environment_id = $2 order by id desc limit 1)
             union all
             select p.id, p.repository_id, p.environment_id, p.sha256, p.previous_id, b.step + 1
             from back b join promotions p on p.id = b.previous_id where b.step < $4)
           select max(b.id) from manifests m join back b on b.sha256 = m.sha256
             where m.repository_id = $1 and m.digest = $3
               and m.sha256 <> (select sha256 from back where step = 0)
               and not exists (
             select from (select max(n.id) as id from promotions n where n.repository_id = b.repository_id
                            and n.environment_id = b.environment_id and n.sha256 = b.sha256) last
             cross join lateral (
               select k.kind from promotions k where k.repository_id = b.repository_id
                 and k.environment_id = b.environment_id and k.id > last.id order by k.id limit 1) after
             where after.kind = 'rollback')"#,
        place.repository_id,
        place.environment_id,
        digest as &Digest,
        MAX_CHANGES,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for an earlier version of a digest", error))
}

/// A version that another one is older than.
pub struct Newer {
    pub manifest: Digest,
    pub version: Option<Tag>,
}

/// The channel's newest promotion, where the manifest is older than it: first pushed before it, or promoted
/// before.
pub async fn newer_than(
    connection: &mut PgConnection,
    place: &Place,
    digest: &Digest,
) -> Result<Option<Newer>, Failure> {
    sqlx::query_as!(
        Newer,
        r#"select n.manifest as "manifest: Digest", n.version as "version: Tag"
           from manifests m
           cross join lateral (
             select * from promotions p where p.repository_id = $1 and p.environment_id = $2
             order by p.id desc limit 1) n
           join manifests current on current.repository_id = $1 and current.digest = n.manifest
           where m.repository_id = $1 and m.digest = $3 and m.sha256 <> n.sha256
             and (m.pushed_at < current.pushed_at
               or exists (select from promotions b where b.repository_id = $1 and b.environment_id = $2
                            and b.sha256 = m.sha256
                            -- What was rolled back from leads forward again.
                            and not exists (
                              select from (select max(n.id) as id from promotions n where n.repository_id = $1
                                             and n.environment_id = $2 and n.sha256 = b.sha256) last
                              cross join lateral (
                                select k.kind from promotions k where k.repository_id = $1
                                  and k.environment_id = $2 and k.id > last.id order by k.id limit 1) after
                              where after.kind = 'rollback')))"#,
        place.repository_id,
        place.environment_id,
        digest as &Digest,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("looking for a newer version", error))
}
