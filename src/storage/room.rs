//! Room for bytes that are held in memory whole: so many for all requests together, and half of them at the
//! most for those of one principal, so that nobody keeps all others out. What large documents become when
//! they are read has as much room again, in which they wait for their turn.

use crate::access::PrincipalId;
use crate::failure::Overloaded;
use crate::shares::{self, Share, Shares};
use bytes::Bytes;
use std::time::Duration;

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
    held: Shares,
    read: Shares,
}

/// What one principal may take of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnRoom {
    held: Share,
    read: Share,
}

/// What a request has taken of it. Dropped, it is free again.
#[derive(Debug)]
pub struct Taken {
    room: OwnRoom,
    held: Option<shares::Taken>,
    turn: Option<shares::Taken>,
}

/// Bytes with the room they take.
struct Held {
    bytes: Bytes,
    _room: Taken,
}

impl Room {
    /// Room for so many bytes.
    pub fn of(bytes: u64) -> Self {
        Self { held: Shares::halves(pieces_of(bytes)), read: Shares::halves(pieces_of(bytes)) }
    }

    /// What the principal may take of it, or `None` for strangers: whoever is not known yet.
    pub fn own(&self, whose: Option<PrincipalId>) -> OwnRoom {
        OwnRoom { held: self.held.of(whose), read: self.read.of(whose) }
    }

    /// Pieces that nobody has.
    pub fn free_pieces(&self) -> usize {
        self.held.free()
    }
}

impl OwnRoom {
    /// All of it, in bytes.
    pub fn most_bytes(&self) -> u64 {
        PIECE.saturating_mul(self.held.size() as u64)
    }

    /// Nothing of it yet.
    pub fn take(&self) -> Taken {
        Taken { room: self.clone(), held: None, turn: None }
    }
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
        let have = self.held.as_ref().map_or(0, shares::Taken::count);
        let missing = pieces_of(bytes).saturating_sub(have);
        if missing == 0 {
            return Ok(());
        }
        let more = self.room.held.take(missing, SOON).await?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// Gives back what so many bytes do not need.
    pub fn shrink(&mut self, bytes: u64) {
        if let Some(held) = &mut self.held {
            held.shrink(pieces_of(bytes));
        }
    }

    /// Waits for the turn to read a document of so many bytes, which is over when this is dropped. The
    /// largest has all of its principal's room to itself.
    pub async fn wait_to_read(&mut self, bytes: u64) -> Result<(), Overloaded> {
        if bytes > SMALL {
            let pieces = pieces_of(bytes.saturating_mul(WHEN_READ)).min(self.room.read.size());
            self.turn = Some(self.room.read.take(pieces, IN_TURN).await?);
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
