//! The OCI error envelope: distribution specification, "Error Codes".

use crate::failure::Failure;
use crate::http::{bounded_message, request_id};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The codes of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the specification's own word")]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    /// Not of the specification: a fault of ours.
    Unknown,
}

impl Code {
    fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A refusal at `/v2`.
#[derive(Debug)]
pub struct OciError {
    status: StatusCode,
    code: Code,
    message: String,
    detail: Value,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl OciError {
    /// A refusal with one error in its envelope.
    pub fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        let message = bounded_message(message.into());
        Self { status, code, message, detail: Value::Null, headers: Vec::new() }
    }

    /// Adds the error's `detail`.
    #[must_use]
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for OciError {
    fn into_response(self) -> Response {
        let mut error = json!({"code": self.code.as_str(), "message": self.message});
        if !self.detail.is_null() {
            error["detail"] = self.detail;
        }
        let mut response = (self.status, json!({"errors": [error]}).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

impl From<Failure> for OciError {
    /// Logs the chain, shows none of it.
    fn from(failure: Failure) -> Self {
        let id = request_id();
        if failure.is_unstorable() {
            tracing::info!(request_id = %id, error = failure.chain(), "a value cannot be kept");
            let message = "a text holds a NUL character, which nothing here can be named with";
            return Self::new(StatusCode::BAD_REQUEST, Code::Unsupported, message);
        }
        if let Some(seconds) = failure.retry_after() {
            return Self::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, failure.cause())
                .header(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        tracing::error!(request_id = %id, error = failure.chain(), "internal error");
        if failure.is_overloaded() {
            return Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::TooManyRequests,
                "try again in a moment",
            )
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, format!("internal error, request {id}"))
    }
}
