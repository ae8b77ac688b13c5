//! `known-good`: the deployer's question.

use super::artifact::{Named, host};
use super::checking::{About, Checking, Outcome, answered_digest, document};
use super::connection::Registry;
use super::output::{Output, at};
use super::stop::{Stop, fallback_in_words, gates_in_words, risks_in_words};
use crate::access::Lane;
use crate::attestation::summary::{Part, SubjectKind};
use crate::names::{Digest, EnvironmentName, Platform, RepositoryName};
use serde_json::Value;
use std::path::PathBuf;

/// Ask which version is known to be good in an environment
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark known-good payments/api --environment prod
  docker pull $(proofmark known-good payments/api --environment prod --format text)
  proofmark known-good payments/api --environment prod --summary summary.json

The answer counts only if its signed summary is checked by the trust file that is pinned (`proofmark trust pin`).")]
pub struct KnownGood {
    /// The repository
    repository: Named,
    /// The environment
    #[arg(long, short, value_name = "NAME")]
    environment: EnvironmentName,
    /// What it is to run on, e.g. linux/arm64 or 'windows(10.0.20348)/amd64'
    #[arg(long)]
    platform: Option<Platform>,
    /// What it is wanted for; for a rollback the present version is no candidate
    #[arg(long = "for", value_name = "PURPOSE", default_value = "deploy")]
    purpose: Purpose,
    /// text: the reference alone, for scripts
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    format: Option<Format>,
    /// at-risk: a version at risk is no answer (exit code 1)
    #[arg(long, value_name = "WHAT")]
    fail_on: Option<FailOn>,
    /// Keep the signed summary (a DSSE envelope) in this file
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    #[command(flatten)]
    checking: Checking,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// The reference alone.
    Text,
}

/// What is no answer, although the version goes on running.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailOn {
    /// A version at risk.
    AtRisk,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Purpose {
    /// To deploy it.
    Deploy,
    /// To go back to it.
    Rollback,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
        }
    }
}

impl KnownGood {
    /// Asks.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let repository = self.repository.whole(registry.base())?;
        let platform = self.platform.as_ref().map(ToString::to_string);
        let query = [
            ("repository", Some(repository.as_str())),
            ("environment", Some(self.environment.as_str())),
            ("platform", platform.as_deref()),
            ("for", Some(self.purpose.as_str())),
            ("at_risk", self.fail_on.map(|_| "deny")),
        ];
        let trusted = self.checking.trusted(registry).await?;
        let mut good = document(registry, registry.get("/api/v1/known-good", &query).await?)?;
        let (digest, _) = answered(&good, &repository, &self.environment)?;
        let about = About {
            repository: &repository,
            environment: &self.environment,
            digest: &digest,
            kind: SubjectKind::Manifest,
            part: self.platform.as_ref().map_or(Part::Whole, Part::Platform),
        };
        let outcome = self.checking.check_answer(registry, trusted, &good, &about).await?;
        outcome.settle(&mut good, &about);
        outcome.add_to(&mut good);
        if let Some(path) = &self.summary {
            let summary = good.get("summary").filter(|summary| summary.is_object());
            let summary = summary.ok_or_else(|| Stop::Unanswered("the answer carries no summary".into()))?;
            std::fs::write(path, format!("{summary:#}\n"))
                .map_err(|error| Stop::Unanswered(format!("cannot write {}: {error}", path.display())))?;
        }
        if self.format == Some(Format::Text) {
            output.print(&at(&good, "/reference"));
            let remarks = format!("{}{}", fallback_in_words(&good), risks_in_words(&good));
            if !remarks.is_empty() {
                output.remark(remarks.trim_start_matches('\n'));
            }
            if !outcome.is_verified() {
                output.remark(&outcome.in_words());
            }
        } else {
            output.answer(&good, || in_words(&good, &self.environment, &outcome));
        }
        let (asked, named) = (host(registry.base()), at(&good, "/reference"));
        if !named.starts_with(&format!("{asked}/")) {
            output.remark(&format!("{named} names another host than the registry that was asked, {asked}"));
        }
        Ok(())
    }
}

/// The digest of an answer, whose reference names nothing else: what is deployed is the reference. And the name by
/// which it is pulled: of the repository, or of the environment's view.
pub fn answered(
    good: &Value,
    repository: &RepositoryName,
    environment: &EnvironmentName,
) -> Result<(Digest, String), Stop> {
    let digest = answered_digest(good, None)?;
    let reference = at(good, "/reference");
    let view = Lane { repository: repository.clone(), environment: environment.clone() };
    let names = [view.to_string(), repository.to_string()];
    let is_named = |name: &String| reference.strip_suffix(&format!("/{name}@{digest}")).is_some_and(is_host);
    match names.into_iter().find(is_named) {
        Some(name) => Ok((digest, name)),
        None => Err(Stop::no(
            "answer-refused",
            format!("the registry answered the reference {reference:?}, which is not {repository}@{digest}"),
        )),
    }
}

/// A host with or without a port, and nothing that a shell, a terminal or a tool would read as more.
fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    let url = reqwest::Url::parse(&format!("http://{text}/"));
    text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
        && text.bytes().all(plain)
        && url.is_ok_and(|url| url.has_host())
}

fn in_words(good: &Value, environment: &EnvironmentName, outcome: &Outcome) -> String {
    let gates = good.get("gates").and_then(Value::as_array).cloned().unwrap_or_default();
    format!(
        "{}\nversion {}, known good in {environment}\npromoted {} by {} (as the registry says; not signed)\n{}{}{}{}",
        at(good, "/reference"),
        at(good, "/version"),
        at(good, "/promoted_at"),
        at(good, "/promoted_by"),
        outcome.in_words(),
        fallback_in_words(good),
        risks_in_words(good),
        gates_in_words(&gates),
    )
}
