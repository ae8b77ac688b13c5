//! Repositories: made by the first push of somebody allowed, with rules about which tags move.

use super::Rules;
use super::store::repositories as store;
use crate::access::{Grant, Push};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Pattern, RepositoryName, Tag};
use crate::postgres::{Generation, Tx, agreed_time};
use serde_json::json;
use sqlx::PgConnection;
use std::sync::LazyLock;

/// A repository with its rules, as they were read.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The row's id.
    pub id: i64,
    /// Its name.
    pub name: RepositoryName,
    /// Tags that may move besides the built-in ones; every other tag is write-once.
    pub floating: Vec<Pattern>,
    /// Bytes that it may hold, if there is a bound.
    pub quota_bytes: Option<i64>,
}

impl Repository {
    /// Whether the rules let this tag move. A name once held write-once never does, whatever the
    /// rules say now.
    pub fn floats(&self, tag: &Tag) -> bool {
        self.floating.iter().chain(BUILT_IN.iter()).any(|pattern| pattern.matches(tag.as_str()))
    }
}

/// Tags that may move in every repository, whatever its own list says: cosign's signature tags and the referrers
/// fallback, which their clients read, append to and write again. Both are a digest (a long one is cut at 64
/// digits), so a version such as `sha256-1.4.2` is none of them.
///
/// A tag of this form that was made write-once while a list without these patterns still took their place stays
/// write-once, as every tag does that was so once.
#[allow(clippy::expect_used, reason = "constants of the right grammar, shown by a test")]
static BUILT_IN: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let digits = "?".repeat(64);
    let of_a_digest = ["sha256-#.sig", "sha256-#.att", "sha256-#.sbom", "sha256-#", "sha512-#"];
    of_a_digest.iter().map(|text| text.replace('#', &digits).parse().expect("a pattern")).collect()
});

/// All patterns that count in a repository with this list of its own.
pub fn all_floating(own: Vec<Pattern>) -> Vec<Pattern> {
    let missing: Vec<Pattern> = BUILT_IN
        .iter()
        .filter(|pattern| !own.iter().any(|own| own.as_str() == pattern.as_str()))
        .cloned()
        .collect();
    own.into_iter().chain(missing).collect()
}

/// The repository of this name, if there is one.
pub async fn repository(
    connection: &mut PgConnection,
    name: &RepositoryName,
) -> Result<Option<Repository>, Failure> {
    store::find(connection, name).await
}

/// The repository that the grant carries; the first push makes it, with no mutable tags of its
/// own, and its event. Two first pushes at once make one: the second waits for the first to commit.
pub async fn ensure_repository(tx: &mut Tx, grant: &Grant<Push>) -> Result<Repository, Failure> {
    let name = grant.repository();
    if let Some(found) = store::find(tx, name).await? {
        return Ok(found);
    }
    let floating = Vec::new();
    let made = store::insert(tx, name, &Rules::default(), grant.principal().id).await?;
    let Some(id) = made else {
        let found = store::find(tx, name).await?;
        return found.ok_or_else(|| Failure::new("making a repository", "it was taken and is not there"));
    };
    let at = agreed_time(tx).await?;
    let event = Event {
        kind: Kind::RepositoryCreated,
        at,
        principal: grant.principal(),
        repository: Some((id, name)),
        environment: None,
        digest: None,
        facts: json!({"floating": floating}),
        changes: vec![Generation::repository(name)],
    };
    ledger::append(tx, event).await?;
    Ok(Repository { id, name: name.clone(), floating, quota_bytes: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_digests_move_and_versions_do_not() {
        let rules = all_floating(vec!["v*".parse().unwrap(), BUILT_IN[1].clone()]);
        assert_eq!(rules.len(), BUILT_IN.len() + 1, "each once");
        let floats = |tag: &str| rules.iter().any(|pattern| pattern.matches(tag));
        assert!(floats("v1"));
        let hex = "a".repeat(64);
        for moves in [".sig", ".att", ".sbom", ""] {
            assert!(floats(&format!("sha256-{hex}{moves}")), "{moves}");
        }
        assert!(floats(&format!("sha512-{hex}")));
        for stays in ["sha256-1.4.2", "sha512-1", "sha256-1.4.2.sig", "sha256-.att", "latest"] {
            assert!(!floats(stays), "{stays}");
        }
    }
}
