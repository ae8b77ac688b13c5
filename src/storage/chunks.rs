//! A body in pieces of the size that storage works with.

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use std::collections::VecDeque;
use std::fmt::Display;

/// What is taken at a time where many chunks are gathered.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// How a body ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Where the sender meant it to.
    Complete,
    /// Before that: the sender went away or fell silent.
    Interrupted(String),
    /// It has more bytes than are allowed.
    TooLarge,
}

/// Buffers that are looked at before another one is made. An allocator keeps what one thread made and
/// another freed for a while; a long body that used fresh ones throughout would show in memory.
#[derive(Default)]
pub(super) struct Buffers(VecDeque<Bytes>);

/// More than all chunks of one upload that are on their way at a time.
const KEPT: usize = 32;

impl Buffers {
    /// Remembers a buffer, to be filled again when nobody reads it any more.
    pub fn lend(&mut self, chunk: &Bytes) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(chunk.clone());
    }

    /// One that nobody reads any more, as it was last filled; otherwise an empty one.
    pub fn take(&mut self) -> BytesMut {
        let free = self.0.iter().position(Bytes::is_unique).and_then(|index| self.0.remove(index));
        free.and_then(|bytes| bytes.try_into_mut().ok()).unwrap_or_default()
    }
}

/// A body, cut anew: frames of any size in, chunks of the wanted size out.
pub(super) struct Chunks<S> {
    body: S,
    buffers: Buffers,
    rest: Bytes,
    left: u64,
    /// A chunk was taken before, so that more than a little is to come.
    is_long: bool,
    end: Option<End>,
}

impl<S, E> Chunks<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Display,
{
    /// A body of at most `limit` bytes.
    pub fn new(body: S, limit: u64) -> Self {
        Self { body, buffers: Buffers::default(), rest: Bytes::new(), left: limit, is_long: false, end: None }
    }

    /// The next `wanted` bytes as chunks; fewer only when the body has ended.
    pub async fn gather(&mut self, wanted: usize) -> Vec<Bytes> {
        let (mut gathered, mut left) = (Vec::new(), wanted);
        while left > 0 {
            let asked = left.min(CHUNK_BYTES);
            let chunk = self.take(asked).await;
            let ended = chunk.len() < asked;
            left -= chunk.len();
            gathered.push(chunk);
            if ended {
                break;
            }
        }
        gathered
    }

    /// The next `wanted` bytes; fewer only when the body has ended.
    ///
    /// Copies, so that many tiny frames cost their bytes and nothing more.
    pub async fn take(&mut self, wanted: usize) -> Bytes {
        let mut chunk = self.buffers.take();
        chunk.clear();
        if chunk.capacity() > 2 * wanted {
            chunk = BytesMut::new();
        }
        if self.is_long {
            chunk.reserve(wanted);
        }
        while chunk.len() < wanted {
            if self.rest.is_empty() && !self.refill().await {
                break;
            }
            let some = self.rest.len().min(wanted - chunk.len());
            if chunk.capacity() - chunk.len() < some {
                // Grows with what has come, so that a small body never costs a large buffer.
                chunk.reserve(some.max(chunk.len()).min(wanted - chunk.len()));
            }
            chunk.extend_from_slice(&self.rest[..some]);
            self.rest.advance(some);
        }
        let chunk = chunk.freeze();
        self.is_long = true;
        self.buffers.lend(&chunk);
        chunk
    }

    /// How the body ended, once `take` has given less than it was asked for.
    pub fn end(self) -> End {
        self.end.unwrap_or(End::Complete)
    }

    async fn refill(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        loop {
            let end = match self.body.next().await {
                Some(Ok(frame)) if frame.is_empty() => continue,
                Some(Ok(frame)) if frame.len() as u64 > self.left => End::TooLarge,
                Some(Ok(frame)) => {
                    self.left -= frame.len() as u64;
                    self.rest = frame;
                    return true;
                }
                Some(Err(error)) => End::Interrupted(error.to_string()),
                None => End::Complete,
            };
            self.end = Some(end);
            return false;
        }
    }
}
