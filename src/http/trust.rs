//! `/.well-known/proofmark`: the trust files. Public, as their keys are, and answered from memory.

use super::api::Problem;
use crate::app::App;
use crate::keys::TrustFile;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// A newer version may come at any time.
const NEWEST: &str = "public, no-cache";
/// A version never changes.
const VERSION: &str = "public, max-age=31536000, immutable";

/// The newest trust file, and each version, so that who trusts one follows step by step.
pub fn routes() -> Router<App> {
    let newest = async |State(app): State<App>, headers: HeaderMap| {
        answer(app.keys.published().newest(), &headers, NEWEST)
    };
    Router::new()
        .route("/.well-known/proofmark", get(newest))
        .route("/.well-known/proofmark/{version}", get(version))
}

async fn version(State(app): State<App>, Path(asked): Path<String>, headers: HeaderMap) -> Response {
    let chain = app.keys.published();
    let found = asked.parse().ok().and_then(|version| chain.get(version));
    found.map_or_else(
        || {
            let (oldest, newest) = (chain.oldest().version(), chain.newest().version());
            let detail =
                format!("there is no such version of the trust file; there are {oldest} to {newest}");
            Problem::new(StatusCode::NOT_FOUND, "no-such-version", detail).into_response()
        },
        |file| answer(file, &headers, VERSION),
    )
}

fn answer(file: &TrustFile, headers: &HeaderMap, kept: &str) -> Response {
    let etag = format!("\"{}\"", file.digest());
    let headers_out = [(header::ETAG, etag.as_str()), (header::CACHE_CONTROL, kept)];
    if super::matches_etag(headers, &etag) {
        return (StatusCode::NOT_MODIFIED, headers_out).into_response();
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::OK, headers_out, kind, file.bytes()).into_response()
}
