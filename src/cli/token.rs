//! `token`: make, list and revoke tokens; on the server's own host, the first one.

use super::connection::Connection;
use super::output::{Output, at};
use super::server::Host;
use super::stop::Stop;
use super::time::Lifetime;
use crate::access::Role;
use crate::config::Settings;
use crate::identity;
use crate::names::{EnvironmentName, Pattern};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Make, list and revoke tokens
#[derive(clap::Args, Debug)]
pub struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(clap::Subcommand, Debug)]
enum TokenCommand {
    /// Make a token; it is shown once
    #[command(after_help = "Examples:
  proofmark token create                       (on the server's own host: an administrator's)
  proofmark token create ci/payments --role pusher --role attester --repositories 'payments/*'
  proofmark token create cluster-eu --role runner --environment prod --no-expiry
  proofmark token create ci/payments --role pusher --expires-in 30d --address 10.0.0.0/8

The token alone is printed on standard output: TOKEN=$(proofmark token create ...)")]
    Create(Box<Create>),
    /// List tokens, ended ones included
    List,
    /// Make a token in place of another, with the same roles; it is shown once
    #[command(after_help = "Examples:
  proofmark token rotate 0193... --overlap 1h     (your own token, or any as an administrator)")]
    Rotate {
        /// The token's id, as `proofmark whoami` and `proofmark token list` show it
        id: uuid::Uuid,
        /// How long the old one goes on, e.g. 1h [default: it ends at once]
        #[arg(long, value_name = "DURATION")]
        overlap: Option<Lifetime>,
    },
    /// Revoke a token
    Revoke {
        /// The token's id, as `proofmark token list` shows it
        id: uuid::Uuid,
    },
}

#[derive(clap::Args, Debug)]
struct Create {
    /// The principal that the token speaks for; made when it is new
    #[arg(default_value = "admin")]
    principal: String,
    /// A role of the token; may be repeated. With one, the token has these roles and no others; without, it has those of
    /// its principal
    #[arg(long, value_name = "ROLE")]
    role: Vec<Role>,
    /// The repositories that the roles cover
    #[arg(long, value_name = "PATTERN", default_value = "**", requires = "role")]
    repositories: Pattern,
    /// An environment that the roles cover; may be repeated [default: all]
    #[arg(long, value_name = "NAME", requires = "role")]
    environment: Vec<EnvironmentName>,
    /// How long the token lives, e.g. 12h or 30d [default: what the service says, 90 days; a token whose roles only pull
    /// has no end]
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<Lifetime>,
    /// It lives until it is revoked
    #[arg(long, conflicts_with = "expires_in")]
    no_expiry: bool,
    /// A network from which it may be used, e.g. 10.0.0.0/8; may be repeated [default: everywhere]
    #[arg(long, value_name = "CIDR")]
    address: Vec<ipnet::IpNet>,
    #[command(flatten)]
    own: OwnHost,
}

/// The server's own database instead of its API.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "On the server's own host")]
struct OwnHost {
    /// Make an administrator's token in the service's own database [default: when no token and no
    /// server is given]
    #[arg(long, conflicts_with_all = ["role", "expires_in", "no_expiry", "address"])]
    local: bool,
    /// The service's configuration file
    #[arg(long, env = "PROOFMARK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The service's data directory
    #[arg(long, env = "PROOFMARK_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The service's Postgres, where it is not the private one
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
}

impl Token {
    /// Runs the command.
    pub async fn run(self, connection: &Connection, output: Output) -> Result<(), Stop> {
        match self.command {
            TokenCommand::Create(create) => create.run(connection, output).await,
            TokenCommand::List => {
                let items = connection.open()?.list("/api/v1/tokens", &[], usize::MAX).await?;
                let columns = [
                    ("id", "/id"),
                    ("principal", "/principal"),
                    ("own roles", "/has_grants"),
                    ("addresses", "/addresses"),
                    ("created", "/created_at"),
                    ("used", "/last_used_at"),
                    ("expires", "/expires_at"),
                    ("ended", "/ended_at"),
                ];
                output.list(&items, &columns, "There are no tokens");
                Ok(())
            }
            TokenCommand::Rotate { id, overlap } => {
                let body = json!({ "overlap_seconds": overlap.map_or(0, Lifetime::seconds) });
                let made = connection.open()?.post(&format!("/api/v1/tokens/{id}/rotation"), &body).await?;
                output.remark(&format!(
                    "The new token of {} ({}). It is shown this once and kept as a hash.",
                    at(&made, "/principal"),
                    at(&made, "/id"),
                ));
                output.answer(&made, || at(&made, "/token"));
                Ok(())
            }
            TokenCommand::Revoke { id } => {
                connection.open()?.delete(&format!("/api/v1/tokens/{id}")).await?;
                output.answer(&json!({ "id": id, "revoked": true }), || format!("Revoked token {id}"));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, connection: &Connection, output: Output) -> Result<(), Stop> {
        // Whatever says more than "the first token" is asked of the service.
        let nothing_given = connection.server.is_none()
            && self.role.is_empty()
            && self.expires_in.is_none()
            && !self.no_expiry
            && self.address.is_empty()
            && connection.token()?.is_none();
        let here = self.own.local || nothing_given;
        let (created, may, server) = if here {
            let (created, server) = self.on_own_host().await?;
            (created, ", who may do everything", server)
        } else {
            (self.ask(connection).await?, "", connection.open()?.base().to_string())
        };
        output.remark(&format!(
            "The token of {}{may} ({}). It is shown this once and kept as a hash: keep it in PROOFMARK_TOKEN, or give it \
             to `proofmark login {}`.",
            at(&created, "/principal"),
            at(&created, "/id"),
            server.trim_end_matches('/'),
        ));
        output.answer(&created, || at(&created, "/token"));
        Ok(())
    }

    async fn ask(self, connection: &Connection) -> Result<Value, Stop> {
        let environments = (!self.environment.is_empty()).then_some(&self.environment);
        let grants: Vec<Value> = self
            .role
            .iter()
            .map(|role| json!({ "role": role, "repositories": self.repositories, "environments": environments }))
            .collect();
        let mut body = json!({ "principal": self.principal, "grants": grants });
        if let Some(lifetime) = self.expires_in {
            body["expires_in_seconds"] = lifetime.seconds().into();
        }
        if self.no_expiry {
            body["expires"] = "never".into();
        }
        if !self.address.is_empty() {
            body["addresses"] = json!(self.address.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
        connection.open()?.post("/api/v1/tokens", &body).await
    }

    /// The token, and the server that it is for.
    async fn on_own_host(self) -> Result<(Value, String), Stop> {
        let settings = Settings {
            config: self.own.config,
            data: self.own.data,
            database_url: self.own.database_url,
            ..Settings::default()
        };
        let config = settings.resolve()?;
        let server = config.public_url.to_string();
        Host::must_be_here(&config)?;
        let host = Host::open(config).await?;
        host.db.migrate().await?;
        let issued = identity::create_first_token(&host.db, &self.principal).await;
        host.close().await?;
        let issued = match issued {
            Ok(issued) => issued,
            Err(identity::Refused::Failed(failure)) => return Err(failure.into()),
            Err(refused) => return Err(Stop::no("principal-refused", refused.to_string())),
        };
        let created = json!({
            "id": issued.id,
            "principal": self.principal,
            "token": issued.secret.reveal(),
            "expires_at": issued.expires_at,
        });
        Ok((created, server))
    }
}
