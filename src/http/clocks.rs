//! What is refused while the clocks of Postgres and of the service differ: every write that is not listed here.
//!
//! Everything decided or signed then would carry a wrong time. What stops something goes on, dated with the newest
//! event's time (`postgres::database_time`).

use super::api::Problem;
use super::oci;
use crate::app::App;
use crate::postgres::with_reserve;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Writes that stop something or end a right.
const STOPS: [(&str, &str); 12] = [
    ("POST", "/api/v1/approvals/{id}/revocation"),
    ("POST", "/api/v1/blocks"),
    ("POST", "/api/v1/blocks/{id}/revocation"),
    ("DELETE", "/api/v1/build-types/{id}"),
    ("DELETE", "/api/v1/grants/{id}"),
    ("POST", "/api/v1/holds"),
    ("POST", "/api/v1/holds/{id}/revocation"),
    ("POST", "/api/v1/overrides/{id}/revocation"),
    ("POST", "/api/v1/principals/{id}/revocation"),
    ("POST", "/api/v1/signers/{name}/revocation"),
    ("DELETE", "/api/v1/tokens/{id}"),
    ("POST", "/api/v1/waivers/{id}/revocation"),
];

/// Requests that write nothing, though their method says so.
const READS: [(&str, &str); 5] = [
    ("POST", "/api/v1/access/check"),
    ("POST", "/api/v1/decisions/{id}/replay"),
    ("POST", "/api/v1/policies/simulate"),
    ("POST", "/api/v1/verify"),
    ("POST", "/auth/token"),
];

/// Seconds after which the clocks may have been measured again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

const DETAIL: &str = "the clocks of Postgres and of this service differ by more than 60 s: until they agree, only \
                      blocks, holds, their ends and the ends of approvals, waivers, overrides, signers, \
                      tokens and grants are written; nothing was changed";

/// Refuses what must not be written now.
///
/// What stops something has database connections of its own, which no other request takes. A dry run stops nothing.
pub async fn refuse_writes(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_dry = path.starts_with("/api/v1/signers/") && request.uri().query().is_some_and(is_dry_run);
    if is_among(&STOPS, request.method(), path) && !is_dry {
        return with_reserve(next.run(request)).await;
    }
    if !app.clocks.differ() {
        return next.run(request).await;
    }
    if is_allowed(request.method(), path, request.uri().query()) {
        return next.run(request).await;
    }
    if path.starts_with("/v2") {
        return oci::unavailable(DETAIL, RETRY_AFTER);
    }
    problem(DETAIL).into_response()
}

/// The refusal of a write while the clocks differ.
pub(super) fn problem(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "clocks-differ", detail)
        .header(header::RETRY_AFTER, RETRY_AFTER)
}

fn is_allowed(method: &Method, path: &str, query: Option<&str>) -> bool {
    reads_only(method, path, query) || is_among(&STOPS, method, path)
}

/// Whether the request writes nothing.
pub(super) fn reads_only(method: &Method, path: &str, query: Option<&str>) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        || is_among(&READS, method, path)
        || (method == Method::POST && path == "/api/v1/promotions" && query.is_some_and(is_dry_run))
}

fn is_among(list: &[(&str, &str)], method: &Method, path: &str) -> bool {
    list.iter().any(|(verb, template)| *verb == method && *template == path)
}

/// Given twice it is refused, whatever the handler makes of it.
fn is_dry_run(query: &str) -> bool {
    let mut values = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "dry_run");
    values.next().is_some_and(|(_, value)| value == "true") && values.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Writes that are refused, listed so that the author of a new route decides about it.
    const REFUSED: [(&str, &str); 24] = [
        ("POST", "/api/v1/approvals"),
        ("PUT", "/api/v1/artifacts"),
        ("POST", "/api/v1/attestations"),
        ("PUT", "/api/v1/build-types"),
        ("POST", "/api/v1/collections"),
        ("PUT", "/api/v1/environments"),
        ("POST", "/api/v1/grants"),
        ("POST", "/api/v1/overrides"),
        ("POST", "/api/v1/overrides/{id}/review"),
        ("PUT", "/api/v1/policies"),
        ("POST", "/api/v1/policies/{environment}/{name}/revocation"),
        ("POST", "/api/v1/principals/{id}/restoration"),
        ("POST", "/api/v1/promotions"),
        ("PUT", "/api/v1/repositories"),
        ("POST", "/api/v1/rollbacks"),
        ("POST", "/api/v1/scans"),
        ("POST", "/api/v1/scans/{id}/revocation"),
        ("POST", "/api/v1/signers"),
        ("POST", "/api/v1/signers/{name}/keys"),
        ("POST", "/api/v1/tags/reservations"),
        ("POST", "/api/v1/tokens"),
        ("POST", "/api/v1/tokens/{id}/rotation"),
        ("POST", "/api/v1/waivers"),
        ("POST", "/api/v1/waivers/{id}/approval"),
    ];

    #[test]
    fn every_write_of_the_api_is_listed_as_going_on_or_as_refused_while_clocks_differ() {
        let document = serde_json::to_value(crate::http::api::openapi()).unwrap();
        let mut written = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
                if ["POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) {
                    written.insert((method, path.clone()));
                }
            }
        }
        let allowed = |(method, path): &&(String, String)| {
            is_allowed(&Method::from_bytes(method.as_bytes()).unwrap(), path, None)
        };
        let owned = |(method, path): &(&str, &str)| ((*method).to_owned(), (*path).to_owned());
        let (going_on, refused): (BTreeSet<_>, BTreeSet<_>) = written.iter().partition(allowed);
        println!("while clocks differ\ngoing on: {going_on:#?}\nrefused: {refused:#?}");
        let listed: BTreeSet<_> = STOPS.iter().chain(&READS[..4]).map(owned).collect();
        assert_eq!(going_on, listed.iter().collect(), "a listed route no longer exists");
        assert_eq!(refused, REFUSED.iter().map(owned).collect::<Vec<_>>().iter().collect());
    }

    #[test]
    fn only_a_dry_run_of_a_promotion_goes_on_while_clocks_differ() {
        let promoting = |query| is_allowed(&Method::POST, "/api/v1/promotions", query);
        assert!(promoting(Some("dry_run=true")) && promoting(Some("a=b&dry_run=true")));
        let queries =
            ["dry_run=false", "dry_run", "", "dry_run=true&dry_run=false", "dry_run=false&dry_run=true"];
        for query in queries {
            assert!(!promoting(Some(query)), "{query}");
        }
        assert!(!promoting(None));
        for (method, path) in
            [(Method::PUT, "/v2/{*path}"), (Method::POST, ""), (Method::PUT, "/api/v1/blocks")]
        {
            assert!(!is_allowed(&method, path, Some("dry_run=true")));
        }
        assert!(
            is_allowed(&Method::HEAD, "/v2/{*path}", None) && is_allowed(&Method::POST, "/auth/token", None)
        );
    }
}
