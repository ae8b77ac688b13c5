//! What retention reads and deletes.

use crate::content::{Enforced, Named, Retention};
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName, Tag};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;

/// The next repository whose retention is enforced.
pub async fn next_enforced(connection: &mut PgConnection, after: i64) -> Result<Option<Enforced>, Failure> {
    let row = sqlx::query!(
        r#"select id, name as "name: RepositoryName", retention as "retention!: Json<Retention>"
           from repositories where id > $1 and retention @> '{"enforce": true}' order by id limit 1"#,
        after
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("looking for enforced retention", error))?;
    Ok(row.map(|row| Enforced { repository_id: row.id, repository: row.name, retention: row.retention.0 }))
}

/// The repository's rules.
pub async fn retention(
    connection: &mut PgConnection,
    repository_id: i64,
) -> Result<Option<Retention>, Failure> {
    let found = sqlx::query_scalar!(
        r#"select retention as "retention: Json<Retention>" from repositories where id = $1"#,
        repository_id
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a repository's retention", error))?;
    Ok(found.flatten().map(|json| json.0))
}

/// Every tag that names something now, write-once or floating, with the time at which it came to. Not
/// those of what refers to a manifest that is here: that lives as long as its subject.
pub async fn names(connection: &mut PgConnection, repository_id: i64) -> Result<Vec<Named>, Failure> {
    sqlx::query_as!(
        Named,
        r#"select name as "tag!: Tag", digest as "digest!: Digest", at as "at!"
           from retained_names where repository_id = $1"#,
        repository_id
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading the names of a repository", error))
}

/// Those of these tags that [`names`] would say.
pub async fn names_among(
    connection: &mut PgConnection,
    repository_id: i64,
    tags: &[Tag],
) -> Result<Vec<Named>, Failure> {
    sqlx::query_as!(
        Named,
        r#"select name as "tag!: Tag", digest as "digest!: Digest", at as "at!"
           from retained_names where repository_id = $1 and name = any($2)"#,
        repository_id,
        tags as &[Tag]
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading names of a repository again", error))
}

/// A manifest that nothing names.
pub struct Untagged {
    pub digest: Digest,
    pub pushed_at: DateTime<Utc>,
}

/// Manifests from before a time that no tag names, no index lists, and whose subject, if they have one,
/// is not there, and that carry no evidence which stays: all of them, or this one if it is one.
pub async fn untagged(
    connection: &mut PgConnection,
    repository_id: i64,
    before: DateTime<Utc>,
    only: Option<&Digest>,
) -> Result<Vec<Untagged>, Failure> {
    sqlx::query_as!(
        Untagged,
        r#"select m.digest as "digest: Digest", m.pushed_at from manifests m
           where m.repository_id = $1 and m.pushed_at < $2
             and m.digest between coalesce($3, '') and coalesce($3, '~')
             and not exists (
               select from tags t where t.repository_id = $1 and t.digest = m.digest
               and not exists (select from tags_hidden h where h.repository_id = $1 and h.name = t.name))
             and not exists (
               select from floating_tags f where f.repository_id = $1 and f.digest = m.digest
               and not exists (select from floating_tags n
                               where n.repository_id = $1 and n.name = f.name and n.id > f.id)
               and not exists (select from tags t where t.repository_id = $1 and t.name = f.name))
             and not exists (
               select from manifest_children c where c.repository_id = $1 and c.child = m.digest)
             and (m.subject is null or not exists (
               select from manifests s
               where s.repository_id = $1 and (s.sha256 = m.subject or s.sha512 = m.subject)))
             and not carries_kept_evidence($1, m.digest, array[m.digest])
           order by m.digest"#,
        repository_id,
        before,
        only as Option<&Digest>
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for manifests that nothing names", error))
}

/// A scan run in whose place newer ones count.
pub struct Superseded {
    pub run: i64,
    /// What was scanned.
    pub manifest: Digest,
    /// The manifest of its report.
    pub report: Digest,
}

/// Superseded runs whose reports are there, or the one with this report. Not signed statements, nor what was
/// retracted, nor runs that the decision of a promotion may name: those that were there when it was promoted.
pub async fn superseded(
    connection: &mut PgConnection,
    repository_id: i64,
    only: Option<&Digest>,
    limit: i64,
) -> Result<Vec<Superseded>, Failure> {
    sqlx::query_as!(
        Superseded,
        r#"select s.id as run, s.manifest as "manifest: Digest", s.report as "report: Digest"
           from scan_runs s join manifests m on m.repository_id = s.repository_id and m.digest = s.report
           where s.repository_id = $1 and s.attestation_id is null and s.report = coalesce($2, s.report)
             and not exists (select from scan_coverage c where c.run_id = s.id and c.is_current)
             and not exists (select from scan_retractions x where x.run_id = s.id)
             and (select not was_promoted(c.repository_id, c.image, s.received_at)
                  from scan_coverage c where c.run_id = s.id limit 1)
           order by s.id limit $3"#,
        repository_id,
        only as Option<&Digest>,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for superseded scan runs", error))
}

/// Those of these manifests that carry evidence which stays when all of them go.
pub async fn kept_evidence(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select digest as "digest!: Digest" from unnest($2::text[]) digest
           where carries_kept_evidence($1, digest, $2)"#,
        repository_id,
        digests as &[Digest],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for evidence that stays", error))
}

/// What refers to these manifests, by subject (under either digest of theirs) or by one of these floating
/// tags. Not to one that is here a second time, under its other digest: its referrers stay with that.
pub async fn referring(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
    tags: &[String],
) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select m.digest as "digest!: Digest"
           from manifests s
           cross join lateral (values (s.sha256), (s.sha512)) as own(digest)
           join manifests m on m.repository_id = $1 and m.subject = own.digest
           where s.repository_id = $1 and s.digest = any($2)
             and not exists (select from manifests o where o.repository_id = $1
                             and o.sha256 = s.sha256 and o.digest <> all($2))
           union
           select f.digest from floating_tags f
           join manifests m on m.repository_id = $1 and m.digest = f.digest
           where f.repository_id = $1 and f.name = any($3)
             and not exists (select from floating_tags n
                             where n.repository_id = $1 and n.name = f.name and n.id > f.id)"#,
        repository_id,
        digests as &[Digest],
        tags
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for what refers to a manifest", error))
}

/// The children of these manifests that no other index lists.
pub async fn only_children(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select distinct c.child as "child: Digest" from manifest_children c
           where c.repository_id = $1 and c.manifest = any($2)
             and not exists (select from manifest_children o where o.repository_id = $1
                             and o.child = c.child and o.manifest <> all($2))"#,
        repository_id,
        digests as &[Digest]
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for the parts of a manifest", error))
}

/// Deletes the manifests, which the caller has locked, with what they refer to and the pins that have
/// run out.
pub async fn delete(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
) -> Result<Vec<Digest>, Failure> {
    let subjects = sqlx::query_scalar!(
        r#"with blobs as (delete from manifest_blobs where repository_id = $1 and manifest = any($2)),
                children as (delete from manifest_children where repository_id = $1 and manifest = any($2)),
                over as (delete from pins where repository_id = $1 and digest = any($2)
                         and until <= (select decision_time()))
           delete from manifests where repository_id = $1 and digest = any($2)
           returning subject as "subject: Digest""#,
        repository_id,
        digests as &[Digest]
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("letting go of manifests", error))?;
    Ok(subjects.into_iter().flatten().collect())
}
