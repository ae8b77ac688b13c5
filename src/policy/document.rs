//! A policy as it is written: YAML or JSON, parsed once, named by the digest of its canonical form.

use super::gate::{Attested, Scanned, TestResult};
use super::gates::origin::missing_signers;
use super::results;
use super::{Facts, Gate, Mode, Severity, Span};
use crate::failure::Failure;
use crate::json;
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName, never_matches};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Bytes of a policy at the most.
pub const MAX_POLICY_BYTES: usize = 256 << 10;

const MAX_GATES: usize = 64;

const MAX_SOLUTION_CHARS: usize = 1000;

/// What must hold before anything of some repositories is promoted to an environment. Where several
/// policies cover a repository, all gates of all of them must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name within the environment [default: default].
    #[serde(default)]
    pub name: PolicyName,
    /// The environment it guards.
    pub environment: EnvironmentName,
    /// The repositories it covers.
    pub repositories: BTreeSet<Pattern>,
    /// Within what time after its creation another person reviews an override; `0s` is before it counts. An
    /// override that was not reviewed in time counts for no new promotion, and ends nothing that runs. Of several
    /// policies the smallest time counts [default: 24h].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_review: Option<Span>,
    /// Its gates; an empty list allows whatever is not blocked or held.
    pub gates: Vec<Gate>,
}

/// The time of the policies that cover a release channel within which an override is reviewed: the smallest.
pub fn override_review<'a>(covering: impl IntoIterator<Item = &'a Policy>) -> Span {
    let times = covering.into_iter().map(|policy| policy.override_review.unwrap_or(Span::DAY));
    times.min().unwrap_or(Span::DAY)
}

/// A policy's name: the grammar of an environment's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct PolicyName(EnvironmentName);

impl PolicyName {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl std::str::FromStr for PolicyName {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let message =
            "a policy's name is at most 63 lower-case letters and digits, with '.', '_' or '-' between";
        text.parse().map(Self).map_err(|_| message)
    }
}

impl Default for PolicyName {
    #[allow(clippy::expect_used, reason = "a constant of the right grammar, shown by a test")]
    fn default() -> Self {
        Self("default".parse().expect("a name"))
    }
}

/// Not a policy, with where and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidPolicy {
    /// What is wrong.
    pub message: String,
    /// The line, from 1, if it is at one.
    pub line: Option<u64>,
    /// The column, from 1.
    pub column: Option<u64>,
}

impl InvalidPolicy {
    fn nowhere(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: None, column: None }
    }
}

impl Policy {
    /// Parses a policy in YAML; JSON is YAML, so both go this way. Nesting, anchors and size are
    /// bounded.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidPolicy> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(InvalidPolicy::nowhere(format!("a policy has at most {MAX_POLICY_BYTES} bytes")));
        }
        let text = json::utf8(text).map_err(|other| {
            InvalidPolicy::nowhere(format!("a policy is UTF-8 text, and this is {other}"))
        })?;
        let text = std::str::from_utf8(text).map_err(|_| InvalidPolicy::nowhere("a policy is UTF-8 text"))?;
        let options = serde_saphyr::options! { with_snippet: false };
        let policy: Self = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let location = error.location();
            InvalidPolicy {
                message: error.without_snippet().to_string(),
                line: location.map(|at| at.line()),
                column: location.map(|at| at.column()),
            }
        })?;
        policy.check()
    }

    /// Reads the canonical form back.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(bytes).map_err(|error| Failure::new("reading a stored policy", error))
    }

    fn check(mut self) -> Result<Self, InvalidPolicy> {
        self.write_out_results();
        if self.repositories.is_empty() || self.repositories.len() > 100 {
            return Err(InvalidPolicy::nowhere(
                "repositories: 1 to 100 patterns, such as \"payments/*\" or \"**\"",
            ));
        }
        if self.gates.len() > MAX_GATES {
            return Err(InvalidPolicy::nowhere(format!("gates: at most {MAX_GATES}")));
        }
        for gate in &self.gates {
            let solution = gate.terms().solution;
            let plain = !solution.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
            if !plain || solution.chars().count() > MAX_SOLUTION_CHARS {
                return Err(InvalidPolicy::nowhere(format!(
                    "{}: a solution is at most {MAX_SOLUTION_CHARS} characters of text, without control characters",
                    gate.name()
                )));
            }
            match gate {
                Gate::PromotedIn(gate) if gate.environments.0.contains(&self.environment) => {
                    return Err(InvalidPolicy::nowhere("promoted_in: an environment cannot wait for itself"));
                }
                Gate::Attestation(gate) if gate.result == Some(TestResult::Failed) => {
                    return Err(InvalidPolicy::nowhere(
                        "attestation: a statement that says FAILED satisfies no gate; result is PASSED, WARNED or any",
                    ));
                }
                Gate::Approvals(gate) if gate.count == 0 => {
                    return Err(InvalidPolicy::nowhere("approvals: count is at least 1"));
                }
                Gate::SignedBy(gate)
                    if gate.at_least == 0 || gate.at_least as usize > gate.any_of.0.len() =>
                {
                    return Err(InvalidPolicy::nowhere(
                        "signed_by: at_least is 1 or more and not more than the signers in any_of",
                    ));
                }
                Gate::SignedBy(_)
                | Gate::Provenance(_)
                | Gate::Attestation(_)
                | Gate::Scan(_)
                | Gate::PromotedIn(_)
                | Gate::Approvals(_)
                | Gate::MinAge(_) => {}
            }
        }
        Ok(self)
    }

    /// Writes out the default of `result`, which depends on the type. Policies that were saved before there was one
    /// go on without a demand.
    fn write_out_results(&mut self) {
        for gate in &mut self.gates {
            if let Gate::Attestation(gate) = gate
                && gate.result.is_none()
                && results::has_result(&gate.predicate_type)
            {
                gate.result = Some(TestResult::Passed);
            }
        }
    }

    /// RFC 8785 canonical JSON, every default written out: a later release that changes a default
    /// does not change what an old policy says.
    pub fn canonical(&self) -> Result<Vec<u8>, Failure> {
        serde_json_canonicalizer::to_vec(self)
            .map_err(|error| Failure::new("writing a policy as canonical JSON", error))
    }

    /// The name of this version: the digest of its canonical form.
    pub fn digest(&self) -> Result<Digest, Failure> {
        Ok(Digest::sha256(&self.canonical()?))
    }

    /// Whether it covers the repository in the environment.
    pub fn covers(&self, repository: &RepositoryName, environment: &EnvironmentName) -> bool {
        self.environment == *environment
            && self.repositories.iter().any(|pattern| pattern.matches(repository.as_str()))
    }

    /// Its scan gates whose failing refuses at this time.
    pub(super) fn scan_gates(&self, at: DateTime<Utc>) -> impl Iterator<Item = &Scanned> {
        self.gates.iter().filter(move |gate| gate.is_enforced(at)).filter_map(Gate::as_scan)
    }

    /// Its attestation gates whose failing refuses at this time.
    pub(super) fn attestation_gates(&self, at: DateTime<Utc>) -> impl Iterator<Item = &Attested> {
        self.gates.iter().filter(move |gate| gate.is_enforced(at)).filter_map(|gate| match gate {
            Gate::Attestation(gate) => Some(gate),
            Gate::SignedBy(_)
            | Gate::Provenance(_)
            | Gate::Scan(_)
            | Gate::PromotedIn(_)
            | Gate::Approvals(_)
            | Gate::MinAge(_) => None,
        })
    }

    /// The patterns of approvers that some gate names.
    pub fn approvers(&self) -> Vec<Pattern> {
        let named = self.gates.iter().filter_map(|gate| match gate {
            Gate::Approvals(gate) => gate.from.as_ref().map(|from| &from.0),
            Gate::SignedBy(_)
            | Gate::Provenance(_)
            | Gate::Attestation(_)
            | Gate::Scan(_)
            | Gate::PromotedIn(_)
            | Gate::MinAge(_) => None,
        });
        named.flatten().cloned().collect()
    }

    /// What is probably not meant: a policy that asks for nothing, or a scan gate that denies nothing.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.gates.is_empty() {
            warnings
                .push("gates: the policy has none, so it allows all that is not blocked or held".to_owned());
        } else if self.gates.iter().all(|gate| gate.terms().mode != Mode::Enforce) {
            warnings.push("gates: none has mode enforce, so the policy refuses nothing".to_owned());
        }
        warnings.extend(self.sources().filter_map(|pattern| {
            let why = never_matches(pattern.as_str())?;
            Some(format!("provenance: sources: {pattern} can match no source: {why}"))
        }));
        for gate in &self.gates {
            let Gate::Scan(gate) = gate else { continue };
            let Some(deny) = gate.deny else {
                warnings.push("scan: without `deny` no finding is refused".to_owned());
                continue;
            };
            if gate.grace_of(deny.severity).is_none() {
                warnings.push(format!(
                    "scan: no grace is stated for {}: a running version with such a finding is at risk without end",
                    deny.severity
                ));
            }
        }
        warnings
    }

    /// The patterns of sources that some gate names.
    fn sources(&self) -> impl Iterator<Item = &Pattern> {
        let named = self.gates.iter().filter_map(|gate| match gate {
            Gate::Provenance(gate) => gate.sources.as_ref().map(|sources| &sources.0),
            Gate::SignedBy(_)
            | Gate::Attestation(_)
            | Gate::Scan(_)
            | Gate::PromotedIn(_)
            | Gate::Approvals(_)
            | Gate::MinAge(_) => None,
        });
        named.flatten()
    }

    /// The signers that some gate names, so that a misspelt one is told when the policy is saved.
    pub fn signers(&self) -> Vec<String> {
        let named = self.gates.iter().filter_map(|gate| match gate {
            Gate::SignedBy(gate) => Some(&gate.any_of.0),
            Gate::Provenance(gate) => gate.by.as_ref().map(|by| &by.0),
            Gate::Attestation(gate) => gate.by.as_ref().map(|by| &by.0),
            Gate::Scan(gate) => gate.signed_by.as_ref().map(|by| &by.0),
            Gate::PromotedIn(_) | Gate::Approvals(_) | Gate::MinAge(_) => None,
        });
        named.flatten().cloned().collect()
    }

    /// The statements that some gate asks for, by predicate type and signer, so that only those are gathered.
    pub fn asked(&self) -> BTreeSet<(&str, Option<&str>)> {
        self.gates.iter().flat_map(Gate::asked).collect()
    }

    /// The signers of whom some gate may miss a signature.
    pub fn missing_signers(&self, facts: &Facts) -> BTreeSet<&str> {
        let signed_by = self.gates.iter().filter_map(|gate| match gate {
            Gate::SignedBy(gate) => Some(gate),
            Gate::Provenance(_)
            | Gate::Attestation(_)
            | Gate::Scan(_)
            | Gate::PromotedIn(_)
            | Gate::Approvals(_)
            | Gate::MinAge(_) => None,
        });
        signed_by.flat_map(|gate| missing_signers(gate, facts)).collect()
    }

    /// The environments that some gate asks about, so that only those are gathered.
    pub fn earlier_environments(&self) -> BTreeSet<&EnvironmentName> {
        let named = self.gates.iter().filter_map(|gate| match gate {
            Gate::PromotedIn(gate) => Some(&gate.environments.0),
            Gate::SignedBy(_)
            | Gate::Provenance(_)
            | Gate::Attestation(_)
            | Gate::Scan(_)
            | Gate::Approvals(_)
            | Gate::MinAge(_) => None,
        });
        named.flatten().collect()
    }

    /// The severities that some gate may deny, so that only those findings are gathered.
    pub fn denied_severities(&self) -> BTreeSet<Severity> {
        let floors = self.gates.iter().filter_map(|gate| match gate {
            Gate::Scan(gate) => gate.deny.map(|deny| deny.severity),
            Gate::SignedBy(_)
            | Gate::Provenance(_)
            | Gate::Attestation(_)
            | Gate::PromotedIn(_)
            | Gate::Approvals(_)
            | Gate::MinAge(_) => None,
        });
        let lowest = floors.min();
        Severity::ALL.into_iter().filter(|severity| lowest.is_some_and(|floor| *severity >= floor)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> InvalidPolicy {
        Policy::parse(text.as_bytes()).unwrap_err()
    }

    fn with(gate: &str) -> String {
        format!("environment: prod\nrepositories: [\"**\"]\ngates:\n  - {gate}\n")
    }

    #[test]
    fn json_and_yaml_of_the_same_policy_have_the_same_digest() {
        let yaml = Policy::parse(with("min_age: 10m").as_bytes()).unwrap();
        let json = br#"{"gates":[{"min_age":{"age":"600s"}}],"environment":"prod","repositories":["**"]}"#;
        let json = Policy::parse(json).unwrap();
        assert_eq!(yaml.digest().unwrap(), json.digest().unwrap());
        assert_eq!(Policy::from_canonical(&json.canonical().unwrap()).unwrap(), yaml);
        assert_eq!(yaml.name.as_str(), "default");
    }

    #[test]
    fn a_policy_without_a_review_time_keeps_its_digest_and_the_smallest_stated_time_counts() {
        let read = |more: &str| Policy::parse(format!("{more}{}", with("min_age: 10m")).as_bytes()).unwrap();
        let plain = read("");
        let canonical = String::from_utf8(plain.canonical().unwrap()).unwrap();
        assert!(!canonical.contains("override_review"), "{canonical}");
        assert_eq!(override_review([&plain]).to_string(), "1d");
        assert_eq!(override_review([]), Span::DAY);
        let (four, two) = (read("override_review: 4h\n"), read("override_review: 2d\n"));
        assert_ne!(four.digest().unwrap(), plain.digest().unwrap());
        assert_eq!(Policy::from_canonical(&four.canonical().unwrap()).unwrap(), four);
        assert_eq!(override_review([&plain, &four, &two]).to_string(), "4h");
        assert_eq!(override_review([&plain, &two]), Span::DAY, "the default is stated too");
        assert!(
            refused(&format!("override_review: soon\n{}", with("min_age: 10m"))).message.contains("span")
        );
    }

    #[test]
    fn the_policies_that_are_shipped_are_policies() {
        for text in [
            &include_bytes!("../../deploy/policies/staging.yaml")[..],
            &include_bytes!("../../deploy/policies/prod.yaml")[..],
        ] {
            Policy::parse(text).unwrap();
        }
    }

    #[test]
    fn what_is_not_built_or_misspelt_is_refused_with_its_place_and_what_is_accepted() {
        for (gate, unknown, accepted) in [
            ("sbom: { required: true }", "sbom", "signed_by"),
            ("expr: \"true\"", "expr", "min_age"),
            ("scan: { max_age: 24h, deny: { severity: high, kev: true } }", "kev", "severity"),
            ("provenance: { builders: [\"b\"], level: 2 }", "level", "sources"),
            ("approvals: { count: 1, form: [ann] }", "form", "from"),
        ] {
            let error = refused(&with(gate));
            assert!(error.message.contains(unknown) && error.message.contains(accepted), "{error}");
            assert_eq!(error.line, Some(4), "{error}");
            assert!(error.column.is_some(), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        for (gate, why) in [
            ("min_age: 10", "span"),
            ("min_age: 10y", "span"),
            ("scan: { max_age: 24h, deny: { severity: hihg } }", "critical"),
            ("approvals: { count: 0 }", "at least 1"),
            ("approvals: { count: -1 }", ""),
            ("signed_by: { any_of: [] }", "1 to 100"),
            ("signed_by: { any_of: [a], at_least: 2 }", "at_least"),
            ("promoted_in: { environments: [prod] }", "itself"),
            ("approvals: { count: 1, count: 2 }", "count"),
            ("{ min_age: 1m, approvals: { count: 1 } }", ""),
            (r#"approvals: { count: 1, not_author: "no" }"#, "true or false"),
            (r#"approvals: { count: 1, solution: "a\u0000b" }"#, "control"),
        ] {
            let error = refused(&with(gate));
            assert!(error.message.contains(why), "{gate}: {error}");
        }
        assert!(refused(&" ".repeat(MAX_POLICY_BYTES + 1)).message.contains("bytes"));
        assert!(refused("environment: prod\nrepositories: []\ngates: []").message.contains("patterns"));
        assert!(refused("[").line.is_some());
    }

    #[test]
    fn nesting_and_anchors_without_end_are_refused_at_once() {
        refused(&"[".repeat(100_000));
        refused(&format!("environment: {}prod{}", "{a: ".repeat(50_000), "}".repeat(50_000)));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..20 {
            let row = vec![format!("*a{}", n - 1); 9].join(", ");
            bomb = format!("{bomb}a{n}: &a{n} [{row}]\n");
        }
        refused(&bomb);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = Policy::parse(text.as_bytes());
        }
    }
}
