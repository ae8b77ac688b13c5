//! The sequencer: gives every committed event its index.

use crate::failure::Failure;
use crate::postgres::Db;

/// The channel that is notified once for each batch, with the new size.
pub const CHANNEL: &str = "proofmark_log";

/// Takes what is pending and gives it indices. One sequencer works at a time among all replicas:
/// another that finds the row locked leaves at once with 0. Returns how many events were sequenced.
///
/// Indices are given in the order in which rows are found committed, never by "id greater than the
/// last": ids are drawn before commits, and that rule loses events. A crash anywhere rolls back and
/// leaves everything pending.
pub async fn sequence(db: &Db) -> Result<u64, Failure> {
    let failed = |error| Failure::new("sequencing the log", error);
    let mut tx = db.begin().await?;
    // A statement of its own: the next one's snapshot is then newer than the lock.
    let size = sqlx::query_scalar!("select size from log_state for update skip locked")
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed)?;
    let Some(size) = size else { return Ok(0) };
    let taken = sqlx::query!(
        r#"with taken as (delete from log_pending returning event_id)
           insert into log_entries(idx, event_id)
           select $1 + row_number() over (order by event_id) - 1, event_id from taken"#,
        size
    )
    .execute(&mut *tx)
    .await
    .map_err(failed)?
    .rows_affected();
    if taken == 0 {
        return Ok(0);
    }
    let new_size = size + i64::try_from(taken).unwrap_or(i64::MAX);
    sqlx::query!("update log_state set size = $1", new_size).execute(&mut *tx).await.map_err(failed)?;
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, new_size.to_string())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(taken)
}
