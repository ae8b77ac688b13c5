//! The requests that are worked at together: as many as there are database connections, of one principal its share.
//! More wait for each other, so that nobody's many requests keep the others from a connection. What stops something has
//! connections of its own, and turns of its own for them.

use super::api::Problem;
use super::caller::{Caller, secret_of};
use super::oci;
use crate::app::App;
use crate::failure::Overloaded;
use crate::postgres::takes_from_the_reserve;
use crate::shares::{Share, Shares, Taken};
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a request waits for its turn before it is refused.
const SOON: Duration = Duration::from_secs(5);

/// How long one waits whose body came meanwhile.
const WITH_ITS_BODY: Duration = Duration::from_mins(1);

const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

tokio::task_local! {
    static TURN: Turn;
}

/// A request's turn, which it does not have while it waits for its body.
#[derive(Clone, Debug)]
pub struct Turn {
    share: Share,
    held: Arc<Mutex<Option<Taken>>>,
}

impl Turn {
    /// That of the request that this task serves, if it has one.
    pub fn current() -> Option<Self> {
        TURN.try_with(Self::clone).ok()
    }

    /// Lets others go on: nothing is done until more bytes come.
    pub fn pause(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether it has its turn now.
    pub fn is_held(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Goes on, when its turn comes again, or without it where that takes too long: a large body is not thrown away.
    pub async fn resume(&self) {
        if let Ok(taken) = self.share.take(1, WITH_ITS_BODY).await {
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
        }
    }
}

/// Waits for the request's turn and runs it. The anonymous public has no right to stop anything, and is refused before
/// anything is looked up.
pub async fn in_turn(State(app): State<App>, request: Request, next: Next) -> Response {
    let stops = takes_from_the_reserve();
    if stops && !request.headers().contains_key(header::AUTHORIZATION) {
        return Problem::unauthenticated().into_response();
    }
    let (mut parts, body) = request.into_parts();
    let shares = if stops { &app.stop_turns } else { &app.turns };
    let of_oci = parts.extensions.get::<MatchedPath>().is_some_and(|path| path.as_str().starts_with("/v2"));
    let Ok(caller) = sender(&app, shares, &mut parts).await else { return refused(of_oci, false) };
    if stops && caller.as_ref().is_some_and(Caller::is_anonymous) {
        return Problem::unauthenticated().into_response();
    }
    let share = shares.of(caller.as_ref().and_then(Caller::whose_room));
    let request = Request::from_parts(parts, body);
    match share.take(1, SOON).await {
        Ok(taken) => {
            let turn = Turn { share, held: Arc::new(Mutex::new(Some(taken))) };
            let answer = TURN.scope(turn.clone(), next.run(request)).await;
            turn.pause();
            answer
        }
        Err(_) => refused(of_oci, share.is_used_up()),
    }
}

/// Who sends the request. Where that is not cached, it is looked up in a turn of those who are not known yet: they have
/// a share of the connections together. What does not hold, or cannot be asked now, is refused by the handler in its
/// own words.
async fn sender(app: &App, shares: &Shares, parts: &mut Parts) -> Result<Option<Caller>, Overloaded> {
    let is_cached = app.callers.is_cached(secret_of(&parts.headers).as_ref());
    let _turn = if is_cached { None } else { Some(shares.of_unknown().take(1, SOON).await?) };
    Ok(Caller::of(app, parts).await.unwrap_or_else(|failure| {
        Caller::not_asked(parts, failure);
        None
    }))
}

fn refused(of_oci: bool, by_its_own: bool) -> Response {
    metrics::counter!("proofmark_requests_refused_total").increment(1);
    let detail = if by_its_own {
        "as many requests of this caller as may be are worked at; try again"
    } else {
        "as many requests as this service works at are under way; try again"
    };
    if of_oci {
        return oci::unavailable(detail, RETRY_AFTER);
    }
    let (status, code) = if by_its_own {
        (StatusCode::TOO_MANY_REQUESTS, "too-many-requests")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
    };
    Problem::new(status, code, detail).header(header::RETRY_AFTER, RETRY_AFTER).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::part_of_request;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn what_a_request_began_has_its_turn_until_its_end_also_when_the_client_has_gone() {
        let shares = Shares::halves(2);
        let share = shares.of(None);
        let taken = share.try_take(1).unwrap();
        let turn = Turn { share, held: Arc::new(Mutex::new(Some(taken))) };
        let (end, ending) = oneshot::channel();
        let act = TURN.sync_scope(turn, || part_of_request(ending));
        assert_eq!(shares.free(), 1);
        end.send(()).unwrap();
        act.await.unwrap();
        assert_eq!(shares.free(), 2);
    }
}
