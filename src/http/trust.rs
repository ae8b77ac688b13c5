//! `/.well-known/proofmark`: the trust file, which a verifier pins once. Public, as its keys are.

use crate::app::App;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

/// The one route.
pub fn routes() -> Router<App> {
    let trust = |State(app): State<App>| async move { Json(app.keys.trust().clone()) };
    Router::new().route("/.well-known/proofmark", get(trust))
}
