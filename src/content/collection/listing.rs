//! What a collection would take now, and why. Changes nothing.

use crate::content::store::collection as store;
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// Rows that are looked at for one page at the most, in windows of 500: a list of little garbage in a
/// large registry comes in more pages, not in long ones.
const WINDOWS: usize = 100;
const WINDOW: i64 = 500;

/// Something that a collection would take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Garbage {
    /// The repository whose link it is.
    pub repository: Option<RepositoryName>,
    /// The blob; none for bytes whose blob is gone.
    pub digest: Option<Digest>,
    /// The object; none for a blob that still has its row.
    pub object: Option<String>,
    /// How many bytes it has.
    pub size_bytes: i64,
    /// Why it would go.
    pub why: Why,
    /// Since when that is so.
    pub since: Option<DateTime<Utc>>,
}

/// Why something is garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No manifest of the repository needs it and its grace period is over.
    Unreferenced,
    /// The same, and no other repository has it: its bytes go too.
    UnreferencedEverywhere,
    /// No repository has it.
    Unlinked,
    /// Its blob was collected; the bytes go when their delay is over.
    BlobCollected,
}

/// Where the list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GarbageCursor {
    /// Behind this link.
    Links(i64, String),
    /// Behind this blob.
    Blobs(String),
    /// Behind this object.
    Objects(String),
}

impl Default for GarbageCursor {
    fn default() -> Self {
        Self::Links(0, String::new())
    }
}

/// A page of what a collection would take now, and where the next one begins. A page may be short,
/// or empty, before the end.
pub async fn garbage(
    connection: &mut PgConnection,
    from: GarbageCursor,
    limit: usize,
) -> Result<(Vec<Garbage>, Option<GarbageCursor>), Failure> {
    let mut items = Vec::new();
    let mut at = from;
    for _ in 0..WINDOWS {
        if items.len() >= limit {
            break;
        }
        at = match at {
            GarbageCursor::Links(repository_id, digest) => {
                let page = store::links_garbage(connection, repository_id, &digest, WINDOW).await?;
                items.extend(page.items);
                page.last.map_or_else(
                    || GarbageCursor::Blobs(String::new()),
                    |(id, digest)| GarbageCursor::Links(id, digest),
                )
            }
            GarbageCursor::Blobs(digest) => {
                let page = store::blobs_page(connection, &digest, WINDOW).await?;
                let last = page.last().map(|blob| blob.digest.to_string());
                items.extend(page.into_iter().filter(|blob| blob.unneeded).map(store::BlobSeen::garbage));
                last.map_or_else(|| GarbageCursor::Objects(String::new()), GarbageCursor::Blobs)
            }
            GarbageCursor::Objects(key) => {
                let page = store::doomed_page(connection, &key, std::time::Duration::ZERO, WINDOW).await?;
                let Some(last) = page.last() else { return Ok((items, None)) };
                let next = GarbageCursor::Objects(last.object_key.clone());
                items.extend(page.into_iter().map(store::Doomed::garbage));
                next
            }
        };
    }
    Ok((items, Some(at)))
}
