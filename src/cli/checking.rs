//! Checking what a registry answers: the signed verification summary against the trust file that this user pinned.
//! What a server says is believed only as far as that goes.

use super::connection::{Connection, Registry};
use super::pins::{self, Pins};
use super::stop::Stop;
use super::time::Lifetime;
use crate::attestation::summary::{self, Checked, Expectations, Part, Refused, SubjectKind};
use crate::keys::{MAX_TRUST_BYTES, TrustFile};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

/// How an answer is checked.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Verification")]
pub struct Checking {
    /// The registry's trust file [default: PROOFMARK_TRUST, then what `proofmark trust pin` stored]
    #[arg(long, env = "PROOFMARK_TRUST", value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Take the registry's word for it; the output says so
    #[arg(long, conflicts_with_all = ["level", "allow_expired_summary", "max_age"])]
    no_verify: bool,
    /// A level that must have been verified
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// Take a summary whose validity is over; without this, that is exit code 3
    #[arg(long, conflicts_with = "max_age")]
    allow_expired_summary: bool,
    /// How long ago it may have been verified, e.g. 12h
    #[arg(long, value_name = "DURATION")]
    max_age: Option<Lifetime>,
}

/// What is trusted, and where that is kept.
#[derive(Clone, Debug)]
pub struct Trusted {
    file: TrustFile,
    source: Source,
    /// The version that the registry serves, where that is older: a replica that does not have the newest one yet.
    older: Option<u32>,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Pin(PathBuf),
}

/// What a summary must be about: what was asked, and what the registry answered.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The repository.
    pub repository: &'a RepositoryName,
    /// The environment.
    pub environment: &'a EnvironmentName,
    /// The bytes.
    pub digest: &'a Digest,
    /// What they are used as.
    pub kind: SubjectKind,
    /// Which part of what was promoted they are.
    pub part: Part<'a>,
}

/// A check that was done, or left out because somebody wanted that.
pub struct Outcome(Option<Box<Verified>>);

struct Verified {
    trusted: Trusted,
    checked: Checked,
    expired: bool,
}

impl Checking {
    /// Whether something is said about how to check.
    pub fn is_asked(&self) -> bool {
        self.no_verify || self.level.is_some() || self.allow_expired_summary || self.max_age.is_some()
    }

    /// What this user trusts of the server; none where no check is wanted. Where nothing is trusted yet, somebody at a
    /// terminal is asked.
    pub async fn trusted(&self, registry: &Registry) -> Result<Option<Trusted>, Stop> {
        if self.no_verify {
            return Ok(None);
        }
        if let Some(trusted) = self.kept(registry.base())? {
            return Ok(Some(trusted));
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(nothing_trusted(registry.base()));
        }
        let served = fetch(registry, None).await?;
        if !confirmed(registry.base(), &served)? {
            return Err(nothing_trusted(registry.base()));
        }
        let pins = Pins::of_user()?;
        let file = pins.advance(registry.base(), std::slice::from_ref(&served))?.unwrap_or(served);
        Ok(Some(Trusted { file, source: Source::Pin(pins.path(registry.base())), older: None }))
    }

    /// The same without a network, for a summary that is at hand.
    pub fn trusted_offline(&self, connection: &Connection) -> Result<Trusted, Stop> {
        let server = connection.url()?;
        self.kept(&server)?.ok_or_else(|| nothing_trusted(&server))
    }

    fn kept(&self, server: &Url) -> Result<Option<Trusted>, Stop> {
        if let Some(path) = &self.trust {
            if path.as_os_str().is_empty() {
                return Err(Stop::Usage(
                    "--trust or PROOFMARK_TRUST is empty: name a trust file or unset it".into(),
                ));
            }
            let (file, source) = (pins::read(path)?, Source::File(path.clone()));
            return Ok(Some(Trusted { file, source, older: None }));
        }
        let pins = Pins::of_user()?;
        let source = Source::Pin(pins.path(server));
        Ok(pins.read(server)?.map(|file| Trusted { file, source, older: None }))
    }

    /// Checks the summary of an answer, with the newest trust file that follows what is trusted.
    pub async fn check_answer(
        &self,
        registry: &Registry,
        trusted: Option<Trusted>,
        answer: &Value,
        about: &About<'_>,
    ) -> Result<Outcome, Stop> {
        let Some(mut trusted) = trusted else { return Ok(Outcome(None)) };
        trusted.follow(registry).await?;
        let summary = answer.get("summary").filter(|summary| summary.is_object());
        let summary = summary.ok_or_else(|| {
            Stop::no(
                "summary-refused",
                "the registry's answer carries no signed summary, so nothing proves it",
            )
        })?;
        self.check(summary.to_string().as_bytes(), trusted, about)
    }

    /// Checks an envelope.
    pub fn check(&self, envelope: &[u8], trusted: Trusted, about: &About<'_>) -> Result<Outcome, Stop> {
        let expected = Expectations {
            digest: about.digest,
            kind: about.kind,
            part: about.part,
            repository: about.repository,
            environment: about.environment,
            level: self.level.as_deref(),
            max_age: self.max_age.map(Lifetime::span),
            at: crate::clock::now(),
        };
        let trust = trusted.file.trust();
        let (checked, expired) = match summary::check(envelope, trust, &expected) {
            // The validity is the last thing that is checked: everything else holds.
            Err(Refused::Expired(until)) if self.allow_expired_summary => {
                let at = until - TimeDelta::seconds(1);
                (summary::check(envelope, trust, &Expectations { at, ..expected }), true)
            }
            other => (other, false),
        };
        let checked = checked.map_err(|refused| {
            if matches!(refused, Refused::Expired(_)) {
                let detail = format!("{refused}, or give --allow-expired-summary to take it all the same");
                Stop::Error("summary-expired", detail)
            } else {
                Stop::no("summary-refused", format!("the signed summary is refused: {refused}"))
            }
        })?;
        Ok(Outcome(Some(Box::new(Verified { trusted, checked, expired }))))
    }
}

impl Trusted {
    /// Follows the registry to its newest trust file, version by version. A pin is taken along; a file that was given
    /// is left as it is. Where the registry serves an older one, what is trusted already decides: not every replica
    /// has the newest one at once.
    async fn follow(&mut self, registry: &Registry) -> Result<(), Stop> {
        let served = fetch(registry, None).await?;
        if served.version() < self.file.version() {
            self.older = Some(served.version());
            return Ok(());
        }
        let steps = following_to(registry, &self.file, served).await?;
        if let Some(newest) = steps.last() {
            self.file = newest.clone();
            if let Source::Pin(_) = self.source
                && let Some(file) = Pins::of_user()?.advance(registry.base(), &steps)?
            {
                self.file = file;
            }
        }
        Ok(())
    }
}

/// The trust files that a registry serves after a trusted one, each checked against the one before it.
pub async fn following(registry: &Registry, trusted: &TrustFile) -> Result<Vec<TrustFile>, Stop> {
    following_to(registry, trusted, fetch(registry, None).await?).await
}

async fn following_to(
    registry: &Registry,
    trusted: &TrustFile,
    served: TrustFile,
) -> Result<Vec<TrustFile>, Stop> {
    let mut steps: Vec<TrustFile> = Vec::new();
    let mut last = trusted.clone();
    // A version that does not follow ends this, so nobody without the root makes it long.
    while last.version().saturating_add(1) < served.version() {
        let next = fetch(registry, Some(last.version() + 1)).await?;
        if !last.is_followed_by(&next).map_err(|why| pins::refused(&why))? {
            break;
        }
        steps.push(next.clone());
        last = next;
    }
    if last.is_followed_by(&served).map_err(|why| pins::refused(&why))? {
        steps.push(served);
    }
    Ok(steps)
}

/// A trust file as the registry serves it: the newest, or one version. Nothing of it is believed yet.
pub async fn fetch(registry: &Registry, version: Option<u32>) -> Result<TrustFile, Stop> {
    let path = version.map_or_else(
        || "/.well-known/proofmark".to_owned(),
        |version| format!("/.well-known/proofmark/{version}"),
    );
    let mut response = registry.send(registry.request(Method::GET, &path)).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| registry.unanswered(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_TRUST_BYTES {
            break;
        }
    }
    TrustFile::parse(&bytes)
        .map_err(|refused| Stop::no("trust-refused", format!("{}{}: {refused}", registry.base(), &path[1..])))
}

/// Asks somebody at the terminal whether the fingerprint is the right one.
pub fn confirmed(server: &Url, file: &TrustFile) -> Result<bool, Stop> {
    let trust = file.trust();
    let asked = format!(
        "{server} says that it is {} ({}), and that its root is\n  {}\nThe registry's operator knows the right one \
         (proofmark key trust show). Trust it? [y/N] ",
        trust.public_name,
        trust.verifier_id,
        trust.fingerprint()?
    );
    let cannot = |error: std::io::Error| Stop::Usage(format!("cannot ask: {error}"));
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "{}", super::output::shown(&asked)).and_then(|()| terminal.flush()).map_err(cannot)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(cannot)?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn nothing_trusted(server: &Url) -> Stop {
    let server = server.as_str().trim_end_matches('/');
    Stop::Error(
        "no-trust",
        format!(
            "nothing is trusted yet of {server}, so its answer proves nothing. Pin its trust file once, with the \
             fingerprint that its operator has from `proofmark key trust show`:\n  \
             proofmark trust pin --server {server} --fingerprint sha256:...\n  \
             or give a trust file (--trust, PROOFMARK_TRUST); --no-verify takes the registry's word for it"
        ),
    )
}

impl Outcome {
    /// Whether the answer was checked.
    pub fn is_verified(&self) -> bool {
        self.0.is_some()
    }

    /// Adds to an answer whether it was verified, and how.
    pub fn add_to(&self, answer: &mut Value) {
        answer["verified"] = json!(self.0.is_some());
        if let Some(verified) = &self.0 {
            answer["verification"] = verified.document();
        }
    }

    /// Puts what was asked and signed in the place of what the registry says of the same, which nobody signed.
    pub fn settle(&self, answer: &mut Value, about: &About<'_>) {
        if let Some(verified) = &self.0 {
            answer["repository"] = json!(about.repository);
            answer["environment"] = json!(about.environment);
            answer["version"] = json!(verified.checked.version);
        }
    }

    /// The same in a sentence.
    pub fn in_words(&self) -> String {
        match &self.0 {
            None => "NOT VERIFIED: --no-verify takes the registry's word for it".to_owned(),
            Some(verified) => verified.in_words(),
        }
    }
}

impl Verified {
    fn document(&self) -> Value {
        let Self { trusted, checked, expired } = self;
        let trust = trusted.file.trust();
        let (source, path) = match &trusted.source {
            Source::File(path) => ("file", path),
            Source::Pin(path) => ("pin", path),
        };
        let validity = |until: DateTime<Utc>| {
            if *expired {
                format!("was valid until {until}, which was allowed")
            } else {
                format!("valid until {until}")
            }
        };
        let steps = [
            (
                "trust",
                format!("version {} of the trust file, from the {source} {}", trust.version, path.display()),
            ),
            ("signature", format!("summary key {}", checked.key_id)),
            ("digest", checked.digest.to_string()),
            ("verifier", checked.verifier_id.clone()),
            ("resource", checked.resource_uri.clone()),
            ("result", "PASSED".to_owned()),
            ("levels", checked.levels.join(", ")),
            ("validity", validity(checked.valid_until)),
        ];
        let steps: Vec<Value> = steps
            .iter()
            .map(|(check, detail)| json!({"check": check, "result": "pass", "detail": detail}))
            .collect();
        json!({
            "trust": {"source": source, "file": path, "version": trust.version,
                      "fingerprint": trust.fingerprint().ok()},
            "checks": steps,
            "expired": expired,
            "summary": checked,
        })
    }

    fn in_words(&self) -> String {
        let Self { trusted, checked, expired } = self;
        let older = trusted.older.map(|older| format!("\nthe registry still serves version {older} of it"));
        format!(
            "verified {} by {}, key {}, with version {} of its trust file{}\nthe summary {} {}",
            checked.time_verified,
            checked.verifier_id,
            checked.key_id,
            trusted.file.version(),
            older.unwrap_or_default(),
            if *expired { "EXPIRED at" } else { "is valid until" },
            checked.valid_until,
        )
    }
}

/// An answer that is a document of Proofmark's, whose members are read and shown.
pub fn document(registry: &Registry, answer: Value) -> Result<Value, Stop> {
    if answer.is_object() {
        return Ok(answer);
    }
    Err(Stop::Unanswered(format!(
        "what {} answered is not an answer of Proofmark: {}",
        registry.base(),
        answer.to_string().chars().take(200).collect::<String>()
    )))
}

/// The digest that an answer names, if it is the one that was asked for.
pub fn answered_digest(answer: &Value, asked: Option<&Digest>) -> Result<Digest, Stop> {
    let text = super::output::at(answer, "/digest");
    let digest: Digest = text.parse().map_err(|error| {
        Stop::no("answer-refused", format!("the registry answered no digest ({text:?}: {error})"))
    })?;
    match asked {
        Some(asked) if *asked != digest => Err(Stop::no(
            "answer-refused",
            format!("the registry answered about {digest}, and {asked} was asked for"),
        )),
        Some(_) | None => Ok(digest),
    }
}
