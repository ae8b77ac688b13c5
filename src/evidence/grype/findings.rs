//! Findings of Grype's report.

use super::super::bounded::{List, text};
use super::super::finding::{Finding, clean, id, present, title};
use super::super::severity::{of_score, of_word, of_word_or_score};
use super::super::{Class, Rating, SeverityOrder, Target};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Match {
    vulnerability: Vulnerability,
    #[serde(default)]
    related_vulnerabilities: List<Vulnerability>,
    artifact: Artifact,
    #[serde(default)]
    pub(super) applied_ignore_rules: List<IgnoreRule>,
}

#[derive(Deserialize)]
struct Vulnerability {
    id: String,
    #[serde(default, deserialize_with = "text")]
    namespace: String,
    #[serde(default, deserialize_with = "text")]
    severity: String,
    #[serde(default, deserialize_with = "text")]
    description: String,
    #[serde(default)]
    cvss: List<Cvss>,
    #[serde(default)]
    fix: Option<Fix>,
}

#[derive(Deserialize)]
struct Cvss {
    #[serde(default, deserialize_with = "text")]
    source: String,
    #[serde(default, deserialize_with = "text")]
    version: String,
    #[serde(default, deserialize_with = "text")]
    vector: String,
    #[serde(default)]
    metrics: Option<Metrics>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    #[serde(default)]
    base_score: Option<f64>,
}

#[derive(Deserialize)]
struct Fix {
    #[serde(default)]
    versions: List<String>,
}

#[derive(Deserialize)]
struct Artifact {
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "text")]
    version: String,
    #[serde(default, deserialize_with = "text")]
    purl: String,
    #[serde(rename = "type", default, deserialize_with = "text")]
    kind: String,
    #[serde(default)]
    locations: List<Location>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Location {
    #[serde(default, deserialize_with = "text")]
    path: String,
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(default, deserialize_with = "text")]
    evidence: String,
}

/// Of an archive in an archive: `/app.jar:BOOT-INF/lib/a.jar`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default, deserialize_with = "text")]
    virtual_path: String,
}

/// A rule by which Grype set a match aside.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct IgnoreRule {
    #[serde(default, deserialize_with = "text")]
    vulnerability: String,
    #[serde(default, deserialize_with = "text")]
    reason: String,
    #[serde(default, deserialize_with = "text")]
    fix_state: String,
    #[serde(default, deserialize_with = "text")]
    vex_status: String,
    #[serde(default, deserialize_with = "text")]
    vex_justification: String,
    #[serde(default, deserialize_with = "text")]
    match_type: String,
    #[serde(default)]
    package: Option<RulePackage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RulePackage {
    #[serde(default, deserialize_with = "text")]
    upstream_name: String,
}

/// Where a rule by which Grype set a match aside comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleSource {
    /// A VEX document.
    Vex,
    /// Grype itself: what a distribution says of its own packages, and headers of a kernel that is another
    /// package.
    BuiltIn,
    /// The configuration that Grype ran with.
    Configuration,
}

impl IgnoreRule {
    pub(super) fn source(&self) -> RuleSource {
        let of_headers = self.match_type == "exact-indirect-match"
            && self.package.as_ref().is_some_and(|package| !package.upstream_name.is_empty());
        let only_a_reason = !self.reason.is_empty() && self.package.is_none() && self.fix_state.is_empty();
        match () {
            () if !self.vex_status.is_empty() => RuleSource::Vex,
            () if self.vulnerability.is_empty() && (of_headers || only_a_reason) => RuleSource::BuiltIn,
            () => RuleSource::Configuration,
        }
    }
}

impl Artifact {
    fn target(&self) -> Target {
        match self.kind.as_str() {
            "deb"
            | "rpm"
            | "apk"
            | "alpm"
            | "pacman"
            | "portage"
            | "msrc-kb"
            | "kb"
            | "linux-kernel"
            | "linux-kernel-module" => Target::Os,
            _ => Target::Libraries,
        }
    }

    /// The file that shows the package: the one that Grype says is the evidence, or the first. A package
    /// that is there twice is two matches with a path each.
    fn path(&self) -> Option<String> {
        let inner = self.metadata.as_ref().and_then(|metadata| present(&metadata.virtual_path));
        let is_evidence = |location: &&Location| {
            location.annotations.as_ref().is_some_and(|annotations| annotations.evidence == "primary")
        };
        let locations = &self.locations.0;
        let location = locations.iter().find(is_evidence).or(locations.first());
        inner.or_else(|| present(&location?.path))
    }
}

impl Match {
    /// The part of what was scanned in which the package is.
    pub(super) fn target(&self) -> Target {
        self.artifact.target()
    }

    pub(super) fn finding(&self, order: &SeverityOrder) -> Result<Finding, String> {
        let own = id(&self.vulnerability.id)?;
        let mut names = vec![own.clone()];
        for related in &self.related_vulnerabilities.0 {
            names.push(id(&related.id)?);
        }
        names.sort();
        names.dedup();
        let vulnerability = main_name(own, &names);
        names.retain(|name| *name != vulnerability);
        let chosen_by_grype = Rating {
            source: source(&self.vulnerability.namespace),
            severity: of_word(&self.vulnerability.severity),
            score: None,
            vector: None,
        };
        let ratings = self.ratings();
        let (severity, severity_source) = order.choose(&chosen_by_grype, &ratings);
        let related = self.related_vulnerabilities.0.iter();
        let mut descriptions =
            std::iter::once(&self.vulnerability).chain(related).map(|v| v.description.as_str());
        Ok(Finding {
            class: Class::Vulnerability,
            vulnerability,
            aliases: names,
            target: Some(self.artifact.target()),
            path: self.artifact.path(),
            package: clean(&self.artifact.name),
            purl: present(&self.artifact.purl),
            installed: clean(&self.artifact.version),
            fixed_in: fixed_in(self.vulnerability.fix.as_ref()),
            severity,
            severity_source,
            ratings,
            suppressed: None,
            title: title(descriptions.find(|text| !text.is_empty()).unwrap_or_default()),
        })
    }

    /// By source: its word, and the newest CVSS score it gives.
    fn ratings(&self) -> Vec<Rating> {
        let mut ratings: Vec<Rating> = Vec::new();
        for vulnerability in std::iter::once(&self.vulnerability).chain(&self.related_vulnerabilities.0) {
            let by = source(&vulnerability.namespace);
            if ratings.iter().all(|rating| rating.source != by) {
                let severity = of_word(&vulnerability.severity);
                ratings.push(Rating { source: by.clone(), severity, score: None, vector: None });
            }
            let mut scores: Vec<&Cvss> =
                vulnerability.cvss.0.iter().filter(|cvss| cvss.version != "2.0").collect();
            scores.sort_by(|a, b| b.version.cmp(&a.version));
            for cvss in scores {
                let Some(score) = cvss.metrics.as_ref().and_then(|metrics| metrics.base_score) else {
                    continue;
                };
                let by = if cvss.source.is_empty() { by.clone() } else { source(&cvss.source) };
                let vector = present(&cvss.vector);
                match ratings.iter_mut().find(|rating| rating.source == by) {
                    Some(rating) if rating.score.is_none() => {
                        rating.severity = of_word_or_score(rating.severity, Some(score));
                        (rating.score, rating.vector) = (Some(score), vector);
                    }
                    Some(_) => {}
                    None => {
                        let severity = of_score(score);
                        ratings.push(Rating { source: by, severity, score: Some(score), vector });
                    }
                }
            }
        }
        ratings.sort_by(|a, b| a.source.cmp(&b.source));
        ratings
    }

    pub(super) fn why_ignored(&self) -> String {
        let rules = self.applied_ignore_rules.0.iter();
        let parts = rules.flat_map(|rule| [&rule.vex_status, &rule.vex_justification, &rule.reason]);
        let mut why: Vec<String> = parts.filter_map(|part| present(part)).collect();
        why.dedup();
        if why.is_empty() { "ignored by a rule of Grype".to_owned() } else { why.join(", ") }
    }
}

/// The CVE, where exactly one is known: a GitHub advisory may stand for several.
fn main_name(own: String, names: &[String]) -> String {
    let mut cves = names.iter().filter(|name| name.starts_with("CVE-"));
    match (own.starts_with("CVE-"), cves.next(), cves.next()) {
        (false, Some(one), None) => one.clone(),
        _ => own,
    }
}

fn fixed_in(fix: Option<&Fix>) -> Vec<String> {
    let mut versions: Vec<String> =
        fix.into_iter().flat_map(|fix| &fix.versions.0).filter_map(|version| present(version)).collect();
    versions.sort();
    versions.dedup();
    versions
}

/// Grype's namespaces (`debian:distro:debian:12`, `github:language:go`, `nvd:cpe`) and the mail
/// addresses that the NVD gives (`nvd@nist.gov`) as the names that Trivy uses too.
fn source(namespace: &str) -> String {
    let first = namespace.split([':', '@']).next().unwrap_or_default();
    match first {
        "" => "grype".to_owned(),
        "github" | "security-advisories" => "ghsa".to_owned(),
        other => clean(other).to_ascii_lowercase(),
    }
}
