//! The sequencer: gives every committed event its index.

use crate::failure::Failure;
use crate::postgres::Db;

/// The channel that is notified once for each batch, with the new size.
pub const CHANNEL: &str = "proofmark_log";

/// What one batch sequenced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequenced {
    /// How many events.
    pub events: u64,
    /// The log's size since, where anything was sequenced.
    pub size: Option<i64>,
}

/// Sequences a batch and says how many events it had.
pub async fn sequence(db: &Db) -> Result<u64, Failure> {
    sequence_batch(db).await.map(|sequenced| sequenced.events)
}

/// Takes what is pending and gives it indices. One sequencer works at a time among all replicas:
/// another that finds the row locked leaves at once with nothing.
///
/// Indices are given in the order in which rows are found committed, never by "id greater than the
/// last": ids are drawn before commits, and that rule loses events. A crash anywhere rolls back and
/// leaves everything pending.
pub async fn sequence_batch(db: &Db) -> Result<Sequenced, Failure> {
    let failed = |error| Failure::new("sequencing the log", error);
    let mut tx = db.begin().await?;
    // A statement of its own: the next one's snapshot is then newer than the lock.
    let size = sqlx::query_scalar!("select size from log_state for update skip locked")
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed)?;
    let Some(size) = size else { return Ok(Sequenced::default()) };
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
        return Ok(Sequenced::default());
    }
    let new_size = size + i64::try_from(taken).unwrap_or(i64::MAX);
    sqlx::query!("update log_state set size = $1", new_size).execute(&mut *tx).await.map_err(failed)?;
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, new_size.to_string())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(Sequenced { events: taken, size: Some(new_size) })
}
