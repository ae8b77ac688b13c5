//! `promote`: ask for a version to be let into an environment.

use super::artifact::Named;
use super::connection::Registry;
use super::output::{Output, at};
use super::stop::{Stop, gates_in_words, risks_in_words};
use super::time::Lifetime;
use crate::names::{EnvironmentName, Reference};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// Promote a version to an environment, if its policy allows it
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark promote payments/api:1.4.2 --environment prod --reason 'release 1.4.2'
  proofmark promote payments/api:1.4.2 --environment prod --dry-run      (asks, and promotes nothing)
  proofmark promote payments/api:1.4.2 --environment prod --wait 2h      (until soak and age allow it)
  proofmark promote list payments/api --environment prod

Exit code 1 is a no, with every gate's message and what would solve it.")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Promote {
    #[command(subcommand)]
    command: Option<PromoteCommand>,
    #[command(flatten)]
    ask: Option<Ask>,
}

#[derive(clap::Subcommand, Debug)]
enum PromoteCommand {
    /// List promotions, newest first
    List {
        /// The repository
        repository: Named,
        /// Only to this environment
        #[arg(long, short, value_name = "NAME")]
        environment: Option<EnvironmentName>,
        /// Promotions at the most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
}

#[derive(clap::Args, Debug)]
struct Ask {
    /// repository:version or repository@digest
    artifact: Named,
    /// Where to
    #[arg(long, short, value_name = "NAME")]
    environment: EnvironmentName,
    /// Why; it is recorded
    #[arg(long, default_value = "")]
    reason: String,
    /// Say what would be decided now; promote and record nothing
    #[arg(long)]
    dry_run: bool,
    /// Where the decision is put off, ask again until it is made, for so long at most, e.g. 2h
    #[arg(long, value_name = "DURATION", conflicts_with = "dry_run")]
    wait: Option<Lifetime>,
}

const PATH: &str = "/api/v1/promotions";

impl Promote {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match (self.command, self.ask) {
            (Some(PromoteCommand::List { repository, environment, limit }), _) => {
                let repository = repository.parse(registry.base())?.repository;
                let query = [
                    ("repository", Some(repository.as_str())),
                    ("environment", environment.as_ref().map(EnvironmentName::as_str)),
                ];
                let items = registry.list(PATH, &query, limit.saturating_add(1)).await?;
                let columns = [
                    ("environment", "/environment"),
                    ("version", "/version"),
                    ("digest", "/digest"),
                    ("promoted", "/promoted_at"),
                    ("by", "/promoted_by"),
                    ("kind", "/kind"),
                    ("reason", "/reason"),
                ];
                output.part(items, limit, &columns, "Nothing was promoted");
                Ok(())
            }
            (None, Some(ask)) => ask.run(registry, output).await,
            (None, None) => Err(Stop::Usage("name an artifact and an environment".into())),
        }
    }
}

impl Ask {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let (repository, reference) = self.artifact.exact(registry.base())?;
        let mut body =
            json!({ "repository": repository, "environment": self.environment, "reason": self.reason });
        add_reference(&mut body, &reference);
        if self.dry_run {
            return dry_run(registry, output, &body, &format!("{repository} {reference}")).await;
        }
        let promoted = self.promote(registry, output, &body).await?;
        output.answer(&promoted, || {
            let gates =
                promoted.pointer("/decision/gates").and_then(Value::as_array).cloned().unwrap_or_default();
            format!(
                "Promoted {repository} {reference} to {}\n{}\ndecision {}{}{}",
                self.environment,
                at(&promoted, "/digest"),
                at(&promoted, "/decision/id"),
                risks_in_words(&promoted),
                gates_in_words(&gates)
            )
        });
        Ok(())
    }

    /// Promotes; a decision that is only put off is asked for again when it may be made, within the time that
    /// the caller waits.
    async fn promote(&self, registry: &Registry, output: Output, body: &Value) -> Result<Value, Stop> {
        let wait = self.wait.map_or(TimeDelta::zero(), Lifetime::span);
        let give_up = crate::clock::now() + wait;
        loop {
            let stop = match registry.post_once(PATH, body).await {
                Err(stop) if stop.is("promotion-deferred") => stop,
                other => return other,
            };
            let until = match &stop {
                Stop::Refused(problem) => at(problem, "/until").parse::<DateTime<Utc>>().ok(),
                Stop::Usage(_) | Stop::Unanswered(_) | Stop::Error(..) => None,
            };
            let Some(until) = until.filter(|until| *until <= give_up) else {
                if let (Some(until), Some(_)) = (until, self.wait) {
                    output.remark(&format!("put off until {until}, which is longer than --wait"));
                }
                return Err(stop);
            };
            output.remark(&format!("put off until {until}; waiting"));
            rest(registry, body, until).await;
        }
    }
}

/// The longest rest between two looks at what would be decided.
const LOOK_EVERY: TimeDelta = TimeDelta::seconds(15);

/// Rests until the time, or until it would be decided otherwise: what was put off may be refused meanwhile. The
/// looks record nothing.
async fn rest(registry: &Registry, body: &Value, until: DateTime<Utc>) {
    loop {
        // A second at least: the clocks of client and server differ.
        let rest = (until - crate::clock::now()).clamp(TimeDelta::seconds(1), LOOK_EVERY);
        tokio::time::sleep(rest.to_std().unwrap_or_default()).await;
        if until <= crate::clock::now() {
            return;
        }
        // A caller without the right to look, or without a connection for a moment, waits for the time.
        let looked = registry.post(&format!("{PATH}?dry_run=true"), body).await;
        if looked.is_ok_and(|looked| at(&looked, "/verdict") != "defer") {
            return;
        }
    }
}

async fn dry_run(registry: &Registry, output: Output, body: &Value, what: &str) -> Result<(), Stop> {
    let mut answer = registry.post(&format!("{PATH}?dry_run=true"), body).await?;
    let environment = at(body, "/environment");
    if at(&answer, "/verdict") == "allow" {
        output.answer(&answer, || {
            let gates = answer.get("gates").and_then(Value::as_array).cloned().unwrap_or_default();
            format!(
                "{what} would be promoted to {environment}\n{}{}{}",
                at(&answer, "/digest"),
                risks_in_words(&answer),
                gates_in_words(&gates)
            )
        });
        return Ok(());
    }
    answer["code"] = answer["verdict"].clone();
    answer["detail"] = json!(format!("{what} would not be promoted to {environment}"));
    Err(Stop::Refused(answer))
}

/// Writes a version or a digest into a body.
pub fn add_reference(body: &mut Value, reference: &Reference) {
    match reference {
        Reference::Tag(version) => body["version"] = json!(version),
        Reference::Digest(digest) => body["digest"] = json!(digest),
    }
}
