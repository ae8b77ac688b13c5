//! The service from its start to its orderly end.

use crate::app::App;
use crate::config::{Config, Database, Settings};
use crate::failure::Failure;
use crate::http;
use crate::postgres::{Db, Options, local};
use crate::telemetry::{self, LogLevels};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs the service until it is told to stop: starts Postgres if it is ours, serves, finishes the
/// requests in flight, and stops Postgres last.
pub async fn run(settings: Settings, config: Config) -> Result<(), Failure> {
    // Asked for first: without it a hangup ends the process, also one that comes while Postgres starts.
    let hangups = signal(SignalKind::hangup()).map_err(|error| Failure::new("waiting for signals", error))?;
    let levels = telemetry::start_logs(&config)?;
    let mut config = config;
    let (url, private) = match &config.database {
        Database::Given(url) => (url.clone(), None),
        Database::Private(directory) => {
            let cluster = local::start(directory, config.database_connections).await?;
            config.migration_database_url = Some(cluster.url());
            (cluster.runtime_url().await?, Some(cluster))
        }
    };
    let options = Options {
        url,
        max_connections: config.database_connections - config.reserved_connections,
        reserved_connections: config.reserved_connections,
        acquire_timeout: Duration::from_secs(10),
        statement_time: Some(config.statement_time),
        restarts: private.as_ref().map(local::Cluster::restarts),
    };
    let db = Db::connect(&options).await?;
    let app = App::assemble(config, db).await?;
    let jobs = app.start_jobs();
    let reloading = tokio::spawn(reload_at_hangups(hangups, app.clone(), settings, levels));
    let served = http::serve(app.clone()).await;
    reloading.abort();
    jobs.stop().await;
    if let Err(failure) = app.write_security_events().await {
        tracing::warn!(error = failure.chain(), "the security events of the last minute are lost");
    }
    app.db.close().await;
    if let Some(cluster) = private {
        cluster.stop().await?;
    }
    served
}

async fn reload_at_hangups(mut hangups: Signal, app: App, settings: Settings, levels: LogLevels) {
    while hangups.recv().await.is_some() {
        reload(&app, &settings, &levels).await;
    }
}

/// Takes over what may change while the service runs: the TLS certificate and key, the token files, and what is logged,
/// of which the configuration file is read again. What cannot be used is left as it was, named in the log, and by
/// `/readyz` until a reload finds all of it usable. The registry's own keys change by rotation only.
pub async fn reload(app: &App, settings: &Settings, levels: &LogLevels) {
    let mut kept = app.reload_tokens().await;
    if let Err(failure) = http::reload_certificate(app).await {
        kept.push(("the TLS certificate and key", failure));
    }
    let config =
        settings.clone().resolve().map_err(|unusable| Failure::new("reading the configuration", unusable));
    if let Err(failure) = config.and_then(|config| levels.change(&config.log)) {
        kept.push(("the log levels", failure));
    }
    for (what, failure) in &kept {
        tracing::error!(error = failure.chain(), "a reload leaves {what} as before");
    }
    if kept.is_empty() {
        tracing::info!("reloaded the TLS certificate, the token files and the log levels");
    }
    let names = kept.into_iter().map(|(what, _)| what).collect();
    *app.unused_files.lock().unwrap_or_else(PoisonError::into_inner) = names;
}
