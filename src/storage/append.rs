//! Taking a body in: hashing and writing overlap with receiving, and nothing is held whole.

use super::chunks::{CHUNK_BYTES, Chunks, End};
use super::files::FileSink;
use super::parts::PartSink;
use super::staged::{Hashing, Staged, staging_name};
use super::steps::UnderWay;
use super::store::{Kind, Store};
use crate::failure::Failure;
use bytes::Bytes;
use futures::Stream;
use std::fmt::Display;
use tokio::task::{JoinHandle, spawn_blocking};
use uuid::Uuid;

/// Why a body was not taken whole.
#[derive(Debug)]
pub enum WriteRefused {
    /// It has more bytes than this.
    TooLarge {
        /// The most that would be accepted.
        limit_bytes: u64,
    },
    /// It ended before its end: the client went away or fell silent.
    Interrupted(String),
    /// A fault of ours.
    Failed(Failure),
}

impl From<Failure> for WriteRefused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Where chunks go.
enum Sink {
    File(FileSink),
    Parts(PartSink),
}

impl Store {
    /// Adds a body to an upload. `lease` is fresh for each call, so that a late writer never touches
    /// another's bytes.
    ///
    /// After `Ok` and after `Interrupted` the state holds every byte that came, durable: the caller
    /// saves it. After `TooLarge` and `Failed` the caller forgets it, and the state saved before
    /// still stands. A crash anywhere leaves bytes that no state names, for the sweep.
    pub async fn append<S, E>(
        &self,
        staged: &mut Staged,
        lease: Uuid,
        body: S,
        limit_bytes: u64,
    ) -> Result<(), WriteRefused>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Display,
    {
        let mut chunks = Chunks::new(body, limit_bytes.saturating_sub(staged.offset_bytes));
        let under_way = self.steps().upload();
        let room = self.least_piece_bytes().saturating_sub(staged.tail.len());
        let first = chunks.gather(room).await;
        if first.iter().map(Bytes::len).sum::<usize>() < room {
            return self.keep_as_tail(staged, first.concat().into(), &chunks.end(), limit_bytes).await;
        }
        let mut sink = self.open_sink(staged, lease).await?;
        let poured = pour(&mut sink, staged, first, &mut chunks, &under_way).await;
        match (poured, chunks.end()) {
            (Ok(()), End::Complete) => Ok(sink.close(staged).await?),
            (Ok(()), End::Interrupted(why)) => {
                sink.close(staged).await?;
                Err(WriteRefused::Interrupted(why))
            }
            (Ok(()), End::TooLarge) => {
                sink.discard(staged).await;
                Err(WriteRefused::TooLarge { limit_bytes })
            }
            (Err(failure), _) => {
                sink.discard(staged).await;
                Err(failure.into())
            }
        }
    }

    /// What is smaller than the store's least piece stays with the state, in Postgres.
    async fn keep_as_tail(
        &self,
        staged: &mut Staged,
        bytes: Bytes,
        end: &End,
        limit_bytes: u64,
    ) -> Result<(), WriteRefused> {
        if *end == End::TooLarge {
            return Err(WriteRefused::TooLarge { limit_bytes });
        }
        staged.offset_bytes += bytes.len() as u64;
        if bytes.len() > super::INLINE_BYTES {
            staged.hashing = finished(hash(staged.hashing.clone(), bytes.clone())).await?;
        } else {
            staged.hashing.update(&bytes);
        }
        staged.tail =
            if staged.tail.is_empty() { bytes } else { Bytes::from([&staged.tail[..], &bytes].concat()) };
        match end {
            End::Interrupted(why) => Err(WriteRefused::Interrupted(why.clone())),
            End::Complete | End::TooLarge => Ok(()),
        }
    }

    async fn open_sink(&self, staged: &mut Staged, lease: Uuid) -> Result<Sink, Failure> {
        let name = staging_name(staged.upload, lease);
        match self.kind() {
            Kind::Files(files) => FileSink::open(files, staged, name).map(Sink::File),
            Kind::Objects(objects) => PartSink::open(objects, staged, name).await.map(Sink::Parts),
        }
    }
}

/// Everything that comes goes to the sink and through the hash, side by side on blocking threads.
/// No thread waits for a slow client.
async fn pour<S, E>(
    sink: &mut Sink,
    staged: &mut Staged,
    first: Vec<Bytes>,
    chunks: &mut Chunks<S>,
    under_way: &UnderWay,
) -> Result<(), Failure>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Display,
{
    // The tail went through the hash when it came.
    let tail = std::mem::take(&mut staged.tail);
    if !tail.is_empty() {
        sink.push(tail).await?;
    }
    let mut first = first.into_iter();
    let mut hashing = None;
    loop {
        let chunk = match first.next() {
            Some(chunk) => chunk,
            None => chunks.take(sink.step_bytes(under_way)).await,
        };
        let hashed = match hashing.take() {
            Some(hashing) => finished(hashing).await?,
            None => staged.hashing.clone(),
        };
        if chunk.is_empty() {
            staged.hashing = hashed;
            return Ok(());
        }
        staged.offset_bytes += chunk.len() as u64;
        hashing = Some(hash(hashed, chunk.clone()));
        sink.push(chunk).await?;
    }
}

fn hash(mut hashing: Hashing, chunk: Bytes) -> JoinHandle<Hashing> {
    spawn_blocking(move || {
        hashing.update(&chunk);
        hashing
    })
}

/// What a blocking job gives when it has run.
pub(super) async fn finished<T>(job: JoinHandle<T>) -> Result<T, Failure> {
    job.await.map_err(|error| Failure::new("running a job on a blocking thread", error))
}

impl Sink {
    /// What is received, hashed and pushed at a time.
    fn step_bytes(&self, under_way: &UnderWay) -> usize {
        match self {
            Self::File(_) => under_way.step_bytes(),
            Self::Parts(_) => CHUNK_BYTES,
        }
    }

    async fn push(&mut self, chunk: Bytes) -> Result<(), Failure> {
        match self {
            Self::File(sink) => sink.push(chunk).await,
            Self::Parts(sink) => sink.push(chunk).await,
        }
    }

    /// Makes durable what was pushed, and names it in the state.
    async fn close(self, staged: &mut Staged) -> Result<(), Failure> {
        match self {
            Self::File(sink) => sink.close(staged).await,
            Self::Parts(sink) => sink.close(staged).await,
        }
    }

    /// Takes back what was pushed, as well as it goes; the sweep takes the rest.
    async fn discard(self, staged: &Staged) {
        match self {
            Self::File(sink) => sink.discard().await,
            Self::Parts(sink) => sink.discard(staged).await,
        }
    }
}
