//! Rows of `manifests`, `manifest_blobs` and `manifest_children`.

use crate::content::{ArtifactCursor, ArtifactFilter, ArtifactRecord, Manifest, NamedBy, ParsedManifest};
use crate::failure::Failure;
use crate::names::{Digest, MediaType, Platform};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A blob that the repository links to, with its size.
pub struct Link {
    pub digest: Digest,
    pub size_bytes: i64,
}

/// Locks the links `for key share`, in the order of their digests; those that are not there are
/// not returned.
pub async fn keep_links(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
) -> Result<Vec<Link>, Failure> {
    sqlx::query_as!(
        Link,
        r#"select l.digest as "digest: Digest", b.size_bytes
           from blob_links l join blobs b on b.digest = l.digest
           where l.repository_id = $1 and l.digest = any($2) and b.damaged_at is null
           order by l.digest for key share of l"#,
        repository_id,
        digests as &[Digest]
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("locking a manifest's blobs", error))
}

/// Notes who pushed the bytes; whether that is new.
pub async fn note_author(
    connection: &mut PgConnection,
    sha256: &Digest,
    principal: i64,
) -> Result<bool, Failure> {
    let noted = sqlx::query!(
        "insert into manifest_authors(sha256, principal_id) values ($1, $2) on conflict do nothing",
        sha256 as &Digest,
        principal,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("noting an author", error))?;
    Ok(noted.rows_affected() == 1)
}

/// A manifest that an index lists.
pub struct Child {
    pub digest: Digest,
    pub media_type: MediaType,
    pub size_bytes: i64,
    pub total_size_bytes: i64,
}

/// Locks the manifests `for key share`, in the order of their digests.
pub async fn keep_manifests(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
) -> Result<Vec<Child>, Failure> {
    sqlx::query_as!(
        Child,
        r#"select digest as "digest: Digest", media_type as "media_type: MediaType",
                  octet_length(body)::bigint as "size_bytes!", total_size_bytes
           from manifests where repository_id = $1 and digest = any($2)
           order by digest for key share"#,
        repository_id,
        digests as &[Digest]
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("locking an index's children", error))
}

/// An index of the repository that lists one of these as something else than a manifest.
pub async fn index_with_blob(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
) -> Result<Option<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select b.manifest as "manifest: Digest" from manifest_blobs b
           join manifests m on m.repository_id = b.repository_id and m.digest = b.manifest
           where b.repository_id = $1 and b.blob = any($2)
             and m.media_type in ('application/vnd.oci.image.index.v1+json',
                                  'application/vnd.docker.distribution.manifest.list.v2+json')
           limit 1"#,
        repository_id,
        digests as &[Digest]
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("looking for an index that lists a manifest as a blob", error))
}

/// A manifest of the repository whose bytes have one of the digests.
pub async fn any_of(
    connection: &mut PgConnection,
    repository_id: i64,
    digests: &[Digest],
) -> Result<Option<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select digest as "digest: Digest" from manifests
           where repository_id = $1 and (digest = any($2) or sha256 = any($2) or sha512 = any($2)) limit 1"#,
        repository_id,
        digests as &[Digest]
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("looking for manifests among an index's blobs", error))
}

/// Levels of indexes below and with these, counted up to `limit`.
pub async fn nesting(
    connection: &mut PgConnection,
    repository_id: i64,
    indexes: &[Digest],
    limit: i32,
) -> Result<i32, Failure> {
    sqlx::query_scalar!(
        r#"with recursive below(digest, level) as (
             select d collate "C", 1 from unnest($2::text[]) d
             union
             select c.child, b.level + 1 from below b
             join manifest_children c on c.repository_id = $1 and c.manifest = b.digest
             where b.level <= $3)
           select coalesce(max(b.level), 0) as "levels!" from below b
           where exists (select from manifest_children c where c.repository_id = $1 and c.manifest = b.digest)"#,
        repository_id,
        indexes as &[Digest],
        limit
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("measuring an index's nesting", error))
}

/// Inserts the manifest with what it refers to, in one statement; false when it is there already.
pub async fn insert(
    connection: &mut PgConnection,
    repository_id: i64,
    by: i64,
    parsed: &ParsedManifest,
    total_size_bytes: i64,
) -> Result<bool, Failure> {
    // What may be absent is held when it is there.
    let blobs: Vec<&str> = parsed.blobs.iter().map(|part| part.digest.as_str()).collect();
    let children: Vec<&str> = parsed.children.iter().map(|part| part.digest.as_str()).collect();
    let text = |platform: &Option<Platform>| platform.as_ref().map(ToString::to_string);
    let platforms: Vec<Option<String>> = parsed.children.iter().map(|part| text(&part.platform)).collect();
    let positions: Vec<i32> = parsed.children.iter().map(|part| part.position).collect();
    let file = parsed.file();
    let inserted = sqlx::query_scalar!(
        r#"with inserted as (
             insert into manifests(repository_id, digest, sha256, sha512, media_type, artifact_type,
                                   config_media_type, subject, annotations, total_size_bytes, body, pushed_by,
                                   config_digest, platform, config_fits, file)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $16, $17, $19, $20)
             on conflict (repository_id, digest) do nothing returning digest),
           with_blobs as (
             insert into manifest_blobs(repository_id, manifest, blob)
             select $1, i.digest, l.digest from inserted i, blob_links l
             where l.repository_id = $1 and l.digest = any($13)),
           with_children as (
             insert into manifest_children(repository_id, manifest, child, platform, position)
             select $1, i.digest, c.child, c.platform, c.position
             from inserted i, unnest($14::text[], $15::text[], $18::int[]) as c(child, platform, position))
           select true as "inserted!" from inserted"#,
        repository_id,
        &parsed.digest as &Digest,
        &parsed.sha256 as &Digest,
        &parsed.sha512 as &Digest,
        &parsed.media_type as &MediaType,
        parsed.artifact_type.as_ref() as Option<&MediaType>,
        parsed.config_media_type.as_ref() as Option<&MediaType>,
        parsed.subject.as_ref() as Option<&Digest>,
        parsed.annotations,
        total_size_bytes,
        &parsed.body[..],
        by,
        &blobs as &[&str],
        &children as &[&str],
        &platforms as &[Option<String>],
        parsed.config.as_ref() as Option<&Digest>,
        text(&parsed.platform),
        &positions,
        parsed.config_fits,
        file.as_ref() as Option<&Digest>,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("storing a manifest", error))?;
    Ok(inserted.is_some())
}

/// Locks the manifest against deletion; false when it is not there.
pub async fn keep(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<bool, Failure> {
    let found = sqlx::query_scalar!(
        r#"select true as "found!" from manifests where repository_id = $1 and digest = $2 for key share"#,
        repository_id,
        digest as &Digest
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("locking a manifest", error))?;
    Ok(found.is_some())
}

/// The manifest with its bytes.
pub async fn read(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Manifest>, Failure> {
    sqlx::query_as!(
        Manifest,
        r#"select digest as "digest: Digest", sha256 as "sha256: Digest", sha512 as "sha512: Digest",
                  media_type as "media_type: MediaType", artifact_type as "artifact_type: MediaType",
                  config_media_type as "config_media_type: MediaType", subject as "subject: Digest",
                  octet_length(body)::bigint as "size_bytes!", total_size_bytes, body as "body: Vec<u8>",
                  pushed_by, pushed_at
           from manifests where repository_id = $1 and digest = $2"#,
        repository_id,
        digest as &Digest
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a manifest", error))
}

/// The manifest's bytes.
pub async fn body(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Bytes>, Failure> {
    let body = sqlx::query_scalar!(
        "select body from manifests where repository_id = $1 and digest = $2",
        repository_id,
        digest as &Digest
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a manifest's bytes", error))?;
    Ok(body.map(Bytes::from))
}

/// Locks the manifest for its deletion; false when it is not there.
pub async fn lock(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<bool, Failure> {
    let found = sqlx::query_scalar!(
        r#"select true as "found!" from manifests where repository_id = $1 and digest = $2 for update"#,
        repository_id,
        digest as &Digest
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("locking a manifest for deletion", error))?;
    Ok(found.is_some())
}

/// Deletes the manifest with what it refers to and the pins that have run out. A foreign key of
/// another room that still names it fails the statement. Returns what it referred to.
pub async fn delete(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Digest>, sqlx::Error> {
    let subject = sqlx::query_scalar!(
        r#"with blobs as (delete from manifest_blobs where repository_id = $1 and manifest = $2),
                children as (delete from manifest_children where repository_id = $1 and manifest = $2),
                over as (delete from pins where repository_id = $1 and digest = $2
                         and until <= (select decision_time()))
           delete from manifests where repository_id = $1 and digest = $2 returning subject as "subject: Digest""#,
        repository_id,
        digest as &Digest
    )
    .fetch_optional(connection)
    .await?;
    Ok(subject.flatten())
}

/// An artifact's row, its tags not read yet.
pub struct Row {
    pub digest: Digest,
    media_type: MediaType,
    artifact_type: Option<MediaType>,
    subject: Option<Digest>,
    manifest_size_bytes: i64,
    total_size_bytes: i64,
    pushed_by: String,
    pushed_at: DateTime<Utc>,
}

impl Row {
    /// The record with its tags.
    pub fn named(self, names: Vec<NamedBy>) -> ArtifactRecord {
        let (versions, floating): (Vec<_>, Vec<_>) = names.into_iter().partition(|by| by.write_once);
        ArtifactRecord {
            digest: self.digest,
            media_type: self.media_type,
            artifact_type: self.artifact_type,
            subject: self.subject,
            manifest_size_bytes: self.manifest_size_bytes,
            total_size_bytes: self.total_size_bytes,
            versions: versions.into_iter().map(|by| by.tag).collect(),
            floating_tags: floating.into_iter().map(|by| by.tag).collect(),
            pushed_by: self.pushed_by,
            pushed_at: self.pushed_at,
        }
    }
}

/// A page of the repository's manifests, newest first; `named` narrows to one digest.
pub async fn page(
    connection: &mut PgConnection,
    repository_id: i64,
    named: Option<&Digest>,
    filter: &ArtifactFilter,
    after: Option<&ArtifactCursor>,
    limit: i64,
) -> Result<Vec<Row>, Failure> {
    sqlx::query_as!(
        Row,
        r#"select m.digest as "digest: Digest", m.media_type as "media_type: MediaType",
                  coalesce(m.artifact_type, m.config_media_type) as "artifact_type: MediaType",
                  m.subject as "subject: Digest", octet_length(m.body)::bigint as "manifest_size_bytes!",
                  m.total_size_bytes, p.name as pushed_by, m.pushed_at
           from manifests m join principals p on p.id = m.pushed_by
           where m.repository_id = $1
             and ($2::text is null or m.digest = $2)
             and ($3::text is null or coalesce(m.artifact_type, m.config_media_type) = $3)
             and ($4::timestamptz is null or m.pushed_at > $4)
             and ($5::timestamptz is null or m.pushed_at < $5 or (m.pushed_at = $5 and m.digest > $6))
           order by m.pushed_at desc, m.digest limit $7"#,
        repository_id,
        named as Option<&Digest>,
        filter.artifact_type,
        filter.pushed_after,
        after.map(|(at, _)| *at),
        after.map(|(_, digest)| digest) as Option<&Digest>,
        limit
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing artifacts", error))
}

/// One manifest of the repository, without its bytes.
pub async fn record(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Row>, Failure> {
    let rows = page(connection, repository_id, Some(digest), &ArtifactFilter::default(), None, 1).await?;
    Ok(rows.into_iter().next())
}
