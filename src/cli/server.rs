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
#[command(after_help = "Examples:
  proofmark migrate --database-url postgres://owner@db/proofmark --grant-to proofmark_runtime
  proofmark migrate --print-grants proofmark_runtime

With PROOFMARK_MIGRATION_DATABASE_URL that role migrates, and the role of DATABASE_URL gets its rights.")]
pub struct Migrate {
    #[command(flatten)]
    settings: Settings,
    /// Give this role the rights that the service needs while it runs, and take all others on its tables
    #[arg(long, value_name = "ROLE")]
    grant_to: Option<String>,
    /// Print the statements that would give them, and stop
    #[arg(long, value_name = "ROLE", conflicts_with = "grant_to")]
    print_grants: Option<String>,
}

impl Serve {
    /// Serves until told to stop.
    pub async fn run(self) -> Result<(), Stop> {
        let config = self.settings.clone().resolve()?;
        Ok(server::run(self.settings, config).await?)
    }
}

impl Migrate {
    /// Migrates.
    pub async fn run(self, output: Output) -> Result<(), Stop> {
        if let Some(role) = &self.print_grants {
            output.print(postgres::roles::grants(role).trim_end());
            return Ok(());
        }
        let config = self.settings.resolve()?;
        let runtime = match (&config.database, &config.migration_database_url) {
            (Database::Given(url), Some(_)) => postgres::roles::user_of(url),
            (Database::Given(_), None) | (Database::Private(_), _) => None,
        };
        let role = self.grant_to.or(runtime);
        let host = Host::open(config).await?;
        host.db.migrate().await?;
        if let Some(role) = &role {
            postgres::roles::grant(&mut *host.db.acquire().await?, role).await?;
        }
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
            // Who has the server in hand works as the role that owns the tables.
            Database::Given(url) => {
                (config.migration_database_url.as_ref().unwrap_or(url).clone(), None, None)
            }
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
