//! Findings as every scanner's report is normalised to, and sets of them.

use super::{Class, Rating, Severity, Target};
use crate::failure::Failure;
use crate::names::Digest;
use serde::Serialize;
use std::collections::BTreeMap;

/// One finding. Its fields are its identity: two that agree in all of them are one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was found.
    pub class: Class,
    /// The CVE where exactly one is known, else the scanner's own id (of a rule, for what is no
    /// vulnerability).
    pub vulnerability: String,
    /// Its other names, sorted: waivers match these too.
    pub aliases: Vec<String>,
    /// The part of what was scanned in which the package is, of a vulnerability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The file that shows the package, where the scanner names one, of a vulnerability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The package; the file, for what is in none.
    pub package: String,
    /// The package's URL.
    pub purl: Option<String>,
    /// The version that is there.
    pub installed: String,
    /// Versions without it.
    pub fixed_in: Vec<String>,
    /// The severity by the configured order.
    pub severity: Severity,
    /// Whose rating that is.
    pub severity_source: String,
    /// What every source says.
    pub ratings: Vec<Rating>,
    /// Why the scanner itself set it aside; `None` is an open finding.
    pub suppressed: Option<String>,
    /// One line about it.
    pub title: String,
}

/// Findings in their one order, with the digest that names exactly this set.
#[derive(Clone, Debug)]
pub struct FindingSet {
    digest: Digest,
    findings: Vec<Finding>,
}

impl FindingSet {
    /// Sorts and removes what is there twice, so that the order of a report does not matter.
    pub fn of(findings: Vec<Finding>) -> Result<Self, Failure> {
        let canonical = |finding: Finding| {
            serde_json_canonicalizer::to_vec(&finding)
                .map(|bytes| (bytes, finding))
                .map_err(|error| Failure::new("writing a finding as canonical JSON", error))
        };
        let mut lines = findings.into_iter().map(canonical).collect::<Result<Vec<_>, _>>()?;
        lines.sort_by(|(a, _), (b, _)| a.cmp(b));
        lines.dedup_by(|(a, _), (b, _)| a == b);
        let mut hasher = crate::names::Hasher::new(crate::names::Algorithm::Sha256);
        for (line, _) in &lines {
            hasher.update(line);
            hasher.update(b"\n");
        }
        let findings = lines.into_iter().map(|(_, finding)| finding).collect();
        Ok(Self { digest: hasher.finish(), findings })
    }

    /// SHA-256 over the findings' canonical JSON, one a line, sorted.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The findings, in order.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many are open, by severity, with a zero for each that has none; and how many the scanner
    /// suppressed.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts: BTreeMap<_, _> = Severity::ALL.map(|severity| (severity.as_str(), 0)).into();
        counts.insert("suppressed", 0);
        for finding in &self.findings {
            let key = if finding.suppressed.is_some() { "suppressed" } else { finding.severity.as_str() };
            *counts.entry(key).or_default() += 1;
        }
        counts
    }
}

/// Characters of an id at the most; real ones have twenty or so, and an index holds them.
const MAX_ID: usize = 256;

/// An id of a vulnerability or rule, without what no text column takes.
pub(super) fn id(text: &str) -> Result<String, String> {
    let id = clean(text);
    match id.len() {
        0 => Err("a finding has no id".to_owned()),
        1..=MAX_ID => Ok(id),
        _ => Err(format!("a finding's id has more than {MAX_ID} bytes")),
    }
}

/// Text without control characters (Postgres refuses NUL, logs and terminals obey the others).
pub(super) fn clean(text: &str) -> String {
    let kept: String = text.chars().filter(|c| !c.is_control()).collect();
    kept.trim().to_owned()
}

/// One line about a finding, cut where it gets long.
pub(super) fn title(text: &str) -> String {
    clean(text.lines().next().unwrap_or_default()).chars().take(300).collect()
}

/// `None` for nothing.
pub(super) fn present(text: &str) -> Option<String> {
    Some(clean(text)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finding(n: usize, suppressed: bool) -> Finding {
        Finding {
            class: Class::Vulnerability,
            vulnerability: format!("CVE-2026-{n}"),
            aliases: vec![],
            target: None,
            path: None,
            package: "a".into(),
            purl: None,
            installed: "1".into(),
            fixed_in: vec![],
            severity: Severity::ALL[n % 6],
            severity_source: "nvd".into(),
            ratings: vec![],
            suppressed: suppressed.then(|| "not affected".into()),
            title: String::new(),
        }
    }

    proptest! {
        #[test]
        fn the_order_and_repetition_of_findings_do_not_matter(mut ns: Vec<(u8, bool)>) {
            let set = |ns: &[(u8, bool)]| {
                FindingSet::of(ns.iter().map(|(n, s)| finding((*n).into(), *s)).collect()).unwrap()
            };
            let first = set(&ns);
            ns.reverse();
            let twice: Vec<_> = ns.iter().chain(&ns).copied().collect();
            let second = set(&twice);
            prop_assert_eq!(first.digest(), second.digest());
            prop_assert_eq!(first.counts().values().sum::<usize>(), first.findings().len());
        }
    }

    #[test]
    fn any_field_that_differs_makes_another_set() {
        let digest = |finding| FindingSet::of(vec![finding]).unwrap().digest().clone();
        assert_ne!(digest(finding(1, false)), digest(finding(1, true)));
        assert_ne!(digest(finding(1, false)), digest(finding(2, false)));
    }

    #[test]
    fn ids_are_cleaned_and_bounded() {
        assert_eq!(id(" CVE-2026-1\u{0}\n").unwrap(), "CVE-2026-1");
        assert!(id("\u{1b}").is_err());
        assert!(id(&"A".repeat(257)).is_err());
    }
}
