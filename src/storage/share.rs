//! What uploads hold in memory: so much for all of them together, as long as each can go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of chunks that all uploads together aim at.
const CHUNKS_BYTES: usize = 8 << 20;

/// Chunks of one upload at a time: one fills while the one before is hashed and written.
const CHUNKS: usize = 2;

/// A lone upload works in steps of this size, which cost least; many at once in smaller ones.
const MOST_BYTES: usize = 1 << 20;

/// Smaller steps cost more than they carry.
const LEAST_BYTES: usize = 64 << 10;

/// MiB of parts that all uploads together send while they fill the next.
const AHEAD_MIB: usize = 64;

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

    /// Leave to fill the next part while this one of so many bytes is sent, if there is any left.
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
