//! `verify`: may these bytes run there? Offline from a signed summary, or by asking the registry.

use super::artifact::host;
use super::connection::{Connection, read};
use super::hashing::hash;
use super::known_good::FailOn;
use super::output::{Output, at};
use super::stop::{Stop, gates_in_words, risks_in_words};
use super::time::Lifetime;
use crate::attestation::summary::{self, Checked, Expectations, Refused, SubjectKind};
use crate::keys::Trust;
use crate::names::{Digest, EnvironmentName, ImageReference, Reference, RepositoryName};
use chrono::TimeDelta;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Check that an artifact may run in an environment
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark verify payments/api@sha256:... --environment prod                 (asks the registry)
  proofmark verify registry.example/env/prod/payments/api:current             (what prod is to run)
  proofmark verify sha256:... --environment prod                              (in any repository)
  proofmark verify summary.json --trust trust.json --file app.tar.gz \\
    --repository payments/api --environment prod                              (asks nobody)

The trust file is what `proofmark key show` prints, pinned once; the summary is what
`proofmark known-good --summary FILE` keeps.")]
pub struct Verify {
    /// The artifact, as deployers name it (repository:version, repository@digest, the name in an
    /// environment's view, or a digest alone); with --trust the signed summary, or a whole answer of
    /// known-good
    subject: String,
    /// Where it is to run; a view's name says it already
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// at-risk: a version at risk may not run (exit code 1)
    #[arg(long, value_name = "WHAT", conflicts_with = "trust")]
    fail_on: Option<FailOn>,
    #[command(flatten)]
    offline: Offline,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Offline")]
struct Offline {
    /// The registry's trust file: check the summary with it and ask nobody
    #[arg(long, value_name = "FILE", requires_all = ["environment", "repository", "bytes"])]
    trust: Option<PathBuf>,
    /// The repository it came from
    #[arg(long, short, value_name = "NAME", requires = "trust")]
    repository: Option<RepositoryName>,
    #[command(flatten)]
    bytes: Bytes,
    /// A level that must have been verified
    #[arg(long, requires = "trust")]
    level: Option<String>,
    /// Take a summary whose validity is over; without this, that is exit code 3
    #[arg(long, requires = "trust", conflicts_with = "max_age")]
    allow_expired_summary: bool,
    /// How long ago it may have been verified, e.g. 12h
    #[arg(long, value_name = "DURATION", requires = "trust")]
    max_age: Option<Lifetime>,
}

/// The bytes at hand.
#[derive(clap::Args, Debug)]
#[group(id = "bytes", multiple = false)]
struct Bytes {
    /// The artifact's file
    #[arg(long, value_name = "FILE", requires = "trust")]
    file: Option<PathBuf>,
    /// The manifest's digest, of what is about to run
    #[arg(long, requires = "trust")]
    digest: Option<Digest>,
}

impl Verify {
    /// Runs the command.
    pub async fn run(self, connection: &Connection, output: Output) -> Result<(), Stop> {
        match (&self.offline.trust, &self.offline.repository, &self.environment) {
            (Some(trust), Some(repository), Some(environment)) => {
                self.check(trust, repository, environment, output).await
            }
            (None, ..) | (_, None, _) | (.., None) => self.ask(connection, output).await,
        }
    }

    async fn check(
        &self,
        trust: &Path,
        repository: &RepositoryName,
        environment: &EnvironmentName,
        output: Output,
    ) -> Result<(), Stop> {
        let trust: Trust = serde_json::from_slice(&read(trust, "the trust file")?)
            .map_err(|error| Stop::Usage(format!("{} is no trust file: {error}", trust.display())))?;
        let envelope = envelope(read(Path::new(&self.subject), "the summary")?)?;
        let (digest, kind) = match (&self.offline.bytes.digest, &self.offline.bytes.file) {
            (Some(digest), _) => (digest.clone(), SubjectKind::Manifest),
            (None, Some(file)) => (hash(file, output.bar(None, "hashing")).await?.1, SubjectKind::File),
            (None, None) => return Err(Stop::Usage("give --file or --digest".into())),
        };
        let expected = Expectations {
            digest: &digest,
            kind,
            repository,
            environment,
            level: self.offline.level.as_deref(),
            max_age: self.offline.max_age.map(Lifetime::span),
            at: crate::clock::now(),
        };
        let checked = match summary::check(&envelope, &trust, &expected) {
            // The validity is the last thing that is checked: everything else holds.
            Err(Refused::Expired(until)) if self.offline.allow_expired_summary => {
                let at = until - TimeDelta::seconds(1);
                summary::check(&envelope, &trust, &Expectations { at, ..expected })
            }
            other => other,
        };
        let checked = checked.map_err(|refused| {
            if matches!(refused, Refused::Expired(_)) {
                Stop::Error("summary-expired", refused.to_string())
            } else {
                Stop::no("summary-refused", refused.to_string())
            }
        })?;
        let document = json!({ "verdict": "allow", "summary": checked });
        output.answer(&document, || in_words(repository, environment, &checked));
        Ok(())
    }

    async fn ask(&self, connection: &Connection, output: Output) -> Result<(), Stop> {
        let registry = connection.open()?;
        let mut answer = registry.post("/api/v1/verify", &self.question(&host(registry.base()))?).await?;
        let member = |name: &str| answer.get(name).and_then(Value::as_str);
        let subject = match (member("repository"), member("digest")) {
            (Some(repository), Some(digest)) => format!("{repository}@{digest}"),
            (None, _) | (_, None) => self.subject.clone(),
        };
        let place = self.environment.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
        let at_risk = answer.get("at_risk").and_then(Value::as_array).is_some_and(|risks| !risks.is_empty());
        if at(&answer, "/verdict") == "allow" && self.fail_on.is_some() && at_risk {
            answer["verdict"] = json!("deny");
            answer["code"] = json!("at-risk");
            answer["detail"] = json!(format!("{subject} is at risk{place}"));
            return Err(Stop::Refused(answer));
        }
        if at(&answer, "/verdict") == "allow" {
            output.answer(&answer, || {
                let gates = answer.get("gates").and_then(Value::as_array).cloned().unwrap_or_default();
                let older = answer.get("current") == Some(&json!(false));
                format!(
                    "Yes: {subject} may run{place}{}{}{}",
                    if older { "\n  it is not the current version" } else { "" },
                    risks_in_words(&answer),
                    gates_in_words(&gates)
                )
            });
            return Ok(());
        }
        answer["code"] = answer["verdict"].clone();
        answer["detail"] = json!(format!("{subject} may not run{place}"));
        Err(Stop::Refused(answer))
    }

    /// The question as the registry takes it. It knows its other names; here only the one that it is asked
    /// under is known.
    fn question(&self, host: &str) -> Result<Value, Stop> {
        let named = ImageReference::parse(&self.subject, &[host]).map_err(|why| {
            if Path::new(&self.subject).is_file() {
                Stop::Usage(format!("{why}\n  to check a signed summary in a file, give --trust as well"))
            } else {
                Stop::Usage(format!("'{}' names no artifact: {why}", self.subject))
            }
        })?;
        let mut question = match named {
            ImageReference::Repository { repository, reference: Reference::Tag(version) } => {
                json!({ "repository": repository, "version": version })
            }
            ImageReference::Repository { repository, reference: Reference::Digest(digest) } => {
                json!({ "repository": repository, "digest": digest })
            }
            ImageReference::View { .. } | ImageReference::Digest(_) => {
                json!({ "reference": named.to_string() })
            }
            ImageReference::OtherHost(_) => json!({ "reference": self.subject }),
        };
        if let Some(environment) = &self.environment {
            question["environment"] = json!(environment);
        }
        Ok(question)
    }
}

fn in_words(repository: &RepositoryName, environment: &EnvironmentName, checked: &Checked) -> String {
    format!(
        "Yes: {repository} {} may run in {}\nverified {} by {}, key {}\nthe summary {} {}",
        checked.digest,
        environment,
        checked.time_verified,
        checked.verifier_id,
        checked.key_id,
        if checked.valid_until < crate::clock::now() { "EXPIRED at" } else { "is valid until" },
        checked.valid_until,
    )
}

/// The envelope itself, or the one that an answer of known-good carries.
fn envelope(bytes: Vec<u8>) -> Result<Vec<u8>, Stop> {
    let parsed: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Stop::Usage(format!("the summary is not JSON: {error}")))?;
    Ok(parsed.get("summary").map_or(bytes, |summary| summary.to_string().into_bytes()))
}
