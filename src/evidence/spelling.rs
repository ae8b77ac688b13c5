//! Members of reports that differ from a known one only by case.
//!
//! Go's decoder takes `vulnerabilities` for `Vulnerabilities`, so other readers of the same report see
//! findings there. Here such a member would be skipped in silence, so it is refused.

use super::bounded::ignore_scalars;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// A member whose spelling is checked, and those inside of it.
pub(super) struct Member {
    name: &'static str,
    inside: &'static [Member],
}

const fn leaf(name: &'static str) -> Member {
    Member { name, inside: &[] }
}

const TRIVY_FINDING: &[Member] =
    &[leaf("VulnerabilityID"), leaf("Severity"), leaf("VendorSeverity"), leaf("CVSS"), leaf("Status")];

/// The members of Trivy's report that carry findings.
pub(super) const TRIVY: &[Member] = &[Member {
    name: "Results",
    inside: &[
        Member { name: "Vulnerabilities", inside: TRIVY_FINDING },
        Member { name: "Secrets", inside: TRIVY_FINDING },
        Member { name: "Misconfigurations", inside: TRIVY_FINDING },
        Member { name: "Licenses", inside: TRIVY_FINDING },
        Member {
            name: "ExperimentalModifiedFindings",
            inside: &[Member { name: "Finding", inside: TRIVY_FINDING }],
        },
        leaf("Class"),
    ],
}];

const GRYPE_MATCH: &[Member] = &[
    Member { name: "vulnerability", inside: &[leaf("id"), leaf("severity")] },
    leaf("relatedVulnerabilities"),
    leaf("artifact"),
];

/// The members of Grype's report that carry findings.
pub(super) const GRYPE: &[Member] = &[
    Member { name: "matches", inside: GRYPE_MATCH },
    Member { name: "ignoredMatches", inside: GRYPE_MATCH },
];

/// Go's decoder folds two letters of other alphabets as well: the long s, and the sign for kelvin.
fn is_spelling(name: &str, known: &str) -> bool {
    name.replace('\u{17f}', "s").replace('\u{212a}', "k").eq_ignore_ascii_case(known)
}

/// Refuses a report in which a member is another spelling of one of these.
pub(super) fn check(json: &[u8], members: &'static [Member]) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Inside(members).deserialize(&mut deserializer).map_err(|error| error.to_string())
}

/// An object with such members, or a list of such objects; anything else has none.
#[derive(Clone, Copy)]
struct Inside(&'static [Member]);

impl<'de> DeserializeSeed<'de> for Inside {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.0.is_empty() {
            return IgnoredAny::deserialize(deserializer).map(|_| ());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inside {
    type Value = ();
    ignore_scalars!();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(name) = entries.next_key::<Cow<'de, str>>()? {
            let inside = self.0.iter().find(|member| is_spelling(&name, member.name));
            let inside = match inside {
                Some(member) if member.name != name => {
                    return Err(A::Error::custom(format_args!(
                        "its member {name:?} differs from {:?} only by case; write it as the scanner does",
                        member.name
                    )));
                }
                Some(member) => member.inside,
                None => &[],
            };
            entries.next_value_seed(Self(inside))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(self)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_differs_only_by_case_is_refused_where_findings_are() {
        for (json, member) in [
            (r#"{"results": []}"#, "results"),
            (r#"{"Results": [{}, {"vulnerabilities": []}]}"#, "vulnerabilities"),
            (r#"{"Results": [{"SECRETS": null}]}"#, "SECRETS"),
            (r#"{"Results": [{"Vulnerabilities": [{"severity": "HIGH"}]}]}"#, "severity"),
            (r#"{"Results": [{"ExperimentalModifiedFindings": [{"finding": {}}]}]}"#, "finding"),
        ] {
            let refused = check(json.as_bytes(), TRIVY).unwrap_err();
            assert!(refused.contains(&format!("its member {member:?} differs")), "{refused}");
        }
        let refused = check(br#"{"matches": [], "IgnoredMatches": []}"#, GRYPE).unwrap_err();
        assert!(refused.contains("\"IgnoredMatches\" differs from \"ignoredMatches\""), "{refused}");
    }

    #[test]
    fn other_members_and_other_places_do_not_matter() {
        let json = br#"{"Results": [{"Vulnerabilities": [{"Custom": {"severity": 1}}], "x": 1}, 7, null], "RESULT": 1}"#;
        assert_eq!(check(json, TRIVY), Ok(()));
        let deep = format!(r#"{{"Results": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(check(deep.as_bytes(), TRIVY).is_err(), "depth is bounded by the parser");
    }
}
