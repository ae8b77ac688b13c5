//! RFC 9457 problem details, the one form of refusal at `/api/v1`.

use crate::access::{Action, Denied};
use crate::failure::{ClocksDiffer, Failure};
use crate::http::{bounded_message, clocks, note_denied, request_id};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// A refusal: a status, a stable `code`, a sentence that says what would be accepted, and what else
/// the caller can use.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    extensions: Map<String, Value>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with its stable code, such as `promotion-denied`.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = bounded_message(detail.into());
        Self { status, code, detail, extensions: Map::new(), headers: Vec::new() }
    }

    /// 400 `invalid-request`.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
    }

    /// 404 `not-found`, the same whether the thing is missing or out of the caller's sight.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is nothing of this name that you may see")
    }

    /// The same for what the caller may not see, recorded as a refusal of what was to be done.
    pub fn hidden(action: Action) -> Self {
        Denied { action, visible: false }.into()
    }

    /// 401 `unauthenticated`.
    pub fn unauthenticated() -> Self {
        Self::unauthenticated_since("a valid bearer token is needed")
    }

    /// The same with another reason.
    pub fn unauthenticated_since(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"proofmark\""))
    }

    /// 401 `unauthenticated` where the public may not do something, recorded as a refusal of it.
    pub fn unauthenticated_for(action: Action) -> Self {
        note_denied(Denied { action, visible: false });
        Self::unauthenticated()
    }

    /// 403 in words of its own, recorded as a refusal for want of a right.
    pub fn refused(denied: Denied, code: &'static str, detail: impl Into<String>) -> Self {
        note_denied(denied);
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut document = json!({
            "type": format!("https://proofmark.dev/problems/{}", self.code),
            "title": self.status.canonical_reason().unwrap_or("problem"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id(),
        });
        if let Value::Object(members) = &mut document {
            members.extend(self.extensions);
        }
        let mut response = (self.status, document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

impl From<Failure> for Problem {
    /// Logs the chain, shows none of it.
    fn from(failure: Failure) -> Self {
        if failure.is_unstorable() {
            tracing::info!(request_id = %request_id(), error = failure.chain(), "a value cannot be kept");
            return Self::invalid("a text holds a NUL character, or a time lies beyond the calendar");
        }
        if failure.is::<ClocksDiffer>() {
            return clocks::problem(ClocksDiffer.to_string());
        }
        if let Some(seconds) = failure.retry_after() {
            return Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-wrong-credentials", failure.cause())
                .header(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        tracing::error!(request_id = %request_id(), error = failure.chain(), "internal error");
        if failure.is_overloaded() {
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "try again in a moment")
                .header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal-error",
            "internal error; the request id finds it in the log",
        )
    }
}

impl From<Denied> for Problem {
    /// 403 only where the caller may see the place; otherwise the same as what does not exist.
    fn from(denied: Denied) -> Self {
        note_denied(denied);
        if denied.visible {
            Self::new(StatusCode::FORBIDDEN, "forbidden", denied.to_string())
        } else {
            Self::not_found()
        }
    }
}
