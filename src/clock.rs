//! The time outside of decisions; a decision takes the database's, read after its locks.

use chrono::{DateTime, Utc};
use serde::Deserialize;

/// The system's time now.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// A time as callers give it: in UTC within the years 1970 to 9999. What lies beyond has no spelling
/// that everybody reads (RFC 3339 has four digits for a year), so one such time in a row would make
/// every answer that shows it unreadable. The columns that keep callers' times say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "DateTime<Utc>")]
pub struct Moment(DateTime<Utc>);

/// The first millisecond that is too late; a leap second at the end of 9999 is.
const YEAR_10000_MILLIS: i64 = 253_402_300_800_000;

/// A time outside of the years that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time lies within the years 1970 to 9999, such as 2027-01-31T12:00:00Z")]
pub struct OutOfTime;

impl TryFrom<DateTime<Utc>> for Moment {
    type Error = OutOfTime;
    fn try_from(time: DateTime<Utc>) -> Result<Self, OutOfTime> {
        (0..YEAR_10000_MILLIS).contains(&time.timestamp_millis()).then_some(Self(time)).ok_or(OutOfTime)
    }
}

impl From<Moment> for DateTime<Utc> {
    fn from(moment: Moment) -> Self {
        moment.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_a_year_of_four_digits_in_utc() {
        let read = |text: &str| serde_json::from_value::<Moment>(text.into());
        for good in ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2027-01-31T12:00:00+14:00"] {
            read(good).unwrap();
        }
        for bad in [
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "-0005-01-01T00:00:00Z",
            "9999-12-31T23:59:59-23:59",
            "9999-12-31T23:59:60Z",
            "+10000-01-01T00:00:00Z",
            "+262000-01-01T00:00:00Z",
        ] {
            assert!(read(bad).unwrap_err().to_string().contains("1970 to 9999"), "{bad}");
        }
    }
}
