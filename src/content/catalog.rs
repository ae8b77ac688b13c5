//! Lists: the repositories that somebody may see, and the artifacts of one.

use super::Retention;
use super::store::{manifests, repositories as store};
use crate::failure::Failure;
use crate::names::{Digest, MediaType, Pattern, RepositoryName, Tag};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A repository as people see it.
#[derive(Clone, Debug)]
pub struct RepositoryRecord {
    /// The row's id.
    pub id: i64,
    /// Its name.
    pub name: RepositoryName,
    /// What people read about it.
    pub description: String,
    /// Tags that may move besides the built-in ones ([`super::all_floating`]); every other is write-once.
    pub floating: Vec<Pattern>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Bytes that it may hold, if there is a bound.
    pub quota_bytes: Option<i64>,
    /// Bytes of evidence that it may hold, where that is not the default.
    pub evidence_quota_bytes: Option<i64>,
    /// What it keeps of its versions; everything when there are no rules.
    pub retention: Option<sqlx::types::Json<Retention>>,
    /// Bytes that it holds: blobs and manifests.
    pub used_bytes: i64,
    /// Bytes of evidence that it holds: envelopes and scan reports.
    pub evidence_used_bytes: i64,
}

/// The repository as people see it.
pub async fn repository_record(
    connection: &mut PgConnection,
    name: &RepositoryName,
) -> Result<Option<RepositoryRecord>, Failure> {
    store::record(connection, name).await
}

/// A page of the repositories that somebody may see, by name after `last`. The query narrows by
/// what every pattern begins with; `visible` has the last word, so what is hidden moves no page.
pub async fn visible_repositories(
    connection: &mut PgConnection,
    patterns: &[&Pattern],
    visible: impl Fn(&RepositoryName) -> bool,
    last: &str,
    limit: usize,
) -> Result<Vec<RepositoryRecord>, Failure> {
    let prefixes: Vec<String> = patterns.iter().map(|pattern| literal_prefix(pattern.as_str())).collect();
    let chunk = limit.max(256);
    let mut last = last.to_owned();
    let mut page = Vec::new();
    while page.len() < limit {
        let rows =
            store::page(connection, &prefixes, &last, i64::try_from(chunk).unwrap_or(i64::MAX)).await?;
        let ended = rows.len() < chunk;
        if let Some(row) = rows.last() {
            last = row.name.to_string();
        }
        page.extend(rows.into_iter().filter(|row| visible(&row.name)));
        if ended {
            break;
        }
    }
    page.truncate(limit);
    Ok(page)
}

/// What every name that the glob matches begins with.
fn literal_prefix(pattern: &str) -> String {
    pattern.chars().take_while(|c| !"*?[]{}\\!,".contains(*c)).collect()
}

/// What a list of artifacts is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct ArtifactFilter {
    /// Named by this tag.
    pub version: Option<Tag>,
    /// Of this type: `artifactType`, or an image's config type.
    pub artifact_type: Option<String>,
    /// Pushed after this.
    pub pushed_after: Option<DateTime<Utc>>,
}

/// An artifact as people see it, without its bytes.
#[derive(Clone, Debug)]
pub struct ArtifactRecord {
    /// The digest it was pushed under.
    pub digest: Digest,
    /// Its manifest's media type.
    pub media_type: MediaType,
    /// `artifactType`, or an image's config type.
    pub artifact_type: Option<MediaType>,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// The manifest's own bytes.
    pub manifest_size_bytes: i64,
    /// With all it refers to.
    pub total_size_bytes: i64,
    /// The write-once tags that name it, sorted.
    pub versions: Vec<Tag>,
    /// The floating tags that name it now, sorted.
    pub floating_tags: Vec<Tag>,
    /// Who pushed it first.
    pub pushed_by: String,
    /// When.
    pub pushed_at: DateTime<Utc>,
}

/// Where a page of artifacts goes on: behind this one, newest first.
pub type ArtifactCursor = (DateTime<Utc>, Digest);

/// A page of a repository's artifacts, newest first, behind `after`.
pub async fn artifacts(
    connection: &mut PgConnection,
    repository_id: i64,
    filter: &ArtifactFilter,
    after: Option<&ArtifactCursor>,
    limit: i64,
) -> Result<Vec<ArtifactRecord>, Failure> {
    let only = match &filter.version {
        None => None,
        Some(tag) => match super::store::tags::resolve(connection, repository_id, tag).await? {
            None => return Ok(Vec::new()),
            digest => digest,
        },
    };
    let rows = manifests::page(connection, repository_id, only.as_ref(), filter, after, limit).await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in rows {
        let names = super::tags_of(connection, repository_id, &row.digest).await?;
        records.push(row.named(names));
    }
    Ok(records)
}

/// One artifact of a repository.
pub async fn artifact(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Option<ArtifactRecord>, Failure> {
    let row = manifests::record(connection, repository_id, digest).await?;
    let Some(row) = row else { return Ok(None) };
    let names = super::tags_of(connection, repository_id, digest).await?;
    Ok(Some(row.named(names)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_never_hides_what_a_pattern_matches() {
        for (pattern, prefix) in
            [("payments/*", "payments/"), ("**", ""), ("a{b,c}", "a"), ("a[bc]", "a"), ("a/b", "a/b")]
        {
            assert_eq!(literal_prefix(pattern), prefix);
        }
    }
}
