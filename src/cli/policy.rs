//! `policy`: what must hold before something is promoted.

use super::connection::{Registry, read};
use super::output::{Output, at, text};
use super::stop::Stop;
use crate::names::{EnvironmentName, RepositoryName};
use reqwest::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Apply, list and show policies
#[derive(clap::Args, Debug)]
pub struct Policy {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(clap::Subcommand, Debug)]
enum PolicyCommand {
    /// Put a policy (YAML or JSON) in force; earlier versions are kept
    #[command(after_help = "Examples:
  proofmark policy apply policies/prod.yaml --dry-run
  proofmark policy apply policies/prod.yaml

With --dry-run nothing is put in force: the answer says what the policy would change for what runs.")]
    Apply {
        /// The policy; - is standard input
        file: PathBuf,
        /// Say what it would change for what runs, and put nothing in force
        #[arg(long)]
        dry_run: bool,
        /// With --dry-run: name every release channel, not only the first 100 of each class
        #[arg(long, requires = "dry_run")]
        all: bool,
        /// Confirm that it ends so many running versions at once
        #[arg(long, value_name = "N", conflicts_with = "dry_run")]
        ends: Option<usize>,
    },
    /// List the policies in force
    List {
        /// Only of this environment
        #[arg(long, short, value_name = "NAME")]
        environment: Option<EnvironmentName>,
        /// Only those that cover this repository
        #[arg(long, short, value_name = "NAME")]
        repository: Option<RepositoryName>,
        /// Earlier versions too
        #[arg(long)]
        history: bool,
    },
    /// End a policy; where no other covers a repository, nothing is allowed from then on
    End {
        /// The environment
        environment: EnvironmentName,
        /// The policy's name
        #[arg(default_value = "default")]
        name: String,
        /// Why; it is recorded
        #[arg(long)]
        reason: String,
    },
    /// Show a policy as it was written
    Show {
        /// The environment
        environment: EnvironmentName,
        /// The policy's name
        #[arg(default_value = "default")]
        name: String,
    },
}

const PATH: &str = "/api/v1/policies";

fn warnings(answer: &Value) -> String {
    let warnings = answer.get("warnings").and_then(Value::as_array).into_iter().flatten();
    warnings.fold(String::new(), |words, warning| words + "\n  warning: " + &text(warning))
}

/// The classes of consequences, and what happens to the versions of each.
const CLASSES: [(&str, &str); 5] = [
    ("ends_now", "end at once"),
    ("ends_later", "end later"),
    ("put_at_risk", "are put at risk"),
    ("would_not_be_promoted_today", "go on, and would not be promoted today"),
    ("relieved", "are at less risk, or would be promoted today"),
];

/// What the policy changes for what runs, class by class.
fn consequences(answer: &Value) -> String {
    let mut words = String::new();
    for (class, what) in CLASSES {
        let Some(found) = answer.pointer(&format!("/consequences/{class}")) else { continue };
        let count = found.get("count").and_then(Value::as_u64).unwrap_or_default();
        if count == 0 {
            continue;
        }
        let _ = write!(words, "\n  {count} running versions {what}");
        for one in found.get("channels").and_then(Value::as_array).into_iter().flatten() {
            let end = one.get("ends_at").and_then(Value::as_str);
            let end = end.map_or(String::new(), |end| format!(" at {end}"));
            let version = one.get("version").and_then(Value::as_str).unwrap_or("no version");
            let _ = write!(words, "\n    {} {version}{end}", at(one, "/repository"));
            for reason in one.get("reasons").and_then(Value::as_array).into_iter().flatten() {
                let _ = write!(words, "\n      {}", text(reason));
            }
        }
    }
    if words.is_empty() {
        let evaluated = answer.pointer("/consequences/evaluated").and_then(Value::as_u64).unwrap_or_default();
        let _ =
            write!(words, "\n  it changes nothing for what runs; repositories that it covers: {evaluated}");
    }
    if answer.pointer("/consequences/next").is_some_and(Value::is_string) {
        words += "\n  not all are named; --all names them";
    }
    words
}

/// What the policy would change; of all release channels, or of the first page.
async fn simulate(registry: &Registry, policy: &[u8], all: bool) -> Result<Value, Stop> {
    let path = format!("{PATH}/simulate");
    let limit = all.then_some("1000");
    let ask = async |cursor: Option<String>| {
        let body = (policy.to_vec(), "application/yaml");
        let query = [("limit", limit), ("cursor", cursor.as_deref())];
        registry.deliver(Method::POST, &path, &query, body).await
    };
    let mut simulated = ask(None).await?;
    while all && let Some(next) = simulated.pointer("/consequences/next").and_then(Value::as_str) {
        let mut page = ask(Some(next.to_owned())).await?;
        for class in CLASSES.map(|(class, _)| format!("/consequences/{class}/channels")) {
            let more = page.pointer_mut(&class).and_then(Value::as_array_mut).map(std::mem::take);
            if let Some(named) = simulated.pointer_mut(&class).and_then(Value::as_array_mut) {
                named.extend(more.into_iter().flatten());
            }
        }
        if let Some(known) = simulated.pointer_mut("/consequences/next") {
            *known = page.pointer_mut("/consequences/next").map_or(Value::Null, Value::take);
        }
    }
    Ok(simulated)
}

impl Policy {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            PolicyCommand::Apply { file, dry_run: true, all, .. } => {
                let simulated = simulate(registry, &read(&file, "the policy")?, all).await?;
                output.answer(&simulated, || {
                    let words = "Nothing was put in force".to_owned();
                    words + &warnings(&simulated) + &consequences(&simulated)
                });
            }
            PolicyCommand::Apply { file, dry_run: false, ends, .. } => {
                let body = (read(&file, "the policy")?, "application/yaml");
                let ends = ends.map(|ends| ends.to_string());
                let applied = registry.deliver(Method::PUT, PATH, &[("ends", ends.as_deref())], body).await?;
                output.answer(&applied, || {
                    let (name, environment) = (at(&applied, "/name"), at(&applied, "/environment"));
                    let words =
                        format!("Policy {name} of {environment} is in force\n{}", at(&applied, "/digest"));
                    words + &warnings(&applied) + &consequences(&applied)
                });
            }
            PolicyCommand::List { environment, repository, history } => {
                let query = [
                    ("environment", environment.as_ref().map(EnvironmentName::as_str)),
                    ("repository", repository.as_ref().map(RepositoryName::as_str)),
                    ("history", history.then_some("true")),
                ];
                let items = registry.list(PATH, &query, usize::MAX).await?;
                let columns = [
                    ("environment", "/environment"),
                    ("name", "/name"),
                    ("repositories", "/repositories"),
                    ("since", "/at"),
                    ("digest", "/digest"),
                ];
                output.list(&items, &columns, "No policy is in force: nothing may be promoted");
            }
            PolicyCommand::End { environment, name, reason } => {
                let path = format!("{PATH}/{environment}/{name}/revocation");
                registry.post(&path, &json!({ "reason": reason })).await?;
                output.answer(&json!({ "environment": environment, "name": name }), || {
                    format!("Policy {name} of {environment} is no longer in force")
                });
            }
            PolicyCommand::Show { environment, name } => {
                let query = [("environment", Some(environment.as_str()))];
                let items = registry.list(PATH, &query, usize::MAX).await?;
                let found = items.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(&name));
                let policy = found.ok_or_else(|| {
                    Stop::no("not-found", format!("{environment} has no policy of the name {name}"))
                })?;
                output.answer(policy, || at(policy, "/source"));
            }
        }
        Ok(())
    }
}
