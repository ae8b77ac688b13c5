//! An audit of the tables: what must hold whatever happened. For fsck and for every test's end. Each
//! rule reads one snapshot, so it may run beside pushes; what reads bytes comes in pages.

pub use super::store::check::{manifests_page, of_small_blobs as check_small_blobs};

use super::ParsedManifest;
use super::store::check as store;
use crate::failure::Failure;
use crate::names::{Algorithm, Digest};
use sqlx::PgConnection;

/// Bytes of manifests in memory at once, and one that may be larger.
const AT_ONCE: i64 = 4 << 20;
/// Lines of one page at the most.
const MAX_LINES: usize = 1000;

/// A page of names of repositories.
pub struct NamesPage {
    /// Names that were looked at.
    pub rows: u64,
    /// What is wrong with them, in words.
    pub wrong: Vec<String>,
    /// Those that are hidden and should not be, or the other way round.
    pub hidden: Vec<String>,
    /// The last one, by repository and name; none behind the end.
    pub last: Option<(i64, String)>,
}

/// Looks at the next names behind this one: each points at a manifest or is hidden, none moved after it
/// became write-once, and those are hidden whose history says so.
pub async fn check_names(
    connection: &mut PgConnection,
    behind: (i64, &str),
    limit: i64,
) -> Result<NamesPage, Failure> {
    let names = store::names(connection, behind, limit).await?;
    let mut page = NamesPage { rows: names.len() as u64, wrong: Vec::new(), hidden: Vec::new(), last: None };
    for name in &names {
        let of = format!("{}:{}", name.repository, name.tag);
        match (&name.held, &name.floats) {
            (Some(held), _) if !name.is_hidden && name.found.is_none() => {
                page.wrong.push(format!("a shown tag points at no manifest: {of} -> {held}"));
            }
            (None, Some(digest)) if name.found.is_none() => {
                page.wrong.push(format!("a floating tag points at no manifest: {of} -> {digest}"));
            }
            (None, _) if name.is_hidden => page.wrong.push(format!("a hidden tag is none: {of}")),
            (Some(_) | None, _) => {}
        }
        if name.moved_on {
            page.wrong.push(format!("a floating tag moved after it became write-once: {of}"));
        }
        if name.is_hidden != name.was_hidden {
            page.hidden.push(format!("tags_hidden disagrees with tag_visibility: {of}"));
        }
    }
    page.last = names.into_iter().next_back().map(|name| (name.repository_id, name.tag));
    Ok(page)
}

/// What a repository holds against what is counted.
pub struct UsageCheck {
    /// The repository's row id.
    pub repository_id: i64,
    /// Rows that were looked at.
    pub rows: u64,
    /// What is wrong, in words.
    pub wrong: Option<String>,
}

/// Looks at the next repository behind this one; `None` behind the end.
pub async fn check_usage(connection: &mut PgConnection, behind: i64) -> Result<Option<UsageCheck>, Failure> {
    let Some(row) = store::usage(connection, behind).await? else { return Ok(None) };
    let (held, counted) =
        ((row.held_bytes, row.evidence_bytes), (row.counted_bytes, row.counted_evidence_bytes));
    let wrong = (held != counted).then(|| {
        format!(
            "a repository holds other bytes than its usage says: {} holds {}, {} of evidence, counted are {} and {}",
            row.repository, held.0, held.1, counted.0, counted.1
        )
    });
    Ok(Some(UsageCheck { repository_id: row.repository_id, rows: row.rows.unsigned_abs() + 1, wrong }))
}

/// What is wrong with the manifests behind the first key up to the second, in words.
pub async fn check_manifests(
    connection: &mut PgConnection,
    behind: (i64, &str),
    to: &(i64, String),
) -> Result<Vec<String>, Failure> {
    let (mut violations, mut last) = (Vec::new(), (behind.0, behind.1.to_owned()));
    loop {
        let some = store::held(connection, (last.0, &last.1), to, AT_ONCE).await?;
        let Some(end) = some.last() else { return Ok(violations) };
        last = (end.repository_id, end.digest.clone());
        let left = MAX_LINES.saturating_sub(violations.len());
        violations.extend(some.into_iter().flat_map(wrong).take(left));
    }
}

/// What is wrong with one manifest. One that cannot be read hides no other's faults.
fn wrong(row: store::Held) -> Vec<String> {
    let of = format!("{}@{}", row.repository, row.digest);
    let mut violations = Vec::new();
    let (sha256, sha512) = (Digest::sha256(&row.body), Digest::of(Algorithm::Sha512, &row.body));
    let as_stored = [sha256.as_str(), sha512.as_str()] == [&row.sha256, &row.sha512];
    if !as_stored || ![&row.sha256, &row.sha512].contains(&&row.digest) {
        violations.push(format!("a manifest is not the bytes of its digests: {of}"));
    }
    let media_type = Some(row.media_type.as_str());
    let parsed = match ParsedManifest::parse(row.body.into(), media_type, Algorithm::Sha256, usize::MAX) {
        Ok(parsed) => parsed,
        Err(why) => {
            violations.push(format!("a manifest cannot be read: {of}: {why}"));
            return violations;
        }
    };
    if row.config_digest.as_deref() != parsed.config.as_ref().map(Digest::as_str) {
        violations.push(format!("a manifest has another config than its row says: {of}"));
    }
    if row.file.as_deref() != parsed.file().as_ref().map(Digest::as_str) {
        violations.push(format!("a manifest is another file, or none, than its row says: {of}"));
    }
    let holds = |held: &[String], digest: &Digest| held.iter().any(|held| held == digest.as_str());
    for child in parsed.children.iter().filter(|child| !holds(&row.children, &child.digest)) {
        violations
            .push(format!("an index does not hold a manifest that it lists: {of} lists {}", child.digest));
    }
    let needed = parsed.blobs.iter().filter(|blob| !blob.may_be_absent);
    for blob in needed.filter(|blob| !holds(&row.blobs, &blob.digest)) {
        violations.push(format!("a manifest does not hold its blob: {of} needs {}", blob.digest));
    }
    violations
}
