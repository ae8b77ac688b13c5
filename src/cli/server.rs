//! The commands of the server's own host: they open the configuration instead of asking over HTTP.

use super::output::Output;
use super::stop::Stop;
use crate::config::{Config, Database, Settings};
use crate::postgres::{self, Db, Options};
use crate::server;
use serde_json::json;
use std::time::Duration;

/// Run the service
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without any option the service keeps a Postgres and its files in the data directory and
listens on 127.0.0.1:8470. `proofmark token create` on the same host makes the first
administrator's token."
)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
}

/// Bring the database's schema up to date and stop
#[derive(clap::Args, Debug)]
pub struct Migrate {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    /// Serves until told to stop.
    pub async fn run(self) -> Result<(), Stop> {
        Ok(server::run(self.settings.resolve()?).await?)
    }
}

impl Migrate {
    /// Migrates.
    pub async fn run(self, output: Output) -> Result<(), Stop> {
        let host = Host::open(self.settings.resolve()?).await?;
        host.db.migrate().await?;
        let private = host.private.clone();
        host.close().await?;
        output.answer(&json!({ "migrated": true, "private_postgres": private }), || match &private {
            Some(url) => format!("The schema is up to date; the private Postgres is at {url}"),
            None => "The schema is up to date".to_owned(),
        });
        Ok(())
    }
}

/// The server's own database as a command beside the service reaches it.
pub struct Host {
    /// The database, connected.
    pub db: Db,
    /// The URL of the private Postgres, while a service runs it.
    private: Option<String>,
    started: Option<postgres::local::Cluster>,
}

impl Host {
    /// Refuses to make a registry where none is: whoever looks at one or wants a token of one has
    /// named the wrong directory.
    pub fn must_be_here(config: &Config) -> Result<(), Stop> {
        match &config.database {
            Database::Private(directory) if !directory.exists() => Err(Stop::Usage(format!(
                "there is no registry in {}: start it with `proofmark serve`, or say where it is with --data, \
                 --config or --database-url",
                config.data.display()
            ))),
            Database::Private(_) | Database::Given(_) => Ok(()),
        }
    }

    /// Connects to the given Postgres or to the private one, which is started when no service runs.
    pub async fn open(config: Config) -> Result<Self, Stop> {
        let (url, private, started) = match &config.database {
            Database::Given(url) => (url.clone(), None, None),
            Database::Private(directory) => {
                if let Some(url) = postgres::local::connect_url(directory)? {
                    (url.clone(), Some(url), None)
                } else {
                    let cluster = postgres::local::start(directory, config.database_connections).await?;
                    (cluster.url(), None, Some(cluster))
                }
            }
        };
        let options = Options::new(url, 2, Duration::from_secs(10));
        Ok(Self { db: Db::connect(&options).await?, private, started })
    }

    /// Leaves the database as it was found.
    pub async fn close(self) -> Result<(), Stop> {
        self.db.close().await;
        if let Some(cluster) = self.started {
            cluster.stop().await?;
        }
        Ok(())
    }
}
