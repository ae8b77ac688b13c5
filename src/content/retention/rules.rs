//! What retention goes by. Pure: names and the time in, verdicts out.

use crate::names::{Digest, Pattern, Tag};
use crate::policy::Span;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// What a repository keeps. A version is kept when any tag of it is; a tag that no rule matches is.
/// Whatever the rules say, what is promoted or otherwise pinned stays, with all that belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Whether what is not kept goes. Without it the rules only say what would.
    #[serde(default)]
    pub enforce: bool,
    /// A tag goes by the first rule that matches it.
    #[serde(default)]
    pub rules: Vec<RetentionRule>,
    /// How long a manifest is kept that no tag names, no index lists, and that refers to nothing here;
    /// for ever when absent.
    #[serde(default)]
    pub untagged_for: Option<Span>,
}

/// What is kept of the tags that match. With neither bound all of them are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Globs over tags.
    pub tags: Vec<Pattern>,
    /// The newest so many versions are kept.
    #[serde(default)]
    pub keep_last: Option<u32>,
    /// What is younger is kept.
    #[serde(default)]
    pub keep_for: Option<Span>,
}

/// A tag that names a manifest now, and since when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The tag.
    pub tag: Tag,
    /// What it names.
    pub digest: Digest,
    /// When it was claimed, or last moved.
    pub at: DateTime<Utc>,
}

/// A version that no rule keeps: its tags, and why for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// All tags that name it.
    pub tags: BTreeSet<Tag>,
    /// Why none of them keeps it.
    pub why: Vec<String>,
    /// What the verdict rests on: the names that it has, as they were judged.
    pub names: Vec<Named>,
    /// And for each rule that keeps the last, the newer versions that it keeps in its stead. Shared by all
    /// that the rule lets go of.
    pub newer: Vec<Arc<[Named]>>,
    /// Whether it is the report of a superseded scan run, and no version.
    pub is_superseded_report: bool,
}

/// The versions of one rule, counted from the newest.
#[derive(Default)]
struct Ranking {
    seen: BTreeSet<Digest>,
    /// Those that are kept for being the newest, each by its newest name.
    newest: Vec<Named>,
    shared: Option<Arc<[Named]>>,
}

impl Retention {
    /// The versions that the rules do not keep. `names` in any order.
    pub fn judge(&self, mut names: Vec<Named>, now: DateTime<Utc>) -> BTreeMap<Digest, Expired> {
        names.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| b.tag.cmp(&a.tag)));
        let mut rankings: Vec<Ranking> = self.rules.iter().map(|_| Ranking::default()).collect();
        let (mut expired, mut kept) = (BTreeMap::<Digest, Expired>::new(), BTreeSet::new());
        for named in names {
            let rule = self.rules.iter().zip(&mut rankings).find(|(rule, _)| rule.matches(&named.tag));
            let verdict = rule.and_then(|(rule, ranking)| {
                let rank = ranking.rank(&named, rule.last());
                Some((rule.lets_go(&named.tag, rank, named.at, now)?, ranking.share()))
            });
            match verdict {
                Some((why, newer)) => expired.entry(named.digest.clone()).or_default().add(named, why, newer),
                None => {
                    kept.insert(named.digest);
                }
            }
        }
        expired.retain(|digest, _| !kept.contains(digest));
        expired
    }
}

impl Expired {
    fn add(&mut self, named: Named, why: String, newer: Arc<[Named]>) {
        self.tags.insert(named.tag.clone());
        self.names.push(named);
        self.why.push(why);
        if !self.newer.iter().any(|known| Arc::ptr_eq(known, &newer)) {
            self.newer.push(newer);
        }
    }

    /// All names that have to be what they were for the verdict to stand. Time alone makes nothing young
    /// again, and nothing that comes makes the others newer.
    pub fn rests_on(&self) -> impl Iterator<Item = &Named> {
        self.names.iter().chain(self.newer.iter().flat_map(|newer| newer.iter()))
    }
}

impl Ranking {
    /// The how many-th of the newest versions the name's is, of which the `last` are kept.
    fn rank(&mut self, named: &Named, last: usize) -> usize {
        if self.seen.insert(named.digest.clone()) && self.seen.len() <= last {
            self.newest.push(named.clone());
        }
        self.seen.len()
    }

    /// Those that are kept, once one is not.
    fn share(&mut self) -> Arc<[Named]> {
        self.shared.get_or_insert_with(|| self.newest.as_slice().into()).clone()
    }
}

impl RetentionRule {
    fn last(&self) -> usize {
        self.keep_last.map_or(0, |last| usize::try_from(last).unwrap_or(usize::MAX))
    }

    fn matches(&self, tag: &Tag) -> bool {
        self.tags.iter().any(|pattern| pattern.matches(tag.as_str()))
    }

    /// Why the tag, of the newest `rank`th version of its rule, is not kept.
    fn lets_go(&self, tag: &Tag, rank: usize, at: DateTime<Utc>, now: DateTime<Utc>) -> Option<String> {
        if self.keep_last.is_none() && self.keep_for.is_none() {
            return None;
        }
        let last = rank <= self.last();
        let young = self.keep_for.is_some_and(|span| at + span.delta() > now);
        if last || young {
            return None;
        }
        let patterns: Vec<&str> = self.tags.iter().map(Pattern::as_str).collect();
        let mut why = format!("{tag} matches {}", patterns.join(", "));
        if let Some(last) = self.keep_last {
            let _ = write!(why, "; it is number {rank} of the newest and {last} are kept");
        }
        if let Some(span) = self.keep_for {
            let _ = write!(why, "; it is of {} and {span} are kept", at.format("%Y-%m-%dT%H:%M:%SZ"));
        }
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    fn rule(pattern: &str, keep_last: Option<u32>, keep_for: Option<&str>) -> RetentionRule {
        let keep_for = keep_for.map(|text| text.parse().unwrap());
        RetentionRule { tags: vec![pattern.parse().unwrap()], keep_last, keep_for }
    }

    fn named(tag: &str, content: &str, days: i64) -> Named {
        let at = DateTime::UNIX_EPOCH + TimeDelta::days(1000 - days);
        Named { tag: tag.parse().unwrap(), digest: Digest::sha256(content.as_bytes()), at }
    }

    fn gone(rules: Vec<RetentionRule>, names: Vec<Named>) -> Vec<String> {
        let retention = Retention { enforce: true, rules, untagged_for: None };
        let expired = retention.judge(names, DateTime::UNIX_EPOCH + TimeDelta::days(1000));
        let mut tags: Vec<String> =
            expired.into_values().flat_map(|version| version.tags).map(|tag| tag.to_string()).collect();
        tags.sort();
        tags
    }

    #[test]
    fn the_last_and_the_young_are_kept_and_the_first_rule_decides() {
        let names = || {
            vec![
                named("nightly-1", "1", 40),
                named("nightly-2", "2", 30),
                named("nightly-3", "3", 20),
                named("nightly-4", "4", 10),
                named("v1", "5", 400),
            ]
        };
        assert_eq!(gone(vec![], names()), Vec::<String>::new());
        assert_eq!(gone(vec![rule("nightly-*", Some(2), None)], names()), ["nightly-1", "nightly-2"]);
        assert_eq!(gone(vec![rule("nightly-*", Some(1), Some("35d"))], names()), ["nightly-1"]);
        assert_eq!(gone(vec![rule("*", None, Some("35d"))], names()), ["nightly-1", "v1"]);
        let rules = vec![rule("v*", None, None), rule("*", Some(0), None)];
        assert_eq!(gone(rules, names()), ["nightly-1", "nightly-2", "nightly-3", "nightly-4"]);
    }

    #[test]
    fn a_version_is_kept_by_any_of_its_tags_and_counts_once() {
        let names =
            vec![named("n-3", "b", 1), named("n-2", "b", 2), named("n-1", "a", 3), named("v1", "z", 9)];
        assert_eq!(gone(vec![rule("n-*", Some(2), None)], names.clone()), Vec::<String>::new());
        assert_eq!(gone(vec![rule("n-*", Some(1), None)], names.clone()), ["n-1"]);
        let mut names = names;
        names.push(named("v1-old", "a", 50));
        assert_eq!(gone(vec![rule("n-*", Some(1), None)], names), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn keeping_more_never_lets_go_of_more(
            last in 0u32..6, more in 0u32..6, days in proptest::collection::vec(0i64..50, 0..12),
        ) {
            let names = || days.iter().enumerate()
                .map(|(n, days)| named(&format!("n-{n}"), &(n / 2).to_string(), *days)).collect::<Vec<_>>();
            let few = gone(vec![rule("n-*", Some(last), None)], names());
            let more = gone(vec![rule("n-*", Some(last + more), Some("10d"))], names());
            prop_assert!(more.iter().all(|tag| few.contains(tag)));
        }
    }
}
