//! A request's body: as a stream that ends when its sender falls silent, or whole in memory, of which
//! there is so much for all requests together.

use super::turns::Turn;
use crate::config::Limits;
use crate::failure::{Failure, Overloaded};
use crate::storage::{OwnRoom, Taken};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// No byte came for too long.
    #[error("no byte came for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The client went away, or its framing is wrong.
    #[error("the connection ended before the body did")]
    Cut(#[source] axum::Error),
    /// Its sender is not known any more as who began to send it.
    #[error("the credential or its rights changed while the request was sent; send it again")]
    Changed,
    /// Whether its sender is still known could not be asked.
    #[error("whether the credential still holds could not be asked; send the request again")]
    NotAsked(#[source] Failure),
}

/// A body as bytes, given up when none comes for `idle`. Until it ends, its request has no turn. It is good only if
/// `ending` says so once all of it is there: who sends it may have lost the right meanwhile.
pub fn stream(
    body: Body,
    idle: Duration,
    ending: impl Future<Output = Result<(), Broken>> + Send + 'static,
) -> BoxStream<'static, Result<Bytes, Broken>> {
    let frames = body.into_data_stream().map(|frame| frame.map_err(Broken::Cut)).boxed();
    let paused = Turn::current().inspect(Turn::pause);
    watched(frames, idle).chain(ended(paused, ending)).boxed()
}

/// Nothing, once the request has its turn again, or why the body is not good.
fn ended(
    paused: Option<Turn>,
    ending: impl Future<Output = Result<(), Broken>>,
) -> impl Stream<Item = Result<Bytes, Broken>> {
    let ended = async move {
        if let Some(turn) = paused {
            turn.resume().await;
        }
        ending.await.err().map(Err)
    };
    stream::once(ended).filter_map(std::future::ready)
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

/// What headers say of a body, for whoever waits for one and needs nothing else of them: they are as long as
/// their sender likes, and in no room.
pub fn described(headers: &HeaderMap) -> HeaderMap {
    let described = [header::CONTENT_LENGTH, header::CONTENT_TYPE];
    described.into_iter().filter_map(|name| headers.get(&name).map(|value| (name, value.clone()))).collect()
}

/// Why a body was not read whole into memory.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It has, or says that it has, more bytes than it may.
    #[error("the body may have {limit_bytes} bytes at the most")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// It came too slowly as a whole.
    #[error("the body did not arrive within {} seconds", .0.as_secs())]
    Slow(Duration),
    /// It fell silent, or was cut off.
    #[error("the body broke off: {0}")]
    Broken(#[from] Broken),
    /// Other requests hold all the memory that there is for bodies.
    #[error(transparent)]
    NoRoom(#[from] Overloaded),
}

/// Bytes that are set aside for a body on its word alone.
const FIRST: u64 = 1 << 20;

/// Reads a body whole, at most `limit_bytes`, whether or not it declares its length. Its bytes take its
/// sender's room for documents as they come, not as they are announced; it comes with them, to be held as
/// long as they are.
pub async fn whole(
    limits: &Limits,
    room: &OwnRoom,
    headers: &HeaderMap,
    body: Body,
    limit_bytes: u64,
    ending: impl Future<Output = Result<(), Broken>> + Send + 'static,
) -> Result<(Bytes, Taken), NotTaken> {
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit_bytes) {
        return Err(NotTaken::TooLarge { limit_bytes });
    }
    let deadline = Instant::now() + limits.document_time;
    let mut frames = stream(body, limits.body_idle, ending);
    let mut read = BytesMut::with_capacity(usize::try_from(declared.unwrap_or(0).min(FIRST)).unwrap_or(0));
    let mut room = room.take();
    loop {
        let next = timeout_at(deadline, frames.next()).await;
        let Some(frame) = next.map_err(|_| NotTaken::Slow(limits.document_time))? else { break };
        let frame = frame?;
        let length = (read.len() + frame.len()) as u64;
        if length > limit_bytes {
            return Err(NotTaken::TooLarge { limit_bytes });
        }
        room.grow(length).await?;
        read.extend_from_slice(&frame);
    }
    // What is as small as this is sent again.
    if Turn::current().is_some_and(|turn| !turn.is_held()) {
        return Err(Overloaded.into());
    }
    Ok((read.freeze(), room))
}
