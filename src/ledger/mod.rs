//! The ledger: what happened, append-only, in the transaction that made it happen.
//!
//! Knows events and the order that the one sequencer gives them. Promises that an event is never
//! changed, that each gets exactly one index, and that indices have no gaps and follow commits.
//! Never decides anything.

mod event;
mod listen;
mod read;
mod sequencer;

pub use event::{Event, Kind, Recorded, UnknownKind, append, append_all};
pub use listen::LogListener;
pub use read::{Filter, Logged, MAX_PAGE, page, size};
pub use sequencer::{CHANNEL, Sequenced, sequence, sequence_batch};
