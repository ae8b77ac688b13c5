//! A question is answered in time or refused: a Postgres that is frozen keeps its connections open and says nothing.

use super::api::Problem;
use super::clocks::reads_only;
use super::oci;
use crate::app::App;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const DETAIL: &str = "Postgres or the object store did not answer in time; nothing was changed";
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Ends requests that write nothing when their answer has not begun in time. A write is not cut off:
/// the client would not know whether it was done.
pub async fn answer_in_time(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let of_oci = path.starts_with("/v2");
    if !reads_only(request.method(), path, request.uri().query()) {
        return next.run(request).await;
    }
    match tokio::time::timeout(app.config.limits.answer_time, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) if of_oci => oci::unavailable(DETAIL, RETRY_AFTER),
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", DETAIL)
            .header(header::RETRY_AFTER, RETRY_AFTER)
            .into_response(),
    }
}
