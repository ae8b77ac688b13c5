//! Rows of `repository_usage` and `evidence_documents`.

use crate::content::quotas::Usage;
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName};
use crate::postgres::{EVIDENCE_QUOTA, QUOTA};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Rows of one repository from which on they are folded.
const MANY: i64 = 64;

/// What the repository of this name holds with all open sessions but this one, if there is a quota on it.
pub async fn usage(
    connection: &mut PgConnection,
    name: &RepositoryName,
    session: Option<Uuid>,
) -> Result<Option<Usage>, Failure> {
    let row = sqlx::query!(
        r#"select r.quota_bytes as "quota_bytes!",
                  ((select coalesce(sum(u.bytes), 0) from repository_usage u where u.repository_id = r.id)
                   + (select coalesce(sum(o.offset_bytes), 0) from uploads o
                      where o.repository = r.name and o.id is distinct from $2))::bigint as "used_bytes!"
           from repositories r where r.name = $1 and r.quota_bytes is not null"#,
        name as &RepositoryName,
        session,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a repository's quota", error))?;
    Ok(row.map(|row| Usage {
        quota_bytes: row.quota_bytes.unsigned_abs(),
        used_bytes: row.used_bytes.max(0).unsigned_abs(),
    }))
}

/// Takes the repository's quota for this transaction.
pub async fn lock(connection: &mut PgConnection, repository_id: i64) -> Result<(), Failure> {
    lock_class(connection, repository_id, QUOTA).await
}

/// Takes the repository's evidence quota for this transaction.
pub async fn lock_evidence(connection: &mut PgConnection, repository_id: i64) -> Result<(), Failure> {
    lock_class(connection, repository_id, EVIDENCE_QUOTA).await
}

async fn lock_class(connection: &mut PgConnection, repository_id: i64, class: i32) -> Result<(), Failure> {
    sqlx::query!("select pg_advisory_xact_lock($2, hashint8($1))", repository_id, class)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("locking a quota", error))?;
    Ok(())
}

/// Counts documents as evidence of the repository, and holds the rows of those that count already, so that nobody
/// forgets them before this transaction's manifest is seen. Returns the bytes of those that are new.
pub async fn count_evidence(
    connection: &mut PgConnection,
    repository_id: i64,
    documents: &BTreeMap<Digest, u64>,
) -> Result<u64, Failure> {
    let (digests, sizes): (Vec<&Digest>, Vec<i64>) =
        documents.iter().map(|(digest, size)| (digest, i64::try_from(*size).unwrap_or(i64::MAX))).unzip();
    let counted = sqlx::query!(
        r#"insert into evidence_documents as d (repository_id, digest, size_bytes)
           select $1, digest, size_bytes from unnest($2::text[], $3::bigint[]) t(digest, size_bytes) order by digest
           on conflict (repository_id, digest) do update set size_bytes = d.size_bytes
           returning size_bytes, xmax = 0 as "new!""#,
        repository_id,
        &digests as &[&Digest],
        &sizes,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("counting evidence", error))?;
    let new = counted.iter().filter(|row| row.new);
    Ok(new.map(|row| row.size_bytes.unsigned_abs()).sum())
}

/// The repository's quota, and its quota of evidence, where it has them.
pub async fn quotas(
    connection: &mut PgConnection,
    repository_id: i64,
) -> Result<(Option<u64>, Option<u64>), Failure> {
    let row = sqlx::query!(
        "select quota_bytes, evidence_quota_bytes from repositories where id = $1",
        repository_id
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("reading a repository's quotas", error))?;
    Ok((row.quota_bytes.map(i64::unsigned_abs), row.evidence_quota_bytes.map(i64::unsigned_abs)))
}

/// What a repository holds.
pub struct Used {
    pub bytes: u64,
    /// Of evidence.
    pub evidence_bytes: u64,
}

/// What the repository holds, with what this transaction brought. Folds its rows when there are many.
pub async fn used(connection: &mut PgConnection, repository_id: i64) -> Result<Used, Failure> {
    let row = sqlx::query!(
        r#"select coalesce(sum(bytes), 0)::bigint as "bytes!",
             coalesce(sum(evidence_bytes), 0)::bigint as "evidence_bytes!", count(*) as "rows!"
           from repository_usage where repository_id = $1"#,
        repository_id
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(|error| Failure::new("adding up what a repository holds", error))?;
    if row.rows > MANY {
        fold(connection, repository_id).await?;
    }
    Ok(Used {
        bytes: row.bytes.max(0).unsigned_abs(),
        evidence_bytes: row.evidence_bytes.max(0).unsigned_abs(),
    })
}

/// Makes one row of the repository's rows, unless somebody else holds the quota: who waited here for another's rows,
/// holding the lock on evidence, could be waited for.
async fn fold(connection: &mut PgConnection, repository_id: i64) -> Result<(), Failure> {
    let ours = sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock($2, hashint8($1)) as "ours!""#,
        repository_id,
        QUOTA
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(|error| Failure::new("locking a quota", error))?;
    if !ours {
        return Ok(());
    }
    sqlx::query!(
        "with gone as (delete from repository_usage where repository_id = $1 returning bytes, evidence_bytes)
         insert into repository_usage(repository_id, bytes, evidence_bytes)
         select $1, sum(bytes), sum(evidence_bytes) from gone having count(*) > 0",
        repository_id
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("folding what a repository holds", error))?;
    Ok(())
}

/// Folds the next repositories with many rows behind this one; the last of them.
pub async fn fold_page(
    connection: &mut PgConnection,
    after: i64,
    limit: i64,
) -> Result<Option<i64>, Failure> {
    let many = sqlx::query_scalar!(
        "select repository_id from repository_usage where repository_id > $1
         group by repository_id having count(*) > $2 order by repository_id limit $3",
        after,
        MANY,
        limit
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(|error| Failure::new("looking for usage to fold", error))?;
    for repository_id in &many {
        fold(connection, *repository_id).await?;
    }
    Ok(many.last().copied())
}
