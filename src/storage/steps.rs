//! What uploads and reads hold in memory: so much for all of them together, as long as each can go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The steps in which something is done by many at once, in bytes: a lone one takes the largest, which cost
/// least, and many take smaller ones.
#[derive(Clone, Copy, Debug)]
struct StepSize {
    /// What the steps of all together aim at.
    all: usize,
    /// Smaller steps cost more than they carry.
    least: usize,
    /// Larger ones gain nothing.
    most: usize,
}

/// Of one upload into files two chunks are held at a time: one fills while the one before is hashed and written.
const UPLOADS: StepSize = StepSize { all: 2 << 20, least: 64 << 10, most: 1 << 20 };

/// Of one file that is read two pieces are held at a time: one is read while the one before is sent. A client
/// that is slow holds them for long.
const READS: StepSize = StepSize { all: 16 << 20, least: 16 << 10, most: 512 << 10 };

/// Parts that are sent while their uploads fill the next, in MiB for all uploads together.
const AHEAD_MIB: usize = 32;

/// The memory of all uploads into a store, and of all reads. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    uploads: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
    ahead: Arc<Semaphore>,
}

/// An upload or a read that is under way; dropped, the others have more.
#[derive(Debug)]
pub(super) struct UnderWay {
    all: Arc<AtomicUsize>,
    steps: StepSize,
}

impl Steps {
    pub fn new() -> Self {
        Self { uploads: Arc::default(), reads: Arc::default(), ahead: Arc::new(Semaphore::new(AHEAD_MIB)) }
    }

    /// Counts an upload.
    pub fn upload(&self) -> UnderWay {
        UnderWay::begin(&self.uploads, UPLOADS)
    }

    /// Counts a read.
    pub fn read(&self) -> UnderWay {
        UnderWay::begin(&self.reads, READS)
    }

    /// Leave to fill the next part while one of so many bytes is sent; `None` when others have it all.
    pub fn ahead(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).ok()?;
        Arc::clone(&self.ahead).try_acquire_many_owned(mib).ok()
    }
}

impl UnderWay {
    fn begin(all: &Arc<AtomicUsize>, steps: StepSize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self { all: Arc::clone(all), steps }
    }

    /// The size of the next step.
    pub fn step_bytes(&self) -> usize {
        let StepSize { all, least, most } = self.steps;
        (all / self.all.load(Ordering::Relaxed).max(1)).clamp(least, most)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_upload_or_read_takes_large_steps_and_many_take_small_ones() {
        let all = Steps::new();
        let (upload, read) = (all.upload(), all.read());
        assert_eq!((upload.step_bytes(), read.step_bytes()), (UPLOADS.most, READS.most));
        let uploads: Vec<_> = (0..255).map(|_| all.upload()).collect();
        assert_eq!((upload.step_bytes(), read.step_bytes()), (UPLOADS.least, READS.most));
        let reads: Vec<_> = (0..4095).map(|_| all.read()).collect();
        assert_eq!(read.step_bytes(), READS.least);
        drop((uploads, reads));
        assert_eq!((upload.step_bytes(), read.step_bytes()), (UPLOADS.most, READS.most));
    }

    #[test]
    fn few_uploads_fill_ahead_and_what_arrives_makes_room() {
        let all = Steps::new();
        let mut sent: Vec<_> = std::iter::from_fn(|| all.ahead(5 << 20)).collect();
        assert_eq!(sent.len(), AHEAD_MIB / 5);
        sent.pop();
        assert!(all.ahead(5 << 20).is_some());
        assert!(all.ahead(usize::MAX).is_none());
    }
}
