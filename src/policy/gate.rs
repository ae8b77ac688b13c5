//! The gates a policy may demand: a closed set, unknown fields refused. Those of the model that are
//! not built (sbom, window, budget, requires, expr; kev, epss, levels) are unknown here, so a policy
//! that asks for them is refused when it is saved, never passed by.

use super::gates::origin::{PROVENANCE, SIGNATURE};
use super::{Aspect, Severity, Span, Target};
use crate::names::{EnvironmentName, Pattern};
use chrono::{DateTime, Utc};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use utoipa::ToSchema;

/// What a gate's failing does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Refuses.
    #[default]
    Enforce,
    /// Allows, with a warning.
    Warn,
    /// Allows; the answer only shows what it would have said.
    DryRun,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// A trusted signature.
    SignedBy(SignedBy),
    /// Trusted provenance from a known builder.
    Provenance(Provenance),
    /// A trusted statement of some type, such as a test result.
    Attestation(Attested),
    /// Recent scans without findings of some severity.
    Scan(Scanned),
    /// Stood in other environments first.
    PromotedIn(PromotedIn),
    /// People said yes.
    Approvals(Approvals),
    /// Not too fresh.
    MinAge(#[serde(deserialize_with = "span_or_fields")] MinAge),
}

/// What a statement has to be about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// What is promoted; a statement about an index counts for its images.
    #[default]
    Index,
    /// Each image that a runtime may run; a statement about the index does not count.
    EachImage,
}

/// What a later FAILED of a counted test does to what runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailed {
    /// It ends the version, until a newer PASSED.
    #[default]
    End,
    /// It puts the version at risk.
    AtRisk,
}

/// What every gate may carry beside its own fields.
pub(super) struct Terms<'a> {
    pub mode: Mode,
    pub effective_on: Option<DateTime<Utc>>,
    pub solution: &'a str,
}

macro_rules! gate {
    ($(#[$doc:meta])* $name:ident, $solution:literal { $($(#[$meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$meta])* pub $field: $kind,)*
            /// What its failing does [default: enforce].
            #[serde(default)]
            pub mode: Mode,
            /// Before this time the gate only warns.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub effective_on: Option<DateTime<Utc>>,
            /// The message for the caller that is refused.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub solution: Option<String>,
        }

        impl $name {
            fn terms(&self) -> Terms<'_> {
                Terms {
                    mode: self.mode,
                    effective_on: self.effective_on,
                    solution: self.solution.as_deref().unwrap_or($solution),
                }
            }
        }
    };
}

gate! {
    /// A registered signer that is trusted for the repository signed the digest: cosign's signature, or the statement
    /// that `proofmark sign` makes. A test result, a report or an SBOM by the signer is no signature.
    SignedBy, "sign the digest with the key of one of the policy's signers (`proofmark sign`, cosign sign), and promote again" {
        /// Names of signers.
        any_of: Several<String>,
        /// How many different ones of them must have signed [default: 1].
        #[serde(default = "one")]
        at_least: u32,
        /// Statements of this predicate type count, and no signatures [default: signatures,
        /// `https://sigstore.dev/cosign/sign/v1`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        predicate: Option<String>,
        /// Whether a statement about the index counts for its images, or each image needs its own
        /// [default: index].
        #[serde(default)]
        of: Of,
        /// From this time on the gate counts for what runs as well; before, and without it, a stricter gate
        /// ends nothing that was promoted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enforce_on_running_from: Option<DateTime<Utc>>,
    }
}

gate! {
    /// SLSA provenance (v1 or v0.2) by a trusted signer. Signer and builder are demanded together.
    Provenance, "build with a builder of the policy, record its signed provenance, and promote again" {
        /// Names of signers [default: every signer that is registered for provenance here].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Several<String>>,
        /// Patterns of builder ids.
        builders: Several<Pattern>,
        /// Patterns of build types. A source stands where its build type defines it; provenance of a type that is
        /// neither built in nor declared names none [default: any].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        build_types: Option<Several<Pattern>>,
        /// Patterns of sources, such as `https://git.example/payments/*`. Spelling does not matter: `git+`, a user,
        /// `.git`, a trailing slash and the case of the host are left out on both sides [default: any].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sources: Option<Several<Pattern>>,
        /// Branches: `main` is `refs/heads/main` [default: any].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branches: Option<Several<String>>,
        /// Whether a statement about the index counts for its images, or each image needs its own
        /// [default: index].
        #[serde(default)]
        of: Of,
        /// From this time on the gate counts for what runs as well; before, and without it, a stricter gate
        /// ends nothing that was promoted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enforce_on_running_from: Option<DateTime<Utc>>,
    }
}

gate! {
    /// A statement of a type by a trusted signer. A test result or verification summary that says FAILED satisfies
    /// nothing. A test is a signer, a type and the names in the configuration, in any order. Each test of which there
    /// is a result must be passed: one result as demanded must be newer than every FAILED of it. Where both state
    /// when they were signed (`proofmark attest` does), that decides; otherwise the FAILED counts from its newest
    /// receipt, and the other one only if it was recorded through `POST /api/v1/attestations`.
    Attested, "record a statement of the demanded type by one of the policy's signers, and promote again" {
        /// The predicate type.
        #[serde(rename = "type")]
        predicate_type: String,
        /// Names of signers [default: every signer that is registered for the type here].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Several<String>>,
        /// The result that a test result or verification summary must have; `any` is every one but FAILED
        /// [default: PASSED, for these types].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<TestResult>,
        /// Statements received longer ago do not count for a promotion [default: all count].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_age: Option<Span>,
        /// What a later FAILED of a test that the promotion counted does to what runs [default: end].
        #[serde(default)]
        on_failed: OnFailed,
        /// Whether a statement about the index counts for its images, or each image needs its own
        /// [default: index].
        #[serde(default)]
        of: Of,
        /// From this time on the gate counts for what runs as well; before, and without it, a stricter gate
        /// ends nothing that was promoted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enforce_on_running_from: Option<DateTime<Utc>>,
    }
}

gate! {
    /// Every image was scanned recently, and no run that counts has a finding that is denied. For each scanner, kind
    /// and target the newest run counts. A report that nobody signed is the word of who may record scans, about what
    /// the scanner was told to look at as well: `signed_by` demands signed ones.
    Scanned, "scan the image with an up-to-date database, fix or waive what is found, and promote again" {
        /// Only these scanners count [default: every scanner's newest run].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scanners: Option<Several<String>>,
        /// Only vulnerability reports in statements of these signers count (in-toto `vulns/v0.2`, cosign `vuln/v1`)
        /// [default: reports count, and statements of every signer that is registered for the type here].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signed_by: Option<Several<String>>,
        /// What must have been looked for recently [default: vulnerabilities].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kinds: Option<Several<ScanKind>>,
        /// The targets whose vulnerabilities must have been looked for recently [default: all that a run of the
        /// image has shown].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        targets: Option<Several<Target>>,
        /// How long ago a scan may be.
        max_age: Span,
        /// How old the scanner's database may be [default: not asked].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        database_max_age: Option<Span>,
        /// What must not be found [default: nothing is denied].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny: Option<Deny>,
        /// Only vulnerabilities that have a fix count; secrets and others count in any case [default: false].
        #[serde(default, deserialize_with = "truth")]
        fixable_only: bool,
        /// What a finding without a severity does [default: warn, where something is denied].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unrated: Option<Word>,
        /// What a finding does that would be denied if the scanner had not suppressed it, by an ignore file or a VEX
        /// document [default: warn].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        suppressed: Option<Word>,
        /// What a distribution does that gets no more advisories [default: warn].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_of_life: Option<Word>,
        /// Whether a report counts as a scan that names no digest of what was scanned. What it found counts in any
        /// case [default: deny for images, warn for files].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unbound: Option<Word>,
        /// By severity, how long what already runs goes on after a finding became known. A severity that is
        /// not named has the grace of the next lower one that is.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        grace: BTreeMap<Severity, Span>,
        /// From this time on the gate counts for what runs as well; before, and without it, a stricter gate
        /// ends nothing that was promoted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enforce_on_running_from: Option<DateTime<Utc>>,
    }
}

gate! {
    /// The same bytes were promoted in each of these environments, and stood there long enough.
    PromotedIn, "promote it to the earlier environment first, wait for the soak time there, then promote again" {
        /// The environments, all of them.
        environments: Several<EnvironmentName>,
        /// How long in one stretch [default: 0s].
        #[serde(default = "zero")]
        soak: Span,
    }
}

gate! {
    /// Different people approved the bytes for the environment.
    Approvals, "ask the approvers for their approval, and promote again" {
        /// How many.
        count: u32,
        /// Names of principals that count, as patterns [default: everybody with the right to approve].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Several<Pattern>>,
        /// Who pushed it or gave it a version does not count [default: true].
        #[serde(default = "yes", deserialize_with = "truth")]
        not_author: bool,
    }
}

gate! {
    /// The manifest was pushed at least so long ago.
    MinAge, "wait until the release is old enough" {
        /// How long.
        age: Span,
    }
}

/// What a scanner looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each is the word itself")]
pub enum ScanKind {
    Vulnerabilities,
    Secrets,
    Misconfigurations,
    Licenses,
}

impl ScanKind {
    /// The aspect of runs that have looked for it.
    pub(super) fn aspect(self) -> Aspect {
        match self {
            Self::Vulnerabilities => Aspect::Vulnerabilities,
            Self::Secrets => Aspect::Secrets,
            Self::Misconfigurations => Aspect::Misconfigurations,
            Self::Licenses => Aspect::Licenses,
        }
    }
}

/// What something does that leaves a scan open to doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Nothing.
    Allow,
    /// The answer warns.
    Warn,
    /// It denies.
    Deny,
}

/// What a scan must not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// This severity and every worse one.
    pub severity: Severity,
}

/// A result that may be demanded, as in-toto's predicate names it. FAILED is refused when a policy is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "each is the word itself")]
pub enum TestResult {
    Passed,
    Warned,
    Failed,
    #[serde(rename = "any")]
    Any,
}

impl Scanned {
    /// What findings without a severity do.
    pub(super) fn unrated(&self) -> Word {
        self.unrated.unwrap_or(if self.deny.is_some() { Word::Warn } else { Word::Allow })
    }

    /// What suppressed findings do.
    pub(super) fn suppressed(&self) -> Word {
        self.suppressed.unwrap_or(Word::Warn)
    }

    /// What an end-of-life distribution does.
    pub(super) fn end_of_life(&self) -> Word {
        self.end_of_life.unwrap_or(Word::Warn)
    }

    /// What a report does that names no digest.
    pub(super) fn unbound(&self, is_image: bool) -> Word {
        self.unbound.unwrap_or(if is_image { Word::Deny } else { Word::Warn })
    }

    /// The grace of a severity: its own, or that of the next lower one that has one.
    pub(super) fn grace_of(&self, severity: Severity) -> Option<Span> {
        self.grace.range(..=severity).next_back().map(|(_, grace)| *grace)
    }
}

impl TestResult {
    /// The word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "PASSED",
            Self::Warned => "WARNED",
            Self::Failed => "FAILED",
            Self::Any => "any",
        }
    }
}

/// One or more, at most a hundred. A list that is written but empty is a mistake, not "any".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(min_items = 1, max_items = 100)]
pub struct Several<T: Ord>(pub BTreeSet<T>);

impl<'de, T: Ord + Deserialize<'de>> Deserialize<'de> for Several<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = BTreeSet::deserialize(deserializer)?;
        if items.is_empty() || items.len() > 100 {
            return Err(serde::de::Error::custom("a list here has 1 to 100 items"));
        }
        Ok(Self(items))
    }
}

/// `min_age: 10m` is short for `min_age: { age: 10m }`.
fn span_or_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MinAge, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = MinAge;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a span such as 10m, or fields with an age")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MinAge, E> {
            let age = text.parse().map_err(E::custom)?;
            Ok(MinAge { age, mode: Mode::Enforce, effective_on: None, solution: None })
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MinAge, A::Error> {
            MinAge::deserialize(MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Either)
}

/// `true` or `false`, not words that YAML once took for one of them, quoted or not.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Truth;
    impl Visitor<'_> for Truth {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false, without quotes")
        }
        fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }
    }
    deserializer.deserialize_any(Truth)
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn zero() -> Span {
    Span::ZERO
}

impl Gate {
    /// Its name in a policy and in an answer.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SignedBy(_) => "signed_by",
            Self::Provenance(_) => "provenance",
            Self::Attestation(_) => "attestation",
            Self::Scan(_) => "scan",
            Self::PromotedIn(_) => "promoted_in",
            Self::Approvals(_) => "approvals",
            Self::MinAge(_) => "min_age",
        }
    }

    /// The scan gate, if it is one.
    pub(super) fn as_scan(&self) -> Option<&Scanned> {
        match self {
            Self::Scan(gate) => Some(gate),
            Self::SignedBy(_)
            | Self::Provenance(_)
            | Self::Attestation(_)
            | Self::PromotedIn(_)
            | Self::Approvals(_)
            | Self::MinAge(_) => None,
        }
    }

    /// The statements that it asks for: their predicate types, and their signer where it names some.
    pub(super) fn asked(&self) -> Vec<(&str, Option<&str>)> {
        let (kinds, by) = match self {
            Self::SignedBy(gate) => {
                (vec![gate.predicate.as_deref().unwrap_or(SIGNATURE)], Some(&gate.any_of))
            }
            Self::Provenance(gate) => (PROVENANCE.to_vec(), gate.by.as_ref()),
            Self::Attestation(gate) => (vec![gate.predicate_type.as_str()], gate.by.as_ref()),
            Self::Scan(_) | Self::PromotedIn(_) | Self::Approvals(_) | Self::MinAge(_) => return Vec::new(),
        };
        let of_kind = |kind| match by {
            None => vec![(kind, None)],
            Some(names) => names.0.iter().map(|name| (kind, Some(name.as_str()))).collect(),
        };
        kinds.into_iter().flat_map(of_kind).collect()
    }

    /// Whether it asks where the version comes from.
    pub(super) fn is_origin(&self) -> bool {
        matches!(self, Self::SignedBy(_) | Self::Provenance(_) | Self::Attestation(_))
    }

    /// Whether failing it refuses, at this time: not in another mode, and not before it takes effect.
    pub(super) fn is_enforced(&self, at: DateTime<Utc>) -> bool {
        let terms = self.terms();
        terms.mode == Mode::Enforce && terms.effective_on.is_none_or(|from| from <= at)
    }

    /// From when on it counts for what runs, of the gates that may: not before it takes effect, and never in
    /// another mode than `enforce`.
    pub fn enforced_on_running_from(&self) -> Option<DateTime<Utc>> {
        let from = match self {
            Self::SignedBy(gate) => gate.enforce_on_running_from,
            Self::Provenance(gate) => gate.enforce_on_running_from,
            Self::Attestation(gate) => gate.enforce_on_running_from,
            Self::Scan(gate) => gate.enforce_on_running_from,
            Self::PromotedIn(_) | Self::Approvals(_) | Self::MinAge(_) => None,
        }?;
        let terms = self.terms();
        (terms.mode == Mode::Enforce)
            .then(|| terms.effective_on.map_or(from, |effective| effective.max(from)))
    }

    pub(super) fn terms(&self) -> Terms<'_> {
        match self {
            Self::SignedBy(gate) => gate.terms(),
            Self::Provenance(gate) => gate.terms(),
            Self::Attestation(gate) => gate.terms(),
            Self::Scan(gate) => gate.terms(),
            Self::PromotedIn(gate) => gate.terms(),
            Self::Approvals(gate) => gate.terms(),
            Self::MinAge(gate) => gate.terms(),
        }
    }
}
