//! What browsers may do with an answer: take it for nothing but what it says it is, run nothing, show it in no page.
//!
//! Everybody who may push chooses the bytes of blobs and manifests. Opened in a browser they must not act as a page of
//! this service.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

const RESTRICTIONS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// A year, in which a browser that has come over TLS comes no other way.
const OVER_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the restrictions to an answer.
pub fn restrict(headers: &mut HeaderMap, over_tls: bool) {
    for (name, value) in RESTRICTIONS {
        headers.insert(name, value);
    }
    if over_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, OVER_TLS);
    }
}
