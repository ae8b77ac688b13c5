//! Repairs of what fsck found: each says first what it would do, and looks again before it does it.
//!
//! Nothing is made up. A repair writes what other rows say already, or says that bytes are lost, so that
//! whoever has them pushes them again.

use super::store::repairs::{self as store, BlobRow};
use crate::access::Principal;
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::Digest;
use crate::postgres::{Db, Generation, act, database_time};
use crate::storage::Store;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use std::fmt;

/// What would set a violation right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Count anew what a repository holds.
    Usage {
        /// The repository's row id.
        repository_id: i64,
    },
    /// Hide the tags that their history says are hidden, and show the others.
    HiddenTags,
    /// Ask for a blob again.
    Blob {
        /// The blob.
        digest: Digest,
    },
    /// Give out a blob again that was damaged and is whole.
    RestoredBlob {
        /// The blob.
        digest: Digest,
    },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage { .. } => f.write_str("count anew what the repository holds"),
            Self::HiddenTags => {
                f.write_str("hide the tags that their history says are hidden, and show the others")
            }
            Self::Blob { digest } => write!(
                f,
                "answer that {digest} is unknown until somebody pushes it again, and keep all that refers to it"
            ),
            Self::RestoredBlob { digest } => write!(f, "give out {digest} again, whose bytes are right"),
        }
    }
}

/// The damaged blob with the next digest.
pub async fn next_damaged(
    connection: &mut PgConnection,
    after: Option<&Digest>,
) -> Result<Option<Digest>, Failure> {
    store::next_damaged(connection, after).await
}

/// Repairs, and says whether there was still something to repair. One transaction, with its event.
pub async fn repair(db: &Db, bytes: &Store, repair: &Repair, by: &Principal) -> Result<bool, Failure> {
    // Reading may take long: the row is looked at again by its bytes' place when it is marked.
    let looked_for = match repair {
        Repair::Blob { digest } => Some((digest, false)),
        Repair::RestoredBlob { digest } => Some((digest, true)),
        Repair::Usage { .. } | Repair::HiddenTags => None,
    };
    let mut blob = None;
    if let Some((digest, is_marked)) = looked_for {
        let Some(found) = store::blob(&mut *db.acquire().await?, digest, is_marked).await? else {
            return Ok(false);
        };
        if super::fsck::is_whole(bytes, &found).await? != is_marked {
            return Ok(false);
        }
        blob = Some(found);
    }
    act(|| try_repair(db, repair, blob.as_ref(), by)).await
}

async fn try_repair(
    db: &Db,
    repair: &Repair,
    blob: Option<&BlobRow>,
    by: &Principal,
) -> Result<bool, Failure> {
    let mut tx = db.begin().await?;
    let (done, digest, repositories) = match (repair, blob) {
        (Repair::Usage { repository_id }, _) => {
            (store::count_anew(&mut tx, *repository_id).await?, None, Vec::new())
        }
        (Repair::HiddenTags, _) => {
            let repositories = store::hide_by_history(&mut tx).await?;
            (!repositories.is_empty(), None, repositories)
        }
        (Repair::Blob { digest }, Some(blob)) if store::mark(&mut tx, blob, true).await? => {
            (true, Some(digest), store::having(&mut tx, digest).await?)
        }
        (Repair::RestoredBlob { digest }, Some(blob)) if store::mark(&mut tx, blob, false).await? => {
            (true, Some(digest), store::having(&mut tx, digest).await?)
        }
        (Repair::Blob { .. } | Repair::RestoredBlob { .. }, _) => (false, None, Vec::new()),
    };
    if done {
        let event = Event {
            kind: Kind::RegistryRepaired,
            at: database_time(&mut tx).await?,
            principal: by,
            repository: None,
            environment: None,
            digest,
            facts: json!({"repair": repair, "done": repair.to_string()}),
            changes: repositories.iter().map(Generation::repository).collect(),
        };
        ledger::append(&mut tx, event).await?;
        tx.commit().await.map_err(|error| Failure::new("repairing", error))?;
    }
    Ok(done)
}
