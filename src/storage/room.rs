//! Room for bytes that are held in memory whole: so many for all requests together.

use crate::failure::Overloaded;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes of the piece by which room is given.
pub const PIECE: u64 = 16 << 10;

/// How long somebody waits for room before it is refused.
const SOON: Duration = Duration::from_secs(2);

/// All the room that there is.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// What somebody has taken of it. Dropped, it is free again.
#[derive(Debug)]
pub struct Taken {
    all: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Bytes with the room they take.
struct Held {
    bytes: BytesMut,
    _room: Taken,
}

impl Room {
    /// Room for so many bytes.
    pub fn of(bytes: u64) -> Self {
        let pieces = usize::try_from(bytes.div_ceil(PIECE)).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(pieces.min(Semaphore::MAX_PERMITS))))
    }

    /// Nothing of it yet.
    pub fn take(&self) -> Taken {
        Taken { all: Arc::clone(&self.0), permit: None }
    }

    /// Pieces that nobody has.
    pub fn free_pieces(&self) -> usize {
        self.0.available_permits()
    }
}

impl Taken {
    /// Takes what is missing for so many bytes. Two may each wait for what the other has: both are
    /// refused then, and what they held is free.
    pub async fn grow(&mut self, bytes: u64) -> Result<(), Overloaded> {
        let pieces = usize::try_from(bytes.div_ceil(PIECE)).unwrap_or(usize::MAX);
        let have = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(missing) = pieces.checked_sub(have).filter(|missing| *missing > 0) else { return Ok(()) };
        let missing = u32::try_from(missing).map_err(|_| Overloaded)?;
        let more = timeout(SOON, Arc::clone(&self.all).acquire_many_owned(missing)).await;
        let more = more.ok().and_then(Result::ok).ok_or(Overloaded)?;
        match &mut self.permit {
            Some(taken) => taken.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    /// The bytes, whose room is free when the last handle on them is dropped.
    pub fn hold(self, bytes: BytesMut) -> Bytes {
        if bytes.is_empty() { Bytes::new() } else { Bytes::from_owner(Held { bytes, _room: self }) }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
