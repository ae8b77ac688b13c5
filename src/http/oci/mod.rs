//! `/v2/`: the OCI distribution specification, one route and one table of what each path answers.

mod blobs;
mod error;
mod manifests;
mod path;
mod referrers;
mod refusals;
mod tags;
mod uploads;
mod views;
mod visit;

pub use error::{Code, OciError};
pub use path::{OciPath, Viewed, parse_digest};
pub use visit::{Visit, challenge};

use crate::app::App;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

/// The routes below `/v2/`. Wildcards only end a route, so one takes all.
pub fn routes() -> Router<App> {
    Router::new().route("/v2", any(base)).route("/v2/", any(base)).route("/v2/{*path}", any(below))
}

async fn base(State(app): State<App>, request: Request) -> Response {
    stamped(answer(app, "", request).await)
}

async fn below(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let answered = match path {
        Ok(Path(path)) => answer(app, &path, request).await,
        Err(_) => Err(OciError::new(StatusCode::BAD_REQUEST, Code::NameInvalid, "the path is not UTF-8")),
    };
    stamped(answered)
}

/// Every answer below `/v2/` names the API's version; clients look for it.
fn stamped(answered: Result<Response, OciError>) -> Response {
    const VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert(VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

/// What each path answers to each method.
async fn answer(app: App, path: &str, request: Request) -> Result<Response, OciError> {
    let (parts, body) = request.into_parts();
    let visit = Visit::new(app, parts, body).await?;
    let path = OciPath::parse(path)?;
    match (path, visit.method.as_str()) {
        (OciPath::Base, "GET" | "HEAD") => greet(&visit),
        (OciPath::Catalog, "GET" | "HEAD") => tags::catalog(visit).await,
        (OciPath::Tags(repository), "GET" | "HEAD") => tags::list(visit, repository).await,
        (OciPath::Manifest(repository, reference), "GET" | "HEAD") => {
            manifests::get(visit, repository, &reference).await
        }
        (OciPath::Manifest(repository, reference), "PUT") => {
            manifests::put(visit, repository, &reference).await
        }
        (OciPath::Manifest(repository, reference), "DELETE") => {
            manifests::delete(visit, repository, &reference).await
        }
        (OciPath::Referrers(repository, digest), "GET" | "HEAD") => {
            referrers::list(visit, repository, digest).await
        }
        (OciPath::Blob(repository, digest), "GET" | "HEAD") => blobs::get(visit, repository, digest).await,
        (OciPath::Blob(repository, digest), "DELETE") => blobs::delete(visit, repository, digest).await,
        (OciPath::Uploads(repository), "POST") => uploads::start(visit, repository).await,
        (OciPath::Upload(repository, session), "GET" | "HEAD") => {
            uploads::status(visit, repository, session).await
        }
        (OciPath::Upload(repository, session), "PATCH") => uploads::append(visit, repository, session).await,
        (OciPath::Upload(repository, session), "PUT") => uploads::finish(visit, repository, session).await,
        (OciPath::Upload(repository, session), "DELETE") => uploads::cancel(visit, repository, session).await,
        (OciPath::View(lane, viewed), "GET" | "HEAD") => views::get(visit, lane, viewed).await,
        (path, _) => Err(not_allowed(&path, &visit.method)),
    }
}

/// The refusal of what nobody may do in this way.
pub fn denied(message: &str) -> Response {
    stamped(Err(OciError::new(StatusCode::FORBIDDEN, Code::Denied, message)))
}

/// The refusal of what cannot be written for now.
pub fn unavailable(message: &str, retry_after: HeaderValue) -> Response {
    let refused = OciError::new(StatusCode::SERVICE_UNAVAILABLE, Code::TooManyRequests, message);
    stamped(Err(refused.header(header::RETRY_AFTER, retry_after)))
}

/// `GET /v2/`: 401 for the anonymous, always, or docker reports a login that never happened.
fn greet(visit: &Visit) -> Result<Response, OciError> {
    if visit.caller.is_anonymous() {
        return Err(challenge(&visit.app, "log in to use this registry", None));
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], "{}").into_response())
}

fn not_allowed(path: &OciPath, method: &Method) -> OciError {
    let allowed = match path {
        // What an environment shows is changed by promoting.
        OciPath::Base | OciPath::Catalog | OciPath::Tags(_) | OciPath::Referrers(..) | OciPath::View(..) => {
            "GET, HEAD"
        }
        OciPath::Manifest(..) => "GET, HEAD, PUT, DELETE",
        OciPath::Blob(..) => "GET, HEAD, DELETE",
        OciPath::Uploads(_) => "POST",
        OciPath::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
    };
    let why = match path {
        OciPath::View(..) => {
            "the view of an environment is read only: push to the repository, then promote".into()
        }
        OciPath::Base
        | OciPath::Catalog
        | OciPath::Tags(_)
        | OciPath::Referrers(..)
        | OciPath::Manifest(..)
        | OciPath::Blob(..)
        | OciPath::Uploads(_)
        | OciPath::Upload(..) => format!("{method} is not answered here, only {allowed}"),
    };
    OciError::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, why)
        .header(header::ALLOW, HeaderValue::from_static(allowed))
}
