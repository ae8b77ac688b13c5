//! Cli: the command line, the server's own commands and everything that talks to one over HTTP.
//!
//! Knows how an answer looks to a person (sentences, tables) and to a script (`--json`, exit codes:
//! 0 yes, 1 no with reasons, 2 usage, 3 could not ask). Promises that a refusal shows every reason
//! and the request id. Never touches Postgres or storage, except in the commands of the server's
//! own host.

mod artifact;
mod blob;
mod checking;
mod connection;
mod facts;
mod hashing;
mod output;
mod pins;
mod principal;
mod signing;
mod stop;
mod time;

mod approve;
mod attest;
mod audit;
mod block;
mod build_type;
mod decision;
mod environment;
mod exceptions;
mod fsck;
mod gc;
mod grant;
mod hold;
mod key;
mod known_good;
mod login;
mod overriding;
mod policy;
mod promote;
mod pull;
mod push;
mod repository;
mod rollback;
mod scan;
mod server;
mod sign;
mod signer;
mod token;
mod transfer;
mod trust;
mod verify;
mod waiver;

use clap::{CommandFactory, Parser, Subcommand};
use connection::Asked;
use output::Output;
use std::process::ExitCode;
use stop::Stop;

/// The artifact registry that hands a deployer only what it can prove
#[derive(Parser, Debug)]
#[command(name = "proofmark", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// Print JSON, on refusals too
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Threads for what blocks, files and hashing, at the most: more would wait for the same disks and cores,
/// and cost their memory.
const BLOCKING_THREADS: usize = 64;

const EXAMPLES: &str = "\
Examples:
  proofmark serve
  proofmark push app.tar.gz --repository payments/api --version 1.4.2
  proofmark promote payments/api:1.4.2 --environment prod --reason 'release 1.4.2'
  proofmark trust pin --fingerprint sha256:...
  proofmark known-good payments/api --environment prod

Exit codes: 0 yes, 1 no (with reasons), 2 usage, 3 could not ask.
The server and token come from --server and --token-file, PROOFMARK_SERVER and PROOFMARK_TOKEN, or
`proofmark login`; without any of them, from the service on this machine.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the service
    Serve(Box<server::Serve>),
    /// Bring the database's schema up to date and stop
    Migrate(Box<server::Migrate>),
    /// Check every row against its bytes and the log, every object against a row, and the log against itself
    Fsck(Box<fsck::Fsck>),
    /// Print the OpenAPI document of /api/v1
    Openapi,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Store a token for a server, after trying it
    Login(login::Login),
    /// Forget the stored token of a server
    Logout(login::Logout),
    /// Show who the token belongs to and what it may do
    Whoami(Asked<login::Whoami>),
    /// Make, list and revoke tokens
    Token(Asked<token::Token>),
    /// Give, list and take back roles
    Grant(Asked<grant::Grant>),
    /// List principals, disable and enable them
    Principal(Asked<principal::Principal>),
    /// Ask whether a principal may do something, and by which grants
    Access(Asked<principal::Access>),
    /// Push a file as an artifact with a version
    Push(Asked<push::Push>),
    /// Pull an artifact's file and check its digest
    Pull(Asked<pull::Pull>),
    /// List repositories, set their rules, and look at what is in them
    Repository(Asked<repository::Repository>),
    /// Record a signed statement about an artifact
    Attest(Asked<attest::Attest>),
    /// Sign an artifact: the statement that `cosign sign` makes, which the gate `signed_by` counts
    Sign(Asked<sign::Sign>),
    /// Declare where provenance of a build type names its source
    BuildType(Asked<build_type::BuildType>),
    /// Register, list and revoke the keys whose signatures count
    Signer(Asked<signer::Signer>),
    /// Record scan reports and look at findings
    Scan(Asked<scan::Scan>),
    /// Make and list environments
    Environment(Asked<environment::Environment>),
    /// Apply, list and show policies
    Policy(Asked<policy::Policy>),
    /// Promote a version to an environment, if its policy allows it
    Promote(Asked<promote::Promote>),
    /// Approve an artifact for an environment
    Approve(Asked<approve::Approve>),
    /// Block an artifact, at once, in one environment or everywhere
    Block(Asked<block::Block>),
    /// Stop promotions of an environment, of a repository, or of one in the other
    Hold(Asked<hold::Hold>),
    /// Accept findings for a reason and for a time; another person approves it
    Waiver(Asked<waiver::Waiver>),
    /// Pass failed gates of a version for a short time; another person reviews it
    Override(Asked<overriding::Override>),
    /// List approvals, blocks, holds, waivers and overrides, with what needs attention
    Exceptions(Asked<exceptions::Exceptions>),
    /// Go back to the newest earlier version that the policy allows now
    Rollback(Asked<rollback::Rollback>),
    /// Ask which version is known to be good in an environment
    KnownGood(Asked<known_good::KnownGood>),
    /// Check that an artifact may run in an environment
    Verify(Asked<verify::Verify>),
    /// Show a decision, or judge it again from its recorded inputs
    Decision(Asked<decision::Decision>),
    /// Read the audit trail
    Audit(Asked<audit::Audit>),
    /// Collect garbage, or list what would go and why
    Gc(Asked<gc::Gc>),
    /// Write repositories, with their attestations and events, into an OCI image layout
    Export(Asked<transfer::Export>),
    /// Bring an OCI image layout into a registry, or hold one against the other
    Import(Asked<transfer::Import>),
    /// Pin a registry's trust file, by which its answers are checked
    Trust(Asked<trust::Trust>),
    /// Make the registry's own keys, its root keys and its trust files
    Key(Asked<key::Key>),
}

impl Command {
    async fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Serve(serve) => serve.run().await,
            Self::Migrate(migrate) => migrate.run(output).await,
            Self::Fsck(fsck) => fsck.run(output).await,
            Self::Openapi => openapi(output),
            Self::Completions { shell } => {
                completions(shell, output);
                Ok(())
            }
            Self::Login(login) => login.run(output).await,
            Self::Logout(logout) => logout.run(output),
            Self::Whoami(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Token(asked) => asked.command.run(&asked.connection, output).await,
            Self::Principal(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Access(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Push(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Pull(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Attest(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Sign(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::BuildType(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Signer(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Scan(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Environment(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Policy(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Promote(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::KnownGood(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Approve(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Block(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Hold(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Waiver(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Override(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Exceptions(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Rollback(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Repository(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Verify(asked) => asked.command.run(&asked.connection, output).await,
            Self::Decision(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Audit(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Gc(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Export(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Import(asked) => asked.command.run(&asked.connection.open()?, output).await,
            Self::Trust(asked) => asked.command.run(&asked.connection, output).await,
            Self::Key(asked) => asked.command.run(&asked.connection, output).await,
            Self::Grant(asked) => asked.command.run(&asked.connection.open()?, output).await,
        }
    }
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.enable_all().max_blocking_threads(BLOCKING_THREADS).build() {
        Ok(runtime) => runtime,
        Err(error) => return Stop::Unanswered(format!("cannot start: {error}")).report(output),
    };
    match runtime.block_on(cli.command.run(output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(output),
    }
}

fn openapi(output: Output) -> Result<(), Stop> {
    let document = crate::http::api::openapi().to_pretty_json();
    output.print(&document.map_err(|error| Stop::Unanswered(error.to_string()))?);
    Ok(())
}

fn completions(shell: clap_complete::Shell, output: Output) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "proofmark", &mut script);
    output.print(String::from_utf8_lossy(&script).trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_put_together_well() {
        Cli::command().debug_assert();
    }
}
