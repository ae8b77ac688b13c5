//! One request below `/v2/`, as the handlers see it.

use super::{Code, OciError};
use crate::access::{Act, Action, Denied, Grant, Scope};
use crate::app::App;
use crate::http::api::SMALL_ANSWER;
use crate::http::body::{self, Broken, NotTaken};
use crate::http::{Caller, Right, note_denied};
use crate::names::RepositoryName;
use crate::storage::{OwnRoom, Taken};
use axum::body::Body;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use futures::stream::BoxStream;
use http_body::Body as _;
use std::fmt::Display;

/// A request below `/v2/` from a caller whose credential holds.
pub struct Visit {
    /// The service.
    pub app: App,
    /// Who asks.
    pub caller: Caller,
    /// The request's method.
    pub method: Method,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The body, not read yet.
    body: Body,
    query: Vec<(String, String)>,
}

impl Visit {
    /// Authenticates; a credential that does not hold is 401 with a challenge.
    pub async fn new(app: App, mut parts: Parts, body: Body) -> Result<Self, OciError> {
        let Some(caller) = Caller::of(&app, &mut parts).await? else {
            return Err(challenge(&app, "the credential does not hold", None));
        };
        let query =
            Query::<Vec<(String, String)>>::from_request_parts(&mut parts, &app).await.map_err(|_| {
                OciError::new(StatusCode::BAD_REQUEST, Code::Unsupported, "the query is not name=value pairs")
            })?;
        let Parts { method, headers, .. } = parts;
        Ok(Self { app, caller, method, headers, body, query: query.0 })
    }

    /// A grant of the action on the repository; otherwise 401 with a challenge that names the scope
    /// to ask for, the same whether or not the repository exists.
    pub fn may<A: Act>(&self, repository: &RepositoryName) -> Result<Grant<A>, OciError> {
        self.may_on(repository)
    }

    /// The same on a scope that docker's tokens have a name for: a repository, or the view of a lane.
    pub fn may_on<A: Act, S: Scope + Display>(&self, scope: &S) -> Result<Grant<A, S>, OciError> {
        self.caller.may::<A, S>(scope).map_err(|denied| {
            note_denied(denied);
            let scope = format!("repository:{scope}:{}", docker_actions(denied));
            challenge(&self.app, &denied.to_string(), Some(&scope))
        })
    }

    /// The first query parameter of this name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query_all(name).next()
    }

    /// Every query parameter of this name, in order.
    pub fn query_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header as text, `None` when it is absent or not visible ASCII.
    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether a body comes.
    pub fn has_body(&self) -> bool {
        !self.body.is_end_stream()
    }

    /// The body as it comes, for who may do what it asks.
    pub fn stream(&mut self, _: &impl Right) -> BoxStream<'static, Result<Bytes, Broken>> {
        body::stream(
            std::mem::take(&mut self.body),
            self.app.config.limits.body_idle,
            self.caller.still_holds(&self.app),
        )
    }

    /// Reads the body whole, at most `limit_bytes`, within the bounds of memory, for who may do what it asks.
    pub async fn read_body(&mut self, _: &impl Right, limit_bytes: u64) -> Result<Bytes, OciError> {
        let body = std::mem::take(&mut self.body);
        let limits = &self.app.config.limits;
        let ending = self.caller.still_holds(&self.app);
        let read = body::whole(limits, &self.room(), &self.headers, body, limit_bytes, ending).await;
        let (bytes, room) = read.map_err(|refused| match refused {
            NotTaken::Broken(changed @ Broken::Changed) => challenge(&self.app, &changed.to_string(), None),
            NotTaken::TooLarge { .. } | NotTaken::Slow(_) | NotTaken::Broken(_) | NotTaken::NoRoom(_) => {
                refused.into()
            }
        })?;
        Ok(room.hold(bytes))
    }

    /// What an answer of so many bytes takes of the caller's room, until the client has it all: many slow
    /// clients are many answers in memory. Small ones do not count, and the largest take all of it.
    pub fn room_for(&self, bytes: u64) -> impl Future<Output = Result<Taken, OciError>> + use<> {
        let room = self.caller.answer_room(&self.app);
        let (bytes, mut taken) = (bytes.min(room.most_bytes()), room.take());
        async move {
            if bytes > SMALL_ANSWER {
                taken.grow(bytes).await.map_err(NotTaken::from)?;
            }
            Ok(taken)
        }
    }

    /// The turn to read a document of so many bytes, over when it is dropped.
    pub fn turn_to_read(&self, bytes: usize) -> impl Future<Output = Result<Taken, OciError>> + use<> {
        let mut turn = self.room().take();
        async move {
            turn.wait_to_read(bytes as u64).await.map_err(NotTaken::from)?;
            Ok(turn)
        }
    }

    /// The caller's room for what comes in and is held in memory whole.
    pub fn room(&self) -> OwnRoom {
        self.caller.room(&self.app)
    }
}

/// The actions of docker's token scopes that stand for ours.
fn docker_actions(denied: Denied) -> &'static str {
    match denied.action {
        Action::View | Action::Pull => "pull",
        Action::Delete => "delete",
        Action::Push
        | Action::Attest
        | Action::Sign
        | Action::Scan
        | Action::Approve
        | Action::Waive
        | Action::Promote
        | Action::Override
        | Action::Block
        | Action::Hold
        | Action::Rollback
        | Action::Deploy
        | Action::Audit
        | Action::Revoke
        | Action::Accept
        | Action::Administer => "pull,push",
    }
}

/// 401 with docker's challenge: where to get a token, and for which scope.
pub fn challenge(app: &App, message: &str, scope: Option<&str>) -> OciError {
    let url = &app.config.public_url;
    let service = url.authority();
    let scope =
        scope.map(|scope| format!(r#",scope="{scope}",error="insufficient_scope""#)).unwrap_or_default();
    let value = format!(r#"Bearer realm="{url}/auth/token",service="{service}"{scope}"#);
    let error = OciError::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message);
    match HeaderValue::try_from(value) {
        Ok(value) => error.header(header::WWW_AUTHENTICATE, value),
        // The public URL is checked at start; a name holds no such characters.
        Err(_) => error,
    }
}
