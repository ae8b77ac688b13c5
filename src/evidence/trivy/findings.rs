//! Findings of Trivy's report.

use super::super::bounded::{List, Map, text};
use super::super::finding::{Finding, clean, id, present, title};
use super::super::severity::{of_word, of_word_or_score};
use super::super::{Class, Rating, Severity, SeverityOrder, Target};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Vulnerability {
    #[serde(rename = "VulnerabilityID")]
    id: String,
    #[serde(rename = "VendorIDs", default)]
    vendor_ids: List<String>,
    #[serde(rename = "PkgName", default, deserialize_with = "text")]
    package: String,
    /// Of a package that is one file, or of one lock file among several.
    #[serde(rename = "PkgPath", default, deserialize_with = "text")]
    path: String,
    #[serde(rename = "PkgIdentifier", default)]
    identifier: Option<Identifier>,
    #[serde(rename = "InstalledVersion", default, deserialize_with = "text")]
    installed: String,
    #[serde(rename = "FixedVersion", default, deserialize_with = "text")]
    fixed: String,
    #[serde(rename = "SeveritySource", default, deserialize_with = "text")]
    severity_source: String,
    #[serde(rename = "DataSource", default)]
    data_source: Option<DataSource>,
    #[serde(rename = "Title", default, deserialize_with = "text")]
    title: String,
    #[serde(rename = "Severity", default, deserialize_with = "text")]
    severity: String,
    #[serde(rename = "VendorSeverity", default)]
    vendor_severity: Map<i64>,
    #[serde(rename = "CVSS", default)]
    cvss: Map<Cvss>,
    #[serde(rename = "References", default)]
    references: List<String>,
}

#[derive(Deserialize)]
struct Identifier {
    #[serde(rename = "PURL", default, deserialize_with = "text")]
    purl: String,
}

#[derive(Deserialize)]
struct DataSource {
    #[serde(rename = "ID", default, deserialize_with = "text")]
    id: String,
}

#[derive(Deserialize)]
struct Cvss {
    #[serde(rename = "V3Score", default)]
    v3_score: Option<f64>,
    #[serde(rename = "V3Vector", default)]
    v3_vector: Option<String>,
    #[serde(rename = "V40Score", default)]
    v40_score: Option<f64>,
    #[serde(rename = "V40Vector", default)]
    v40_vector: Option<String>,
}

/// A secret or a misconfiguration. What matched (`Match`, `Code`) is not read.
#[derive(Deserialize)]
pub(super) struct Rule {
    #[serde(rename = "RuleID", alias = "ID")]
    id: String,
    #[serde(rename = "AVDID", default, deserialize_with = "text")]
    avd_id: String,
    #[serde(rename = "Title", default, deserialize_with = "text")]
    title: String,
    #[serde(rename = "Severity", default, deserialize_with = "text")]
    severity: String,
    /// Of a misconfiguration: PASS, FAIL or EXCEPTION.
    #[serde(rename = "Status", default, deserialize_with = "text")]
    status: String,
}

#[derive(Deserialize)]
pub(super) struct License {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "PkgName", default, deserialize_with = "text")]
    package: String,
    #[serde(rename = "FilePath", default, deserialize_with = "text")]
    file: String,
    #[serde(rename = "Category", default, deserialize_with = "text")]
    category: String,
    #[serde(rename = "Severity", default, deserialize_with = "text")]
    severity: String,
}

/// Where vulnerabilities were found: the part, and the file that is the part.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'a> {
    pub target: Option<Target>,
    pub path: Option<&'a str>,
}

impl Vulnerability {
    pub(super) fn finding(&self, order: &SeverityOrder, place: Place<'_>) -> Result<Finding, String> {
        let own = id(&self.id)?;
        let data_source = self.data_source.as_ref().map_or("", |source| &source.id);
        let mut aliases = self.vendor_ids.0.iter().map(|alias| id(alias)).collect::<Result<Vec<_>, _>>()?;
        if data_source == "ghsa" {
            aliases.extend(advisory(&self.references.0));
        }
        aliases.retain(|alias| *alias != own);
        aliases.sort();
        aliases.dedup();
        let mut ratings = self.ratings();
        let chosen_by_trivy = Rating {
            source: [&self.severity_source, data_source, "trivy"]
                .into_iter()
                .find_map(present)
                .unwrap_or_default(),
            severity: of_word(&self.severity),
            score: None,
            vector: None,
        };
        if !ratings.iter().any(|rating| rating.source == chosen_by_trivy.source) {
            ratings.push(chosen_by_trivy.clone());
        }
        let (severity, severity_source) = order.choose(&chosen_by_trivy, &ratings);
        Ok(Finding {
            class: Class::Vulnerability,
            vulnerability: own,
            aliases,
            target: place.target,
            path: present(&self.path).or_else(|| place.path.and_then(present)),
            package: clean(&self.package),
            purl: self.identifier.as_ref().and_then(|identifier| present(&identifier.purl)),
            installed: clean(&self.installed),
            fixed_in: self.fixed.split(',').filter_map(present).collect(),
            severity,
            severity_source,
            ratings,
            suppressed: None,
            title: title(&self.title),
        })
    }

    /// Every source that rated it by a word (0 unknown to 4 critical) or by a CVSS score.
    fn ratings(&self) -> Vec<Rating> {
        let words = self.vendor_severity.0.keys();
        let mut sources: Vec<&String> = words.chain(self.cvss.0.keys()).collect();
        sources.sort();
        sources.dedup();
        let rating = |source: &String| {
            let cvss = self.cvss.0.get(source);
            let score = cvss.and_then(|cvss| cvss.v40_score.or(cvss.v3_score)).filter(|score| *score > 0.0);
            let vector = cvss.and_then(|cvss| cvss.v40_vector.as_ref().or(cvss.v3_vector.as_ref()));
            let word = self.vendor_severity.0.get(source).map(|word| match word {
                0 => Severity::Unknown,
                1 => Severity::Low,
                2 => Severity::Medium,
                3 => Severity::High,
                // 4 is critical; a number that Trivy does not have must not pass a threshold unseen.
                _ => Severity::Critical,
            });
            Rating {
                source: clean(source),
                severity: of_word_or_score(word.unwrap_or(Severity::Unknown), score),
                score,
                vector: vector.and_then(|vector| present(vector)),
            }
        };
        sources.into_iter().map(rating).collect()
    }
}

/// The GitHub advisory that a finding of GitHub's data is about: known only when its references
/// name exactly one. Of two, one may be another vulnerability's, and an alias must never be wrong,
/// since a waiver of it would waive this one.
fn advisory(references: &[String]) -> Option<String> {
    let prefix = "https://github.com/advisories/";
    let mut named: Vec<&str> =
        references.iter().filter_map(|reference| reference.strip_prefix(prefix)).collect();
    named.retain(|name| {
        name.starts_with("GHSA-") && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    named.dedup();
    match named.as_slice() {
        [one] => id(one).ok(),
        _ => None,
    }
}

impl Rule {
    /// Whether it names a fault: Trivy also lists the rules that passed.
    pub(super) fn failed(&self) -> bool {
        self.status != "PASS"
    }

    /// Whether an exception of Trivy's policy set it aside.
    pub(super) fn excepted(&self) -> bool {
        self.status == "EXCEPTION"
    }

    pub(super) fn finding(&self, class: Class, target: &str) -> Result<Finding, String> {
        let severity = of_word(&self.severity);
        let suppressed = self.excepted().then(|| "an exception of Trivy's policy".to_owned());
        Ok(Finding {
            aliases: Some(&self.avd_id)
                .and_then(|avd| id(avd).ok())
                .filter(|avd| *avd != self.id)
                .into_iter()
                .collect(),
            suppressed,
            ..simple(class, id(&self.id)?, clean(target), severity, title(&self.title))
        })
    }
}

impl License {
    pub(super) fn finding(&self) -> Result<Finding, String> {
        let place = present(&self.package).unwrap_or_else(|| clean(&self.file));
        let severity = of_word(&self.severity);
        Ok(simple(Class::License, id(&self.name)?, place, severity, title(&self.category)))
    }
}

/// A finding that only Trivy rates.
fn simple(class: Class, id: String, place: String, severity: Severity, title: String) -> Finding {
    Finding {
        class,
        vulnerability: id,
        aliases: vec![],
        target: None,
        path: None,
        package: place,
        purl: None,
        installed: String::new(),
        fixed_in: vec![],
        severity,
        severity_source: "trivy".to_owned(),
        ratings: vec![Rating { source: "trivy".to_owned(), severity, score: None, vector: None }],
        suppressed: None,
        title,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_advisories_of_github_neither_is_an_alias() {
        let url = |id: &str| format!("https://github.com/advisories/{id}");
        assert_eq!(advisory(&[url("GHSA-aaaa-aaaa-aaaa"), url("GHSA-bbbb-bbbb-bbbb")]), None);
        assert_eq!(advisory(&[url("GHSA-aaaa-aaaa-aaaa")]).as_deref(), Some("GHSA-aaaa-aaaa-aaaa"));
    }
}
