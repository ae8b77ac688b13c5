//! Rows of `job_queue`: how modules enqueue jobs, and how the worker in `jobs` claims and ends them.
//!
//! A job is enqueued in the transaction of the fact that it follows from, so both are committed or neither.
//! Enqueuing waits for nobody and notifies nobody: a notification in each writing transaction is expensive.
//! The sequencer's notification, which follows the fact's event, wakes the workers.

use super::scopes::QUEUE;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use uuid::Uuid;

/// The kind of job that renews the verification summaries of a release channel; its key is the channel.
pub const RENEW_SUMMARY: &str = "renew-summary";
/// The kind of job that finds the release channels whose answer a fact may have changed; its key is [`Changed`].
pub const REEVALUATE: &str = "reevaluate";

/// The kind of job that reads statements of provenance again; it has one key.
pub const READ_PROVENANCE: &str = "read-provenance";
/// The kind of job that verifies pending envelopes by a signer's key; its key is the row of the identity.
pub const VERIFY_KEY: &str = "verify-key";

/// The kind of job that settles which signed scans count after a revocation; its key is the row of the signer.
pub const SETTLE_SCANS: &str = "settle-scans";

/// What a fact is about that may change answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Bytes, by any digest.
    Bytes(Digest),
    /// Statements that a signer signed.
    Signer(String),
    /// What a statement is about.
    Attestation(i64),
    /// What a waiver covers.
    Waiver(i64),
    /// Everything in an environment.
    Environment(EnvironmentName),
}

/// Not the key of a job that re-evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the key of a job that re-evaluates")]
pub struct InvalidKey;

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(digest) => write!(f, "bytes/{digest}"),
            Self::Signer(name) => write!(f, "signer/{name}"),
            Self::Attestation(id) => write!(f, "attestation/{id}"),
            Self::Waiver(id) => write!(f, "waiver/{id}"),
            Self::Environment(name) => write!(f, "environment/{name}"),
        }
    }
}

impl FromStr for Changed {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let (kind, what) = text.split_once('/').ok_or(InvalidKey)?;
        match kind {
            "bytes" => what.parse().map(Self::Bytes).map_err(|_| InvalidKey),
            "signer" => Ok(Self::Signer(what.to_owned())),
            "attestation" => what.parse().map(Self::Attestation).map_err(|_| InvalidKey),
            "waiver" => what.parse().map(Self::Waiver).map_err(|_| InvalidKey),
            "environment" => what.parse().map(Self::Environment).map_err(|_| InvalidKey),
            _ => Err(InvalidKey),
        }
    }
}

/// How often a job may fail before it is dead.
pub const MAX_ATTEMPTS: i32 = 10;

/// Rows that one claim looks at: rows of one kind and key become one job.
const LOOKED_AT: i64 = 1000;

/// Maximum number of characters of an error that is kept with a job.
const MAX_ERROR_CHARS: i32 = 1000;

/// A job that a worker has claimed.
#[derive(Clone, Debug)]
pub struct ClaimedJob {
    /// The row.
    pub id: i64,
    /// What kind of work it is.
    pub kind: String,
    /// What it is about.
    pub key: String,
    /// What else the handler needs, as it was enqueued last.
    pub payload: Value,
    /// Which attempt this is, from 1.
    pub attempts: i32,
}

/// What became of a job that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// It runs again later.
    Retried,
    /// It failed as often as it may, and is kept as dead.
    Dead,
    /// Another worker has claimed it since.
    NotOurs,
}

/// Jobs that are dead, and jobs that wait, of one kind.
#[derive(Clone, Debug)]
pub struct QueueCount {
    /// The kind.
    pub kind: String,
    /// How many.
    pub jobs: i64,
}

/// Enqueues a job in the caller's transaction, to run after it and not before `run_after`. Rows of the same
/// kind and key that are due become one job, with the payload of the last one.
pub async fn enqueue(
    connection: &mut PgConnection,
    kind: &'static str,
    key: &str,
    payload: &Value,
    run_after: Option<DateTime<Utc>>,
) -> Result<(), Failure> {
    enqueue_with(connection, kind, key, payload, run_after, MAX_ATTEMPTS).await
}

/// Re-evaluates after this transaction, which writes a fact about this.
pub async fn reevaluate(connection: &mut PgConnection, changed: &Changed) -> Result<(), Failure> {
    enqueue(connection, REEVALUATE, &changed.to_string(), &Value::Null, None).await
}

/// The same about several.
pub async fn reevaluate_all(connection: &mut PgConnection, changed: &[Changed]) -> Result<(), Failure> {
    let keys: Vec<String> = changed.iter().map(Changed::to_string).collect();
    sqlx::query!(
        "insert into job_queue(kind, key, payload, run_after, max_attempts)
         select $1, key, 'null', clock_timestamp(), $3 from unnest($2::text[]) key",
        REEVALUATE,
        &keys,
        MAX_ATTEMPTS,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("enqueuing jobs", error))?;
    Ok(())
}

/// Enqueues a job for each key that has none which waits: one that runs may have read before the fact that this
/// one follows from. A dead one is tried again, at most once in `again_after`; where that is zero, one that
/// waits after a failure runs now.
pub async fn enqueue_missing(
    connection: &mut PgConnection,
    kind: &'static str,
    keys: &[String],
    again_after: Duration,
) -> Result<(), Failure> {
    sqlx::query!(
        "with known as (
           select q.id, q.key, q.dead_at from job_queue q where q.kind = $1 and q.key = any($2)
             and (q.dead_at is not null or q.locked_until is null)),
         again as (
           update job_queue q set dead_at = null, run_after = least(q.run_after, clock_timestamp()),
             attempts = case when q.dead_at is null then q.attempts else 0 end
           from known k where q.id = k.id
             and coalesce(k.dead_at <= clock_timestamp() - make_interval(secs => $4), $4 = 0))
         insert into job_queue(kind, key, payload, max_attempts)
         select $1, key, 'null', $3 from unnest($2::text[]) key where key not in (select k.key from known k)",
        kind,
        keys,
        MAX_ATTEMPTS,
        again_after.as_secs_f64(),
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("enqueuing jobs", error))?;
    Ok(())
}

/// The same, with another number of attempts.
pub async fn enqueue_with(
    connection: &mut PgConnection,
    kind: &'static str,
    key: &str,
    payload: &Value,
    run_after: Option<DateTime<Utc>>,
    max_attempts: i32,
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into job_queue(kind, key, payload, run_after, max_attempts)
         values ($1, $2, $3, coalesce($4, clock_timestamp()), $5)",
        kind,
        key,
        payload,
        run_after,
        max_attempts
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("enqueuing a job", error))?;
    Ok(())
}

/// Claims jobs of these kinds that are due, at most `limit`, in a transaction that the caller commits.
///
/// One claim is made at a time among all workers, which is what keeps two rows of one key from being claimed
/// by two of them; the lock is a statement of its own, so that the next statements see the claims before.
/// Rows of a key that are due beside the claimed one are deleted: what they were enqueued for is committed,
/// and the handler, which begins after this, reads it.
pub async fn claim(
    connection: &mut PgConnection,
    kinds: &[String],
    claim: Uuid,
    lease: Duration,
    limit: i64,
) -> Result<Vec<ClaimedJob>, Failure> {
    let failed = |error| Failure::new("claiming jobs", error);
    sqlx::query!("select pg_advisory_xact_lock($1, 0)", QUEUE)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    // What ends its worker each time would otherwise be tried for ever.
    sqlx::query!(
        "update job_queue
         set dead_at = clock_timestamp(), locked_by = null, locked_until = null,
           last_error = coalesce(last_error, 'the worker ended while the job ran')
         where dead_at is null and locked_until <= clock_timestamp() and attempts >= max_attempts
           and kind = any($1)",
        kinds
    )
    .execute(&mut *connection)
    .await
    .map_err(failed)?;
    sqlx::query_as!(
        ClaimedJob,
        r#"with due as (
             select q.id, q.kind, q.key, q.attempts from job_queue q
             where q.dead_at is null and q.run_after <= clock_timestamp() and q.kind = any($1)
               and (q.locked_until is null or q.locked_until <= clock_timestamp())
               and not exists (
                 select from job_queue o
                 where o.kind = q.kind and o.key = q.key and o.locked_until > clock_timestamp())
             order by q.run_after, q.id limit $5),
           newest as (
             select distinct on (kind, key) id, kind, key,
                    max(attempts) over (partition by kind, key) as attempts
             from due order by kind, key, id desc),
           chosen as (
             select n.id, n.kind, n.key, n.attempts
             from newest n join job_queue q on q.id = n.id
             order by q.run_after, n.id limit $4 for update of q skip locked),
           merged as (
             delete from job_queue q using chosen c, due d
             where d.kind = c.kind and d.key = c.key and d.id <> c.id and q.id = d.id)
           update job_queue q
           set locked_by = $2, locked_until = clock_timestamp() + make_interval(secs => $3),
             attempts = c.attempts + 1
           from chosen c where q.id = c.id
           returning q.id, q.kind, q.key, q.payload, q.attempts"#,
        kinds,
        claim,
        lease.as_secs_f64(),
        limit,
        LOOKED_AT,
    )
    .fetch_all(connection)
    .await
    .map_err(failed)
}

/// Makes a claim last longer; how many jobs are still its own.
pub async fn renew(connection: &mut PgConnection, claim: Uuid, lease: Duration) -> Result<u64, Failure> {
    sqlx::query!(
        "update job_queue set locked_until = clock_timestamp() + make_interval(secs => $2) where locked_by = $1",
        claim,
        lease.as_secs_f64()
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected())
    .map_err(|error| Failure::new("renewing a claim of jobs", error))
}

/// Gives back what a claim has not ended: the attempts do not count.
pub async fn release(connection: &mut PgConnection, claim: Uuid) -> Result<(), Failure> {
    sqlx::query!(
        "update job_queue set locked_by = null, locked_until = null, attempts = attempts - 1
         where locked_by = $1",
        claim
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("giving back jobs", error))?;
    Ok(())
}

/// Ends a job that succeeded, and forgets dead ones of its kind and key; `false` when another worker has
/// claimed it since.
pub async fn succeed(connection: &mut PgConnection, job: &ClaimedJob, claim: Uuid) -> Result<bool, Failure> {
    let ended = sqlx::query!(
        "with ended as (delete from job_queue where id = $1 and locked_by = $2 returning kind, key),
              forgotten as (
                delete from job_queue q using ended e
                where q.kind = e.kind and q.key = e.key and q.dead_at is not null)
         select from ended",
        job.id,
        claim
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("ending a job", error))?;
    Ok(ended.is_some())
}

/// Ends an attempt that failed: the job runs again after a delay, or is dead.
pub async fn fail(
    connection: &mut PgConnection,
    job: &ClaimedJob,
    claim: Uuid,
    error: &str,
    delay: Duration,
) -> Result<AfterFailure, Failure> {
    // No text column keeps a NUL.
    let error = error.replace('\0', " ");
    let dead = sqlx::query_scalar!(
        r#"update job_queue
           set locked_by = null, locked_until = null, last_error = left($3, $5),
             run_after = clock_timestamp() + make_interval(secs => $4),
             dead_at = case when attempts >= max_attempts then clock_timestamp() end
           where id = $1 and locked_by = $2
           returning dead_at is not null as "dead!""#,
        job.id,
        claim,
        error,
        delay.as_secs_f64(),
        MAX_ERROR_CHARS,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("recording a failed job", error))?;
    Ok(match dead {
        Some(true) => AfterFailure::Dead,
        Some(false) => AfterFailure::Retried,
        None => AfterFailure::NotOurs,
    })
}

/// How many jobs are dead, by kind.
pub async fn dead(connection: &mut PgConnection) -> Result<Vec<QueueCount>, Failure> {
    sqlx::query_as!(
        QueueCount,
        r#"select kind, count(*) as "jobs!" from job_queue where dead_at is not null group by kind order by kind"#
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("counting dead jobs", error))
}

/// How many seconds ago the job that waits longest was due; 0 when none is.
pub async fn oldest_due_seconds(connection: &mut PgConnection) -> Result<f64, Failure> {
    sqlx::query_scalar!(
        r#"select coalesce((
             select greatest(extract(epoch from clock_timestamp() - run_after)::float8, 0)
             from job_queue where dead_at is null order by run_after, id limit 1), 0) as "seconds!""#
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("reading how late jobs are", error))
}
