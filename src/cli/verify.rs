//! `verify`: may these bytes run there? Offline from a signed summary, or by asking the registry.

use super::artifact::{self, Named};
use super::connection::{Connection, read};
use super::hashing::hash;
use super::output::{Output, at};
use super::stop::{Stop, gates_in_words};
use super::time::Lifetime;
use crate::attestation::summary::{self, Checked, Expectations, SubjectKind};
use crate::keys::Trust;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Check that an artifact may run in an environment
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark verify payments/api@sha256:... --environment prod                 (asks the registry)
  proofmark verify summary.json --trust trust.json --file app.tar.gz \\
    --repository payments/api --environment prod                              (asks nobody)

The trust file is what `proofmark key show` prints, pinned once; the summary is what
`proofmark known-good --summary FILE` keeps.")]
pub struct Verify {
    /// The artifact (repository:version or repository@digest); with --trust the signed summary, or a
    /// whole answer of known-good
    subject: String,
    /// Where it is to run
    #[arg(long, short, value_name = "NAME")]
    environment: EnvironmentName,
    #[command(flatten)]
    offline: Offline,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Offline")]
struct Offline {
    /// The registry's trust file: check the summary with it and ask nobody
    #[arg(long, value_name = "FILE", requires_all = ["repository", "bytes"])]
    trust: Option<PathBuf>,
    /// The repository it came from
    #[arg(long, short, value_name = "NAME", requires = "trust")]
    repository: Option<RepositoryName>,
    #[command(flatten)]
    bytes: Bytes,
    /// A level that must have been verified
    #[arg(long, requires = "trust")]
    level: Option<String>,
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
        match (&self.offline.trust, &self.offline.repository) {
            (Some(trust), Some(repository)) => self.check(trust, repository, output).await,
            (None, _) | (_, None) => self.ask(connection, output).await,
        }
    }

    async fn check(&self, trust: &Path, repository: &RepositoryName, output: Output) -> Result<(), Stop> {
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
            environment: &self.environment,
            level: self.offline.level.as_deref(),
            max_age: self.offline.max_age.map(Lifetime::span),
            at: crate::clock::now(),
        };
        let checked = summary::check(&envelope, &trust, &expected)
            .map_err(|refused| Stop::no("summary-refused", refused.to_string()))?;
        let document = json!({ "verdict": "allow", "summary": checked });
        output.answer(&document, || self.in_words(repository, &checked));
        Ok(())
    }

    fn in_words(&self, repository: &RepositoryName, checked: &Checked) -> String {
        format!(
            "Yes: {repository} {} may run in {}\nverified {} by {}, key {}\nthe summary holds until {}",
            checked.digest,
            self.environment,
            checked.time_verified,
            checked.verifier_id,
            checked.key_id,
            checked.valid_until,
        )
    }

    async fn ask(&self, connection: &Connection, output: Output) -> Result<(), Stop> {
        let registry = connection.open()?;
        let Ok(named) = self.subject.parse::<Named>();
        let (repository, reference) = named.exact(registry.base()).map_err(|stop| match stop {
            Stop::Usage(why) if Path::new(&self.subject).is_file() => {
                Stop::Usage(format!("{why}\n  to check a signed summary in a file, give --trust as well"))
            }
            other @ (Stop::Refused(_) | Stop::Usage(_) | Stop::Unanswered(_)) => other,
        })?;
        let digest = artifact::digest(&registry, &repository, &reference).await?;
        let body = json!({ "repository": repository, "digest": digest, "environment": self.environment });
        let mut answer = registry.post("/api/v1/verify", &body).await?;
        if at(&answer, "/verdict") == "allow" {
            output.answer(&answer, || {
                let gates = answer.get("gates").and_then(Value::as_array).cloned().unwrap_or_default();
                format!(
                    "Yes: {repository}@{digest} may run in {}{}",
                    self.environment,
                    gates_in_words(&gates)
                )
            });
            return Ok(());
        }
        answer["code"] = answer["verdict"].clone();
        answer["detail"] = json!(format!("{repository}@{digest} may not run in {}", self.environment));
        Err(Stop::Refused(answer))
    }
}

/// The envelope itself, or the one that an answer of known-good carries.
fn envelope(bytes: Vec<u8>) -> Result<Vec<u8>, Stop> {
    let parsed: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Stop::Usage(format!("the summary is not JSON: {error}")))?;
    Ok(parsed.get("summary").map_or(bytes, |summary| summary.to_string().into_bytes()))
}
