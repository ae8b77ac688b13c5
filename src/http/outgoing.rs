//! A blob on its way out: checked by its digest, within the bounds of memory.

use super::Caller;
use crate::app::App;
use crate::content::blobs::{self, Blob};
use crate::failure::Failure;
use crate::shares::Taken;
use crate::storage::Checked;
use axum::body::Body;
use futures::{StreamExt, stream};
use std::ops::Range;

/// The bytes of a blob, or a range of them that is not empty. The answer breaks off when they turn out to be wrong,
/// and never ends as if they were right. Its slot is taken until they are there or the client is gone.
pub async fn blob(
    app: &App,
    caller: &Caller,
    blob: Blob,
    range: Option<Range<u64>>,
    slot: Taken,
) -> Result<Body, Failure> {
    let found = found(app.clone(), blob.clone());
    let stream = match range {
        None => blob.read(&app.store, found).await?,
        Some(range) => {
            let mut memory = caller.answer_room(app).take();
            let needed = blob.range_memory_bytes(&range).min(memory.most_bytes());
            memory.grow(needed).await.map_err(|full| Failure::new("reading a range of a blob", full))?;
            let stream = blob.read_range(&app.db, &app.store, range, found).await?;
            stream.inspect(move |_| _ = &memory).boxed()
        }
    };
    // What is found wrong before anything is out is refused in words.
    let mut stream = stream;
    let first = stream.next().await.transpose().map_err(|error| Failure::new("reading a blob", error))?;
    let stream = stream::iter(first.map(Ok)).chain(stream);
    let stream = stream.inspect(move |chunk| {
        let _ = &slot;
        if let Err(error) = chunk {
            tracing::error!(digest = %blob.digest, %error, "an answer with a blob breaks off");
        }
    });
    Ok(Body::from_stream(stream))
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
