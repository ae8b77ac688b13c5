//! What the routes of exceptions have in common.

use super::Problem;
use crate::exceptions::Refused;
use axum::http::StatusCode;

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Failed(failure) => failure.into(),
            Refused::Unknown | Refused::UnknownRepository(_) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", detail)
            }
            Refused::UnknownEnvironment(_) => Self::new(StatusCode::NOT_FOUND, "environment-unknown", detail),
            Refused::UnknownArtifact(_) => Self::new(StatusCode::NOT_FOUND, "artifact-unknown", detail),
            Refused::UntilIsPast | Refused::Reason(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", detail)
            }
        }
    }
}
