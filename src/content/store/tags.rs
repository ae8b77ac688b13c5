//! Rows of `tags`, `tag_visibility`, `tags_hidden` and `floating_tags`.

use crate::content::{Found, NameRecord, NamedBy};
use crate::failure::Failure;
use crate::names::{Digest, MediaType, RepositoryName, Tag};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// What a tag of the repository names: a write-once row wins over any floating history, and a
/// hidden one names nothing.
pub async fn resolve(
    connection: &mut PgConnection,
    repository_id: i64,
    tag: &Tag,
) -> Result<Option<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select m.digest as "digest: Digest"
           from (values (1)) one
           left join tags t on t.repository_id = $1 and t.name = $2
           left join tags_hidden h on h.repository_id = $1 and h.name = $2
           left join lateral (select f.digest from floating_tags f where f.repository_id = $1 and f.name = $2
                              order by f.id desc limit 1) f on t.name is null
           join manifests m on m.repository_id = $1
             and m.digest = case when t.name is null then f.digest when h.name is null then t.digest end"#,
        repository_id,
        tag as &Tag
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("resolving a tag", error))
}

/// The digest under which the repository has the manifest of these bytes, whichever of their digests
/// this one is.
pub async fn known(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select digest as "digest!: Digest" from manifests where repository_id = $1 and digest = $2
           union all
           select digest from manifests where repository_id = $1 and sha256 = $2 and digest <> $2
           union all
           select digest from manifests where repository_id = $1 and sha512 = $2 and digest <> $2
           limit 1"#,
        repository_id,
        digest as &Digest
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("looking for a manifest", error))
}

/// What a tag names, asked by the repository's name: the same rule as `resolve`, in one query.
pub async fn find_tag(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Option<Found>, Failure> {
    sqlx::query_as!(
        Found,
        r#"select r.id as "repository_id!", m.digest as "digest!: Digest", m.media_type as "media_type!: MediaType",
                  octet_length(m.body)::bigint as "size_bytes!"
           from repositories r
           left join tags t on t.repository_id = r.id and t.name = $2
           left join tags_hidden h on h.repository_id = r.id and h.name = $2
           left join lateral (select f.digest from floating_tags f where f.repository_id = r.id and f.name = $2
                              order by f.id desc limit 1) f on t.name is null
           join manifests m on m.repository_id = r.id
             and m.digest = case when t.name is null then f.digest when h.name is null then t.digest end
           where r.name = $1"#,
        repository as &RepositoryName,
        tag as &Tag
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("finding a manifest by tag", error))
}

/// A manifest by any digest of its bytes, asked by the repository's name. What it is stored under is
/// looked for first, and found without looking further.
pub async fn find_digest(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Found>, Failure> {
    sqlx::query_as!(
        Found,
        r#"select r.id as "repository_id!", m.digest as "digest!: Digest", m.media_type as "media_type!: MediaType",
                  octet_length(m.body)::bigint as "size_bytes!"
           from repositories r cross join lateral (
             select m.digest, m.media_type, m.body from manifests m
             where m.repository_id = r.id and m.digest = $2
             union all
             select m.digest, m.media_type, m.body from manifests m
             where m.repository_id = r.id and m.sha256 = $2 and m.digest <> $2
             union all
             select m.digest, m.media_type, m.body from manifests m
             where m.repository_id = r.id and m.sha512 = $2 and m.digest <> $2
             limit 1) m
           where r.name = $1"#,
        repository as &RepositoryName,
        digest as &Digest
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("finding a manifest by digest", error))
}

/// Claims a write-once name; false when it is held already. A claim that is not committed yet is
/// waited for.
pub async fn claim(
    connection: &mut PgConnection,
    repository_id: i64,
    tag: &Tag,
    digest: &Digest,
    by: i64,
) -> Result<bool, Failure> {
    let claimed = sqlx::query_scalar!(
        r#"insert into tags(repository_id, name, digest, claimed_by) values ($1, $2, $3, $4)
           on conflict on constraint tags_are_immutable do nothing returning true as "claimed!""#,
        repository_id,
        tag as &Tag,
        digest as &Digest,
        by
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("claiming a tag", error))?;
    Ok(claimed.is_some())
}

/// A write-once name and whether it is hidden.
pub struct Held {
    pub digest: Digest,
    pub hidden: bool,
}

/// The write-once name as it is held.
pub async fn held(
    connection: &mut PgConnection,
    repository_id: i64,
    tag: &Tag,
) -> Result<Option<Held>, Failure> {
    sqlx::query_as!(
        Held,
        r#"select t.digest as "digest: Digest", h.name is not null as "hidden!"
           from tags t left join tags_hidden h on h.repository_id = t.repository_id and h.name = t.name
           where t.repository_id = $1 and t.name = $2"#,
        repository_id,
        tag as &Tag
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a tag", error))
}

/// Locks the write-once name's row: who hides it or shows it again does this first.
pub async fn lock(connection: &mut PgConnection, repository_id: i64, tag: &Tag) -> Result<(), Failure> {
    sqlx::query_scalar!(
        "select true from tags where repository_id = $1 and name = $2 for no key update",
        repository_id,
        tag as &Tag
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("locking a tag", error))?;
    Ok(())
}

/// Hides the name or shows it again, whose row the caller has locked; false when it is so already.
pub async fn set_hidden(
    connection: &mut PgConnection,
    repository_id: i64,
    tag: &Tag,
    hidden: bool,
    by: i64,
) -> Result<bool, Failure> {
    let done = sqlx::query!(
        r#"with hidden as (insert into tags_hidden(repository_id, name) select $1, $2 where $3
                           on conflict do nothing returning name),
           shown as (delete from tags_hidden where repository_id = $1 and name = $2 and not $3 returning name)
           insert into tag_visibility(repository_id, name, hidden, by)
           select $1, name, $3, $4 from (select name from hidden union all select name from shown) changed"#,
        repository_id,
        tag as &Tag,
        hidden,
        by
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("hiding a tag or showing it again", error))?;
    Ok(done.rows_affected() > 0)
}

/// Takes the floating name for this transaction: its rows' ids are then drawn in the order in which
/// they commit.
pub async fn lock_floating(
    connection: &mut PgConnection,
    repository_id: i64,
    tag: &Tag,
) -> Result<(), Failure> {
    sqlx::query!(
        "select pg_advisory_xact_lock(5, hashtext($1::bigint::text || '/' || $2::text))",
        repository_id,
        tag as &Tag
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("locking a floating tag", error))?;
    Ok(())
}

/// What the floating name's last row says: `None` without a row or after a deletion.
pub async fn floating(
    connection: &mut PgConnection,
    repository_id: i64,
    tag: &Tag,
) -> Result<Option<Digest>, Failure> {
    let newest = sqlx::query_scalar!(
        r#"select digest as "digest: Digest" from floating_tags
           where repository_id = $1 and name = $2 order by id desc limit 1"#,
        repository_id,
        tag as &Tag
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a floating tag", error))?;
    Ok(newest.flatten())
}

/// Appends a row of the floating name; no digest is a deletion.
pub async fn float(
    connection: &mut PgConnection,
    repository_id: i64,
    tag: &Tag,
    digest: Option<&Digest>,
    by: i64,
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into floating_tags(repository_id, name, digest, moved_by) values ($1, $2, $3, $4)",
        repository_id,
        tag as &Tag,
        digest as Option<&Digest>,
        by
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("moving a floating tag", error))?;
    Ok(())
}

/// The names, write-once and shown or floating, that point at the digest now, sorted.
pub async fn naming(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Vec<NamedBy>, Failure> {
    sqlx::query_as!(
        NamedBy,
        r#"select name as "tag!: Tag", write_once as "write_once!" from (
             select t.name, true as write_once from tags t
             where t.repository_id = $1 and t.digest = $2
               and not exists (select from tags_hidden h where h.repository_id = $1 and h.name = t.name)
             union all
             select distinct f.name, false from floating_tags f
             where f.repository_id = $1 and f.digest = $2
               and not exists (select from floating_tags n
                               where n.repository_id = $1 and n.name = f.name and n.id > f.id)
               and not exists (select from tags t where t.repository_id = $1 and t.name = f.name)) named
           order by name"#,
        repository_id,
        digest as &Digest
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing a manifest's tags", error))
}

/// Names after `last` that point at something, sorted, one a line; `None` when there is no such repository.
/// As one text: as rows, or as an array, taking them apart took longer than finding them.
pub async fn page_shown(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    last: &str,
    limit: i64,
) -> Result<Option<String>, Failure> {
    sqlx::query_scalar!("select names_shown($1, $2, $3)", repository as &RepositoryName, last, limit)
        .fetch_one(connection)
        .await
        .map_err(|error| Failure::new("listing tags", error))
}

/// Write-once names after `last`, hidden ones too.
pub async fn page_held(
    connection: &mut PgConnection,
    repository_id: i64,
    last: &str,
    limit: i64,
) -> Result<Vec<NameRecord>, Failure> {
    sqlx::query_as!(
        NameRecord,
        r#"select t.name as "tag!: Tag", t.digest as "digest!: Digest", true as "write_once!",
                  exists (select from tags_hidden h where h.repository_id = $1 and h.name = t.name) as "deleted!",
                  t.claimed_at as "since!"
           from tags t where t.repository_id = $1 and t.name > $2 order by t.name limit $3"#,
        repository_id,
        last,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing the names that are held", error))
}

/// A floating name with what it points at, and since when.
pub struct Floating {
    pub name: Tag,
    pub digest: Digest,
    pub moved_at: DateTime<Utc>,
}

/// Floating names after `last` that point at something and were never claimed write-once, sorted.
pub async fn page_floating(
    connection: &mut PgConnection,
    repository_id: i64,
    last: &str,
    limit: i64,
) -> Result<Vec<Floating>, Failure> {
    sqlx::query_as!(
        Floating,
        r#"select name as "name!: Tag", digest as "digest!: Digest", moved_at as "moved_at!"
           from floating_names($1, $2) limit $3"#,
        repository_id,
        last,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing floating tags", error))
}

/// Claims floating names for the digests they have, under the repository's exclusive scope.
pub async fn freeze(
    connection: &mut PgConnection,
    repository_id: i64,
    names: &[Tag],
    digests: &[Digest],
    by: i64,
) -> Result<(), Failure> {
    sqlx::query!(
        r#"insert into tags(repository_id, name, digest, claimed_by)
           select $1, frozen.name, frozen.digest, $4 from unnest($2::text[], $3::text[]) as frozen(name, digest)"#,
        repository_id,
        names as &[Tag],
        digests as &[Digest],
        by
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("keeping floating tags where they are", error))?;
    Ok(())
}
