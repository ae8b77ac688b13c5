//! Storage: large bytes, in files or in an object store, hashed while they are written.
//!
//! Knows where bytes lie and how far an upload has come. Promises that a `StoredBlob` is durable and
//! has its digest, that what is read is checked by it, that an object's key ends in a random part and is never given to other bytes, and
//! that memory stays flat however long a body is. Never knows what is needed: whoever deletes has
//! asked Postgres first.

mod append;
mod blob;
mod checked;
mod chunks;
mod files;
mod finish;
mod objects;
mod open;
mod owner;
mod parts;
mod pieces;
mod probe;
mod read;
mod room;
mod staged;
mod steps;
mod store;

pub use append::WriteRefused;
pub use blob::{Location, StoredBlob};
pub use checked::{Checked, Damaged, Described};
pub use finish::FinishRefused;
pub use pieces::{PIECE_BYTES, PieceDigests, PieceHasher, TouchedPieces, joined_by_pieces};
pub use read::ByteStream;
pub use room::{OwnRoom, PIECE, Room, Taken};
pub use staged::Staged;
pub use store::{Found, Place, Store};

/// Blobs up to this size lie in Postgres, so that no decision waits for an object store.
pub const INLINE_BYTES: usize = 64 << 10;
