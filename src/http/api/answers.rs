//! Answers that are whole in memory until their clients have read them: they take room as bodies do that
//! come in, or somebody who asks for lists and reads none fills the memory.

use super::Problem;
use crate::app::App;
use crate::failure::{Failure, Overloaded};
use crate::http::Sender;
use crate::http::body::NotTaken;
use crate::storage::Taken;
use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http_body::Body as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Answers up to these bytes are as small as what a request costs anyway.
pub const SMALL_ANSWER: u64 = 1 << 10;

/// Room that a handler took for what its answer is made of; the answer has it then.
#[derive(Clone, Debug)]
pub struct Prepared(Arc<Mutex<Option<Taken>>>);

impl Prepared {
    /// Goes with the answer.
    pub fn of(mut room: Taken) -> Extension<Self> {
        room.end_turn();
        Extension(Self(Arc::new(Mutex::new(Some(room)))))
    }

    fn room(&self) -> Option<Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Runs the handler and takes room for its answer, or what is missing of it. It never waits for it, since the
/// answer is there by then: who only asks is told to ask again, and what was done is said to be done.
pub async fn counted(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let asks = request.method() == Method::GET;
    let sender = request.extensions_mut().get_or_insert_default::<Sender>().clone();
    let (mut parts, body) = next.run(request).await.into_parts();
    let prepared = parts.extensions.remove::<Prepared>().and_then(|prepared| prepared.room());
    let Some(bytes) = body.size_hint().exact().filter(|bytes| *bytes > SMALL_ANSWER) else {
        return Response::from_parts(parts, body);
    };
    let mut room = prepared.unwrap_or_else(|| app.answer_room.own(sender.principal()).take());
    room.shrink(bytes);
    let taken = room.grow(bytes).now_or_never().unwrap_or(Err(Overloaded));
    match (taken, to_bytes(body, usize::MAX).await) {
        (Ok(()), Ok(bytes)) => Response::from_parts(parts, Body::from(room.hold(bytes))),
        (Err(_), Ok(bytes)) if !asks => Response::from_parts(parts, Body::from(bytes)),
        (Err(full), Ok(_)) => Problem::from(NotTaken::from(full)).into_response(),
        (_, Err(error)) => Problem::from(Failure::new("writing an answer", error)).into_response(),
    }
}
