//! Rows of `repository_usage`.

use crate::content::quotas::Usage;
use crate::failure::Failure;
use crate::names::RepositoryName;
use crate::postgres::QUOTA;
use sqlx::PgConnection;
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
    sqlx::query!("select pg_advisory_xact_lock($2, hashint8($1))", repository_id, QUOTA)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("locking a quota", error))?;
    Ok(())
}

/// What the repository holds, with what this transaction brought. Folds its rows when there are many.
pub async fn used(connection: &mut PgConnection, repository_id: i64) -> Result<u64, Failure> {
    let row = sqlx::query!(
        r#"select coalesce(sum(bytes), 0)::bigint as "bytes!", count(*) as "rows!"
           from repository_usage where repository_id = $1"#,
        repository_id
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(|error| Failure::new("adding up what a repository holds", error))?;
    if row.rows > MANY {
        fold(connection, repository_id).await?;
    }
    Ok(row.bytes.max(0).unsigned_abs())
}

/// Makes one row of the repository's rows. Two at once take each row once.
async fn fold(connection: &mut PgConnection, repository_id: i64) -> Result<(), Failure> {
    sqlx::query!(
        "with gone as (delete from repository_usage where repository_id = $1 returning bytes)
         insert into repository_usage(repository_id, bytes)
         select $1, sum(bytes) from gone having count(*) > 0",
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
