//! A blob on its way out: checked by its digest, within the bounds of memory.

use super::Caller;
use super::byteranges::ByteRanges;
use super::range::Wanted;
use crate::app::App;
use crate::content::blobs::{self, Blob};
use crate::failure::Failure;
use crate::shares::Taken;
use crate::storage::{ByteStream, Checked, joined_by_pieces};
use axum::body::Body;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use std::io;
use std::ops::Range;

/// The answer with the bytes of a blob, or some of them. It breaks off when they turn out to be wrong, and never ends as
/// if they were right. Its slot is taken until they are there or the client is gone.
pub async fn blob(
    app: &App,
    caller: &Caller,
    blob: Blob,
    wanted: Wanted,
    slot: Taken,
) -> Result<Response, Failure> {
    let octets = || "application/octet-stream".to_owned();
    let size = blob.size_bytes;
    let etag = [(header::ETAG, format!("\"{}\"", blob.digest))];
    match wanted {
        Wanted::Whole => {
            let bytes = blob.read(&app.store, found(app.clone(), blob.clone())).await?;
            let body = body(blob, bytes, slot).await?;
            Ok((StatusCode::OK, described(octets(), size), etag, body).into_response())
        }
        Wanted::Range(range) => {
            let bytes = read_ranges(app, caller, &blob, vec![range.clone()]).await?;
            let body = body(blob, bytes.map_ok(|(_, bytes)| bytes).boxed(), slot).await?;
            let content_range =
                [(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end - 1))];
            let described = described(octets(), range.end - range.start);
            Ok((StatusCode::PARTIAL_CONTENT, described, etag, content_range, body).into_response())
        }
        Wanted::Ranges(wanted) => {
            let form = ByteRanges::new(wanted, size);
            let described = described(form.media_type(), form.length());
            let bytes = read_ranges(app, caller, &blob, joined_by_pieces(form.ranges())).await?;
            let end = form.end();
            let parts = bytes.map_ok(move |(at, bytes)| stream::iter(form.cut(at, &bytes)).map(Ok));
            let parts = parts.try_flatten().chain(stream::iter([Ok(end)])).boxed();
            let body = body(blob, parts, slot).await?;
            Ok((StatusCode::PARTIAL_CONTENT, described, etag, body).into_response())
        }
    }
}

fn described(media_type: String, length: u64) -> [(HeaderName, String); 3] {
    [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ]
}

/// The bytes of ranges, one range after the other, with the position of each chunk.
async fn read_ranges(
    app: &App,
    caller: &Caller,
    blob: &Blob,
    ranges: Vec<Range<u64>>,
) -> Result<BoxStream<'static, io::Result<(u64, Bytes)>>, Failure> {
    let mut memory = caller.answer_room(app).take();
    let needed = ranges.iter().map(|range| blob.range_memory_bytes(range)).max().unwrap_or(0);
    let full = memory.grow(needed.min(memory.most_bytes())).await;
    full.map_err(|full| Failure::new("reading a range of a blob", full))?;
    let (app, blob) = (app.clone(), blob.clone());
    let read = stream::iter(ranges).then(move |range| {
        let (app, blob) = (app.clone(), blob.clone());
        async move {
            let mut next = range.start;
            let found = found(app.clone(), blob.clone());
            let bytes = blob.read_range(&app.db, &app.store, range, found).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(bytes.map_ok(move |bytes| {
                let at = next;
                next += bytes.len() as u64;
                (at, bytes)
            }))
        }
    });
    Ok(read.try_flatten().inspect(move |_| _ = &memory).boxed())
}

async fn body(blob: Blob, mut bytes: ByteStream, slot: Taken) -> Result<Body, Failure> {
    // What is found wrong before anything is out is refused in words.
    let first = bytes.next().await.transpose().map_err(|error| Failure::new("reading a blob", error))?;
    let bytes = stream::iter(first.map(Ok)).chain(bytes);
    Ok(Body::from_stream(bytes.inspect(move |chunk| {
        let _ = &slot;
        if let Err(error) = chunk {
            tracing::error!(digest = %blob.digest, %error, "an answer with a blob breaks off");
        }
    })))
}

/// What is done about what a reading found.
fn found(app: App, blob: Blob) -> impl FnOnce(Checked) + Send + 'static {
    move |found| match found {
        Checked::Right(None) => {}
        Checked::Right(Some(pieces)) => {
            tokio::spawn(async move {
                if let Err(failure) = blobs::keep_pieces(&app.db, &blob, &pieces).await {
                    tracing::warn!(error = failure.chain(), digest = %blob.digest, "ranges are not checked yet");
                }
            });
        }
        Checked::Damaged => app.report_damaged(blob.digest),
    }
}
