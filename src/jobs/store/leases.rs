//! Rows of `job_leases`.

use crate::failure::Failure;
use crate::jobs::lease::LEASE;
use crate::jobs::{Due, Standing};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// Takes the lease: `None` when somebody holds it or it is not due, else the state that was left.
pub async fn take(
    connection: &mut PgConnection,
    name: &str,
    holder: Uuid,
    due: Due,
) -> Result<Option<Option<Value>>, Failure> {
    let (now, every) = match due {
        Due::Now => (true, Duration::ZERO),
        Due::Every(every) => (false, every),
    };
    sqlx::query_scalar!(
        r#"insert into job_leases as j (name, holder, lease_until, started_at)
           select $1, $2, clock_timestamp() + make_interval(secs => $3), clock_timestamp()
           where $4 or $5::float8 > 0 or exists (select from job_leases where name = $1)
           on conflict (name) do update
           set holder = excluded.holder, lease_until = excluded.lease_until,
               started_at = case when j.state is null then excluded.started_at else j.started_at end
           where (j.holder is null or j.lease_until < clock_timestamp())
             and ($4 or j.state is not null
                  or j.wanted_at > coalesce(j.started_at, '-infinity')
                  or ($5::float8 > 0 and (j.finished_at is null
                                  or j.finished_at < clock_timestamp() - make_interval(secs => $5))))
           returning state"#,
        name,
        holder,
        LEASE.as_secs_f64(),
        now,
        every.as_secs_f64(),
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("taking a job", error))
}

/// Makes the lease last longer; `false` when it is lost.
pub async fn keep(connection: &mut PgConnection, name: &str, holder: Uuid) -> Result<bool, Failure> {
    sqlx::query!(
        "update job_leases set lease_until = clock_timestamp() + make_interval(secs => $3)
         where name = $1 and holder = $2",
        name,
        holder,
        LEASE.as_secs_f64()
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(|error| Failure::new("keeping a job", error))
}

/// Saves where the job goes on.
pub async fn save(
    connection: &mut PgConnection,
    name: &str,
    holder: Uuid,
    state: &Value,
) -> Result<(), Failure> {
    sqlx::query!("update job_leases set state = $3 where name = $1 and holder = $2", name, holder, state)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("saving a job", error))?;
    Ok(())
}

/// Gives the lease back and leaves the state.
pub async fn release(connection: &mut PgConnection, name: &str, holder: Uuid) -> Result<(), Failure> {
    sqlx::query!(
        "update job_leases set holder = null, lease_until = null where name = $1 and holder = $2",
        name,
        holder
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("giving back a job", error))?;
    Ok(())
}

/// Ends the run.
pub async fn finish(
    connection: &mut PgConnection,
    name: &str,
    holder: Uuid,
    report: &Value,
) -> Result<(), Failure> {
    sqlx::query!(
        "update job_leases set holder = null, lease_until = null, state = null, report = $3,
           finished_at = clock_timestamp()
         where name = $1 and holder = $2",
        name,
        holder,
        report
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("ending a job", error))?;
    Ok(())
}

/// How the job stands.
pub async fn standing(connection: &mut PgConnection, name: &str) -> Result<Option<Standing>, Failure> {
    sqlx::query_as!(
        Standing,
        r#"select coalesce(lease_until > clock_timestamp(), false) as "running!", state, report, started_at,
                  finished_at, wanted_at
           from job_leases where name = $1"#,
        name
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading how a job stands", error))
}

/// Asks for a run.
pub async fn want(connection: &mut PgConnection, name: &str) -> Result<DateTime<Utc>, Failure> {
    sqlx::query_scalar!(
        r#"insert into job_leases(name, wanted_at) values ($1, clock_timestamp())
           on conflict (name) do update set wanted_at = excluded.wanted_at
           returning wanted_at as "wanted_at!""#,
        name
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("asking for a job", error))
}
