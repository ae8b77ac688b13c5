//! `waiver`: findings that people accept, for a reason and for a time.

use super::artifact::{self, Named};
use super::connection::Registry;
use super::facts::{self, End};
use super::output::{Output, at};
use super::stop::Stop;
use super::time::Moment;
use crate::names::{EnvironmentName, RepositoryName};
use serde_json::{Value, json};

/// Accept findings for a reason and for a time; another person approves it
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark waiver create 'payments/*' --vulnerability CVE-2026-0001 --status accepted-risk \\
    --expires-at 30d --reason 'no fix yet; the port is closed'
  proofmark waiver create payments/api:1.4.2 --environment prod --vulnerability CVE-2026-0002 \\
    --package pkg:deb/debian/openssl --status not-affected \\
    --justification vulnerable-code-not-in-execute-path --reason 'TLS ends at the proxy'
  proofmark waiver list --repository payments/api --state proposed
  proofmark waiver approve 7 --reason 'checked with the team'
  proofmark waiver revoke 7 --reason 'a fix is out'

A waiver counts for nothing until another person approves it: an administrator of its repositories
who neither proposed it nor made the artifact that it is bound to.")]
pub struct Waiver {
    #[command(subcommand)]
    command: WaiverCommand,
}

#[derive(clap::Subcommand, Debug)]
enum WaiverCommand {
    /// Propose a waiver
    Create(Create),
    /// List waivers
    List(List),
    /// Approve a waiver that another person proposed
    Approve(facts::Second),
    /// Revoke a waiver
    Revoke(End),
}

#[derive(clap::Args, Debug)]
struct Create {
    /// The repositories, as a pattern such as 'payments/*', or one artifact: repository:version or
    /// repository@digest
    scope: String,
    /// A vulnerability that it accepts, such as CVE-2026-0001; it matches findings by name or alias, in any case
    #[arg(long = "vulnerability", value_name = "NAME", required = true, value_delimiter = ',')]
    vulnerabilities: Vec<String>,
    /// Only in this package; qualifiers are ignored, and without a version it matches every version
    /// [default: every package]
    #[arg(long, value_name = "PURL")]
    package: Option<String>,
    /// Only in this environment [default: every one]
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// Why the findings are accepted
    #[arg(long, value_enum)]
    status: Status,
    /// Why the vulnerability does not affect the artifact; needed for not-affected
    #[arg(long, value_enum, required_if_eq("status", "not-affected"))]
    justification: Option<Justification>,
    /// The reason in words; it is recorded and shown
    #[arg(long)]
    reason: String,
    /// When it expires, e.g. 30d or 2026-12-31T00:00:00Z; needed for accepted-risk
    #[arg(long, value_name = "TIME", required_if_eq("status", "accepted-risk"))]
    expires_at: Option<Moment>,
}

#[derive(clap::Args, Debug)]
struct List {
    /// Only what covers this repository
    #[arg(long, short, value_name = "NAME")]
    repository: Option<RepositoryName>,
    /// Only what counts in this environment
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// Only what names this vulnerability
    #[arg(long, value_name = "NAME")]
    vulnerability: Option<String>,
    /// Only what is in this state
    #[arg(long, value_enum)]
    state: Option<State>,
}

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$said:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, clap::ValueEnum)]
        enum $type {
            $($(#[$said])* $name,)*
        }

        impl $type {
            /// The word of the API.
            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

words! {
    /// Why findings are accepted.
    Status {
        /// The vulnerability does not affect the artifact
        NotAffected = "not_affected",
        /// The scanner reported what is not there
        FalsePositive = "false_positive",
        /// The risk is known and accepted until a time
        AcceptedRisk = "accepted_risk",
    }
}

words! {
    /// Why a vulnerability does not affect an artifact, as OpenVEX words it.
    Justification {
        ComponentNotPresent = "component_not_present",
        VulnerableCodeNotPresent = "vulnerable_code_not_present",
        VulnerableCodeNotInExecutePath = "vulnerable_code_not_in_execute_path",
        VulnerableCodeCannotBeControlledByAdversary = "vulnerable_code_cannot_be_controlled_by_adversary",
        InlineMitigationsAlreadyExist = "inline_mitigations_already_exist",
    }
}

words! {
    /// How far a waiver has come.
    State {
        Proposed = "proposed",
        InForce = "in_force",
        Expired = "expired",
        Ended = "ended",
    }
}

const PATH: &str = "/api/v1/waivers";

impl Waiver {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            WaiverCommand::Create(create) => create.run(registry, output).await,
            WaiverCommand::List(list) => list.run(registry, output).await,
            WaiverCommand::Approve(second) => {
                facts::second(
                    registry,
                    output,
                    &format!("{PATH}/{}/approval", second.id),
                    second,
                    "Approved waiver",
                )
                .await
            }
            WaiverCommand::Revoke(end) => facts::end(registry, output, PATH, end, "Revoked waiver").await,
        }
    }
}

impl Create {
    /// A digest or version follows a colon or an at sign, which no pattern has.
    async fn scope(&self, registry: &Registry) -> Result<Value, Stop> {
        if !self.scope.contains([':', '@']) {
            return Ok(json!({ "repositories": self.scope }));
        }
        let Ok(named) = self.scope.parse::<Named>();
        let (repository, reference) = named.exact(registry.base())?;
        let digest = artifact::digest(registry, &repository, &reference).await?;
        Ok(json!({ "repository": repository, "digest": digest }))
    }

    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let mut body = self.scope(registry).await?;
        let rest = json!({ "environment": self.environment, "vulnerabilities": self.vulnerabilities,
            "package": self.package, "status": self.status.as_str(),
            "justification": self.justification.map(Justification::as_str), "reason": self.reason,
            "expires_at": self.expires_at.map(Moment::to_rfc3339) });
        if let (Value::Object(body), Value::Object(rest)) = (&mut body, rest) {
            body.extend(rest);
        }
        let created = registry.post_once(PATH, &body).await?;
        output.answer(&created, || {
            let id = at(&created, "/id");
            format!("Proposed waiver {id}; another person approves it: proofmark waiver approve {id}")
        });
        if created["matches_nothing"] == true {
            output.remark("No open finding of the newest scans in these repositories matches it");
        }
        Ok(())
    }
}

impl List {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let query = [
            ("repository", self.repository.as_ref().map(RepositoryName::as_str)),
            ("environment", self.environment.as_ref().map(EnvironmentName::as_str)),
            ("vulnerability", self.vulnerability.as_deref()),
            ("state", self.state.map(State::as_str)),
        ];
        let items = registry.list(PATH, &query, usize::MAX).await?;
        let columns = [
            ("id", "/id"),
            ("state", "/state"),
            ("repositories", "/repositories"),
            ("digest", "/digest"),
            ("environment", "/environment"),
            ("vulnerabilities", "/vulnerabilities"),
            ("package", "/package"),
            ("status", "/status"),
            ("by", "/created_by"),
            ("approved by", "/approved_by"),
            ("expires", "/expires_at"),
            ("matches nothing", "/matches_nothing"),
            ("reason", "/reason"),
        ];
        output.list(&items, &columns, "There are no waivers");
        Ok(())
    }
}
