//! Rows of `pins`, and what else holds a manifest.

use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Tag};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Pins the manifest; an equal pin that is there already is enough.
pub async fn insert(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
    reason: &str,
    until: Option<DateTime<Utc>>,
) -> Result<(), Failure> {
    sqlx::query!(
        r#"insert into pins(repository_id, digest, reason, until)
           select $1, $2, $3, $4
           where not exists (select from pins where repository_id = $1 and digest = $2 and reason = $3
                             and until is not distinct from $4)"#,
        repository_id,
        digest as &Digest,
        reason,
        until
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("pinning a manifest", error))?;
    Ok(())
}

/// A pin that holds now.
pub struct Pin {
    pub reason: String,
    pub until: Option<DateTime<Utc>>,
}

/// The pins that hold the manifest now.
pub async fn open(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Vec<Pin>, Failure> {
    sqlx::query_as!(
        Pin,
        r#"select reason, until from pins
           where repository_id = $1 and digest = $2 and (until is null or until > (select decision_time()))
           order by id"#,
        repository_id,
        digest as &Digest
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading pins", error))
}

/// The environments in which the newest promotion is of this version.
pub async fn current_in(
    connection: &mut PgConnection,
    repository_id: i64,
    tag: &Tag,
) -> Result<Vec<EnvironmentName>, Failure> {
    sqlx::query_scalar!(
        r#"select e.name as "name: EnvironmentName" from release_channels c
           join promotions p on p.id = c.promotion_id join environments e on e.id = c.environment_id
           where c.repository_id = $1 and p.version = $2 order by e.name"#,
        repository_id,
        tag as &Tag,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading where a version is current", error))
}

/// The indexes that list the manifest.
pub async fn parents(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select distinct manifest as "manifest: Digest" from manifest_children
           where repository_id = $1 and child = $2 order by manifest"#,
        repository_id,
        digest as &Digest
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading what lists a manifest", error))
}

/// What the manifest belongs to at once: its subject, and the indexes that list it.
pub async fn above(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select subject as "digest!: Digest" from manifests
           where repository_id = $1 and digest = $2 and subject is not null
           union
           select manifest from manifest_children where repository_id = $1 and child = $2"#,
        repository_id,
        digest as &Digest
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading what a manifest belongs to", error))
}

/// A pin that holds now, with what it is on.
pub struct PinAbove {
    pub digest: Digest,
    pub reason: String,
    pub until: Option<DateTime<Utc>>,
}

/// The pins that hold now on these manifests, and on all that they belong to: subjects, and indexes
/// that list them. A subject may be named by the digest that it is not stored by.
pub async fn open_above(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
) -> Result<Vec<PinAbove>, Failure> {
    sqlx::query_as!(
        PinAbove,
        r#"with recursive up(digest) as (
             select s.digest from manifests s
             where s.repository_id = $1 and (s.sha256 = any($2) or s.sha512 = any($2))
             union
             select above.digest from up cross join lateral (
               select s.digest from manifests m
               join manifests s on s.repository_id = $1 and (s.sha256 = m.subject or s.sha512 = m.subject)
               where m.repository_id = $1 and m.digest = up.digest and m.subject is not null
               union all
               select c.manifest from manifest_children c
               where c.repository_id = $1 and c.child = up.digest) above)
           select p.digest as "digest: Digest", p.reason, p.until
           from up join pins p on p.repository_id = $1 and p.digest = up.digest
           where p.until is null or p.until > (select decision_time())
           order by p.id"#,
        repository_id,
        digests as &[Digest]
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading the pins of what a manifest belongs to", error))
}
