//! The one rule of what time it is: decisions and facts take the later of the database's clock and the newest
//! event's time, so that a clock that was set back decides nothing again that is past.
//!
//! SQL that decides by the time calls `decision_time()` (migrations/20261130090110_decision_time.sql): the same
//! rule, but for clocks that differ, which Postgres cannot know. Lists and tokens use it; decisions do not.

use crate::clock;
use crate::failure::{ClocksDiffer, Failure};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

/// Maximum difference of the database's clock and the service's own. Over it one of them is set wrong, and what
/// is written is dated with the newest event's time.
pub const MAX_CLOCK_DIFFERENCE: TimeDelta = TimeDelta::seconds(60);

/// What the clocks show, read at once.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The database's.
    pub database: DateTime<Utc>,
    /// The service's own.
    pub service: DateTime<Utc>,
    /// The time of the newest event.
    pub newest_event: Option<DateTime<Utc>>,
}

impl Clocks {
    /// Reads them. The newest event is the one with the highest id: of events that are committed at once each may
    /// have it, and their times are as close.
    pub async fn read(connection: &mut PgConnection) -> Result<Self, Failure> {
        let row = sqlx::query!(
            r#"select clock_timestamp() as "database!",
                      (select at from events order by id desc limit 1) as newest"#
        )
        .fetch_one(connection)
        .await
        .map_err(|error| Failure::new("reading the database's clock", error))?;
        Ok(Self { database: row.database, service: clock::now(), newest_event: row.newest })
    }

    /// How far the database's clock and the service's own are from each other.
    pub fn difference(&self) -> TimeDelta {
        (self.database - self.service).abs()
    }

    /// Whether one of the clocks is set wrong.
    pub fn differ(&self) -> bool {
        self.difference() > MAX_CLOCK_DIFFERENCE
    }

    /// The time of what is decided and written now.
    pub fn time(&self) -> DateTime<Utc> {
        match self.newest_event {
            // Neither clock can be believed: the order of events is right all the same.
            Some(newest) if self.differ() => newest,
            Some(newest) => newest.max(self.database),
            None => self.database,
        }
    }
}

/// The time of what is written now, after the locks of the writing transaction; refused while the clocks differ.
pub async fn agreed_time(connection: &mut PgConnection) -> Result<DateTime<Utc>, Failure> {
    let clocks = Clocks::read(connection).await?;
    if clocks.differ() {
        return Err(Failure::new("reading the time", ClocksDiffer));
    }
    Ok(clocks.time())
}

/// The time of a question, and of what is written while the clocks differ too: blocks, holds, and what ends
/// something.
pub async fn database_time(connection: &mut PgConnection) -> Result<DateTime<Utc>, Failure> {
    Ok(Clocks::read(connection).await?.time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_the_later_of_the_database_and_the_newest_event_and_the_events_alone_while_clocks_differ() {
        let service = clock::now();
        let at = |seconds: i64| service + TimeDelta::seconds(seconds);
        for (database, newest, differ, time) in [
            (0, None, false, 0),
            (0, Some(-100), false, 0),
            (0, Some(100), false, 100),
            (60, Some(-100), false, 60),
            (61, Some(-100), true, -100),
            (61, Some(100), true, 100),
            (-60, Some(-100), false, -60),
            (-61, Some(-50), true, -50),
            (-61, None, true, -61),
        ] {
            let clocks = Clocks { database: at(database), service, newest_event: newest.map(at) };
            assert_eq!((clocks.differ(), clocks.time()), (differ, at(time)), "{database} {newest:?}");
        }
    }
}
