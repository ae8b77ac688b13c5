//! SHA-256 of each piece of a blob, so that a range is checked without reading the rest.

use crate::names::{Algorithm, Hasher, Resumable};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Bytes of a piece; the last one of a blob is shorter.
pub const PIECE_BYTES: u64 = 4 << 20;

/// Bytes of a piece's digest.
const DIGEST_BYTES: u64 = 32;

/// The digests of a blob's pieces, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceDigests(Vec<u8>);

impl PieceDigests {
    /// As they lie in a row.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// As they lie in a row.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What to read for ascending ranges, so that no piece is read twice: ranges that touch the same piece become one, with
/// what lies between them.
pub fn joined_by_pieces(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if (last.end - 1) / PIECE_BYTES == range.start / PIECE_BYTES => last.end = range.end,
            Some(_) | None => joined.push(range.clone()),
        }
    }
    joined
}

/// Digests pieces as their bytes come.
#[derive(Clone)]
pub struct PieceHasher {
    done: Vec<u8>,
    current: Hasher,
    filled: u64,
}

impl std::fmt::Debug for PieceHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PieceHasher({} bytes of digests, {} bytes)", self.done.len(), self.filled)
    }
}

impl Default for PieceHasher {
    fn default() -> Self {
        Self { done: Vec::new(), current: Hasher::new(Algorithm::Sha256), filled: 0 }
    }
}

impl PieceHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let left = usize::try_from(PIECE_BYTES - self.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            self.current.update(now);
            self.filled += now.len() as u64;
            if self.filled == PIECE_BYTES {
                self.end_piece();
            }
            bytes = later;
        }
    }

    /// The digests of all that came.
    pub fn finish(mut self) -> PieceDigests {
        if self.filled > 0 {
            self.end_piece();
        }
        PieceDigests(self.done)
    }

    fn end_piece(&mut self) {
        let ended = std::mem::replace(&mut self.current, Hasher::new(Algorithm::Sha256));
        self.done.extend_from_slice(&ended.finish_bytes());
        self.filled = 0;
    }

    /// The state, for another replica to go on with.
    pub fn suspend(&self) -> SuspendedPieces {
        SuspendedPieces {
            done: hex::encode(&self.done),
            current: hex::encode(self.current.suspend().0),
            filled: self.filled,
        }
    }

    /// Goes on from a state; `None` where it is of another version.
    pub fn resume(state: &SuspendedPieces) -> Option<Self> {
        let current = Resumable(hex::decode(&state.current).ok()?);
        Some(Self {
            done: hex::decode(&state.done).ok()?,
            current: Hasher::resume(Algorithm::Sha256, &current)?,
            filled: state.filled,
        })
    }
}

/// The state between two requests of an upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SuspendedPieces {
    done: String,
    current: String,
    filled: u64,
}

/// The whole pieces that a range touches, and where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedPieces {
    /// Bytes from the beginning of the first to the end of the last.
    pub bytes: Range<u64>,
    /// Bytes of their digests among those of the blob.
    pub digests: Range<u64>,
}

impl TouchedPieces {
    /// Those of a range that is not empty, of a blob of this size.
    pub fn of(range: &Range<u64>, size_bytes: u64) -> Self {
        let (first, behind) = (range.start / PIECE_BYTES, range.end.div_ceil(PIECE_BYTES));
        Self {
            bytes: first * PIECE_BYTES..(behind * PIECE_BYTES).min(size_bytes),
            digests: first * DIGEST_BYTES..behind * DIGEST_BYTES,
        }
    }
}

/// Whether the bytes of a piece have the digest that stands there among the digests.
pub(super) fn is_piece(bytes: &Bytes, digests: &PieceDigests, index: usize) -> bool {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    let length = usize::try_from(DIGEST_BYTES).unwrap_or(usize::MAX);
    digests.0.chunks(length).nth(index).is_some_and(|digest| digest == hasher.finish_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at_once(bytes: &[u8]) -> PieceDigests {
        let mut hasher = PieceHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn each_piece_has_its_digest_and_the_last_may_be_short() {
        let piece = usize::try_from(PIECE_BYTES).unwrap();
        for (length, pieces) in [(0, 0), (1, 1), (piece, 1), (piece + 1, 2), (2 * piece, 2)] {
            let bytes = Bytes::from(vec![7; length]);
            let digests = at_once(&bytes);
            assert_eq!(digests.0.len(), pieces * 32, "{length}");
            for index in 0..pieces {
                let bytes = bytes.slice(index * piece..((index + 1) * piece).min(length));
                assert!(is_piece(&bytes, &digests, index));
            }
            assert!(!is_piece(&bytes, &digests, pieces), "behind the last there is none");
        }
    }

    proptest! {
        #[test]
        fn however_bytes_come_their_pieces_are_the_same(cuts in prop::collection::vec(0..9_000_000_usize, 0..5)) {
            let bytes: Vec<u8> = (0..9_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut hasher, mut from) = (PieceHasher::default(), 0);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                hasher.update(&bytes[from..cut]);
                let state = serde_json::to_string(&hasher.suspend()).unwrap();
                hasher = PieceHasher::resume(&serde_json::from_str(&state).unwrap()).unwrap();
                from = cut;
            }
            prop_assert_eq!(hasher.finish(), at_once(&bytes));
        }

        #[test]
        fn the_touched_pieces_hold_the_range(start in 0..20_000_000_u64, length in 1..9_000_000_u64, more in 0..9_000_000_u64) {
            let range = start..start + length;
            let touched = TouchedPieces::of(&range, range.end + more);
            prop_assert!(touched.bytes.start <= range.start && touched.bytes.end >= range.end);
            prop_assert!(touched.bytes.end <= range.end + more);
            prop_assert!(range.start - touched.bytes.start < PIECE_BYTES && touched.bytes.end - range.end < PIECE_BYTES);
            let pieces = (touched.digests.end - touched.digests.start) / 32;
            prop_assert_eq!(pieces, (touched.bytes.end - touched.bytes.start).div_ceil(PIECE_BYTES));
        }
    }
}
