//! `Idempotency-Key`: a POST that is repeated under the same key is done once.

use super::Problem;
use crate::access::Principal;
use crate::app::App;
use crate::failure::Failure;
use crate::http::{Caller, part_of_request};
use crate::identity::repeats::{self, Claim};
use crate::names::Digest;
use axum::extract::{FromRequest, Request};
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
    key: Option<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    name: String,
    /// The digest of what was asked: method, target and body.
    request: Digest,
}

impl<S: Send + Sync> FromRequest<S> for Once {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let name = request.headers().get("idempotency-key").map(key_name).transpose()?;
        let target = format!("{} {}\n", request.method(), request.uri());
        let body = Bytes::from_request(request, state).await?;
        let key = name.map(|name| {
            let asked = [target.as_bytes(), &body].concat();
            Key { name, request: Digest::sha256(&asked) }
        });
        Ok(Self { body, key })
    }
}

fn key_name(value: &HeaderValue) -> Result<String, Problem> {
    let text = value.to_str().unwrap_or_default();
    let fits = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Problem::invalid("an Idempotency-Key has 1 to 255 visible ASCII characters, such as a UUID"))
    }
}

impl Once {
    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let status =
                if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
            Problem::new(status, "invalid-request", format!("the body is not what is taken here: {error}"))
        })
    }

    /// Does it and answers; a repetition gets the first answer again. Only successes are kept: what
    /// was refused did nothing and may be tried again. The act goes on when the client goes away, so
    /// its answer is there for the repetition. A crash between act and answer frees the key after a
    /// minute, so an act may then be done twice, never lost.
    pub async fn answer<T, F>(self, app: &App, caller: &Caller, act: F) -> Result<Response, Problem>
    where
        T: Serialize + Send + 'static,
        F: Future<Output = Result<(StatusCode, T), Problem>> + Send + 'static,
    {
        let Some(key) = self.key else {
            let (status, answer) = act.await?;
            return Ok((status, axum::Json(answer)).into_response());
        };
        let principal = caller.principal().clone();
        match repeats::claim(&app.db, &principal, &key.name, &key.request).await? {
            Claim::New => {}
            Claim::Answered(status, body) => return Ok(json(status, body)),
            Claim::Running => {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "request-in-progress",
                    "a request with this Idempotency-Key is being done; ask again for its answer",
                )
                .header(header::RETRY_AFTER, HeaderValue::from_static("1")));
            }
            Claim::Other => {
                return Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency-key-reused",
                    "this Idempotency-Key was used for another request; choose a new one",
                ));
            }
        }
        let running = part_of_request(finish(app.clone(), principal, key, act));
        tokio::spawn(running).await.map_err(|error| Failure::new("doing a request once", error))?
    }
}

async fn finish<T, F>(app: App, principal: Principal, key: Key, act: F) -> Result<Response, Problem>
where
    T: Serialize,
    F: Future<Output = Result<(StatusCode, T), Problem>>,
{
    match act.await {
        Ok((status, answer)) => {
            let body =
                serde_json::to_vec(&answer).map_err(|error| Failure::new("writing an answer", error))?;
            repeats::keep(&app.db, &principal, &key.name, status.as_u16(), &body).await?;
            Ok(json(status.as_u16(), body))
        }
        Err(problem) => {
            repeats::release(&app.db, &principal, &key.name).await?;
            Err(problem)
        }
    }
}

fn json(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
