//! Spans of time as people write them: `90s`, `10m`, `24h`, `1h30m`, `10d`, `2w`.

use chrono::TimeDelta;
use std::fmt;
use std::str::FromStr;

/// A span of whole seconds, at most ten years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    seconds: u32,
}

/// Not a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a span is numbers with units (s, m, h, d, w), such as 90s, 10m, 1h30m or 10d, at most 3650d")]
pub struct InvalidSpan;

const MAX_SECONDS: u64 = 3650 * 86_400;

const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self { seconds: 0 };

    /// One day.
    pub const DAY: Self = Self { seconds: 86_400 };

    /// As a difference of times.
    pub fn delta(self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.seconds))
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;
    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let (mut total, mut number) = (0_u64, None::<u64>);
        for symbol in text.chars() {
            if let Some(digit) = symbol.to_digit(10) {
                let shifted = number.unwrap_or(0).checked_mul(10).ok_or(InvalidSpan)?;
                number = Some(shifted.checked_add(u64::from(digit)).ok_or(InvalidSpan)?);
            } else {
                let (_, unit) = UNITS.iter().find(|(name, _)| *name == symbol).ok_or(InvalidSpan)?;
                let part = number.take().and_then(|n| n.checked_mul(*unit)).ok_or(InvalidSpan)?;
                total = total.checked_add(part).ok_or(InvalidSpan)?;
            }
        }
        if text.is_empty() || number.is_some() || total > MAX_SECONDS {
            return Err(InvalidSpan);
        }
        Ok(Self { seconds: u32::try_from(total).map_err(|_| InvalidSpan)? })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = u64::from(self.seconds);
        // The largest unit below a week that divides it, so that one span has one text.
        let (unit, size) = UNITS[1..].iter().find(|(_, size)| seconds % size == 0).unwrap_or(&('s', 1));
        if seconds == 0 { f.write_str("0s") } else { write!(f, "{}{unit}", seconds / size) }
    }
}

impl serde::Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Span {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("numbers with units s, m, h, d, w"))
            .pattern(Some("^([0-9]+[smhdw])+$"))
            .examples(["24h"])
            .into()
    }
}

impl utoipa::ToSchema for Span {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5400), ("10d", 864_000), ("0d", 0)] {
            assert_eq!(text.parse::<Span>().unwrap().seconds, seconds, "{text}");
        }
        for bad in ["", "10", "h", "-1h", "1.5h", "1y", "3651d", "99999999999999999999s", "1h "] {
            assert_eq!(bad.parse::<Span>(), Err(InvalidSpan), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_span_round_trips(seconds in 0..=u32::try_from(MAX_SECONDS).unwrap()) {
            let span = Span { seconds };
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
    }
}
