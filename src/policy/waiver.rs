//! Waivers and overrides: people accept a finding, or pass a failed gate, for a reason and for a time.

use super::Span;
use crate::names::{Digest, Pattern};
use chrono::{DateTime, Utc};
use packageurl::PackageUrl;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Why a finding is accepted. The first two words are those of VEX documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaiverStatus {
    /// The vulnerability does not affect the artifact; a justification says why.
    NotAffected,
    /// The scanner reported what is not there.
    FalsePositive,
    /// The risk is known and accepted until a time.
    AcceptedRisk,
}

macro_rules! words {
    ($type:ident, $unknown:ident, $said:literal, $($name:ident = $text:literal),*) => {
        /// Not such a word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[error($said)]
        pub struct $unknown;

        impl $type {
            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::str::FromStr for $type {
            type Err = $unknown;
            fn from_str(text: &str) -> Result<Self, $unknown> {
                match text {
                    $($text => Ok(Self::$name),)*
                    _ => Err($unknown),
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = $unknown;
            fn try_from(text: String) -> Result<Self, $unknown> {
                text.parse()
            }
        }
    };
}

words!(
    WaiverStatus,
    UnknownWaiverStatus,
    "a waiver's status is not_affected, false_positive or accepted_risk",
    NotAffected = "not_affected",
    FalsePositive = "false_positive",
    AcceptedRisk = "accepted_risk"
);

/// Why a vulnerability does not affect an artifact: the words of OpenVEX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Justification {
    /// The artifact does not contain the component.
    ComponentNotPresent,
    /// The component does not contain the vulnerable code.
    VulnerableCodeNotPresent,
    /// The vulnerable code is never executed.
    VulnerableCodeNotInExecutePath,
    /// An attacker cannot control the vulnerable code.
    VulnerableCodeCannotBeControlledByAdversary,
    /// Something else in the artifact prevents that it is exploited.
    InlineMitigationsAlreadyExist,
}

words!(
    Justification,
    UnknownJustification,
    "a justification is one of those of OpenVEX",
    ComponentNotPresent = "component_not_present",
    VulnerableCodeNotPresent = "vulnerable_code_not_present",
    VulnerableCodeNotInExecutePath = "vulnerable_code_not_in_execute_path",
    VulnerableCodeCannotBeControlledByAdversary = "vulnerable_code_cannot_be_controlled_by_adversary",
    InlineMitigationsAlreadyExist = "inline_mitigations_already_exist"
);

/// The name of a vulnerability as its authority writes it: CVE in upper case, GHSA with lower-case groups.
/// Names are compared without regard to case; this is how they are stored and shown.
pub fn canonical_vulnerability(name: &str) -> String {
    match name.get(..5) {
        Some(ghsa) if ghsa.eq_ignore_ascii_case("GHSA-") => {
            format!("GHSA-{}", name.get(5..).unwrap_or_default().to_ascii_lowercase())
        }
        Some(_) | None if name.get(..4).is_some_and(|cve| cve.eq_ignore_ascii_case("CVE-")) => {
            name.to_ascii_uppercase()
        }
        Some(_) | None => name.to_owned(),
    }
}

/// Not a package URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a package URL ({0}); it looks like pkg:npm/lodash or pkg:deb/debian/openssl@1.1.1n-0")]
pub struct InvalidPackage(String);

/// Characters of a package URL, at most.
const MAX_PACKAGE_LEN: usize = 1024;

/// A package URL in the form that its type prescribes.
pub fn canonical_package(text: &str) -> Result<String, InvalidPackage> {
    if text.len() > MAX_PACKAGE_LEN {
        return Err(InvalidPackage(format!("it is longer than {MAX_PACKAGE_LEN} characters")));
    }
    let package: PackageUrl<'_> = text.parse().map_err(|error| InvalidPackage(format!("{error}")))?;
    Ok(package.to_string())
}

/// Whether a waiver's package is the one of a finding: type, namespace and name are equal by the rules of the
/// type, and so is the version if the waiver names one. Qualifiers and subpath are ignored, since scanners
/// and people write different ones for the same package.
fn is_same_package(waived: &str, found: &str) -> bool {
    let (Ok(waived), Ok(found)) = (waived.parse::<PackageUrl<'_>>(), found.parse::<PackageUrl<'_>>()) else {
        return false;
    };
    (waived.ty(), waived.namespace(), waived.name()) == (found.ty(), found.namespace(), found.name())
        && (waived.version().is_none() || waived.version() == found.version())
}

/// An approved waiver whose scope contains the subject. Ended and expired ones are kept among the facts,
/// because the grace of a finding counts again from the end of a waiver that covered it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Waiver {
    /// The waiver's id.
    pub id: i64,
    /// The repositories in which it counts.
    pub repositories: Pattern,
    /// The SHA-256 of the only bytes for which it counts; all bytes when there is none.
    pub sha256: Option<Digest>,
    /// The vulnerabilities that it accepts, by name or alias.
    pub vulnerabilities: BTreeSet<String>,
    /// The package URL for which it counts; every package when there is none.
    pub package: Option<String>,
    /// Why the finding is accepted.
    pub status: WaiverStatus,
    /// The reason in words.
    pub reason: String,
    /// Who proposed it.
    pub created_by: String,
    /// The other person, who approved it.
    pub approved_by: String,
    /// From when on it counts.
    pub approved_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
    /// When somebody ended it.
    pub ended_at: Option<DateTime<Utc>>,
}

/// Whether a waiver of this package, or of every one, is about a finding in this package.
pub fn package_accepts(waived: Option<&str>, found: Option<&str>) -> bool {
    waived.is_none_or(|waived| found.is_some_and(|found| is_same_package(waived, found)))
}

impl Waiver {
    /// When it stops counting: at its expiry or its end, whichever comes first.
    pub fn counts_until(&self) -> Option<DateTime<Utc>> {
        match (self.expires_at, self.ended_at) {
            (Some(expires), Some(ended)) => Some(expires.min(ended)),
            (one, other) => one.or(other),
        }
    }

    /// Whether it counts at this time.
    pub fn counts_at(&self, at: DateTime<Utc>) -> bool {
        self.approved_at <= at && self.counts_until().is_none_or(|until| at < until)
    }

    /// Whether it accepts a finding with these names (the vulnerability and its aliases) in this package. A
    /// finding whose package is unknown or cannot be read is not accepted by a waiver of one package.
    pub fn accepts<'a>(&self, mut names: impl Iterator<Item = &'a str>, purl: Option<&str>) -> bool {
        names.any(|name| self.vulnerabilities.iter().any(|waived| waived.eq_ignore_ascii_case(name)))
            && package_accepts(self.package.as_deref(), purl)
    }
}

/// Whether an override may pass the gate of this name.
pub fn is_overridable(gate: &str) -> bool {
    Override::GATES.contains(&gate)
}

/// An override that somebody created for the subject in its environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Override {
    /// The override's id.
    pub id: i64,
    /// The gates that it passes, by their names in a policy.
    pub gates: BTreeSet<String>,
    /// The reason in words.
    pub reason: String,
    /// Who created it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
    /// When somebody ended it.
    pub ended_at: Option<DateTime<Utc>>,
    /// The other person, who reviewed it.
    pub reviewed_by: Option<String>,
}

impl Override {
    /// The gates that an override may pass: never a signature or provenance, and no block.
    pub const GATES: [&'static str; 5] = ["attestation", "scan", "promoted_in", "approvals", "min_age"];

    /// Whether it counts at this time.
    pub fn counts_at(&self, at: DateTime<Utc>) -> bool {
        self.created_at <= at && at < self.expires_at && self.ended_at.is_none_or(|ended| at < ended)
    }

    /// When another person should have reviewed it.
    pub fn review_due_at(&self, within: Span) -> DateTime<Utc> {
        self.created_at + within.delta()
    }

    /// Whether nobody reviewed it in time.
    pub fn is_overdue(&self, within: Span, at: DateTime<Utc>) -> bool {
        let due = self.review_due_at(within);
        self.reviewed_by.is_none() && due <= at && self.ended_at.is_none_or(|ended| ended >= due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn waiver(vulnerability: &str, package: Option<&str>) -> Waiver {
        Waiver {
            id: 1,
            repositories: Pattern::everything(),
            sha256: None,
            vulnerabilities: BTreeSet::from([canonical_vulnerability(vulnerability)]),
            package: package.map(|package| canonical_package(package).unwrap()),
            status: WaiverStatus::AcceptedRisk,
            reason: "no fix yet".into(),
            created_by: "ann".into(),
            approved_by: "bob".into(),
            approved_at: at(1),
            expires_at: Some(at(10)),
            ended_at: None,
        }
    }

    fn accepts(waiver: &Waiver, names: &[&str], purl: Option<&str>) -> bool {
        waiver.accepts(names.iter().copied(), purl)
    }

    #[test]
    fn a_waiver_accepts_a_finding_by_its_name_or_an_alias_in_any_case() {
        let cve = waiver("cve-2021-44228", None);
        assert!(accepts(&cve, &["CVE-2021-44228"], None));
        assert!(accepts(&cve, &["GHSA-jfh8-c2jp-5v3q", "CVE-2021-44228"], None));
        assert!(!accepts(&cve, &["CVE-2021-4422"], None));
        assert!(!accepts(&cve, &["CVE-2021-442281"], None));
        assert!(!accepts(&cve, &[], None));
        let ghsa = waiver("ghsa-JFH8-c2jp-5v3q", None);
        assert_eq!(ghsa.vulnerabilities.first().unwrap(), "GHSA-jfh8-c2jp-5v3q");
        assert!(accepts(&ghsa, &["CVE-2021-44228", "GHSA-jfh8-c2jp-5v3q"], None));
    }

    #[test]
    fn packages_are_compared_parsed_without_qualifiers_and_by_version_only_if_one_is_named() {
        let any = waiver("CVE-1", Some("pkg:deb/debian/openssl?arch=source"));
        for purl in [
            "pkg:deb/debian/openssl@1.1.1n-0%2Bdeb11u5?arch=amd64&distro=debian-11",
            "pkg:deb/Debian/OpenSSL@3.0.0",
            "pkg:deb/debian/openssl#lib",
        ] {
            assert!(accepts(&any, &["CVE-1"], Some(purl)), "{purl}");
        }
        for purl in
            ["pkg:deb/ubuntu/openssl@1", "pkg:deb/debian/libssl@1", "pkg:apk/debian/openssl@1", "openssl", ""]
        {
            assert!(!accepts(&any, &["CVE-1"], Some(purl)), "{purl}");
        }
        assert!(!accepts(&any, &["CVE-1"], None), "an unknown package is not this one");
        assert!(!accepts(&any, &["CVE-2"], Some("pkg:deb/debian/openssl@1")));

        let one = waiver("CVE-1", Some("pkg:maven/org.apache/Log4j@2.14.1"));
        assert!(accepts(&one, &["CVE-1"], Some("pkg:maven/org.apache/Log4j@2.14.1?type=jar")));
        assert!(!accepts(&one, &["CVE-1"], Some("pkg:maven/org.apache/Log4j@2.14.2")));
        assert!(!accepts(&one, &["CVE-1"], Some("pkg:maven/org.apache/Log4j")));
        assert!(!accepts(&one, &["CVE-1"], Some("pkg:maven/org.apache/log4j@2.14.1")), "maven regards case");
        assert!(accepts(
            &waiver("CVE-1", Some("pkg:pypi/Some_Name")),
            &["CVE-1"],
            Some("pkg:pypi/some-name@1")
        ));
        assert!(canonical_package("lodash").is_err());
        assert!(canonical_package(&format!("pkg:npm/{}", "a".repeat(2000))).is_err());
    }

    #[test]
    fn a_waiver_counts_from_its_approval_until_it_expires_or_ends() {
        let mut waiver = waiver("CVE-1", None);
        assert!(!waiver.counts_at(at(0)) && waiver.counts_at(at(1)) && waiver.counts_at(at(9)));
        assert!(!waiver.counts_at(at(10)), "it does not count at the time at which it expires");
        waiver.ended_at = Some(at(5));
        assert!(waiver.counts_at(at(4)) && !waiver.counts_at(at(5)));
        waiver.ended_at = Some(at(20));
        assert_eq!(waiver.counts_until(), Some(at(10)));
        (waiver.expires_at, waiver.ended_at) = (None, None);
        assert!(waiver.counts_at(at(1_000_000)));
    }

    #[test]
    fn an_override_counts_until_it_expires_or_ends_reviewed_or_not() {
        let mut given = Override {
            id: 1,
            gates: BTreeSet::from(["approvals".into()]),
            reason: "incident 42".into(),
            created_by: "ann".into(),
            created_at: at(1),
            expires_at: at(10),
            ended_at: None,
            reviewed_by: None,
        };
        assert!(!given.counts_at(at(0)) && given.counts_at(at(1)) && given.counts_at(at(9)));
        assert!(!given.counts_at(at(10)));
        let two: Span = "2h".parse().unwrap();
        assert!(!given.is_overdue(two, at(2)) && given.is_overdue(two, at(3)) && given.counts_at(at(3)));
        assert!(given.is_overdue(Span::ZERO, at(1)), "reviewed before it counts");
        given.reviewed_by = Some("bob".into());
        assert!(!given.is_overdue(two, at(9)), "also afterwards");
        given.ended_at = Some(at(2));
        assert!(!given.counts_at(at(2)));
    }
}
