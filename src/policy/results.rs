//! Results of tests and verifications: which statements say no, of which test a result is, and whether the test
//! is passed. Both evaluations ask here.
//!
//! A test is a signer, a predicate type and the names in the configuration. It is passed if one good result is
//! newer than every FAILED of it, compared pair by pair. Adding a good result never makes a test fail, adding a
//! FAILED never makes it pass, and the order in which statements are listed does not matter.

use super::gate::TestResult;
use super::{Attestation, Signature};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The predicate types that state a result: test results and verification summaries.
const WITH_RESULT: [&str; 2] =
    ["https://in-toto.io/attestation/test-result/v0.1", "https://slsa.dev/verification_summary/v1"];

/// Whether statements of this type state a result.
pub fn has_result(predicate_type: &str) -> bool {
    WITH_RESULT.contains(&predicate_type)
}

/// Whether a result says no, in whatever case of letters.
pub fn is_failed(result: &str) -> bool {
    result.trim().eq_ignore_ascii_case(TestResult::Failed.as_str())
}

/// Whether the statement says FAILED: it satisfies no gate.
pub(super) fn says_failed(attestation: &Attestation) -> bool {
    has_result(&attestation.predicate_type) && attestation.result.as_deref().is_some_and(is_failed)
}

/// Whether the statement says PASSED.
pub(super) fn says_passed(attestation: &Attestation) -> bool {
    attestation.result.as_deref() == Some(TestResult::Passed.as_str())
}

/// Whether the statement has the result that a gate demands. Without a demand every statement has it that does not
/// say FAILED: gates of types without a result, and those that were saved before results had a default.
pub(super) fn is_good(demanded: Option<TestResult>, attestation: &Attestation) -> bool {
    let states_none = !has_result(&attestation.predicate_type);
    let result = attestation.result.as_deref();
    match demanded {
        None => !says_failed(attestation),
        Some(TestResult::Any) => states_none || result.is_some_and(|result| !is_failed(result)),
        Some(word) => result == Some(word.as_str()) && !says_failed(attestation),
    }
}

/// What a test is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TestName {
    /// The names in its configuration; their order and their digests are no part of it.
    Names(BTreeSet<String>),
    /// A configuration without names, as canonical JSON, or none.
    Configuration(Option<String>),
}

impl TestName {
    /// The test that a result with this configuration is of. A resource descriptor is named by its `name`, otherwise
    /// by its `uri`.
    pub(super) fn of(configuration: Option<&str>) -> Self {
        let name = |descriptor: &Value| {
            let texts = ["name", "uri"].map(|member| descriptor.get(member).and_then(Value::as_str));
            texts.into_iter().flatten().find(|text| !text.is_empty()).map(str::to_owned)
        };
        let parsed = configuration.and_then(|text| serde_json::from_str(text).ok());
        let names = match &parsed {
            Some(Value::Array(descriptors)) => descriptors.iter().filter_map(name).collect(),
            _ => BTreeSet::new(),
        };
        if names.is_empty() {
            Self::Configuration(configuration.map(str::to_owned))
        } else {
            Self::Names(names)
        }
    }

    /// ` for <name>`, or nothing.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Configuration(None) => String::new(),
            Self::Names(_) | Self::Configuration(Some(_)) => format!(" for {self}"),
        }
    }
}

impl fmt::Display for TestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => {
                f.write_str(&names.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
            Self::Configuration(text) => f.write_str(text.as_deref().unwrap_or_default()),
        }
    }
}

/// A result with one signature that counts.
#[derive(Clone, Debug)]
pub(super) struct SignedResult<'a> {
    pub(super) attestation: &'a Attestation,
    pub(super) signature: &'a Signature,
    pub(super) test: TestName,
}

impl SignedResult<'_> {
    pub(super) fn signer(&self) -> &str {
        &self.signature.signer
    }

    /// From when a FAILED counts that states no time.
    pub(super) fn counts_from(&self) -> DateTime<Utc> {
        self.signature.repeated_at.unwrap_or(self.attestation.received_at)
    }

    /// When it was signed; a time after the receipt counts as the receipt.
    fn signed_at(&self) -> Option<DateTime<Utc>> {
        self.attestation.signed_at.map(|at| at.min(self.attestation.received_at))
    }

    /// Whether both are about the same manifest.
    fn is_about_same(&self, other: &Self) -> bool {
        let (one, other) = (self.attestation, other.attestation);
        let all = |of: &'_ Attestation| of.about.union(&of.formerly_about).cloned().collect::<BTreeSet<_>>();
        !one.about.is_disjoint(&other.about)
            || (!one.formerly_about.is_empty() || !other.formerly_about.is_empty())
                && !all(one).is_disjoint(&all(other))
    }

    /// Whether it is newer than this FAILED. Where both state when they were signed, that decides. Otherwise it must
    /// have come through POST by a caller with the right to attest: who may push could hold it back until then.
    /// Of two receipts at the same time the row that was written later is newer.
    fn is_newer_than(&self, failed: &Self) -> bool {
        if let (Some(signed), Some(failed)) = (self.signed_at(), failed.signed_at()) {
            return signed > failed;
        }
        let from = (self.signed_at().unwrap_or(self.attestation.received_at), self.attestation.id);
        let failed_from = match failed.signature.repeated_at {
            Some(again) => (again, i64::MAX),
            None => (failed.attestation.received_at, failed.attestation.id),
        };
        !self.signature.pushed && from > failed_from
    }
}

/// The FAILED results of tests that are not passed. A good result is one of the same signer; where the signer of
/// the FAILED was revoked since, also one of a signer that `takes_over`.
pub(super) fn open_failures<'r, 'a>(
    failed: &'r [SignedResult<'a>],
    good: &[SignedResult<'a>],
    takes_over: &dyn Fn(&str) -> bool,
) -> Vec<&'r SignedResult<'a>> {
    let mut tests: BTreeMap<_, Vec<&SignedResult<'a>>> = BTreeMap::new();
    for one in failed {
        let test = (one.signer(), &one.attestation.predicate_type, &one.test);
        tests.entry(test).or_default().push(one);
    }
    let mut open = Vec::new();
    for ((signer, predicate_type, name), failed) in tests {
        let revoked = failed.iter().any(|one| one.signature.revocation.is_some());
        let candidates = good.iter().filter(|one| {
            let same_signer = one.signer() == signer || revoked && takes_over(one.signer());
            same_signer && one.attestation.predicate_type == *predicate_type && one.test == *name
        });
        let candidates: Vec<&SignedResult<'a>> = candidates.collect();
        let passing: Vec<_> =
            candidates.iter().filter(|one| is_newest(one, failed.iter().copied())).collect();
        let failing: Vec<&SignedResult<'a>> =
            failed.into_iter().filter(|one| !passing.iter().any(|good| good.is_about_same(one))).collect();
        // Those that have no newer good result name the reason best.
        let newest = failing.iter().copied().filter(|failed| {
            !candidates.iter().any(|good| good.is_about_same(failed) && good.is_newer_than(failed))
        });
        let newest: Vec<_> = newest.collect();
        open.extend(if newest.is_empty() { failing } else { newest });
    }
    open
}

/// Of the good results those by which their tests are passed, the newest one of each test.
pub(super) fn deciding<'r, 'a>(
    good: &'r [SignedResult<'a>],
    failed: &[SignedResult<'a>],
) -> Vec<&'r SignedResult<'a>> {
    let order =
        |one: &SignedResult<'_>| (one.signed_at().unwrap_or(one.attestation.received_at), one.attestation.id);
    let mut tests: BTreeMap<_, &SignedResult<'a>> = BTreeMap::new();
    for one in good {
        let same = failed.iter().filter(|other| {
            other.signer() == one.signer()
                && other.attestation.predicate_type == one.attestation.predicate_type
                && other.test == one.test
        });
        if !is_newest(one, same) {
            continue;
        }
        let test = (one.signer(), &one.attestation.predicate_type, &one.test);
        let newest = tests.entry(test).or_insert(one);
        if order(one) > order(newest) {
            *newest = one;
        }
    }
    tests.into_values().collect()
}

/// Whether the good result is newer than every FAILED of its test that is about the same manifest.
fn is_newest<'r, 'a: 'r>(
    good: &SignedResult<'a>,
    mut failed: impl Iterator<Item = &'r SignedResult<'a>>,
) -> bool {
    failed.all(|failed| !good.is_about_same(failed) || good.is_newer_than(failed))
}
