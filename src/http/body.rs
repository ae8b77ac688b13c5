//! A request's body as a stream that ends when its sender falls silent.

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt};
use std::time::Duration;
use tokio::time::timeout;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// No byte came for too long.
    #[error("no byte came for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The client went away, or its framing is wrong.
    #[error("the connection ended before the body did")]
    Cut(#[source] axum::Error),
}

/// A body as bytes, given up when none comes for `idle`.
pub fn stream(body: Body, idle: Duration) -> BoxStream<'static, Result<Bytes, Broken>> {
    watched(body.into_data_stream().map(|frame| frame.map_err(Broken::Cut)).boxed(), idle).boxed()
}

fn watched<S>(frames: S, idle: Duration) -> impl Stream<Item = Result<Bytes, Broken>>
where
    S: Stream<Item = Result<Bytes, Broken>> + Unpin,
{
    stream::unfold(Some(frames), move |frames| async move {
        let mut frames = frames?;
        match timeout(idle, frames.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(frames))),
            Ok(Some(Err(broken))) => Some((Err(broken), None)),
            Ok(None) => None,
            Err(_) => Some((Err(Broken::Silent(idle)), None)),
        }
    })
}
