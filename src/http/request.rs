//! What every request gets: an id, a log line, metrics, and an answer even when a handler panics.

use crate::postgres::with_same_connections;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

tokio::task_local! {
    static REQUEST_ID: Uuid;
}

/// The id of the request that this task serves; nil outside of one.
pub fn request_id() -> Uuid {
    REQUEST_ID.try_with(|id| *id).unwrap_or_default()
}

/// The future as a part of this request, wherever it runs: with the request's id, span and connections.
pub fn part_of_request<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let future = with_same_connections(future.in_current_span());
    REQUEST_ID.scope(request_id(), future)
}

/// Characters of a path that are logged at the most: longer ones are nobody's names.
const LOGGED_PATH: usize = 1000;

/// Maximum number of bytes of an error message. Parsers quote what they refuse, which may be as long as
/// the request; the answer must not.
const MAX_MESSAGE_BYTES: usize = 8 << 10;

/// The message of an error, cut at the maximum.
pub fn bounded_message(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message.push_str(" ...");
    }
    message
}

/// The methods that metrics tell apart.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Wraps the router in what every request gets.
pub fn layers(router: Router) -> Router {
    router.layer(CatchPanicLayer::custom(panicked)).layer(from_fn(observe))
}

async fn observe(request: Request, next: Next) -> Response {
    let id = Uuid::now_v7();
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(LOGGED_PATH).collect();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let span = tracing::info_span!("request", request_id = %id, %method, path);
    let started = Instant::now();
    let mut response = REQUEST_ID.scope(id, next.run(request).instrument(span.clone())).await;
    let seconds = started.elapsed().as_secs_f64();
    let status = response.status();
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert("x-request-id", value);
    }
    // Anybody can make up methods, and each label would be kept for ever.
    let method = METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.as_u16().to_string())];
    metrics::counter!("proofmark_http_requests_total", &labels).increment(1);
    metrics::histogram!("proofmark_http_request_seconds", &labels).record(seconds);
    span.in_scope(|| tracing::info!(status = status.as_u16(), seconds, "answered"));
    response
}

#[allow(clippy::needless_pass_by_value, reason = "the signature that the layer asks for")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(request_id = %request_id(), message, "a handler panicked");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("internal error, request {}\n", request_id())).into_response()
}
