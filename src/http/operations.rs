//! /livez, /readyz and /metrics.

use super::api::Problem;
use super::{caller, note_failed_credential};
use crate::app::App;
use crate::jobs::{Readiness, ReadyReason, ReadyStatus};
use crate::postgres::roles::RuntimeRole;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::sync::PoisonError;

/// The operators' routes; /metrics only when it has no address of its own.
pub fn routes(app: &App) -> Router<App> {
    let router = Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready));
    if app.config.metrics_listen.is_some() { router } else { router.merge(metrics()) }
}

/// The route of /metrics alone.
pub fn metrics() -> Router<App> {
    Router::new().route("/metrics", get(read_metrics))
}

/// The metrics, for everybody or, where there is a token, for those who show it.
async fn read_metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let token = app.metrics_token.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(token) = &token
        && caller::secret_of(&headers).is_none_or(|shown| !shown.is(token))
    {
        if headers.contains_key(header::AUTHORIZATION) {
            note_failed_credential();
        }
        return Problem::unauthenticated().into_response();
    }
    app.metrics.render().into_response()
}

/// 200 while requests are answered, with what an operator should look at; 503 when Postgres or the object store
/// does not answer, or the clocks differ too much.
async fn ready(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let kept = app.unused_files.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let reload = (!kept.is_empty()).then(|| ReadyReason::unused_files(&kept));
    let role = (app.runtime_role == RuntimeRole::Unlimited).then(ReadyReason::unlimited_role);
    let own = reload.into_iter().chain(role);
    let readiness = Readiness::of(&app.db, &app.store, &app.job_statuses, own).await;
    let status = match readiness.status {
        ReadyStatus::Ready | ReadyStatus::Degraded => StatusCode::OK,
        ReadyStatus::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(readiness))
}
