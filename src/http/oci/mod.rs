//! `/v2/`: the OCI distribution specification.

mod error;

pub use error::{Code, OciError};

use crate::app::App;
use axum::Router;

/// The routes below `/v2/`.
pub fn routes() -> Router<App> {
    Router::new()
}
