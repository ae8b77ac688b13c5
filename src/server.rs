//! The service from its start to its orderly end.

use crate::app::App;
use crate::config::{Config, Database};
use crate::failure::Failure;
use crate::postgres::{Db, Options, local};
use crate::{http, telemetry};
use std::time::Duration;

/// Runs the service until it is told to stop: starts Postgres if it is ours, serves, finishes the
/// requests in flight, and stops Postgres last.
pub async fn run(config: Config) -> Result<(), Failure> {
    telemetry::start_logs(&config)?;
    let (url, private) = match &config.database {
        Database::Given(url) => (url.clone(), None),
        Database::Private(directory) => {
            let cluster = local::start(directory, config.database_connections).await?;
            (cluster.url(), Some(cluster))
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
    let served = http::serve(app.clone()).await;
    jobs.stop().await;
    app.db.close().await;
    if let Some(cluster) = private {
        cluster.stop().await?;
    }
    served
}
