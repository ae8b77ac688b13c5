//! Reading a blob, whole or a range of it.

use super::blob::Location;
use super::chunks::Buffers;
use super::files::Files;
use super::steps::UnderWay;
use super::store::{Kind, Store};
use crate::failure::Failure;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes as they are read. One that breaks off ends in an error, never in fewer bytes.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

impl Store {
    /// A range of a blob's bytes. Fails at once when the bytes are not there.
    pub async fn read(&self, location: &Location, range: Range<u64>) -> Result<ByteStream, Failure> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let key = match location {
            Location::Inline(bytes) => return inline(bytes, range),
            Location::Object(key) => key,
        };
        match self.kind() {
            Kind::Files(files) => read_file(files, key, range).await,
            Kind::Objects(objects) => Ok(objects.read(key, range).await?.map_err(io::Error::other).boxed()),
        }
    }
}

fn inline(bytes: &Bytes, range: Range<u64>) -> Result<ByteStream, Failure> {
    let outside = || Failure::new("reading a blob from Postgres", "it is shorter than its row says");
    let start = usize::try_from(range.start).map_err(|_| outside())?;
    let end = usize::try_from(range.end).map_err(|_| outside())?;
    if end > bytes.len() {
        return Err(outside());
    }
    Ok(stream::iter([Ok(bytes.slice(start..end))]).boxed())
}

/// A file that is being read, with what is left of the range and the buffers it uses by turns.
struct Reader {
    file: File,
    left: u64,
    buffers: Buffers,
    under_way: UnderWay,
}

/// A read in flight gives the reader back with the bytes.
type Reading = JoinHandle<io::Result<(Reader, Bytes)>>;

/// Reads ahead by one step, so that the disk and the socket work at the same time; a thread is busy
/// only while it reads, so slow clients hold none.
async fn read_file(files: &Files, key: &str, range: Range<u64>) -> Result<ByteStream, Failure> {
    let (path, staging, start) = (files.path(key), files.path("staging"), range.start);
    let open = move || {
        let mut file = super::files::open_blob(&path, &staging)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(file)
    };
    let file = super::files::blocking("opening a blob's file", open).await?;
    let left = range.end - range.start;
    let reader = Reader { file, left, buffers: Buffers::default(), under_way: files.steps.read() };
    Ok(stream::try_unfold(reader.read_ahead(), |reading| async move {
        let Some(reading) = reading else { return Ok(None) };
        let (reader, bytes) = reading.await.map_err(io::Error::other)??;
        Ok(Some((bytes, reader.read_ahead())))
    })
    .boxed())
}

impl Reader {
    fn read_ahead(mut self) -> Option<Reading> {
        if self.left == 0 {
            return None;
        }
        Some(spawn_blocking(move || {
            let wanted = self.left.min(self.under_way.step_bytes() as u64);
            let mut buffer = self.buffers.take();
            buffer.resize(usize::try_from(wanted).map_err(io::Error::other)?, 0);
            self.file.read_exact(&mut buffer)?;
            let bytes = buffer.freeze();
            self.buffers.lend(&bytes);
            self.left -= wanted;
            Ok((self, bytes))
        }))
    }
}
