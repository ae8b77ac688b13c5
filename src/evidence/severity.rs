//! How bad a finding is, according to whom.

use crate::policy::Severity;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A scanner's word in any case. The words of advisories are taken for what they mean: `important` and
/// `moderate` (Red Hat, GitHub), `none` (CVSS), `info`, `informational`, `minimal` and `unimportant`
/// (mildest of all). No word, `unknown`, `unrated`, `unassigned` and `undefined` are no rating. A word that
/// nobody knows is `Critical`: what it means must not pass a threshold unseen.
pub(super) fn of_word(word: &str) -> Severity {
    let word = word.trim().to_ascii_lowercase();
    match word.as_str() {
        "" | "unrated" | "unassigned" | "undefined" => Severity::Unknown,
        "none" | "info" | "informational" | "minimal" | "unimportant" => Severity::Negligible,
        "moderate" => Severity::Medium,
        "important" => Severity::High,
        word => word.parse().unwrap_or(Severity::Critical),
    }
}

/// The word of a source that rates with a word and a score: the score's where the word is no rating.
pub(super) fn of_word_or_score(word: Severity, score: Option<f64>) -> Severity {
    match (word, score) {
        (Severity::Unknown, Some(score)) => of_score(score),
        (word, _) => word,
    }
}

/// The rating of a CVSS base score: CVSS 3.1 and 4.0, "Qualitative Severity Rating Scale".
pub(super) fn of_score(score: f64) -> Severity {
    match score {
        s if s >= 9.0 => Severity::Critical,
        s if s >= 7.0 => Severity::High,
        s if s >= 4.0 => Severity::Medium,
        s if s > 0.0 => Severity::Low,
        _ => Severity::Unknown,
    }
}

/// What one source says of a vulnerability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rating {
    /// `nvd`, `ghsa`, `debian`, ...
    pub source: String,
    /// Its word, or what its score amounts to.
    pub severity: Severity,
    /// Its CVSS base score.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    /// Its CVSS vector.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vector: Option<String>,
}

/// Whose rating is chosen: the first of these that rated the finding at all. Scanners disagree
/// (CVE-2019-18276 is low to Debian, high to the NVD), so the choice is the operator's, and every
/// finding names the source that was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeverityOrder(Vec<Choice>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// The one that the scanner chose itself: usually the distribution's.
    Scanner,
    /// The worst of all.
    Highest,
    /// A source by its name.
    Source(String),
}

impl Default for SeverityOrder {
    fn default() -> Self {
        Self(vec![Choice::Scanner, Choice::Source("nvd".into()), Choice::Source("ghsa".into())])
    }
}

impl FromStr for SeverityOrder {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let word = |word: &str| match word.trim() {
            "" => Err("a severity order is a list such as scanner,nvd,ghsa or highest".to_owned()),
            "scanner" => Ok(Choice::Scanner),
            "highest" => Ok(Choice::Highest),
            source => Ok(Choice::Source(source.to_ascii_lowercase())),
        };
        text.split(',').map(word).collect::<Result<_, _>>().map(Self)
    }
}

impl SeverityOrder {
    /// The rating to follow, and its source. Where nobody in the order rated it, the worst of all.
    pub(super) fn choose(&self, scanner: &Rating, ratings: &[Rating]) -> (Severity, String) {
        let worst = || ratings.iter().max_by_key(|rating| rating.severity);
        let rated = |choice: &Choice| {
            let rating = match choice {
                Choice::Scanner => Some(scanner),
                Choice::Highest => worst(),
                Choice::Source(name) => ratings.iter().find(|rating| rating.source == *name),
            };
            rating.filter(|rating| rating.severity != Severity::Unknown)
        };
        let chosen = self.0.iter().find_map(rated).or_else(worst).unwrap_or(scanner);
        (chosen.severity, chosen.source.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rating(source: &str, severity: Severity) -> Rating {
        Rating { source: source.into(), severity, score: None, vector: None }
    }

    #[test]
    fn a_word_that_nobody_knows_is_critical_and_no_word_is_no_rating() {
        for (word, severity) in [
            ("HIGH", Severity::High),
            (" negligible ", Severity::Negligible),
            ("Important", Severity::High),
            ("moderate", Severity::Medium),
            ("None", Severity::Negligible),
            ("info", Severity::Negligible),
            ("", Severity::Unknown),
            ("UNKNOWN", Severity::Unknown),
            ("unassigned", Severity::Unknown),
            ("SEVERE", Severity::Critical),
            ("Defcon1", Severity::Critical),
            ("5", Severity::Critical),
        ] {
            assert_eq!(of_word(word), severity, "{word}");
        }
        assert_eq!(of_word_or_score(Severity::Unknown, Some(9.8)), Severity::Critical);
        assert_eq!(of_word_or_score(Severity::Low, Some(9.8)), Severity::Low);
    }

    #[test]
    fn the_configured_order_decides_and_its_source_is_named() {
        let debian = rating("debian", Severity::Low);
        let all = [debian.clone(), rating("nvd", Severity::High), rating("photon", Severity::Critical)];
        let choose = |order: &str| order.parse::<SeverityOrder>().unwrap().choose(&debian, &all);
        assert_eq!(choose("scanner,nvd"), (Severity::Low, "debian".into()));
        assert_eq!(choose("nvd,scanner"), (Severity::High, "nvd".into()));
        assert_eq!(choose("highest"), (Severity::Critical, "photon".into()));
        assert_eq!(choose("redhat"), (Severity::Critical, "photon".into()));
        assert!("nvd,,ghsa".parse::<SeverityOrder>().is_err());
    }

    #[test]
    fn a_source_that_does_not_know_is_passed_over() {
        let scanner = rating("trivy", Severity::Unknown);
        let all = [scanner.clone(), rating("ghsa", Severity::Medium)];
        assert_eq!(SeverityOrder::default().choose(&scanner, &all), (Severity::Medium, "ghsa".into()));
        let none = std::slice::from_ref(&scanner);
        assert_eq!(SeverityOrder::default().choose(&scanner, none), (Severity::Unknown, "trivy".into()));
    }
}
