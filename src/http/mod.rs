//! The doors: parse into names, ask for a grant, make one call into a room, render.
//!
//! Knows routes, credentials on the wire and how refusals look at each door. Promises a request id
//! on every answer and that internal errors show nothing else. Never holds a rule of the domain.

mod address;
pub mod api;
mod auth;
pub mod body;
mod browsers;
mod byteranges;
mod caller;
mod clocks;
mod connections;
mod cross_site;
mod deadline;
pub mod oci;
mod operations;
mod outgoing;
mod range;
mod request;
mod serve;
mod trust;
mod turns;

pub use address::ClientAddress;
pub use caller::{Caller, Right, Sender, Somewhere};
pub use request::{bounded_message, part_of_request, request_id};
use request::{note_asked, note_audit, note_denied, note_failed_credential};
pub use serve::{reload_certificate, serve, serve_on};

use crate::app::App;
use api::Problem;
use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;

/// Every route of the service.
pub fn router(app: &App) -> Router {
    let worked_at = Router::new().merge(auth::routes()).merge(api::routes(app)).merge(oci::routes());
    let router = Router::new()
        .merge(operations::routes(app))
        .merge(trust::routes())
        .merge(worked_at.route_layer(from_fn_with_state(app.clone(), turns::in_turn)))
        .method_not_allowed_fallback(async || {
            let detail = "this path does not answer to this method; /api/v1/openapi.json lists what does";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        })
        .fallback(async || {
            let detail = "nothing answers at this path; /api/v1/openapi.json lists what does";
            Problem::new(StatusCode::NOT_FOUND, "no-such-path", detail)
        })
        .layer(from_fn_with_state(app.clone(), clocks::refuse_writes))
        .layer(from_fn_with_state(app.clone(), cross_site::refuse_writes))
        .layer(from_fn_with_state(app.clone(), deadline::answer_in_time))
        .with_state(app.clone());
    request::layers(router, app)
}

/// Whether a client has the answer with this ETag (RFC 9110, If-None-Match).
fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = given.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|tag| tag == etag || tag == "*")
}
