//! What people write beside an act.

use std::fmt;
use std::str::FromStr;

/// Why somebody did something: kept, shown, and part of the log. Empty only where it may be left
/// out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason(String);

/// Not a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reason or a description is 1 to 1000 characters of text, without control characters")]
pub struct InvalidReason;

impl Reason {
    /// A reason that may be left out.
    pub fn optional(text: &str) -> Result<Self, InvalidReason> {
        if text.trim().is_empty() { Ok(Self::default()) } else { text.parse() }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Reason {
    type Err = InvalidReason;
    fn from_str(text: &str) -> Result<Self, InvalidReason> {
        let text = text.trim();
        let plain = !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
        if text.is_empty() || text.chars().count() > 1000 || !plain {
            return Err(InvalidReason);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Reason {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("why: it is kept, shown, and part of the log"))
            .min_length(Some(1))
            .max_length(Some(1000))
            .into()
    }
}

impl utoipa::ToSchema for Reason {}
