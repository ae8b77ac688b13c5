//! Reading a blob, whole or a range of it.

use super::blob::Location;
use super::files::Files;
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

/// What is read from a file at a time, at the most.
const READ_BYTES: u64 = 1 << 20;

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

/// A read in flight gives the file back with the bytes.
type Reading = JoinHandle<io::Result<(File, Bytes)>>;

/// Reads ahead by one step, so that the disk and the socket work at the same time; a thread is busy
/// only while it reads, so slow clients hold none.
async fn read_file(files: &Files, key: &str, range: Range<u64>) -> Result<ByteStream, Failure> {
    let (path, start) = (files.path(key), range.start);
    let open = move || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(file)
    };
    let file = super::files::blocking("opening a blob's file", open).await?;
    let left = range.end - range.start;
    let first = read_ahead(file, left);
    Ok(stream::try_unfold((first, left), |(reading, left)| async move {
        let Some(reading) = reading else { return Ok(None) };
        let (file, bytes) = reading.await.map_err(io::Error::other)??;
        let left = left - bytes.len() as u64;
        Ok(Some((bytes, (read_ahead(file, left), left))))
    })
    .boxed())
}

fn read_ahead(mut file: File, left: u64) -> Option<Reading> {
    if left == 0 {
        return None;
    }
    let wanted = left.min(READ_BYTES);
    Some(spawn_blocking(move || {
        let capacity = usize::try_from(wanted).map_err(io::Error::other)?;
        let mut buffer = Vec::with_capacity(capacity);
        if ((&mut file).take(wanted).read_to_end(&mut buffer)? as u64) < wanted {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is shorter than its row says",
            ));
        }
        Ok((file, buffer.into()))
    }))
}
