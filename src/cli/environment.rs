//! `environment`: the places of the promotion path.

use super::connection::Registry;
use super::output::Output;
use super::stop::Stop;
use crate::names::{EnvironmentName, Pattern};
use serde_json::{Value, json};

/// Make and list environments
#[derive(clap::Args, Debug)]
pub struct Environment {
    #[command(subcommand)]
    command: EnvironmentCommand,
}

#[derive(clap::Subcommand, Debug)]
enum EnvironmentCommand {
    /// Make an environment, or describe it anew
    Create {
        /// Its name, such as staging
        name: EnvironmentName,
        /// What it is, for people [default: as it was]
        #[arg(long)]
        description: Option<String>,
    },
    /// List environments
    List,
    /// Show what runs in an environment: the current version of each repository, with its risks
    #[command(after_help = "Examples:
  proofmark environment show prod
  proofmark environment show prod --at-risk
  proofmark environment show prod --repository 'payments/*' --json")]
    Show(Show),
}

#[derive(clap::Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
struct Show {
    /// The environment
    name: EnvironmentName,
    /// Only repositories that match this pattern
    #[arg(long, short, value_name = "PATTERN")]
    repository: Option<Pattern>,
    /// Only what is at risk
    #[arg(long)]
    at_risk: bool,
    /// Only where the newest promotion is blocked
    #[arg(long)]
    blocked: bool,
    /// Only where promotions are held
    #[arg(long)]
    held: bool,
    /// Only what would not be promoted today
    #[arg(long)]
    would_not_be_promoted_today: bool,
    /// Only where the current version is not the newest promotion
    #[arg(long)]
    fallback: bool,
}

impl Show {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let chosen = |chosen: bool| chosen.then_some("true");
        let pattern = self.repository.as_ref().map(ToString::to_string);
        let query = [
            ("repository", pattern.as_deref()),
            ("at_risk", chosen(self.at_risk)),
            ("blocked", chosen(self.blocked)),
            ("held", chosen(self.held)),
            ("would_not_be_promoted_today", chosen(self.would_not_be_promoted_today)),
            ("fallback", chosen(self.fallback)),
        ];
        let path = format!("/api/v1/environments/{}/releases", self.name);
        let mut items = registry.list(&path, &query, usize::MAX).await?;
        for item in &mut items {
            item["status"] = json!(status(item));
        }
        let columns = [
            ("repository", "/repository"),
            ("version", "/version"),
            ("digest", "/digest"),
            ("since", "/current_since"),
            ("by", "/promoted_by"),
            ("status", "/status"),
        ];
        let filtered = query.iter().any(|(_, value)| value.is_some());
        let nothing = if filtered { "Nothing there matches" } else { "Nothing was promoted there" };
        output.list(&items, &columns, nothing);
        Ok(())
    }
}

/// What to know of a release, in a few words.
fn status(item: &Value) -> String {
    let any = |name: &str| item.get(name).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let mut words = Vec::new();
    if item.get("digest").is_none_or(Value::is_null) {
        words.push("nothing is good".to_owned());
    } else if any("fallback_from") {
        words.push("fallback: not the newest promotion".to_owned());
    }
    if item["blocked"] == json!(true) {
        words.push("newest is blocked".to_owned());
    }
    for risk in item.get("at_risk").and_then(Value::as_array).into_iter().flatten() {
        let end = risk.get("ends_at").and_then(Value::as_str);
        let end = end.map_or(String::new(), |end| format!(" until {end}"));
        words.push(format!("at risk{end}: {}", risk["reason"].as_str().unwrap_or_default()));
    }
    if any("holds") {
        words.push("held".to_owned());
    }
    let used = item.get("promoted_by_override").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if used.iter().any(|one| one["review_overdue"] == json!(true)) {
        words.push("promoted by override, review overdue".to_owned());
    } else if !used.is_empty() {
        words.push("promoted by override, not reviewed".to_owned());
    }
    if any("would_not_be_promoted_today") {
        words.push("would not be promoted today".to_owned());
    }
    if words.is_empty() { "ok".to_owned() } else { words.join("; ") }
}

impl Environment {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            EnvironmentCommand::Create { name, description } => {
                let body = json!({ "name": name, "description": description });
                let made = registry.put("/api/v1/environments", &body).await?;
                output.answer(&made, || format!("Environment {name} is there"));
            }
            EnvironmentCommand::Show(show) => show.run(registry, output).await?,
            EnvironmentCommand::List => {
                let items = registry.list("/api/v1/environments", &[], usize::MAX).await?;
                output.list(
                    &items,
                    &[("name", "/name"), ("description", "/description")],
                    "There are no environments",
                );
            }
        }
        Ok(())
    }
}
