//! The doors: parse into names, ask for a grant, make one call into a room, render.
//!
//! Knows routes, credentials on the wire and how refusals look at each door. Promises a request id
//! on every answer and that internal errors show nothing else. Never holds a rule of the domain.

pub mod api;
mod auth;
pub mod body;
mod caller;
pub mod oci;
mod operations;
mod range;
mod request;
mod serve;

pub use caller::Caller;
pub use request::request_id;
pub use serve::serve;

use crate::app::App;
use axum::Router;

/// Every route of the service.
pub fn router(app: App) -> Router {
    let router = Router::new()
        .merge(operations::routes(&app))
        .merge(auth::routes())
        .merge(api::routes(&app.config.limits))
        .merge(oci::routes())
        .with_state(app);
    request::layers(router)
}
