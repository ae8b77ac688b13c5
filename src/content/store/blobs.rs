//! Rows of `blobs` and `blob_links`.

use crate::content::blobs::Blob;
use crate::failure::Failure;
use crate::names::Digest;
use crate::storage::{Location, PieceDigests, StoredBlob};
use sqlx::PgConnection;
use std::ops::Range;
use std::time::Duration;

/// Inserts the blob's row; `false` when there is one, committed.
pub async fn insert(connection: &mut PgConnection, blob: &StoredBlob) -> Result<bool, Failure> {
    let (key, bytes) = match blob.location() {
        Location::Inline(bytes) => (None, Some(&bytes[..])),
        Location::Object(key) => (Some(key.as_str()), None),
    };
    let done = sqlx::query!(
        "insert into blobs(digest, size_bytes, object_key, bytes, pieces) values ($1, $2, $3, $4, $5)
         on conflict (digest) do nothing",
        blob.digest() as &Digest,
        i64::try_from(blob.size_bytes()).map_err(|error| Failure::new("storing a blob's row", error))?,
        key,
        bytes,
        blob.pieces().map(PieceDigests::as_bytes),
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("storing a blob's row", error))?;
    Ok(done.rows_affected() == 1)
}

/// Keeps the blob's row from being collected until the transaction ends; `None` when it is gone, else
/// whether its bytes are whole as far as is known.
pub async fn lock(connection: &mut PgConnection, digest: &Digest) -> Result<Option<bool>, Failure> {
    sqlx::query_scalar!(
        r#"select damaged_at is null as "whole!" from blobs where digest = $1 for key share"#,
        digest as &Digest
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("locking a blob's row", error))
}

/// Gives a damaged blob its bytes again, and dooms the object that held it; `false` when somebody else
/// has.
pub async fn heal(connection: &mut PgConnection, blob: &StoredBlob) -> Result<bool, Failure> {
    let (key, bytes) = match blob.location() {
        Location::Inline(bytes) => (None, Some(&bytes[..])),
        Location::Object(key) => (Some(key.as_str()), None),
    };
    let healed = sqlx::query_scalar!(
        r#"with old as (
             select digest, object_key, size_bytes from blobs
             where digest = $1 and damaged_at is not null for no key update),
           healed as (
             update blobs b set object_key = $2, bytes = $3, pieces = $4, damaged_at = null from old
             where b.digest = old.digest returning true),
           doomed as (
             insert into doomed_objects(object_key, size_bytes)
             select object_key, size_bytes from old where object_key is not null)
           select true as "healed!" from healed"#,
        blob.digest() as &Digest,
        key,
        bytes,
        blob.pieces().map(PieceDigests::as_bytes)
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("giving a blob its bytes again", error))?;
    Ok(healed.is_some())
}

/// Inserts the link with its protection, or protects the one that is there; whether it is new.
pub async fn insert_link(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
    grace: Duration,
) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"insert into blob_links(repository_id, digest, protected_until)
           values ($1, $2, clock_timestamp() + make_interval(secs => $3))
           on conflict (repository_id, digest)
             do update set protected_until = greatest(blob_links.protected_until, excluded.protected_until)
           returning (xmax = 0) as "new!""#,
        repository_id,
        digest as &Digest,
        grace.as_secs_f64(),
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("linking a blob", error))
}

/// Whether the link is protected for at least so long; `None` when there is none, or its blob is damaged.
pub async fn is_protected(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
    enough: Duration,
) -> Result<Option<bool>, Failure> {
    sqlx::query_scalar!(
        r#"select protected_until >= clock_timestamp() + make_interval(secs => $3) as "enough!"
           from blob_links where repository_id = $1 and digest = $2
             and not exists (select from blobs where digest = $2 and damaged_at is not null)"#,
        repository_id,
        digest as &Digest,
        enough.as_secs_f64(),
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a blob's link", error))
}

/// Protects the link anew; `false` when it was collected or deleted meanwhile.
pub async fn renew(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
    grace: Duration,
) -> Result<bool, Failure> {
    sqlx::query!(
        "update blob_links
         set protected_until = greatest(protected_until, clock_timestamp() + make_interval(secs => $3))
         where repository_id = $1 and digest = $2",
        repository_id,
        digest as &Digest,
        grace.as_secs_f64(),
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(|error| Failure::new("protecting a blob", error))
}

/// The size of a linked blob.
pub async fn size(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<u64>, Failure> {
    let size = sqlx::query_scalar!(
        "select b.size_bytes from blob_links l join blobs b on b.digest = l.digest
         where l.repository_id = $1 and l.digest = $2 and b.damaged_at is null",
        repository_id,
        digest as &Digest,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a blob's size", error))?;
    Ok(size.map(i64::unsigned_abs))
}

/// A linked blob with where its bytes lie.
pub async fn find(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<Blob>, Failure> {
    let row = sqlx::query!(
        r#"select b.size_bytes, b.object_key, b.bytes, b.pieces is not null as "has_pieces!"
           from blob_links l join blobs b on b.digest = l.digest
           where l.repository_id = $1 and l.digest = $2 and b.damaged_at is null"#,
        repository_id,
        digest as &Digest,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a blob's row", error))?;
    Ok(row.map(|row| Blob {
        digest: digest.clone(),
        size_bytes: row.size_bytes.unsigned_abs(),
        has_pieces: row.has_pieces,
        location: match row.object_key {
            Some(key) => Location::Object(key),
            None => Location::Inline(row.bytes.unwrap_or_default().into()),
        },
    }))
}

/// Deletes the link; `false` when there is none. A manifest that needs it breaks its constraint.
pub async fn delete_link(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "delete from blob_links where repository_id = $1 and digest = $2",
        repository_id,
        digest as &Digest
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Some of the manifests that need the blob.
pub async fn manifests_using(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select manifest as "manifest: Digest" from manifest_blobs
           where repository_id = $1 and blob = $2 order by manifest limit 20"#,
        repository_id,
        digest as &Digest,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("finding who needs a blob", error))
}

/// Where the blob lies now, and some digests of its pieces, by where they stand among all; `None` when it has none or
/// is gone.
pub async fn pieces(
    connection: &mut PgConnection,
    digest: &Digest,
    among: &Range<u64>,
) -> Result<Option<(Location, PieceDigests)>, Failure> {
    let failed = |error| Failure::new("reading the digests of a blob's pieces", error);
    let number =
        |number: u64| i32::try_from(number).map_err(|error| Failure::new("finding a blob's pieces", error));
    let row = sqlx::query!(
        r#"select object_key as "object_key!", substring(pieces from $2 for $3) as "pieces!" from blobs
           where digest = $1 and object_key is not null and pieces is not null"#,
        digest as &Digest,
        number(among.start + 1)?,
        number(among.end - among.start)?,
    )
    .fetch_optional(connection)
    .await
    .map_err(failed)?;
    Ok(row.map(|row| (Location::Object(row.object_key), PieceDigests::new(row.pieces))))
}

/// Keeps the digests of the pieces of a blob that has none, if its bytes lie where they were read.
pub async fn keep_pieces(
    connection: &mut PgConnection,
    digest: &Digest,
    key: &str,
    pieces: &PieceDigests,
) -> Result<(), Failure> {
    sqlx::query!(
        "update blobs set pieces = $3 where digest = $1 and object_key = $2 and pieces is null and damaged_at is null",
        digest as &Digest,
        key,
        pieces.as_bytes()
    )
    .execute(connection)
    .await
    .map(|_| ())
    .map_err(|error| Failure::new("keeping the digests of a blob's pieces", error))
}

/// How many blobs are known to be damaged.
pub async fn damaged(connection: &mut PgConnection) -> Result<i64, Failure> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from blobs where damaged_at is not null"#)
        .fetch_one(connection)
        .await
        .map_err(|error| Failure::new("counting damaged blobs", error))
}
