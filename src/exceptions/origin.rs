//! Where an exception comes from.

use serde::Serialize;
use utoipa::ToSchema;

/// Who made an exception: a person, or the service as part of another act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Origin {
    /// Somebody asked for it.
    Manual,
    /// A rollback left it.
    Rollback,
}

impl Origin {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Rollback => "rollback",
        }
    }
}
