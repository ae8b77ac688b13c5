//! `verify`: may these bytes run there? Offline from a signed summary, or by asking the registry.

use super::artifact::host;
use super::checking::{About, Checking, Outcome, answered_digest, document};
use super::connection::{Connection, read};
use super::hashing::hash;
use super::known_good::FailOn;
use super::output::{Output, at};
use super::stop::{Stop, gates_in_words, risks_in_words};
use crate::attestation::summary::{Part, SubjectKind};
use crate::names::{Digest, EnvironmentName, ImageReference, Reference, RepositoryName, Tag};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Check that an artifact may run in an environment
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark verify payments/api@sha256:... --environment prod                 (asks the registry)
  proofmark verify registry.example/env/prod/payments/api:current             (what prod is to run)
  proofmark verify sha256:... --environment prod                              (in any repository)
  proofmark verify summary.json --file app.tar.gz --repository payments/api \\
    --environment prod --trust trust.json                                     (asks nobody)

A yes counts only if its signed summary is checked by the trust file that is pinned (`proofmark trust pin`) or
given. A version is checked with its digest; of `:current`, and of a tag that moves, only the digest that is printed
counts. A summary to check without the registry is what `proofmark known-good --summary FILE` keeps.")]
pub struct Verify {
    /// The artifact, as deployers name it (repository:version, repository@digest, the name in an
    /// environment's view, or a digest alone); with --file or --digest the signed summary, or a whole
    /// answer of known-good
    subject: String,
    /// Where it is to run; a view's name says it already
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// at-risk: a version at risk may not run (exit code 1)
    #[arg(long, value_name = "WHAT", conflicts_with = "bytes")]
    fail_on: Option<FailOn>,
    #[command(flatten)]
    checking: Checking,
    #[command(flatten)]
    offline: Offline,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Offline, from a signed summary")]
struct Offline {
    /// The repository it came from
    #[arg(long, short, value_name = "NAME", requires = "bytes")]
    repository: Option<RepositoryName>,
    #[command(flatten)]
    bytes: Bytes,
}

/// The bytes at hand.
#[derive(clap::Args, Debug)]
#[group(id = "bytes", multiple = false, requires_all = ["repository", "environment"], conflicts_with = "no_verify")]
struct Bytes {
    /// The artifact's file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The manifest's digest, of what is about to run
    #[arg(long)]
    digest: Option<Digest>,
}

/// What somebody asks the registry about, as far as they know it.
struct Asked {
    question: Value,
    repository: Option<RepositoryName>,
    environment: Option<EnvironmentName>,
    wanted: Wanted,
}

/// Which bytes somebody asks about.
enum Wanted {
    Digest(Digest),
    Version(Tag),
    /// What an environment's view calls current.
    Current,
}

impl Verify {
    /// Runs the command.
    pub async fn run(self, connection: &Connection, output: Output) -> Result<(), Stop> {
        let bytes = match &self.offline.bytes {
            Bytes { digest: Some(digest), .. } => (digest.clone(), SubjectKind::Manifest),
            Bytes { file: Some(file), .. } => {
                (hash(file, output.bar(None, "hashing")).await?.1, SubjectKind::File)
            }
            Bytes { digest: None, file: None } => return self.ask(connection, output).await,
        };
        self.check(connection, &bytes, output)
    }

    fn check(
        &self,
        connection: &Connection,
        bytes: &(Digest, SubjectKind),
        output: Output,
    ) -> Result<(), Stop> {
        let (Some(repository), Some(environment)) = (&self.offline.repository, &self.environment) else {
            return Err(Stop::Usage("a summary is checked for a --repository and an --environment".into()));
        };
        let trusted = self.checking.trusted_offline(connection)?;
        let envelope = envelope(read(Path::new(&self.subject), "the summary")?)?;
        let about = About { repository, environment, digest: &bytes.0, kind: bytes.1, part: Part::Any };
        let outcome = self.checking.check(&envelope, trusted, &about)?;
        let mut document = json!({ "verdict": "allow" });
        outcome.add_to(&mut document);
        document["summary"] = document["verification"]["summary"].clone();
        output.answer(&document, || {
            format!("Yes: {repository} {} may run in {environment}\n{}", bytes.0, outcome.in_words())
        });
        Ok(())
    }

    async fn ask(&self, connection: &Connection, output: Output) -> Result<(), Stop> {
        let registry = connection.open()?;
        let asked = self.question(&host(registry.base()))?;
        let trusted = self.checking.trusted(&registry).await?;
        let mut answer = document(&registry, registry.post("/api/v1/verify", &asked.question).await?)?;
        let member = |name: &str| answer.get(name).and_then(Value::as_str);
        let subject = match (member("repository"), member("digest")) {
            (Some(repository), Some(digest)) => format!("{repository}@{digest}"),
            (None, _) | (_, None) => self.subject.clone(),
        };
        let place = self.environment.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
        if at(&answer, "/verdict") != "allow" {
            answer["code"] = answer["verdict"].clone();
            answer["detail"] = json!(format!("{subject} may not run{place}"));
            return Err(Stop::Refused(answer));
        }
        let (repository, environment, digest) = asked.answered(&answer)?;
        let part = match &asked.wanted {
            Wanted::Digest(_) => Part::Any,
            Wanted::Version(version) => Part::Version(version),
            Wanted::Current => Part::Whole,
        };
        let about = About {
            repository: &repository,
            environment: &environment,
            digest: &digest,
            kind: SubjectKind::Manifest,
            part,
        };
        let outcome = self.checking.check_answer(&registry, trusted, &answer, &about).await?;
        let at_risk = answer.get("at_risk").and_then(Value::as_array).is_some_and(|risks| !risks.is_empty());
        if self.fail_on.is_some() && at_risk {
            answer["verdict"] = json!("deny");
            answer["code"] = json!("at-risk");
            answer["detail"] = json!(format!("{subject} is at risk{place}"));
            return Err(Stop::Refused(answer));
        }
        outcome.settle(&mut answer, &about);
        outcome.add_to(&mut answer);
        output.answer(&answer, || allowed_in_words(&answer, &subject, &place, &outcome));
        Ok(())
    }

    /// The question as the registry takes it. It knows its other names; here only the one that it is asked
    /// under is known.
    fn question(&self, ours: &str) -> Result<Asked, Stop> {
        let wrong = |why: crate::names::InvalidImageReference| {
            if Path::new(&self.subject).is_file() {
                Stop::Usage(format!(
                    "{why}\n  to check a signed summary in a file, give --file or --digest as well"
                ))
            } else {
                Stop::Usage(format!("'{}' names no artifact: {why}", self.subject))
            }
        };
        let mut named = ImageReference::parse(&self.subject, &[ours]).map_err(wrong)?;
        let mut question = match &named {
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
        // It may be another name of this registry: what stands behind the host is what was asked for.
        if let ImageReference::OtherHost(other) = &named {
            named = ImageReference::parse(&self.subject, &[ours, other]).map_err(wrong)?;
        }
        if let Some(environment) = &self.environment {
            question["environment"] = json!(environment);
        }
        let (repository, of_view, reference) = match named {
            ImageReference::Repository { repository, reference } => (Some(repository), None, reference),
            ImageReference::View { environment, repository, reference } => {
                (Some(repository), Some(environment), reference)
            }
            ImageReference::Digest(digest) => (None, None, Reference::Digest(digest)),
            ImageReference::OtherHost(host) => {
                return Err(Stop::Usage(format!("'{}' names no artifact behind {host}", self.subject)));
            }
        };
        if let (Some(asked), Some(of_view)) = (&self.environment, &of_view)
            && asked != of_view
        {
            return Err(Stop::Usage(format!(
                "'{}' is what {of_view} sees, and --environment says {asked}: give one of them",
                self.subject
            )));
        }
        let wanted = match reference {
            Reference::Digest(digest) => Wanted::Digest(digest),
            Reference::Tag(tag) if of_view.is_some() && tag.as_str() == "current" => Wanted::Current,
            Reference::Tag(tag) => Wanted::Version(tag),
        };
        Ok(Asked { question, repository, environment: self.environment.clone().or(of_view), wanted })
    }
}

impl Asked {
    /// What the answer is about, if that is what was asked.
    fn answered(&self, answer: &Value) -> Result<(RepositoryName, EnvironmentName, Digest), Stop> {
        let refused = |why: String| Stop::no("answer-refused", why);
        let asked = match &self.wanted {
            Wanted::Digest(digest) => Some(digest),
            Wanted::Version(_) | Wanted::Current => None,
        };
        let digest = answered_digest(answer, asked)?;
        let text = at(answer, "/repository");
        let repository: RepositoryName = text
            .parse()
            .map_err(|error| refused(format!("the registry answered about {text:?}: {error}")))?;
        if let Some(asked) = self.repository.as_ref().filter(|asked| **asked != repository) {
            return Err(refused(format!(
                "the registry answered about {repository}, and {asked} was asked for"
            )));
        }
        let environment =
            self.environment.clone().ok_or_else(|| Stop::Usage("give the environment".into()))?;
        Ok((repository, environment, digest))
    }
}

fn allowed_in_words(answer: &Value, subject: &str, place: &str, outcome: &Outcome) -> String {
    let gates = answer.get("gates").and_then(Value::as_array).cloned().unwrap_or_default();
    let older = answer.get("current") == Some(&json!(false));
    format!(
        "Yes: {subject} may run{place}{}\n{}{}{}",
        if older { "\n  it is not the current version" } else { "" },
        outcome.in_words(),
        risks_in_words(answer),
        gates_in_words(&gates)
    )
}

/// The envelope itself, or the one that an answer of known-good carries.
fn envelope(bytes: Vec<u8>) -> Result<Vec<u8>, Stop> {
    let parsed: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Stop::Usage(format!("the summary is not JSON: {error}")))?;
    Ok(parsed.get("summary").map_or(bytes, |summary| summary.to_string().into_bytes()))
}
