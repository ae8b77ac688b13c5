//! Room for bytes that are held in memory whole: so many for all requests together, and half of them at the
//! most for those of one principal, so that nobody keeps all others out. What large documents become when
//! they are read has as much room again, in which they wait for their turn.

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

/// How long a document that is there waits for its turn to be read.
const IN_TURN: Duration = Duration::from_secs(30);

/// A document takes so many times its bytes when it is read: its names and values are strings of their own.
const WHEN_READ: u64 = 8;

/// Documents up to these bytes are read at once.
const SMALL: u64 = 256 << 10;

/// All the room that there is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    all: Arc<Pieces>,
    /// The halves of those who hold something; strangers have one together.
    halves: Arc<Mutex<HashMap<Option<PrincipalId>, Weak<Pieces>>>>,
    half: usize,
}

/// What one principal may take of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnRoom {
    all: Arc<Pieces>,
    half: Arc<Pieces>,
    half_pieces: usize,
}

/// What a request has taken of it. Dropped, it is free again.
#[derive(Debug)]
pub struct Taken {
    room: OwnRoom,
    held: Option<Permits>,
    turn: Option<Permits>,
}

/// Pieces that nobody has, of what is held and of what is being read.
#[derive(Debug)]
struct Pieces {
    held: Arc<Semaphore>,
    read: Arc<Semaphore>,
}

/// Of the principal's own, and of all.
type Permits = [OwnedSemaphorePermit; 2];

/// Bytes with the room they take.
struct Held {
    bytes: Bytes,
    _room: Taken,
}

impl Room {
    /// Room for so many bytes.
    pub fn of(bytes: u64) -> Self {
        let pieces = usize::try_from(bytes.div_ceil(PIECE)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Pieces::of(pieces)), halves: Arc::default(), half: pieces.div_ceil(2) }
    }

    /// What the principal may take of it, or `None` for strangers: whoever is not known yet.
    pub fn own(&self, whose: Option<PrincipalId>) -> OwnRoom {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let known = halves.get(&whose).and_then(Weak::upgrade);
        let half = known.unwrap_or_else(|| {
            halves.retain(|_, half| half.strong_count() > 0);
            let half = Arc::new(Pieces::of(self.half));
            halves.insert(whose, Arc::downgrade(&half));
            half
        });
        OwnRoom { all: Arc::clone(&self.all), half, half_pieces: self.half }
    }

    /// Pieces that nobody has.
    pub fn free_pieces(&self) -> usize {
        self.all.held.available_permits()
    }
}

impl OwnRoom {
    /// All of it, in bytes.
    pub fn most_bytes(&self) -> u64 {
        PIECE.saturating_mul(self.half_pieces as u64)
    }

    /// Nothing of it yet.
    pub fn take(&self) -> Taken {
        Taken { room: self.clone(), held: None, turn: None }
    }
}

impl Pieces {
    fn of(pieces: usize) -> Self {
        Self { held: Arc::new(Semaphore::new(pieces)), read: Arc::new(Semaphore::new(pieces)) }
    }
}

/// So many of both, soon enough: first of the principal's own, so that nobody waits for all who has to wait
/// for its own.
async fn acquire(
    own: &Arc<Semaphore>,
    all: &Arc<Semaphore>,
    pieces: usize,
    patience: Duration,
) -> Result<Permits, Overloaded> {
    let pieces = u32::try_from(pieces).map_err(|_| Overloaded)?;
    let both = async {
        let own = Arc::clone(own).acquire_many_owned(pieces).await.ok()?;
        let all = Arc::clone(all).acquire_many_owned(pieces).await.ok()?;
        Some([own, all])
    };
    timeout(patience, both).await.ok().flatten().ok_or(Overloaded)
}

fn pieces_of(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(PIECE)).unwrap_or(usize::MAX)
}

impl Taken {
    /// The most that may be taken, in bytes.
    pub fn most_bytes(&self) -> u64 {
        self.room.most_bytes()
    }

    /// Takes what is missing for so many bytes. Two may each wait for what the other has: both are
    /// refused then, and what they held is free.
    pub async fn grow(&mut self, bytes: u64) -> Result<(), Overloaded> {
        let have = self.held.as_ref().map_or(0, |[own, _]| own.num_permits());
        let missing = pieces_of(bytes).saturating_sub(have);
        if missing == 0 {
            return Ok(());
        }
        let OwnRoom { half, all, .. } = &self.room;
        let more = acquire(&half.held, &all.held, missing, SOON).await?;
        match &mut self.held {
            Some(held) => held.iter_mut().zip(more).for_each(|(held, more)| held.merge(more)),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// Gives back what so many bytes do not need.
    pub fn shrink(&mut self, bytes: u64) {
        for held in self.held.iter_mut().flatten() {
            let surplus = held.num_permits().saturating_sub(pieces_of(bytes));
            drop(held.split(surplus));
        }
    }

    /// Waits for the turn to read a document of so many bytes, which is over when this is dropped. The
    /// largest has all of its principal's room to itself.
    pub async fn wait_to_read(&mut self, bytes: u64) -> Result<(), Overloaded> {
        if bytes > SMALL {
            let OwnRoom { half, all, half_pieces } = &self.room;
            let pieces = pieces_of(bytes.saturating_mul(WHEN_READ)).min(*half_pieces);
            self.turn = Some(acquire(&half.read, &all.read, pieces, IN_TURN).await?);
        }
        Ok(())
    }

    /// The turn is over; what is held stays so.
    pub fn end_turn(&mut self) {
        self.turn = None;
    }

    /// The bytes, whose room is free when the last handle on them is dropped.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        if self.held.is_none() { bytes } else { Bytes::from_owner(Held { bytes, _room: self }) }
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
        let mut page = room.own(Some(4)).take();
        page.grow(2 * PIECE).await.unwrap();
        page.shrink(1);
        assert_eq!(room.free_pieces(), 3);
    }

    #[tokio::test]
    async fn large_documents_are_read_in_turn_and_small_ones_at_once() {
        let room = Room::of(64 << 20);
        let (mut first, mut second) = (room.own(Some(1)).take(), room.own(Some(1)).take());
        let (mut small, mut other) = (room.own(Some(1)).take(), room.own(Some(2)).take());
        first.wait_to_read(50 << 20).await.unwrap();
        assert!(second.wait_to_read(1 << 20).now_or_never().is_none(), "its principal reads one");
        small.wait_to_read(SMALL).now_or_never().unwrap().unwrap();
        other.wait_to_read(50 << 20).now_or_never().unwrap().unwrap();
        drop(first);
        second.wait_to_read(1 << 20).now_or_never().unwrap().unwrap();
    }
}
