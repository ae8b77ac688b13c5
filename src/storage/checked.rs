//! Bytes that are checked while they are read: what the store gives is not believed.
//!
//! The last bytes are given only when all of them were checked, so that a reader who got them all got the right ones.
//! Bytes that are wrong end the stream in an error. Of a whole blob some of them may be out by then; of a range none.

use super::blob::Location;
use super::pieces::{PIECE_BYTES, PieceDigests, PieceHasher, TouchedPieces, is_piece};
use super::read::ByteStream;
use super::store::Store;
use crate::failure::Failure;
use crate::names::{Digest, Hasher};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::Range;
use tokio::task::{JoinHandle, spawn_blocking};

/// Chunks of this many bytes or more are hashed on a blocking thread, off those that serve requests.
const LARGE: usize = 128 << 10;

/// What a reading found.
#[derive(Debug)]
pub enum Checked {
    /// The bytes are right, with the digests of their pieces where these were asked for.
    Right(Option<PieceDigests>),
    /// The bytes are not those of the digest, or fewer than there should be.
    Damaged,
}

/// The bytes are not those of the digest.
#[derive(Debug, thiserror::Error)]
#[error("the bytes of {0} in the store are not those of the digest")]
pub struct Damaged(pub Digest);

/// A blob as its row describes it.
#[derive(Clone, Debug)]
pub struct Described<'a> {
    /// Its digest.
    pub digest: &'a Digest,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// Where they lie.
    pub location: &'a Location,
}

impl Store {
    /// All bytes of a blob. When the last are checked, `found` gets the result, with the digests of the pieces
    /// where they are wanted. It is not called when the reader goes away or the store breaks off.
    pub async fn read_checked<F>(
        &self,
        blob: Described<'_>,
        wants_pieces: bool,
        found: F,
    ) -> Result<ByteStream, Failure>
    where
        F: FnOnce(Checked) + Send + 'static,
    {
        if let Location::Inline(bytes) = blob.location {
            let whole = 0..blob.size_bytes;
            return inline(&blob, bytes, whole, found);
        }
        let bytes = self.read(blob.location, 0..blob.size_bytes).await?;
        let pieces = wants_pieces.then(PieceHasher::default);
        let hashing = Hashing { whole: Hasher::new(blob.digest.algorithm()), pieces };
        let reading = Whole {
            bytes,
            hashing: Running::Here(Box::new(hashing)),
            held: None,
            digest: blob.digest.clone(),
            found: Some(found),
        };
        Ok(stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        })
        .boxed())
    }

    /// A range of a blob's bytes, checked by the digests of the pieces that it touches. One piece is in memory at a
    /// time. `found` is called for damage only.
    pub async fn read_range_checked<F>(
        &self,
        blob: Described<'_>,
        range: Range<u64>,
        digests: PieceDigests,
        found: F,
    ) -> Result<ByteStream, Failure>
    where
        F: FnOnce(Checked) + Send + 'static,
    {
        if let Location::Inline(bytes) = blob.location {
            return inline(&blob, bytes, range, found);
        }
        let touched = TouchedPieces::of(&range, blob.size_bytes);
        let bytes = self.read(blob.location, touched.bytes.clone()).await?;
        let reading = Pieces {
            bytes,
            rest: VecDeque::new(),
            at: touched.bytes.start,
            end: touched.bytes.end,
            range,
            digests,
            index: 0,
            digest: blob.digest.clone(),
            found: Some(found),
        };
        Ok(stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        })
        .boxed())
    }
}

/// Bytes that lie in Postgres are all there, and few.
fn inline<F>(blob: &Described<'_>, bytes: &Bytes, range: Range<u64>, found: F) -> Result<ByteStream, Failure>
where
    F: FnOnce(Checked),
{
    let cut = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
    let cut = cut.filter(|(_, end)| *end <= bytes.len());
    let is_right = Digest::of(blob.digest.algorithm(), bytes) == *blob.digest;
    let (Some((start, end)), true) = (cut, is_right) else {
        found(Checked::Damaged);
        return Err(Failure::new("reading a blob from Postgres", Damaged(blob.digest.clone())));
    };
    found(Checked::Right(None));
    Ok(stream::iter([Ok(bytes.slice(start..end))]).boxed())
}

/// The hashes of what has come.
struct Hashing {
    whole: Hasher,
    pieces: Option<PieceHasher>,
}

impl Hashing {
    fn update(&mut self, bytes: &[u8]) {
        self.whole.update(bytes);
        if let Some(pieces) = &mut self.pieces {
            pieces.update(bytes);
        }
    }
}

/// Where the hashes are: here, or on a thread that digests the last chunk while the next is read.
enum Running {
    Here(Box<Hashing>),
    Elsewhere(JoinHandle<Box<Hashing>>),
    Nowhere,
}

impl Running {
    async fn take(&mut self) -> io::Result<Box<Hashing>> {
        match std::mem::replace(self, Self::Nowhere) {
            Self::Here(hashing) => Ok(hashing),
            Self::Elsewhere(running) => running.await.map_err(io::Error::other),
            Self::Nowhere => Err(io::Error::other("a step before it failed")),
        }
    }

    async fn update(&mut self, bytes: Bytes) -> io::Result<()> {
        let mut hashing = self.take().await?;
        *self = if bytes.len() < LARGE {
            hashing.update(&bytes);
            Self::Here(hashing)
        } else {
            Self::Elsewhere(spawn_blocking(move || {
                hashing.update(&bytes);
                hashing
            }))
        };
        Ok(())
    }
}

/// A whole blob that is being read.
struct Whole<F> {
    bytes: ByteStream,
    hashing: Running,
    /// The chunk before, which goes out when the next is there or all is checked.
    held: Option<Bytes>,
    digest: Digest,
    found: Option<F>,
}

impl<F: FnOnce(Checked)> Whole<F> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(chunk) = self.bytes.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => return Err(self.broken(error)),
            };
            if chunk.is_empty() {
                continue;
            }
            self.hashing.update(chunk.clone()).await?;
            if let Some(before) = self.held.replace(chunk) {
                return Ok(Some(before));
            }
        }
        let Some(found) = self.found.take() else { return Ok(None) };
        let hashing = self.hashing.take().await?;
        if hashing.whole.finish() != self.digest {
            found(Checked::Damaged);
            return Err(damaged(&self.digest));
        }
        found(Checked::Right(hashing.pieces.map(PieceHasher::finish)));
        Ok(self.held.take())
    }

    /// A store that gives fewer bytes than there should be has damaged ones.
    fn broken(&mut self, error: io::Error) -> io::Error {
        if error.kind() == ErrorKind::UnexpectedEof
            && let Some(found) = self.found.take()
        {
            found(Checked::Damaged);
        }
        error
    }
}

/// Pieces of a blob that are being read.
struct Pieces<F> {
    bytes: ByteStream,
    /// What came behind the piece that is being gathered.
    rest: VecDeque<Bytes>,
    /// Where the next piece begins, and the last ends.
    at: u64,
    end: u64,
    /// What was asked for.
    range: Range<u64>,
    digests: PieceDigests,
    index: usize,
    digest: Digest,
    found: Option<F>,
}

impl<F: FnOnce(Checked)> Pieces<F> {
    /// The next piece, as much of it as was asked for.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let length = usize::try_from(PIECE_BYTES.min(self.end - self.at)).map_err(io::Error::other)?;
        let piece = self.gather(length).await?;
        let (digests, index) = (self.digests.clone(), self.index);
        let (piece, is_right) = spawn_blocking(move || {
            let is_right = is_piece(&piece, &digests, index);
            (piece, is_right)
        })
        .await
        .map_err(io::Error::other)?;
        if !is_right {
            return Err(self.found_damage());
        }
        let cut = |position: u64| {
            usize::try_from(position.saturating_sub(self.at)).map_or(length, |position| position.min(length))
        };
        let wanted = piece.slice(cut(self.range.start)..cut(self.range.end));
        self.at += length as u64;
        self.index += 1;
        Ok(Some(wanted))
    }

    async fn gather(&mut self, length: usize) -> io::Result<Bytes> {
        let mut piece = BytesMut::with_capacity(length);
        while piece.len() < length {
            let mut chunk = match self.rest.pop_front() {
                Some(chunk) => chunk,
                None => match self.bytes.next().await {
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                        self.found_damage();
                        return Err(error);
                    }
                    Some(Err(error)) => return Err(error),
                    None => return Err(self.found_damage()),
                },
            };
            let now = chunk.split_to(chunk.len().min(length - piece.len()));
            piece.extend_from_slice(&now);
            if !chunk.is_empty() {
                self.rest.push_front(chunk);
            }
        }
        Ok(piece.freeze())
    }

    fn found_damage(&mut self) -> io::Error {
        if let Some(found) = self.found.take() {
            found(Checked::Damaged);
        }
        damaged(&self.digest)
    }
}

fn damaged(digest: &Digest) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, Damaged(digest.clone()))
}
