//! `/auth/token`: docker's token flow (distribution's token and OAuth2 specifications).
//!
//! GET with Basic, or a form POST with `grant_type=password` or `refresh_token`, where the password
//! or refresh token is a Proofmark token. Without a credential the answer is the public's token.

use crate::app::App;
use crate::failure::Failure;
use crate::http::body::{self, NotTaken};
use crate::http::caller::address;
use crate::http::{Caller, note_failed_credential, request_id};
use crate::identity::{self, Requested, Secret, TooManyScopes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::SecondsFormat;
use serde_json::json;
use std::future::ready;

/// The route of the token service.
pub fn routes() -> Router<App> {
    Router::new().route("/auth/token", get(by_get).post(by_post))
}

/// A refusal in the flow's own terms (RFC 6749, section 5.2).
enum Refused {
    Credential,
    Request(&'static str),
    Failed(Failure),
}

impl From<TooManyScopes> for Refused {
    fn from(_: TooManyScopes) -> Self {
        Self::Request("scopes of at most 100 repositories; ask for another token for the others")
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The body of the OAuth2 form. Clients that want several scopes send the field several times, or one field with
/// spaces between them: all of them count. Any other field is there once (RFC 6749, section 3.2).
#[derive(Default)]
struct OAuth {
    grant_type: Option<String>,
    password: Option<String>,
    refresh_token: Option<String>,
    scopes: Vec<String>,
}

impl OAuth {
    /// `None` where a field stands twice.
    fn read(form: &[u8]) -> Option<Self> {
        let mut read = Self::default();
        for (name, value) in url::form_urlencoded::parse(form) {
            let field = match name.as_ref() {
                "grant_type" => &mut read.grant_type,
                "password" => &mut read.password,
                "refresh_token" => &mut read.refresh_token,
                "scope" => {
                    read.scopes.push(value.into_owned());
                    continue;
                }
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(read)
    }
}

async fn by_get(State(app): State<App>, request: Request) -> Result<Response, Refused> {
    let (mut parts, _) = request.into_parts();
    let caller = Caller::of(&app, &mut parts).await?.ok_or(Refused::Credential)?;
    let query = parts.uri.query().unwrap_or_default();
    let scopes: Vec<String> =
        form_urlencoded(query).filter(|(name, _)| name == "scope").map(|(_, v)| v).collect();
    answer(&app, &caller, Requested::parse(scopes.iter().map(String::as_str))?)
}

async fn by_post(State(app): State<App>, request: Request) -> Result<Response, Refused> {
    let mut extensions = request.extensions().clone();
    let form = form(&app, request).await?;
    let secret = match form.grant_type.as_deref() {
        Some("password") => form.password,
        Some("refresh_token") => form.refresh_token,
        _ => return Err(Refused::Request("grant_type is password or refresh_token")),
    };
    let secret =
        Secret::new(&secret.ok_or(Refused::Request("the password or refresh_token is a Proofmark token"))?);
    let caller = Caller::by_secret(&app, &secret, address(&extensions)).await?;
    let caller = caller.filter(|caller| caller.may_come_here(&extensions));
    let caller = caller.ok_or_else(|| {
        note_failed_credential();
        Refused::Credential
    })?;
    app.callers.note_use(caller.known());
    caller.is_sender_of(&mut extensions);
    answer(&app, &caller, Requested::parse(form.scopes.iter().map(String::as_str))?)
}

/// Maximum number of bytes of the form, which is read before its sender is known: it holds the credential.
const FORM_BYTES: u64 = 64 << 10;

async fn form(app: &App, request: Request) -> Result<OAuth, Refused> {
    const FORM: &str = "a form of at most 64 KiB with grant_type, password or refresh_token, and scope";
    let (parts, body) = request.into_parts();
    let headers = body::described(&parts.headers);
    drop(parts);
    let (body, _room) = body::whole(
        &app.config.limits,
        &app.document_room.own(None),
        &headers,
        body,
        FORM_BYTES,
        ready(Ok(())),
    )
    .await
    .map_err(|unread| match unread {
        NotTaken::NoRoom(full) => Refused::Failed(Failure::new("reading a form", full)),
        NotTaken::TooLarge { .. } | NotTaken::Slow(_) | NotTaken::Broken(_) => Refused::Request(FORM),
    })?;
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = said.split(';').next().unwrap_or_default().trim();
    let is_form = essence.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    is_form.then(|| OAuth::read(&body)).flatten().ok_or(Refused::Request(FORM))
}

/// A token of this flow makes no other: it could outlive its end, and widen what it was made for.
fn answer(app: &App, caller: &Caller, requested: Requested) -> Result<Response, Refused> {
    if caller.authority().is_narrowed() {
        return Err(Refused::Credential);
    }
    let made = identity::issue(&app.keys, caller.known(), requested, app.config.token_life)?;
    let document = json!({
        "token": made.jwt,
        "access_token": made.jwt,
        "expires_in": (made.expires_at - made.issued_at).num_seconds(),
        "issued_at": made.issued_at.to_rfc3339_opts(SecondsFormat::Secs, true),
    });
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(document)).into_response())
}

fn form_urlencoded(query: &str) -> impl Iterator<Item = (String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned()))
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut retry_after = HeaderValue::from_static("1");
        let (status, code, message) = match self {
            Self::Credential => (
                StatusCode::UNAUTHORIZED,
                "UNAUTHORIZED",
                "the password is a Proofmark token; this one does not hold".into(),
            ),
            Self::Request(what) => (StatusCode::BAD_REQUEST, "UNSUPPORTED", format!("expected: {what}")),
            Self::Failed(failure) if let Some(seconds) = failure.retry_after() => {
                retry_after = HeaderValue::from(seconds);
                (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", failure.cause())
            }
            Self::Failed(failure) if failure.is_overloaded() => {
                tracing::error!(request_id = %request_id(), error = failure.chain(), "overloaded");
                (StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS", "try again in a moment".to_owned())
            }
            Self::Failed(failure) => {
                tracing::error!(request_id = %request_id(), error = failure.chain(), "internal error");
                let message = format!("internal error, request {}", request_id());
                (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message)
            }
        };
        let body = Json(json!({ "errors": [{ "code": code, "message": message }] }));
        let mut response = (status, body).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after);
        }
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"proofmark\""));
        }
        response
    }
}
