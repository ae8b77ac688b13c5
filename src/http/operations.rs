//! /livez, /readyz and /metrics.

use crate::app::App;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

/// The operators' routes; /metrics only when it has no address of its own.
pub fn routes(app: &App) -> Router<App> {
    let router = Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready));
    if app.config.metrics_listen.is_some() { router } else { router.merge(metrics()) }
}

/// The route of /metrics alone.
pub fn metrics() -> Router<App> {
    Router::new().route("/metrics", get(|State(app): State<App>| async move { app.metrics.render() }))
}

/// Ready when Postgres and the object store answer.
async fn ready(State(app): State<App>) -> (StatusCode, String) {
    let database = sqlx::query_scalar!("select size from log_state").fetch_one(app.db.pool()).await;
    if let Err(error) = database {
        tracing::warn!(%error, "not ready: Postgres does not answer");
        return (StatusCode::SERVICE_UNAVAILABLE, "Postgres does not answer\n".into());
    }
    if let Err(failure) = app.store.check().await {
        tracing::warn!(error = failure.chain(), "not ready: the object store does not answer");
        return (StatusCode::SERVICE_UNAVAILABLE, "the object store does not answer\n".into());
    }
    (StatusCode::OK, "ready\n".into())
}
