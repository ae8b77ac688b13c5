//! Facts: plain data about one release and one environment. Sets, so that their order cannot matter.

use super::{Aspect, Override, Severity, Signature, Waiver};
use crate::names::{self, Digest, EnvironmentName, RepositoryName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// All that a decision is made of, beside the policies and the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What is judged, and for where.
    pub subject: Subject,
    /// Open blocks on the bytes, or on those of a child.
    pub blocks: BTreeSet<Block>,
    /// Open holds on the repository, the environment, or both.
    pub holds: BTreeSet<Hold>,
    /// Statements about the bytes that some registered key signed, of those that the gates ask for and of results of
    /// tests of which one is FAILED.
    pub attestations: BTreeSet<Attestation>,
    /// By signers of whom a gate misses a signature: the types of their other statements about the bytes, for its
    /// message.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_statements: BTreeMap<String, BTreeSet<String>>,
    /// Signers that are believed for the repository and of which a key does not count yet: pending envelopes are
    /// being verified by it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub verifying: BTreeSet<String>,
    /// The newest run of each scanner, for the subject and each of its children.
    pub scans: BTreeSet<Scan>,
    /// Where the bytes were promoted to in this repository.
    pub stays: BTreeSet<Stay>,
    /// Open approvals of the bytes for this environment.
    pub approvals: BTreeSet<Approval>,
    /// Approved waivers whose scope contains the subject and that name something that was found.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub waivers: BTreeSet<Waiver>,
    /// Overrides of the bytes for this environment, expired and ended ones among them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub overrides: BTreeSet<Override>,
}

/// What is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The repository.
    pub repository: RepositoryName,
    /// The environment.
    pub environment: EnvironmentName,
    /// The manifest, as it is named there.
    pub digest: Digest,
    /// The SHA-256 of the same bytes.
    pub sha256: Digest,
    /// When it was pushed.
    pub pushed_at: DateTime<Utc>,
    /// Of those who approve it, who pushed it or a part of it, in whichever repository; nobody approves their own.
    pub authors: BTreeSet<String>,
    /// The children when it is an index; empty otherwise.
    pub platforms: BTreeSet<Platform>,
}

/// A child of an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The child's manifest, as the index names it.
    pub digest: Digest,
    /// The SHA-256 of the same bytes.
    pub sha256: Digest,
    /// `os[(version)]/architecture[/variant]`, if the index or the image's config says. Text as it was
    /// recorded, since a decision's inputs keep their bytes.
    pub platform: Option<String>,
    /// The place in the index's list, if it is known; of two images that fit, runtimes take the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<i32>,
}

impl Platform {
    /// Build tools put documents about an image beside it in the index, under this platform. No
    /// runtime selects them, so they are neither scanned nor served.
    pub fn is_document(&self) -> bool {
        self.parsed().is_some_and(|platform| platform.is_unknown())
    }

    /// What it runs on.
    pub fn parsed(&self) -> Option<names::Platform> {
        self.platform.as_ref()?.parse().ok()
    }
}

/// Bytes that must not run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Block {
    /// The block's id.
    pub id: i64,
    /// The SHA-256 of the bytes that are blocked.
    pub sha256: Digest,
    /// Where; everywhere when there is none.
    pub environment: Option<EnvironmentName>,
    /// Why.
    pub why: String,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
    /// Who blocked it.
    pub by: String,
}

/// Promotions are stopped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hold {
    /// The hold's id.
    pub id: i64,
    /// Why.
    pub why: String,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
    /// Who holds.
    pub by: String,
}

/// A statement about the subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attestation {
    /// Its row; later statements have higher ones.
    pub id: i64,
    /// The envelope's digest.
    pub envelope: Digest,
    /// The SHA-256 of what it is about: of the subject, of an image of it, or of both.
    #[serde(default)]
    pub about: BTreeSet<Digest>,
    /// Manifests around a file that it is about, which are not the registry's own manifest of it. For them it counts
    /// only where an earlier release counted it for what runs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub formerly_about: BTreeSet<Digest>,
    /// What it states.
    pub predicate_type: String,
    /// The builder that provenance names.
    pub builder: Option<String>,
    /// The build type that provenance names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_type: Option<String>,
    /// The source that provenance names by the rules of its build type.
    pub source: Option<String>,
    /// The branch or tag that provenance names, such as `refs/heads/main`.
    pub source_ref: Option<String>,
    /// The commit that provenance names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether this release has still to read what provenance names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
    /// What earlier readers, or earlier declarations of the build type, read: what was promoted by it goes on.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub earlier_origins: BTreeSet<EarlierOrigin>,
    /// PASSED, WARNED or FAILED, of a test result or a verification summary.
    pub result: Option<String>,
    /// The configuration of the test; the names in it tell which test the result is of.
    pub configuration: Option<String>,
    /// When the registry received it.
    pub received_at: DateTime<Utc>,
    /// When a result was signed, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<DateTime<Utc>>,
    /// The registered keys that signed it.
    pub signatures: BTreeSet<Signature>,
}

/// An earlier reading of where something was built from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EarlierOrigin {
    /// The build type; nothing where that was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_type: Option<String>,
    /// The source.
    pub source: Option<String>,
    /// The branch or tag.
    pub source_ref: Option<String>,
}

/// One run of a scanner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scan {
    /// The run's id.
    pub id: i64,
    /// The SHA-256 of the bytes that were scanned.
    pub sha256: Digest,
    /// Which scanner.
    pub scanner: String,
    /// When it ran.
    pub scanned_at: DateTime<Utc>,
    /// How old its knowledge was.
    pub database_updated_at: Option<DateTime<Utc>>,
    /// The raw report, an artifact that refers to the subject.
    pub report: Digest,
    /// The digest of what it found; it stands for `findings` among a decision's inputs.
    pub finding_set: Digest,
    /// The parts of its scope for which no newer run took its place. Its findings of these are the ones that count.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub covers: BTreeSet<Aspect>,
    /// Whether it is a run on a container image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_image: bool,
    /// Whether the report itself names what was scanned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_bound: bool,
    /// What the report states of how the run was made.
    #[serde(default)]
    pub scope: ScanScope,
    /// Whether an administrator retracted it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retracted: bool,
    /// The signed statement that is the report, and its signer; nothing for a report that nobody signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<SignedReport>,
    /// What it found of the parts that it covers, at least all that some gate could deny.
    #[serde(skip)]
    pub findings: BTreeSet<Finding>,
    /// Since when each vulnerability is known for these bytes, where grace may count.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub known: BTreeSet<Known>,
}

/// What a report states of how its run was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ScanScope {
    /// What the scanner was told to leave out; `None` where the report does not state it, which counts as nothing.
    pub filters: Option<BTreeSet<String>>,
    /// The distribution.
    pub distribution: Option<String>,
    /// Whether the distribution gets no more advisories.
    pub end_of_life: Option<bool>,
    /// Whether the scanner found its database usable.
    pub database_valid: Option<bool>,
    /// Errors that the scanner itself reports.
    pub errors: BTreeSet<String>,
}

/// A report in a signed statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SignedReport {
    /// The envelope's digest.
    pub envelope: Digest,
    /// One of its signers.
    pub signer: String,
}

/// Since when a vulnerability is known for some bytes, with a severity and with or without a fix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Known {
    /// The vulnerability.
    pub vulnerability: String,
    /// The severity with which a scanner reported it.
    pub severity: Severity,
    /// Whether a version without it existed.
    pub fixable: bool,
    /// When that was first received.
    pub since: DateTime<Utc>,
    /// When a scanner no longer suppressed it, after one had: once, the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsuppressed_at: Option<DateTime<Utc>>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The CVE where one is known.
    pub vulnerability: String,
    /// The package.
    pub package: String,
    /// Its version.
    pub installed: String,
    /// Whether a version without it exists.
    pub fixable: bool,
    /// Other names of the vulnerability.
    #[serde(default)]
    pub aliases: BTreeSet<String>,
    /// The package URL, where the scanner gives one.
    #[serde(default)]
    pub purl: Option<String>,
    /// The part of the run's scope that it belongs to.
    pub aspect: Aspect,
    /// The file in which it was found.
    #[serde(default)]
    pub path: Option<String>,
    /// Why the scanner suppressed it; an open finding has no reason.
    #[serde(default)]
    pub suppressed: Option<String>,
}

/// The bytes stand, or stood, in an environment: the newest stretch without another version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stay {
    /// Where.
    pub environment: EnvironmentName,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Until another version took its place; nothing while it is the current one.
    pub until: Option<DateTime<Utc>>,
    /// It ended with a rollback: what was found wrong there is no proof for elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolled_back: bool,
}

/// Somebody approved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Approval {
    /// The approval's id.
    pub id: i64,
    /// Who.
    pub by: String,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
    /// Whether the approver holds the right to approve here now. An approval counts only while it is so.
    #[serde(default = "yes")]
    pub authorized: bool,
}

fn yes() -> bool {
    true
}

impl Facts {
    /// What a runtime would run of the subject: the children of an index, or the subject itself. An
    /// index of nothing but documents could be no more than a disguise: then all of them count.
    pub(super) fn runnable(&self) -> Vec<(&Digest, &Digest)> {
        if self.subject.platforms.is_empty() {
            return vec![(&self.subject.digest, &self.subject.sha256)];
        }
        let platforms = &self.subject.platforms;
        let only_documents = platforms.iter().all(Platform::is_document);
        let run = platforms.iter().filter(|platform| only_documents || !platform.is_document());
        run.map(|platform| (&platform.digest, &platform.sha256)).collect()
    }
}
