//! `/api/v1/known-good`.

use crate::app::App;
use utoipa_axum::router::OpenApiRouter;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
