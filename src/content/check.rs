//! An audit of the tables: what must hold whatever happened. For fsck and for every test's end. Each
//! rule reads one snapshot, so it may run beside pushes; what reads bytes comes in pages.

pub use super::store::check::{
    hidden as check_hidden, manifests_page, of_small_blobs as check_small_blobs, of_tags as check_tags,
    of_usage as check_usage,
};

use super::ParsedManifest;
use super::store::check as store;
use crate::failure::Failure;
use crate::names::{Algorithm, Digest};
use sqlx::PgConnection;

/// Manifests in memory at once.
const AT_ONCE: i64 = 16;
/// Lines of one page at the most.
const MAX_LINES: usize = 1000;

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
