//! What never changes of a manifest in a lane: its bytes, what an index holds, and its promotion.

use super::facts::Wanted;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, MediaType, RepositoryName, Tag};
use crate::policy::{Platform, Recorded};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use std::collections::{BTreeMap, BTreeSet};

/// A manifest in a lane, and the promotion that it was found by.
#[derive(Debug)]
pub struct Release {
    pub repository: RepositoryName,
    pub repository_id: i64,
    pub environment_id: i64,
    pub digest: Digest,
    pub sha256: Digest,
    pub sha512: Digest,
    pub media_type: MediaType,
    pub pushed_at: DateTime<Utc>,
    /// What a lone image runs on, in normal form, if its config says.
    pub platform: Option<String>,
    /// The children that are images, at every depth.
    pub platforms: Json<BTreeSet<Platform>>,
    /// The media type of each of them.
    pub media_types: Json<BTreeMap<Digest, MediaType>>,
    /// By what the scans of it and of the images are kept, by the SHA-256 of each that is a container image.
    pub scanned_as: Json<BTreeMap<Digest, String>>,
    /// The SHA-256 of every manifest below it.
    pub below: Vec<Digest>,
    pub promotion: Option<Json<Promotion>>,
    /// The newest summary: the renewed one with this id, or that of the promotion.
    pub summary_id: Option<i64>,
    pub summary: Option<Vec<u8>>,
    pub leaf: Option<Vec<u8>>,
}

/// A promotion that stands, or stood, in the lane.
#[derive(Clone, Debug, Deserialize)]
pub struct Promotion {
    pub id: i64,
    pub manifest: Digest,
    pub version: Option<Tag>,
    pub decision: Digest,
    pub recorded: Recorded,
    /// Until when the newest summary is valid.
    pub valid_until: DateTime<Utc>,
    pub event_id: i64,
    pub promoted_by: String,
    pub promoted_at: DateTime<Utc>,
    /// Since when the same bytes stand there without a break.
    pub standing_since: DateTime<Utc>,
    pub previous: Option<Previous>,
}

/// The newest promotion of other bytes before.
#[derive(Clone, Debug, Deserialize)]
pub struct Previous {
    pub manifest: Digest,
    pub version: Option<Tag>,
    pub promoted_at: DateTime<Utc>,
}

impl Release {
    /// The SHA-256 of its bytes and of all below it: a block on any of them counts.
    pub fn bytes(&self) -> Vec<&Digest> {
        std::iter::once(&self.sha256).chain(&self.below).collect()
    }

    /// The SHA-256 of what may be scanned of it, the images of an index or itself, and by what the scans of each
    /// are kept.
    pub fn images(&self) -> (Vec<&Digest>, Vec<&str>) {
        let scanned_as = |sha256| {
            let other = self.scanned_as.get(sha256).map(String::as_str);
            (sha256, other.unwrap_or(Digest::as_str(sha256)))
        };
        if self.below.is_empty() {
            return std::iter::once(&self.sha256).map(scanned_as).unzip();
        }
        let images: BTreeSet<&Digest> = self.platforms.iter().map(|platform| &platform.sha256).collect();
        images.into_iter().map(scanned_as).unzip()
    }

    /// The digests by which a statement can be about it or an image of it, and for each the SHA-256 of the
    /// same bytes.
    pub fn about(&self) -> (Vec<&Digest>, Vec<&Digest>) {
        let own = [(&self.sha256, &self.sha256), (&self.sha512, &self.sha256)];
        let images = self.platforms.iter().flat_map(|platform| {
            let other = (platform.digest != platform.sha256).then_some((&platform.digest, &platform.sha256));
            std::iter::once((&platform.sha256, &platform.sha256)).chain(other)
        });
        own.into_iter().chain(images).unzip()
    }

    /// About how much memory it takes.
    pub fn size_bytes(&self) -> usize {
        let papers = [&self.summary, &self.leaf].into_iter().flatten().map(Vec::len).sum::<usize>();
        let recorded = self.promotion.as_ref().map_or(0, |promotion| promotion.recorded.gates.len());
        papers
            + 1500
            + 300 * (self.platforms.len() + self.scanned_as.len() + self.media_types.len() + self.below.len())
            + 1000 * recorded
    }
}

/// The manifest, or that of a promotion. Nothing when there is no such repository, environment,
/// manifest or promotion.
pub async fn find(connection: &mut PgConnection, wanted: Wanted<'_>) -> Result<Option<Release>, Failure> {
    let Wanted { repository, environment, digest, promotion, .. } = wanted;
    let found = find_in(connection, &[repository], environment, digest, promotion).await?;
    Ok(found.into_iter().next())
}

/// The newest promotions of these repositories, of those that have one.
pub async fn newest(
    connection: &mut PgConnection,
    repositories: &[&RepositoryName],
    environment: &EnvironmentName,
) -> Result<Vec<Release>, Failure> {
    find_in(connection, repositories, environment, None, None).await
}

#[allow(clippy::too_many_lines, reason = "one statement, read from top to bottom")]
async fn find_in(
    connection: &mut PgConnection,
    repositories: &[&RepositoryName],
    environment: &EnvironmentName,
    digest: Option<&Digest>,
    promotion: Option<i64>,
) -> Result<Vec<Release>, Failure> {
    sqlx::query_as!(
        Release,
        r#"with recursive
        lane as materialized (
          select r.id as repository_id, r.name as repository, e.id as environment_id, p.*
          from unnest($1::text[]) asked(name) join repositories r on r.name = asked.name cross join environments e
          left join lateral (
            select * from promotions q
            where q.repository_id = r.id and q.environment_id = e.id and q.id <= coalesce($4, 9223372036854775807)
            order by q.id desc limit 1
          ) p(promotion_id, of_repository, of_environment) on $3::text is null
          where e.name = $2
        ),
        subject as materialized (
          select m.* from lane l join manifests m
            on m.repository_id = l.repository_id and m.digest = coalesce($3, l.manifest)
        ),
        family(repository_id, digest, platform, depth, position) as (
          select s.repository_id, c.child, c.platform, 1, c.position from subject s join manifest_children c
            on c.repository_id = s.repository_id and c.manifest = s.digest
          union
          select f.repository_id, c.child, coalesce(c.platform, f.platform), f.depth + 1, null
          from family f join manifest_children c on c.repository_id = f.repository_id and c.manifest = f.digest
          where f.depth < 4
        ),
        members as materialized (
          -- An image does not become a document by its own config: some runtimes take what is listed without
          -- a platform whatever its config says.
          select f.repository_id, f.digest, m.sha256, m.media_type, f.position, scanned_as(m) as scanned_as,
            -- Nor by the descriptor, where its config says otherwise.
            case when f.platform ~ '^unknown[(/]' and m.platform is not null then m.platform
              else coalesce(f.platform, case when m.platform !~ '^unknown[(/]' then m.platform end) end as platform,
            not exists (select from manifest_children c
                        where c.repository_id = m.repository_id and c.manifest = f.digest) as leaf
          from family f join manifests m on m.repository_id = f.repository_id and m.digest = f.digest
        )
        select l.repository as "repository: RepositoryName", l.repository_id, l.environment_id, s.digest as "digest: Digest", s.sha256 as "sha256: Digest",
          s.sha512 as "sha512: Digest", s.media_type as "media_type: MediaType", s.pushed_at, s.platform,
          (select coalesce(json_agg(json_build_object('digest', digest, 'sha256', sha256, 'platform', platform,
              'position', position)), '[]')
            from members m where m.repository_id = l.repository_id and leaf) as "platforms!: Json<BTreeSet<Platform>>",
          (select coalesce(json_object_agg(digest, media_type), '{}')
            from (select distinct m.digest, m.media_type from members m where m.repository_id = l.repository_id and leaf) m)
            as "media_types!: Json<BTreeMap<Digest, MediaType>>",
          (select coalesce(json_object_agg(sha256, scanned_as), '{}') from (
              select distinct m.sha256, m.scanned_as from members m where m.repository_id = l.repository_id and leaf
              union select s.sha256, scanned_as(m) from manifests m
                where m.repository_id = s.repository_id and m.digest = s.digest) m) as "scanned_as!: Json<BTreeMap<Digest, String>>",
          array(select distinct m.sha256 from members m where m.repository_id = l.repository_id) as "below!: Vec<Digest>",
          case when l.promotion_id is not null then json_build_object('id', l.promotion_id, 'manifest', l.manifest,
            'version', l.version, 'decision', l.decision, 'recorded', l.recorded,
            'valid_until', coalesce(renewed.valid_until, l.valid_until), 'event_id', l.event_id,
            'promoted_by', (select name from principals where id = l.promoted_by), 'promoted_at', l.promoted_at,
            'standing_since', l.standing_since, 'previous', (select json_build_object('manifest', b.manifest, 'version', b.version,
                           'promoted_at', b.promoted_at) from promotions b where b.id = l.previous_id)
          ) end as "promotion: Json<Promotion>",
          renewed.id as "summary_id?", coalesce(renewed.envelope, l.summary) as "summary?",
          (select leaf from events where id = l.event_id) as "leaf?"
        from subject s join lane l on l.repository_id = s.repository_id
        left join lateral (
          select * from summaries u where u.promotion_id = l.promotion_id order by u.id desc limit 1
        ) renewed on true"#,
        repositories as &[&RepositoryName],
        environment as &EnvironmentName,
        digest as Option<&Digest>,
        promotion,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading a release", error))
}

/// The repositories of an environment to which something was promoted, by name after `after`.
pub async fn channels(
    connection: &mut PgConnection,
    environment_id: i64,
    after: &str,
    limit: i64,
) -> Result<Vec<RepositoryName>, Failure> {
    sqlx::query_scalar!(
        r#"select r.name as "name: RepositoryName" from release_channels c
           join repositories r on r.id = c.repository_id
           where c.environment_id = $1 and r.name > $2 order by r.name limit $3"#,
        environment_id,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing the repositories of an environment", error))
}
