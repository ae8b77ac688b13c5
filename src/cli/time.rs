//! Times on the command line.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use std::str::FromStr;

/// A moment: RFC 3339, or a duration from now such as `30d`.
#[derive(Clone, Copy, Debug)]
pub struct Moment(DateTime<Utc>);

impl Moment {
    /// RFC 3339, as the API takes it.
    pub fn to_rfc3339(self) -> String {
        self.0.to_rfc3339_opts(SecondsFormat::Secs, true)
    }
}

impl FromStr for Moment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self(moment.to_utc()));
        }
        span(text).and_then(|delta| crate::clock::now().checked_add_signed(delta)).map(Self).ok_or_else(
            || "a time like 2026-12-31T00:00:00Z, or a duration from now like 90m, 12h or 30d".to_owned(),
        )
    }
}

/// A moment of what is over, for options that ask since when or until when it was: RFC 3339, or how long ago.
pub fn past(text: &str) -> Result<Moment, String> {
    let given = DateTime::parse_from_rfc3339(text).ok().map(|moment| moment.to_utc());
    let ago = || span(text).and_then(|delta| crate::clock::now().checked_sub_signed(delta));
    given.or_else(ago).map(Moment).ok_or_else(|| {
        "a time like 2026-12-31T00:00:00Z, or how long ago it was, like 90m, 12h or 30d".to_owned()
    })
}

/// How long something lives, such as `12h` or `90d`.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime(TimeDelta);

impl Lifetime {
    /// As a span of time.
    pub fn span(self) -> TimeDelta {
        self.0
    }

    /// In seconds.
    pub fn seconds(self) -> i64 {
        self.0.num_seconds()
    }
}

impl FromStr for Lifetime {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        span(text).map(Self).ok_or("a duration like 90s, 15m, 12h or 30d")
    }
}

fn span(text: &str) -> Option<TimeDelta> {
    let unit = text.chars().last()?;
    let count: i64 = text.get(..text.len() - unit.len_utf8())?.parse().ok().filter(|count| *count > 0)?;
    match unit {
        's' => TimeDelta::try_seconds(count),
        'm' => TimeDelta::try_minutes(count),
        'h' => TimeDelta::try_hours(count),
        'd' => TimeDelta::try_days(count),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_duration_from_now_or_before_it() {
        assert_eq!(
            "2026-12-31T01:00:00+01:00".parse::<Moment>().unwrap().to_rfc3339(),
            "2026-12-31T00:00:00Z"
        );
        assert_eq!(span("90m"), TimeDelta::try_minutes(90));
        assert!(past("1d").unwrap().0 < crate::clock::now() - TimeDelta::hours(23));
        for bad in ["", "d", "-1d", "3w", "9223372036854775807d", "1é", "tomorrow"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }
}
