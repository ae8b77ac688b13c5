//! Room for bytes that are held in memory whole: so many for all requests together, and half of them at the
//! most for those of one principal, so that nobody keeps all others out.

use crate::access::PrincipalId;
use crate::failure::Overloaded;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes of the piece by which room is given.
pub const PIECE: u64 = 16 << 10;

/// How long somebody waits for room before it is refused.
const SOON: Duration = Duration::from_secs(2);

/// All the room that there is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    all: Arc<Semaphore>,
    /// The halves of those who hold something; strangers have one together.
    halves: Arc<Mutex<HashMap<Option<PrincipalId>, Weak<Semaphore>>>>,
    half: usize,
}

/// What one principal may take of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnRoom {
    all: Arc<Semaphore>,
    half: Arc<Semaphore>,
}

/// What a request has taken of it. Dropped, it is free again.
#[derive(Debug)]
pub struct Taken {
    room: OwnRoom,
    permits: Option<[OwnedSemaphorePermit; 2]>,
}

/// Bytes with the room they take.
struct Held {
    bytes: Bytes,
    _room: Taken,
}

impl Room {
    /// Room for so many bytes.
    pub fn of(bytes: u64) -> Self {
        let pieces = usize::try_from(bytes.div_ceil(PIECE)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(pieces)), halves: Arc::default(), half: pieces.div_ceil(2) }
    }

    /// What the principal may take of it, or `None` for strangers: whoever is not known yet.
    pub fn own(&self, whose: Option<PrincipalId>) -> OwnRoom {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let known = halves.get(&whose).and_then(Weak::upgrade);
        let half = known.unwrap_or_else(|| {
            halves.retain(|_, half| half.strong_count() > 0);
            let half = Arc::new(Semaphore::new(self.half));
            halves.insert(whose, Arc::downgrade(&half));
            half
        });
        OwnRoom { all: Arc::clone(&self.all), half }
    }

    /// Pieces that nobody has.
    pub fn free_pieces(&self) -> usize {
        self.all.available_permits()
    }
}

impl OwnRoom {
    /// Nothing of it yet.
    pub fn take(&self) -> Taken {
        Taken { room: self.clone(), permits: None }
    }

    async fn pieces(&self, pieces: u32) -> Option<[OwnedSemaphorePermit; 2]> {
        let own = Arc::clone(&self.half).acquire_many_owned(pieces).await.ok()?;
        let all = Arc::clone(&self.all).acquire_many_owned(pieces).await.ok()?;
        Some([own, all])
    }
}

impl Taken {
    /// Takes what is missing for so many bytes. Two may each wait for what the other has: both are
    /// refused then, and what they held is free.
    pub async fn grow(&mut self, bytes: u64) -> Result<(), Overloaded> {
        let pieces = usize::try_from(bytes.div_ceil(PIECE)).unwrap_or(usize::MAX);
        let have = self.permits.as_ref().map_or(0, |[own, _]| own.num_permits());
        let Some(missing) = pieces.checked_sub(have).filter(|missing| *missing > 0) else { return Ok(()) };
        let missing = u32::try_from(missing).map_err(|_| Overloaded)?;
        let more = timeout(SOON, self.room.pieces(missing)).await;
        let more = more.ok().flatten().ok_or(Overloaded)?;
        match &mut self.permits {
            Some(taken) => taken.iter_mut().zip(more).for_each(|(taken, more)| taken.merge(more)),
            None => self.permits = Some(more),
        }
        Ok(())
    }

    /// The bytes, whose room is free when the last handle on them is dropped.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        if self.permits.is_none() { bytes } else { Bytes::from_owner(Held { bytes, _room: self }) }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn nobody_holds_more_than_half_of_the_room_and_what_is_dropped_is_free_again() {
        let room = Room::of(4 * PIECE);
        let (mut one, mut also_one) = (room.own(Some(1)).take(), room.own(Some(1)).take());
        one.grow(2 * PIECE).await.unwrap();
        assert!(also_one.grow(1).now_or_never().is_none(), "the half of its principal is taken");
        let (mut two, mut stranger) = (room.own(Some(2)).take(), room.own(None).take());
        two.grow(PIECE).await.unwrap();
        two.grow(PIECE + 1).await.unwrap();
        assert!(stranger.grow(1).now_or_never().is_none(), "all is taken");
        drop(one);
        stranger.grow(2 * PIECE).await.unwrap();
        drop((also_one, two, stranger));
        assert_eq!(room.free_pieces(), 4);
        room.own(Some(3)).take().grow(2 * PIECE).await.unwrap();
        assert_eq!(room.halves.lock().unwrap().len(), 1, "whoever holds nothing is forgotten");
    }
}
