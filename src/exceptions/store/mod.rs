//! The SQL of exceptions, one file beside each rule file it serves.

pub mod approvals;
pub mod blocks;
pub mod environments;
pub mod every;
pub mod held;
pub mod holds;
pub mod overrides;
pub mod policies;
pub mod waivers;

/// Ends a row of a table, if it is open and of this scope, and returns a column of it. A macro, because the
/// names of tables are part of statements that are checked when they are compiled.
macro_rules! end_row {
    ($connection:expr, $table:literal, $returning:literal, $target:expr, $id:expr, $at:expr, $by:expr) => {
        sqlx::query_scalar!(
            "update " + $table + " set ended_at = $4, ended_by = $5
               where id = $3 and repository_id is not distinct from $1 and environment_id is not distinct from $2
                 and ended_at is null returning " + $returning,
            $target.repository_id(),
            $target.environment_id(),
            $id,
            $at,
            $by,
        )
        .fetch_optional($connection)
        .await
        .map_err(|error| Failure::new(concat!("ending one of ", $table), error))
    };
}
use end_row;
