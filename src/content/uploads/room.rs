//! How much a body may bring: a blob's bound, and what the repository's quota leaves.

use super::lease::Held;
use super::{UploadRefused, Uploads};
use crate::access::{Grant, Push};
use crate::content::{Usage, quotas};
use crate::failure::Failure;
use crate::storage::WriteRefused;

/// A body that ends within so many bytes is refused when it is committed: asking before costs more
/// than taking it.
const SMALL_BYTES: u64 = 64 << 10;

/// How much a body may bring.
pub(super) struct Room {
    /// What a blob may have.
    limit_bytes: u64,
    /// What came of it before.
    before: u64,
    quota: Option<Usage>,
}

impl Uploads {
    /// The room for a body behind what its session holds.
    pub(super) async fn room(
        &self,
        grant: &Grant<Push>,
        held: Option<&Held>,
        declared_bytes: Option<u64>,
    ) -> Result<Room, Failure> {
        let before = held.map_or(0, |held| held.staged.offset_bytes());
        let is_small = declared_bytes.is_some_and(|bytes| before.saturating_add(bytes) <= SMALL_BYTES);
        let quota = if is_small {
            None
        } else {
            {
                let session = held.map(|held| held.id);
                quotas::usage(&mut *self.db.acquire().await?, grant.repository(), session).await?
            }
        };
        Ok(Room { limit_bytes: self.bounds.blob_bytes, before, quota })
    }
}

impl Room {
    /// Bytes that may come.
    pub fn bytes(&self) -> u64 {
        let left = self.quota.map_or(u64::MAX, Usage::left_bytes);
        self.limit_bytes.min(left).saturating_sub(self.before)
    }

    /// Why no more may come.
    pub fn refusal(&self) -> UploadRefused {
        match self.quota.filter(|quota| quota.left_bytes() < self.limit_bytes) {
            Some(quota) => UploadRefused::OverQuota(quota.over()),
            None => UploadRefused::TooLarge { limit_bytes: self.limit_bytes },
        }
    }

    /// The refusal of a body that was written with this room.
    pub fn explain(&self, refused: WriteRefused) -> UploadRefused {
        match refused {
            WriteRefused::TooLarge { limit_bytes } if limit_bytes == self.bytes() => self.refusal(),
            WriteRefused::TooLarge { .. } | WriteRefused::Interrupted(_) | WriteRefused::Failed(_) => {
                refused.into()
            }
        }
    }
}
