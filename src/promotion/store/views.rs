//! What a lane's promotions reach: themselves, what they hold, and what belongs to either, as a referrer or by tag.
//! What could run is no document about what it refers to: every caller with the right to push could say so.

use crate::access::Lane;
use crate::exceptions::block_counts;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName, Tag};
use sqlx::PgConnection;

/// Whether a block on the manifest's bytes counts in the release channel now.
pub async fn is_blocked(
    connection: &mut PgConnection,
    lane: &Lane,
    digest: &Digest,
) -> Result<bool, Failure> {
    let open = sqlx::query!(
        r#"select b.repository_id = r.id as "is_own!", b.repositories as "repositories: Vec<Pattern>"
           from repositories r
           join manifests m on m.repository_id = r.id and m.digest = $2
           join blocks b on b.sha256 = m.sha256 and b.ended_at is null
           where r.name = $1 and (b.until is null or b.until > (select decision_time()))
             and (b.environment_id is null or b.environment_id = (select id from environments where name = $3))"#,
        &lane.repository as &RepositoryName,
        digest as &Digest,
        &lane.environment as &EnvironmentName,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for a block on what refers to a release", error))?;
    Ok(open.iter().any(|block| block_counts(block.is_own, &block.repositories, &lane.repository)))
}

/// What the manifest refers to, where it is none that could run.
pub async fn subject_of(
    connection: &mut PgConnection,
    lane: &Lane,
    digest: &Digest,
) -> Result<Option<Digest>, Failure> {
    let found = sqlx::query_scalar!(
        r#"select m.subject as "subject: Digest" from repositories r
           join manifests m on m.repository_id = r.id and m.digest = $2
           where r.name = $1 and m.subject is not null and not can_run(m)"#,
        &lane.repository as &RepositoryName,
        digest as &Digest,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("looking for what a manifest refers to", error))?;
    Ok(found.flatten())
}

/// What the manifest belongs to by its tags (`subjects_by_tag`), with the tags.
pub async fn subjects_by_tag(
    connection: &mut PgConnection,
    lane: &Lane,
    digest: &Digest,
    limit: i64,
) -> Result<Vec<(Tag, Digest)>, Failure> {
    let rows = sqlx::query!(
        r#"select s.tag as "tag!: Tag", s.subject as "subject!: Digest"
           from repositories r cross join lateral subjects_by_tag(r.id, $2) s
           where r.name = $1 order by s.tag limit $3"#,
        &lane.repository as &RepositoryName,
        digest as &Digest,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for what a manifest belongs to by its tags", error))?;
    Ok(rows.into_iter().map(|row| (row.tag, row.subject)).collect())
}

/// Whether all that an index lists are manifests that refer to the subject and that could not run, and it offers none
/// of them for a platform: the referrers fallback, as clients write it.
pub async fn lists_only_referrers(
    connection: &mut PgConnection,
    repository_id: i64,
    index: &Digest,
    subject: &Digest,
) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select not exists (select from manifest_blobs b where b.repository_id = $1 and b.manifest = $2)
             and not exists (
               select from manifest_children c
               join manifests m on m.repository_id = c.repository_id and m.digest = c.child
               where c.repository_id = $1 and c.manifest = $2
                 and (can_run(m) or c.platform is not null or not exists (
                   select from manifests s where s.repository_id = $1 and s.digest = $3
                     and m.subject in (s.digest, s.sha256, s.sha512)))) as "only!""#,
        repository_id,
        index as &Digest,
        subject as &Digest,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("reading an index of referrers", error))
}

/// The manifests that name the blob and that were promoted, or came with something that was, those of the
/// newest promotions first.
pub async fn promoted_with_blob(
    connection: &mut PgConnection,
    lane: &Lane,
    digest: &Digest,
    limit: i64,
) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"with recursive up(repository_id, named_by, digest, depth) as (
             select b.repository_id, b.manifest, b.manifest, 0 from repositories r
             join manifest_blobs b on b.repository_id = r.id and b.blob = $3
             where r.name = $1
             union
             select up.repository_id, up.named_by, above.digest, up.depth + 1 from up cross join lateral (
               select c.manifest as digest from manifest_children c
               where c.repository_id = up.repository_id and c.child = up.digest
               union all
               select m.subject from manifests m
               where m.repository_id = up.repository_id and m.digest = up.digest and m.subject is not null
                 and not can_run(m)
               union all
               select t.subject from subjects_by_tag(up.repository_id, up.digest) t
             ) above where up.depth < 6
           )
           select up.named_by as "manifest!: Digest" from up
           join manifests m on m.repository_id = up.repository_id and m.digest = up.digest
           join environments e on e.name = $2
           cross join lateral (
             select q.id from promotions q where q.repository_id = up.repository_id
               and q.environment_id = e.id and q.sha256 = m.sha256
             order by q.id desc limit 1) p
           group by up.named_by order by max(p.id) desc limit $4"#,
        &lane.repository as &RepositoryName,
        &lane.environment as &EnvironmentName,
        digest as &Digest,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for what a blob was promoted with", error))
}

/// A page of the versions whose bytes were promoted in the lane, alone or in an index, by name after `last`.
pub async fn versions(
    connection: &mut PgConnection,
    lane: &Lane,
    last: &str,
    limit: i64,
) -> Result<Vec<Tag>, Failure> {
    sqlx::query_scalar!(
        r#"select t.name as "name: Tag" from repositories r
           join environments e on e.name = $2
           join tags t on t.repository_id = r.id and t.name > $3
           join manifests m on m.repository_id = r.id and m.digest = t.digest
           where r.name = $1
             and not exists (select from tags_hidden h where h.repository_id = r.id and h.name = t.name)
             and (exists (select from promotions p where p.repository_id = r.id and p.environment_id = e.id
                            and p.sha256 = m.sha256)
               or exists (select from manifest_children c where c.repository_id = r.id and c.child = m.digest)
             and exists (
               with recursive above(digest, depth) as (
                 select m.digest, 0
                 union
                 select c.manifest, a.depth + 1 from above a join manifest_children c
                   on c.repository_id = r.id and c.child = a.digest where a.depth < 4)
               select from above a join manifests i on i.repository_id = r.id and i.digest = a.digest
               join promotions p on p.repository_id = r.id and p.environment_id = e.id and p.sha256 = i.sha256))
           order by t.name limit $4"#,
        &lane.repository as &RepositoryName,
        &lane.environment as &EnvironmentName,
        last,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing the versions that were promoted", error))
}
