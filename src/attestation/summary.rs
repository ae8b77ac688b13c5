//! Verification summaries (SLSA VSA v1, specification 1.2): what a promotion hands to a deployer.
//!
//! `build` makes the statement that `Keys::sign_summary` signs; `check` is what a consumer does with
//! the envelope, offline, with nothing but the trust file and its own expectations. What is expected
//! comes from the consumer, never from the envelope.
//!
//! openssl alone can check the signature, and jq shows what was signed:
//!
//! ```sh
//! curl -s $REGISTRY/.well-known/proofmark > trust.json     # once; compare its root with what the operator says
//! jq -r '.signed.keys.summary[0].public_key' trust.json > summary.pub
//! jq -rj .payload summary.json | base64 -d > payload.json
//! t=$(jq -rj .payloadType summary.json)
//! { printf 'DSSEv1 %d %s %d ' ${#t} "$t" $(stat -c %s payload.json); cat payload.json; } > pae.bin
//! jq -rj '.signatures[0].sig' summary.json | base64 -d > sig.bin
//! openssl pkeyutl -verify -pubin -inkey summary.pub -rawin -in pae.bin -sigfile sig.bin
//! jq '.subject, .predicate' payload.json                   # digest, resourceUri, PASSED, .../valid_until
//! ```
//!
//! A subject with the annotation `proofmark.kind` is an artifact's file: it says nothing of a manifest
//! that has the same bytes.

use super::envelope::Envelope;
use super::statement::{Statement, Subject};
use super::verify::{Unproved, verify};
use crate::failure::Failure;
use crate::keys::{KeyRole, Trust, TrustedKey, TrustedScheme};
use crate::names::{Digest, EnvironmentName, Platform, RepositoryName, Tag};
use crate::trust::{PublicKey, Scheme};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The predicate type of verification summaries.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/verification_summary/v1";

/// What the registry verified.
#[derive(Clone, Copy, Debug)]
pub struct Verification<'a> {
    /// The repository.
    pub repository: &'a RepositoryName,
    /// The environment it may now run in.
    pub environment: &'a EnvironmentName,
    /// The manifest, the children of an index, and the file of an artifact that is one file.
    pub subjects: &'a [SummarySubject<'a>],
    /// Names the policy and the environment.
    pub policy_uri: &'a str,
    /// The policy's digest.
    pub policy_digest: &'a Digest,
    /// The evidence that was looked at: all of it, or (empty) none is told.
    pub inputs: &'a [Input],
    /// Levels that hold; own ones do not begin with `SLSA_`.
    pub levels: &'a [String],
    /// When.
    pub time_verified: DateTime<Utc>,
    /// Until when the summary may be relied on.
    pub valid_until: DateTime<Utc>,
    /// It repeats the evaluation of what runs, as a renewal does; a promotion asks more.
    pub running: bool,
}

/// What the bytes of a subject are. Whoever may push chooses a file's bytes freely, a manifest's among
/// them, so that an artifact's file was promoted says nothing of a manifest that has the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind {
    /// A manifest: what was promoted, or a child of the index that was.
    Manifest,
    /// The file of an artifact that is one file.
    File,
}

/// The annotation of a subject that is a file.
const KIND: (&str, &str) = ("proofmark.kind", "file");

/// A subject of a summary.
#[derive(Clone, Copy, Debug)]
pub struct SummarySubject<'a> {
    /// What it is.
    pub kind: SubjectKind,
    /// For people: a version, a platform, a file's name.
    pub name: &'a str,
    /// The digests of the same bytes, one for each algorithm.
    pub digests: &'a [&'a Digest],
}

/// A piece of evidence, by what it is called and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Where it can be asked for.
    pub uri: String,
    /// Its digest.
    pub digest: Digest,
}

/// The statement for a promotion, as canonical JSON: the same input gives the same bytes.
pub fn build(trust: &Trust, verification: &Verification<'_>) -> Result<Vec<u8>, Failure> {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let subjects: Vec<Value> = verification.subjects.iter().map(SummarySubject::written).collect();
    let mut predicate = json!({
        "verifier": {"id": trust.verifier_id, "version": {"proofmark": env!("CARGO_PKG_VERSION")}},
        "timeVerified": time(verification.time_verified),
        "resourceUri": trust.resource_uri(verification.environment, verification.repository),
        "policy": {"uri": verification.policy_uri, "digest": digests([verification.policy_digest])},
        "verificationResult": "PASSED",
        "verifiedLevels": verification.levels,
        "slsaVersion": "1.2",
    });
    predicate[trust.valid_until_field()] = json!(time(verification.valid_until));
    if verification.running {
        predicate[format!("{}/evaluation", trust.verifier_id)] = json!("running");
    }
    if !verification.inputs.is_empty() {
        let input = |input: &Input| json!({"uri": input.uri, "digest": digests([&input.digest])});
        predicate["inputAttestations"] = verification.inputs.iter().map(input).collect();
    }
    serde_json_canonicalizer::to_vec(&json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }))
    .map_err(|error| Failure::new("writing a verification summary", error))
}

impl SummarySubject<'_> {
    fn written(&self) -> Value {
        let mut subject = json!({"name": self.name, "digest": digests(self.digests.iter().copied())});
        match self.kind {
            SubjectKind::Manifest => {}
            SubjectKind::File => subject["annotations"] = json!({KIND.0: KIND.1}),
        }
        subject
    }
}

impl SubjectKind {
    fn of(subject: &Subject) -> Self {
        if subject.annotations.get(KIND.0).is_some_and(|kind| kind == KIND.1) {
            Self::File
        } else {
            Self::Manifest
        }
    }
}

fn digests<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Map<String, Value> {
    digests.into_iter().map(|d| (d.algorithm().as_str().to_owned(), d.hex().into())).collect()
}

/// Which of a summary's subjects the bytes must be. The first subject is what was promoted, called by its version;
/// the children of an index follow it, called by their platforms.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Any: the bytes were named by their digest.
    Any,
    /// What was promoted.
    Whole,
    /// What was promoted, under this version.
    Version(&'a Tag),
    /// The child of an index for this platform, or what was promoted where that is no index.
    Platform(&'a Platform),
}

/// What a consumer wants to know of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Expectations<'a> {
    /// The bytes at hand.
    pub digest: &'a Digest,
    /// What they are used as.
    pub kind: SubjectKind,
    /// Which of the subjects they are.
    pub part: Part<'a>,
    /// The repository it came from.
    pub repository: &'a RepositoryName,
    /// Where it is to run.
    pub environment: &'a EnvironmentName,
    /// A level that must be among the verified ones.
    pub level: Option<&'a str>,
    /// How long ago it may have been verified.
    pub max_age: Option<TimeDelta>,
    /// The time at which the summary must hold.
    pub at: DateTime<Utc>,
}

/// What a summary that passed says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The key that signed it.
    pub key_id: String,
    /// Who verified.
    pub verifier_id: String,
    /// What was verified.
    pub digest: Digest,
    /// The version that was promoted, where it has one: what the first subject is called.
    pub version: Option<String>,
    /// Where it may run.
    pub resource_uri: String,
    /// By which policy.
    pub policy: Input,
    /// The levels that hold.
    pub levels: Vec<String>,
    /// When it was verified.
    pub time_verified: DateTime<Utc>,
    /// Until when it may be relied on.
    pub valid_until: DateTime<Utc>,
}

/// Why a summary is not relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each is its own sentence")]
pub enum Refused {
    #[error("this is not a signed verification summary: {0}")]
    Malformed(String),
    #[error("no summary key of the trust file signed it")]
    UnknownKey,
    #[error("the key {key_id} that signed it was not in force at {at}")]
    KeyNotInForce { key_id: String, at: DateTime<Utc> },
    #[error("the key {key_id} that signed it was revoked at {at}: nothing that it signed is believed")]
    KeyRevoked { key_id: String, at: DateTime<Utc> },
    #[error("the signed statement is of type {0}, not a verification summary")]
    OtherPredicate(String),
    #[error("it is about something else: {0} is not among its subjects")]
    OtherSubject(Digest),
    #[error("{0} is an artifact's file there and no manifest: check the file itself (`--file`)")]
    OnlyAFile(Digest),
    #[error("{0} is a manifest there and no artifact's file: check it by its digest (`--digest`)")]
    OnlyAManifest(Digest),
    #[error(
        "{0} is only a part of what was promoted there, and all of it was asked for: check the part by its digest"
    )]
    OnlyAPart(Digest),
    #[error(
        "it calls what was promoted {found:?}, and version {expected} was asked for; a tag that moves is checked by \
         its digest"
    )]
    OtherVersion { found: String, expected: Tag },
    #[error("{digest} is not its image for {platform}")]
    OtherPlatform { digest: Digest, platform: Platform },
    #[error("its verifier is {found}, and the trust file's key belongs to {expected}")]
    OtherVerifier { found: String, expected: String },
    #[error("it is for {found}, not for {expected}")]
    OtherResource { found: String, expected: String },
    #[error("its verification result is {0}, not PASSED")]
    NotPassed(String),
    #[error("{0} is not among its verified levels")]
    LevelMissing(String),
    #[error("it says that it was verified at {0}, which is still to come: check this machine's clock")]
    FromTheFuture(DateTime<Utc>),
    #[error("it was verified at {0}, longer ago than was asked for")]
    TooOld(DateTime<Utc>),
    #[error("it was valid until {0}: ask the registry for the known-good version again")]
    Expired(DateTime<Utc>),
}

/// Clocks of two machines may differ by this much.
const SKEW: TimeDelta = TimeDelta::minutes(5);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    verifier: Verifier,
    time_verified: DateTime<Utc>,
    resource_uri: String,
    policy: Policy,
    verification_result: String,
    verified_levels: Vec<String>,
}

#[derive(Deserialize)]
struct Verifier {
    id: String,
}

#[derive(Deserialize)]
struct Policy {
    uri: String,
    digest: Map<String, Value>,
}

/// Does what a consumer must do with a summary: a summary key of the trust file signed it, it is
/// about these bytes, it is a verification summary, its verifier is the key's owner, it is for this
/// repository in this environment, it passed, it has the wanted level; and it has not expired.
pub fn check(envelope: &[u8], trust: &Trust, expected: &Expectations<'_>) -> Result<Checked, Refused> {
    let (key, statement) = signed_statement(envelope, trust)?;
    if statement.predicate_type != PREDICATE_TYPE {
        return Err(Refused::OtherPredicate(statement.predicate_type));
    }
    is_about(&statement, expected)?;
    let whole = statement.subjects.first().and_then(|subject| subject.name.clone());
    let valid_until = statement.predicate.get(trust.valid_until_field()).cloned();
    let malformed = |error: serde_json::Error| Refused::Malformed(error.to_string());
    let said: Predicate = serde_json::from_value(statement.predicate).map_err(malformed)?;
    if said.verifier.id != trust.verifier_id {
        return Err(Refused::OtherVerifier { found: said.verifier.id, expected: trust.verifier_id.clone() });
    }
    let resource_uri = trust.resource_uri(expected.environment, expected.repository);
    if said.resource_uri != resource_uri {
        return Err(Refused::OtherResource { found: said.resource_uri, expected: resource_uri });
    }
    if said.verification_result != "PASSED" {
        return Err(Refused::NotPassed(said.verification_result));
    }
    if let Some(level) = expected.level.filter(|level| !said.verified_levels.iter().any(|l| l == level)) {
        return Err(Refused::LevelMissing(level.to_owned()));
    }
    let Some(valid_until) = valid_until else {
        return Err(Refused::Malformed(format!("it has no {}", trust.valid_until_field())));
    };
    let valid_until: DateTime<Utc> = serde_json::from_value(valid_until).map_err(malformed)?;
    in_time(&key, said.time_verified, valid_until, expected)?;
    Ok(Checked {
        key_id: key.key_id,
        verifier_id: said.verifier.id,
        digest: expected.digest.clone(),
        version: whole.filter(|name| name != expected.repository.as_str()),
        resource_uri,
        policy: policy(said.policy)?,
        levels: said.verified_levels,
        time_verified: said.time_verified,
        valid_until,
    })
}

fn is_about(statement: &Statement, expected: &Expectations<'_>) -> Result<(), Refused> {
    let mut kinds = statement.subjects.iter().filter(|s| s.is(expected.digest)).map(SubjectKind::of);
    let Some(first) = kinds.next() else { return Err(Refused::OtherSubject(expected.digest.clone())) };
    if first == expected.kind || kinds.any(|kind| kind == expected.kind) {
        return is_the_part(&statement.subjects, expected);
    }
    Err(match expected.kind {
        SubjectKind::Manifest => Refused::OnlyAFile(expected.digest.clone()),
        SubjectKind::File => Refused::OnlyAManifest(expected.digest.clone()),
    })
}

/// A digest alone does not say what it was signed as: an index is no child of it, nor one version another.
fn is_the_part(subjects: &[Subject], expected: &Expectations<'_>) -> Result<(), Refused> {
    let digest = expected.digest;
    let of_kind = |subject: &&Subject| SubjectKind::of(subject) == expected.kind;
    let (whole, parts) = subjects.split_first().ok_or_else(|| Refused::OtherSubject(digest.clone()))?;
    let is_whole = of_kind(&whole) && whole.is(digest);
    match expected.part {
        Part::Whole | Part::Version(_) if !is_whole => Err(Refused::OnlyAPart(digest.clone())),
        Part::Version(version) if whole.name.as_deref() != Some(version.as_str()) => {
            let found = whole.name.clone().unwrap_or_default();
            Err(Refused::OtherVersion { found, expected: version.clone() })
        }
        Part::Any | Part::Whole | Part::Version(_) => Ok(()),
        // Of what is no index the summary does not say for which platform it is.
        Part::Platform(_) if is_whole && !parts.iter().any(|part| of_kind(&part)) => Ok(()),
        Part::Platform(platform) => {
            let name = |part: &Subject| part.name.as_deref()?.parse::<Platform>().ok();
            let runs = |part: &Subject| name(part).is_some_and(|image| platform.runs(&image).is_some());
            if parts.iter().filter(of_kind).any(|part| part.is(digest) && runs(part)) {
                return Ok(());
            }
            Err(Refused::OtherPlatform { digest: digest.clone(), platform: platform.clone() })
        }
    }
}

fn signed_statement(envelope: &[u8], trust: &Trust) -> Result<(TrustedKey, Statement), Refused> {
    let malformed = |error: &dyn std::fmt::Display| Refused::Malformed(error.to_string());
    let envelope = Envelope::parse(envelope).map_err(|error| malformed(&error))?;
    let trusted = trust.keys.get(&KeyRole::Summary).map_or(&[][..], Vec::as_slice);
    let keys = trusted
        .iter()
        .map(|key| {
            let scheme = match key.scheme {
                TrustedScheme::Ed25519 => Scheme::Ed25519,
            };
            let read = PublicKey::from_pem(&key.public_key, Some(scheme))
                .map_err(|error| Refused::Malformed(format!("a key of the trust file: {error}")))?;
            if read.id().as_str() != key.key_id {
                let (said, id) = (&key.key_id, read.id().as_str());
                return Err(Refused::Malformed(format!(
                    "a key of the trust file is {id}, and its key_id {said:?}"
                )));
            }
            Ok(read)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let verified =
        verify(&envelope, &keys.iter().collect::<Vec<_>>()).map_err(|unproved| match unproved {
            Unproved::NoSignature | Unproved::Certificate | Unproved::UnknownKey => Refused::UnknownKey,
            Unproved::Foreign(why) | Unproved::Malformed(why) => Refused::Malformed(why),
        })?;
    // Of several keys that signed it, one that is not revoked is enough.
    let key =
        verified.keys().filter_map(|place| trusted.get(place)).min_by_key(|key| key.revoked_at.is_some());
    let key = key.ok_or(Refused::UnknownKey)?;
    if let Some(at) = key.revoked_at {
        return Err(Refused::KeyRevoked { key_id: key.key_id.clone(), at });
    }
    Ok((key.clone(), verified.content().clone()))
}

fn in_time(
    key: &TrustedKey,
    time_verified: DateTime<Utc>,
    valid_until: DateTime<Utc>,
    expected: &Expectations<'_>,
) -> Result<(), Refused> {
    if time_verified < key.valid_from || key.valid_until.is_some_and(|end| time_verified >= end) {
        return Err(Refused::KeyNotInForce { key_id: key.key_id.clone(), at: time_verified });
    }
    if time_verified > expected.at + SKEW {
        return Err(Refused::FromTheFuture(time_verified));
    }
    if expected.max_age.is_some_and(|age| expected.at - time_verified > age) {
        return Err(Refused::TooOld(time_verified));
    }
    if expected.at >= valid_until {
        return Err(Refused::Expired(valid_until));
    }
    Ok(())
}

fn policy(policy: Policy) -> Result<Input, Refused> {
    let mut digests = policy.digest.iter().filter_map(|(algorithm, hex)| {
        format!("{algorithm}:{}", hex.as_str().unwrap_or_default()).parse::<Digest>().ok()
    });
    match digests.next() {
        Some(digest) => Ok(Input { uri: policy.uri, digest }),
        None => Err(Refused::Malformed("its policy has no digest".into())),
    }
}

#[cfg(test)]
mod tests;
