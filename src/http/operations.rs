//! /livez, /readyz and /metrics.

use crate::app::App;
use crate::jobs::{Readiness, ReadyStatus};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};

/// The operators' routes; /metrics only when it has no address of its own.
pub fn routes(app: &App) -> Router<App> {
    let router = Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready));
    if app.config.metrics_listen.is_some() { router } else { router.merge(metrics()) }
}

/// The route of /metrics alone.
pub fn metrics() -> Router<App> {
    Router::new().route("/metrics", get(|State(app): State<App>| async move { app.metrics.render() }))
}

/// 200 while requests are answered, with what an operator should look at; 503 when Postgres or the object store
/// does not answer, or the clocks differ too much.
async fn ready(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let readiness = Readiness::of(&app.db, &app.store, &app.job_statuses).await;
    let status = match readiness.status {
        ReadyStatus::Ready | ReadyStatus::Degraded => StatusCode::OK,
        ReadyStatus::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(readiness))
}
