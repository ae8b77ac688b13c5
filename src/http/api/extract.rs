//! axum's extractors with refusals in this door's format, and bodies within the bounds of memory.

use super::Problem;
use super::idempotency::Repeats;
use crate::app::App;
use crate::http::body::{self, Broken};
use crate::http::{Caller, Right};
use crate::postgres::takes_from_the_reserve;
use crate::storage::Room;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The query's parameters.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

/// The path's parameters.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

/// A body that is not read yet. Who sends it is authenticated, and it is read for who may do what it asks: the one
/// way to a body, so that nobody else's costs more than its headers.
pub struct Unread {
    app: App,
    caller: Caller,
    headers: HeaderMap,
    pub(super) repeats: Repeats,
    body: Body,
}

/// Bytes of a body from the anonymous public: enough for a question, too few to fill the memory of the service.
const STRANGERS_BYTES: u64 = 64 << 10;

/// Maximum number of bytes of a body that stops something. Each such request has memory of its own: there are as many
/// as connections, over HTTP/2 as many as their streams.
const STOP_BYTES: u64 = 64 << 10;

impl FromRequest<App> for Unread {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let repeats = Repeats::of(&parts);
        let headers = body::described(&parts.headers);
        Ok(Self { app: app.clone(), caller, headers, repeats, body })
    }
}

impl Unread {
    /// The bytes of an envelope or a report.
    pub async fn document(self, right: &impl Right) -> Result<Bytes, Problem> {
        let limit_bytes = self.app.config.limits.document_bytes;
        self.whole(right, limit_bytes).await
    }

    /// The bytes of any other request.
    pub async fn request(self, right: &impl Right) -> Result<Bytes, Problem> {
        let limit_bytes = self.app.config.limits.request_bytes;
        self.whole(right, limit_bytes).await
    }

    /// A request as JSON, bounded in depth too (128, serde_json's own).
    pub async fn json<T: DeserializeOwned>(self, right: &impl Right) -> Result<T, Problem> {
        if !self.says_json() {
            return Err(not_json());
        }
        json(&self.request(right).await?)
    }

    /// Whether its sender says that it is JSON.
    pub fn says_json(&self) -> bool {
        let said = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence == "application/json" || essence.ends_with("+json")
    }

    /// The bytes of a file as they come.
    pub fn stream(self, _: &impl Right) -> BoxStream<'static, Result<Bytes, Broken>> {
        body::stream(self.body, self.app.config.limits.body_idle, self.caller.still_holds(&self.app))
    }

    async fn whole(self, _: &impl Right, limit_bytes: u64) -> Result<Bytes, Problem> {
        let sender = self.caller.whose_room();
        let (limit_bytes, room) = match sender {
            // Nobody who holds the memory for documents keeps out what stops something.
            Some(_) if takes_from_the_reserve() => (limit_bytes.min(STOP_BYTES), Room::of(2 * STOP_BYTES)),
            Some(_) => (limit_bytes, self.app.document_room.clone()),
            None => (limit_bytes.min(STRANGERS_BYTES), self.app.document_room.clone()),
        };
        let room = room.own(sender);
        let limits = &self.app.config.limits;
        let ending = self.caller.still_holds(&self.app);
        let (bytes, mut room) =
            body::whole(limits, &room, &self.headers, self.body, limit_bytes, ending).await?;
        room.wait_to_read(bytes.len() as u64).await.map_err(body::NotTaken::from)?;
        Ok(room.hold(bytes))
    }
}

/// The refusal of a body that is not said to be JSON: what a form of another site's page sends is none.
pub fn not_json() -> Problem {
    let message = "the body is JSON, with `Content-Type: application/json`";
    rejected(StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned())
}

/// Bytes as JSON.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = crate::json::utf8(bytes)
        .map_err(|other| Problem::invalid(format!("the body is {other}: send it as UTF-8")))?;
    Ok(axum::Json::<T>::from_bytes(text)?.0)
}

/// A JSON answer.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl From<body::NotTaken> for Problem {
    fn from(unread: body::NotTaken) -> Self {
        let text = unread.to_string();
        match unread {
            body::NotTaken::TooLarge { limit_bytes } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "document-too-large", text)
                    .with("limit_bytes", limit_bytes)
            }
            body::NotTaken::Slow(_) | body::NotTaken::Broken(body::Broken::Silent(_)) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", text)
            }
            body::NotTaken::Broken(body::Broken::Cut(_)) => {
                Self::new(StatusCode::BAD_REQUEST, "body-interrupted", text)
            }
            body::NotTaken::Broken(changed @ body::Broken::Changed) => {
                Self::unauthenticated_since(changed.to_string())
            }
            body::NotTaken::Broken(body::Broken::NotAsked(failure)) => failure.into(),
            body::NotTaken::NoRoom(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", text)
                .header(RETRY_AFTER, HeaderValue::from_static("1")),
        }
    }
}

/// A refusal of axum's own, with its status: 400, 415 or 422.
fn rejected(status: StatusCode, text: String) -> Problem {
    let code = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported-media-type",
        _ => "invalid-request",
    };
    Problem::new(status, code, text)
}

macro_rules! problem_from {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                rejected(rejection.status(), rejection.body_text())
            }
        }
    )*};
}

problem_from!(JsonRejection, PathRejection, QueryRejection);
