//! The time outside of decisions; a decision takes the database's, read after its locks.

use chrono::{DateTime, Utc};

/// The system's time now.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
