//! `Idempotency-Key`: a POST that is repeated under the same key is done once.

use super::Problem;
use super::extract::{Unread, json, not_json};
use crate::app::App;
use crate::failure::Failure;
use crate::http::{Caller, Right, part_of_request};
use crate::identity::repeats::{self, Earlier, Keyed};
use crate::names::Digest;
use crate::postgres::{Db, Kept};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;

/// A body in memory with the key that the client chose, if it chose one.
#[derive(Debug)]
pub struct Once {
    /// The body.
    pub body: Bytes,
    /// The key with the digest of what was asked: method, target and body.
    key: Option<(String, Digest)>,
}

/// What a request says of its repetition, before its body is read.
#[derive(Debug, Default)]
pub struct Repeats {
    /// Its method and target.
    target: String,
    key: Option<Result<String, NoKey>>,
}

/// The header is none of what it may be.
#[derive(Clone, Copy, Debug)]
struct NoKey;

impl Repeats {
    /// Reads the request's line and headers.
    pub fn of(parts: &Parts) -> Self {
        let target = format!("{} {}\n", parts.method, parts.uri);
        Self { target, key: parts.headers.get("idempotency-key").map(key_name) }
    }
}

impl Unread {
    /// The body with the key that the client chose.
    pub async fn once(mut self, right: &impl Right) -> Result<Once, Problem> {
        let Repeats { target, key } = std::mem::take(&mut self.repeats);
        let name = key.transpose().map_err(|NoKey| {
            Problem::invalid("an Idempotency-Key has 1 to 255 visible ASCII characters, such as a UUID")
        })?;
        let says_json = self.says_json();
        let body = self.request(right).await?;
        if !says_json && !body.is_empty() {
            return Err(not_json());
        }
        let key = name.map(|name| (name, Digest::sha256(&[target.as_bytes(), &body].concat())));
        Ok(Once { body, key })
    }
}

fn key_name(value: &HeaderValue) -> Result<String, NoKey> {
    let text = value.to_str().unwrap_or_default();
    let fits = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err(NoKey) }
}

/// What was created, by its id.
#[derive(serde::Deserialize)]
struct Created {
    id: i64,
}

impl Once {
    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        json(&self.body)
    }

    /// The same for what is created below a path: the answer names it in `Location`.
    pub async fn created<T, A, F>(
        self,
        app: &App,
        caller: &Caller,
        path: &str,
        act: A,
    ) -> Result<Response, Problem>
    where
        T: Serialize + Send + 'static,
        A: FnOnce(Db) -> F,
        F: Future<Output = Result<(StatusCode, T), Problem>> + Send + 'static,
    {
        let (mut parts, body) = self.answer(app, caller, act).await?.into_parts();
        // Kept answers are bodies: the id is read from the one that is sent, the first time and later.
        let body = axum::body::to_bytes(body, usize::MAX).await;
        let body = body.map_err(|error| Failure::new("reading an answer", error))?;
        let id = serde_json::from_slice::<Created>(&body)
            .map_err(|error| Failure::new("reading an answer", error))?;
        let location = HeaderValue::from_str(&format!("{path}/{}", id.id));
        let location = location.map_err(|error| Failure::new("naming what was created", error))?;
        parts.headers.insert(header::LOCATION, location);
        Ok(Response::from_parts(parts, body.into()))
    }

    /// Does it and answers; a repetition gets the first answer again. The key and the answer are kept
    /// in the act's own transaction, so a crash leaves all of it or nothing. Only successes are kept:
    /// what was refused may be tried again. The act goes on when the client goes away.
    pub async fn answer<T, A, F>(self, app: &App, caller: &Caller, act: A) -> Result<Response, Problem>
    where
        T: Serialize + Send + 'static,
        A: FnOnce(Db) -> F,
        F: Future<Output = Result<(StatusCode, T), Problem>> + Send + 'static,
    {
        let Some((key, request)) = self.key else {
            let (status, answer) = act(app.db.clone()).await?;
            return Ok((status, axum::Json(answer)).into_response());
        };
        let keyed = Keyed { principal: caller.principal().clone(), key, request };
        let mut connection = app.db.acquire().await?;
        // A clock that is ahead would end keys that are young.
        if !app.clocks.differ() {
            repeats::forget(&mut connection).await?;
        }
        if let Some(earlier) = repeats::earlier(&mut connection, &keyed).await? {
            return again(earlier);
        }
        drop(connection);
        let kept = Kept::default();
        let act = act(app.db.keeping(&kept));
        let running = part_of_request(finish(app.db.clone(), keyed, kept, act));
        tokio::spawn(running).await.map_err(|error| Failure::new("doing a request once", error))?
    }
}

/// Ends what the act left open: with its answer, or as a refusal. Of two requests under one key that
/// run at the same time, one is done; the other's transaction is dropped and its answer is the first's.
async fn finish<T, F>(db: Db, keyed: Keyed, kept: Kept, act: F) -> Result<Response, Problem>
where
    T: Serialize,
    F: Future<Output = Result<(StatusCode, T), Problem>>,
{
    let done = act.await;
    let mut tx = match kept.take() {
        Some(open) => open,
        None => db.begin().await?,
    };
    match done {
        Ok((status, answer)) => {
            let body =
                serde_json::to_vec(&answer).map_err(|error| Failure::new("writing an answer", error))?;
            if !repeats::keep(&mut tx, &keyed, status.as_u16(), &body).await? {
                let first = repeats::earlier(&mut tx, &keyed).await?;
                return again(first.ok_or_else(|| Failure::new("reading the first answer", "it has gone"))?);
            }
            tx.commit().await.map_err(|error| Failure::new("committing what was asked once", error))?;
            Ok(rendered(status.as_u16(), body))
        }
        Err(problem) => {
            // Perhaps it was refused because its twin has just been done.
            if let Some(first) = repeats::earlier(&mut tx, &keyed).await? {
                return again(first);
            }
            tx.commit().await.map_err(|error| Failure::new("committing a refusal", error))?;
            Err(problem)
        }
    }
}

fn again(earlier: Earlier) -> Result<Response, Problem> {
    match earlier {
        Earlier::Answered(status, body) => Ok(rendered(status, body)),
        Earlier::Other => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "this Idempotency-Key was used for another request; choose a new one",
        )),
    }
}

fn rendered(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
