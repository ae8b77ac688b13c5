//! What uploads hold in memory: so much for all of them together, as long as each can go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that the chunks of all uploads into files aim at.
const CHUNKS_BYTES: usize = 4 << 20;

/// Chunks of one upload at a time: one fills while the one before is hashed and written.
const CHUNKS: usize = 2;

/// A lone upload works in steps of this size, which cost least; many at once in smaller ones.
const MOST_BYTES: usize = 1 << 20;

/// Smaller steps cost more than they carry.
const LEAST_BYTES: usize = 64 << 10;

/// Parts that are sent while their uploads fill the next, in MiB for all uploads together.
const AHEAD_MIB: usize = 32;

/// The memory of all uploads into a store. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Share {
    under_way: Arc<AtomicUsize>,
    ahead: Arc<Semaphore>,
}

/// An upload that is under way; dropped, the others have more.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl Share {
    pub fn new() -> Self {
        Self { under_way: Arc::default(), ahead: Arc::new(Semaphore::new(AHEAD_MIB)) }
    }

    /// Counts an upload.
    pub fn begin(&self) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.under_way))
    }

    /// Leave to fill the next part while one of so many bytes is sent; `None` when others have it all.
    pub fn ahead(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).ok()?;
        Arc::clone(&self.ahead).try_acquire_many_owned(mib).ok()
    }
}

impl UnderWay {
    /// The size of the next chunk.
    pub fn chunk_bytes(&self) -> usize {
        let uploads = self.0.load(Ordering::Relaxed).max(1);
        (CHUNKS_BYTES / CHUNKS / uploads).clamp(LEAST_BYTES, MOST_BYTES)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_upload_takes_large_steps_and_many_take_small_ones() {
        let share = Share::new();
        let lone = share.begin();
        assert_eq!(lone.chunk_bytes(), MOST_BYTES);
        let others: Vec<_> = (0..255).map(|_| share.begin()).collect();
        assert_eq!(lone.chunk_bytes(), LEAST_BYTES);
        drop(others);
        assert_eq!(lone.chunk_bytes(), MOST_BYTES);
    }

    #[test]
    fn few_uploads_fill_ahead_and_what_arrives_makes_room() {
        let share = Share::new();
        let mut sent: Vec<_> = std::iter::from_fn(|| share.ahead(5 << 20)).collect();
        assert_eq!(sent.len(), AHEAD_MIB / 5);
        sent.pop();
        assert!(share.ahead(5 << 20).is_some());
        assert!(share.ahead(usize::MAX).is_none());
    }
}
