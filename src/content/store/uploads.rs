//! Rows of `uploads`.
//!
//! Opening a session, claiming it and renewing its lease do not wait for the disk: when Postgres dies in the next
//! instant, the client is told that there is no such session, or the writer that its lease is lost.
//! What a client is told to have sent is durable.

use crate::access::{Grant, Push};
use crate::content::uploads::LEASE;
use crate::failure::Failure;
use crate::names::RepositoryName;
use crate::storage::Staged;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// Opens a session; `false` when the principal has as many as it may. Several at once may pass the
/// bound by their number: it keeps a table small and is no promise.
pub async fn insert(
    connection: &mut PgConnection,
    grant: &Grant<Push>,
    staged: &Staged,
    limit: u32,
) -> Result<bool, Failure> {
    let (document, tail) = staged.save()?;
    let done = sqlx::query!(
        "with unhurried as materialized (select set_config('synchronous_commit', 'off', true))
         insert into uploads(id, repository, principal_id, staged, tail)
         select $1, $2, $3, $4, $5 from unhurried
         where (select count(*) from (select from uploads where principal_id = $3 limit $6) open) < $6",
        staged.upload(),
        grant.repository() as &RepositoryName,
        grant.principal().id,
        document,
        tail,
        i64::from(limit),
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("opening an upload session", error))?;
    Ok(done.rows_affected() == 1)
}

/// How a session stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// How many bytes it has taken.
    pub offset_bytes: u64,
    /// Who writes to it, and until when unless that is renewed.
    lease: Option<(Uuid, DateTime<Utc>)>,
}

impl Standing {
    /// Whether nobody has its lease.
    pub fn is_free(&self) -> bool {
        self.lease.is_none()
    }

    /// Whether somebody did something since the session stood so: a lease was renewed, taken or came with
    /// bytes.
    pub fn shows_a_writer(&self, before: &Self) -> bool {
        self.offset_bytes != before.offset_bytes || (self.lease.is_some() && self.lease != before.lease)
    }
}

/// How the principal's session stands. Nobody else is told of it.
pub async fn standing(
    connection: &mut PgConnection,
    grant: &Grant<Push>,
    id: Uuid,
) -> Result<Option<Standing>, Failure> {
    let row = sqlx::query!(
        "select offset_bytes, lease, lease_until from uploads
         where id = $1 and repository = $2 and principal_id = $3",
        id,
        grant.repository() as &RepositoryName,
        grant.principal().id,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading an upload session", error))?;
    Ok(row.map(|row| Standing {
        offset_bytes: row.offset_bytes.unsigned_abs(),
        lease: row.lease.zip(row.lease_until),
    }))
}

/// Takes the lease of the principal's session, when it is at the offset (if one is given) and nobody holds
/// it.
pub async fn claim(
    connection: &mut PgConnection,
    grant: &Grant<Push>,
    id: Uuid,
    token: Uuid,
    start: Option<u64>,
) -> Result<Option<Staged>, Failure> {
    // An offset that no column holds is the offset of no session.
    let Ok(start) = start.map(i64::try_from).transpose() else { return Ok(None) };
    let row = sqlx::query!(
        "with unhurried as materialized (select set_config('synchronous_commit', 'off', true))
         update uploads set lease = $2, lease_until = clock_timestamp() + make_interval(secs => $3),
           touched_at = clock_timestamp()
         from unhurried
         where id = $1 and repository = $4 and principal_id = $5
           and ($6::bigint is null or offset_bytes = $6)
           and (lease is null or lease_until < clock_timestamp())
         returning staged, tail",
        id,
        token,
        LEASE.as_secs_f64(),
        grant.repository() as &RepositoryName,
        grant.principal().id,
        start,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("claiming an upload session", error))?;
    row.map(|row| Staged::restore(id, row.staged, row.tail)).transpose()
}

/// Makes the lease last longer; `false` when it is lost.
pub async fn renew(connection: &mut PgConnection, id: Uuid, token: Uuid) -> Result<bool, Failure> {
    sqlx::query!(
        "with unhurried as materialized (select set_config('synchronous_commit', 'off', true))
         update uploads set lease_until = clock_timestamp() + make_interval(secs => $3),
           touched_at = clock_timestamp()
         from unhurried
         where id = $1 and lease = $2",
        id,
        token,
        LEASE.as_secs_f64(),
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(|error| Failure::new("renewing a lease", error))
}

/// What became of a state that was to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// It is saved.
    Yes,
    /// The lease is lost.
    Lost,
    /// The repository has no room for so much.
    Over,
}

/// Saves the state, and keeps the lease or gives it back. A session grows only as far as the repository's quota leaves
/// room beside the other open sessions; the commit of its blob has the last word.
pub async fn save(
    connection: &mut PgConnection,
    id: Uuid,
    token: Uuid,
    staged: &Staged,
    keep: bool,
) -> Result<Saved, Failure> {
    let (document, tail) = staged.save()?;
    let offset_bytes = i64::try_from(staged.offset_bytes())
        .map_err(|error| Failure::new("saving an upload session", error))?;
    let fits = sqlx::query_scalar!(
        r#"with held as materialized (
             select u.id, u.offset_bytes >= $5 or not exists (
               select from repositories r where r.name = u.repository and r.quota_bytes < $5
                 + (select coalesce(sum(g.bytes), 0) from repository_usage g where g.repository_id = r.id)
                 + (select coalesce(sum(o.offset_bytes), 0) from uploads o where o.repository = u.repository and o.id <> u.id)
             ) as fits
             from uploads u where u.id = $1 and u.lease = $2),
           saved as (
             update uploads s set staged = $3, tail = $4, offset_bytes = $5, touched_at = clock_timestamp(),
               lease = case when $6 then s.lease end, lease_until = case when $6 then s.lease_until end
             from held h where s.id = h.id and s.lease = $2 and h.fits
             returning s.id)
           select h.fits and exists (select from saved) as "saved!" from held h where exists (select from saved) or not h.fits"#,
        id,
        token,
        document,
        tail,
        offset_bytes,
        keep,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("saving an upload session", error))?;
    Ok(match fits {
        Some(true) => Saved::Yes,
        Some(false) => Saved::Over,
        None => Saved::Lost,
    })
}

/// Gives the lease back.
pub async fn release(connection: &mut PgConnection, id: Uuid, token: Uuid) -> Result<(), Failure> {
    sqlx::query!(
        "update uploads set lease = null, lease_until = null where id = $1 and lease = $2",
        id,
        token
    )
    .execute(connection)
    .await
    .map(|_| ())
    .map_err(|error| Failure::new("giving back a lease", error))
}

/// Ends the session; `false` when the lease is lost.
pub async fn delete(connection: &mut PgConnection, id: Uuid, token: Uuid) -> Result<bool, Failure> {
    sqlx::query!("delete from uploads where id = $1 and lease = $2", id, token)
        .execute(connection)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(|error| Failure::new("ending an upload session", error))
}

/// Takes the lease of a session that nobody has written to for so long. A state that cannot be read
/// any more comes as its failure.
pub async fn claim_expired(
    connection: &mut PgConnection,
    token: Uuid,
    age: Duration,
) -> Result<Option<(Uuid, Result<Staged, Failure>)>, Failure> {
    let row = sqlx::query!(
        "update uploads set lease = $1, lease_until = clock_timestamp() + make_interval(secs => $2)
         where id = (select id from uploads
                     where touched_at < clock_timestamp() - make_interval(secs => $3)
                       and (lease is null or lease_until < clock_timestamp())
                     order by touched_at limit 1 for update skip locked)
         returning id, staged, tail",
        token,
        LEASE.as_secs_f64(),
        age.as_secs_f64(),
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("finding expired upload sessions", error))?;
    Ok(row.map(|row| (row.id, Staged::restore(row.id, row.staged, row.tail))))
}

/// Of what lies in the store, the names that neither a blob's row nor an open session needs, and that
/// collection does not keep for their delay. One statement, one snapshot: a finishing upload has its
/// session until it has its row.
pub async fn unneeded(
    connection: &mut PgConnection,
    names: &[String],
    uploads: &[Uuid],
) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"select f.name as "name!" from unnest($1::text[], $2::uuid[]) f(name, upload)
           where not exists (select from blobs b where b.object_key = f.name)
             and not exists (select from doomed_objects d where d.object_key = f.name)
             and not exists (select from uploads u where u.id = f.upload)"#,
        names,
        uploads,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("finding bytes that nobody needs", error))
}
