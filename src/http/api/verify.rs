//! `/api/v1/verify`: may this digest run here?

use super::Problem;
use super::extract::Json;
use super::promotions::what;
use crate::access::{Lane, Pull};
use crate::app::App;
use crate::http::Caller;
use crate::names::{Digest, EnvironmentName, Reference, RepositoryName, Tag};
use crate::promotion::{self, Verification, What};
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(verify))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerifyRequest {
    /// `[host/]repository@digest` or `[host/]repository:version`, with this registry's host ...
    reference: Option<String>,
    /// ... or a repository, with a digest or version.
    repository: Option<RepositoryName>,
    digest: Option<Digest>,
    version: Option<Tag>,
    environment: EnvironmentName,
}

/// Whether a digest may run in an environment: it, or an index that holds it, was promoted there
/// and is still good. Records nothing.
#[utoipa::path(post, path = "/api/v1/verify", tag = "deployers", request_body = VerifyRequest,
    responses((status = 200, body = Verification), (status = 400),
        (status = 403, description = "`forbidden`: no right in this environment"), (status = 404)))]
async fn verify(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<VerifyRequest>,
) -> Result<Json<Verification>, Problem> {
    let (repository, what) = match (request.reference, request.repository) {
        (Some(reference), None) => parse(&reference, app.config.public_url.authority())?,
        (None, Some(repository)) => (repository, what(request.digest, request.version)?),
        (Some(_), Some(_)) | (None, None) => {
            return Err(Problem::invalid(
                "give either a reference, or a repository with a digest or version",
            ));
        }
    };
    let grant = caller.may::<Pull, _>(&Lane { repository, environment: request.environment })?;
    Ok(Json(promotion::verify(&app.db, &grant, &what).await?))
}

/// A reference as container tools write it, with this registry's host before it or without: another
/// dotted first part is the repository's own, as in `acme.io/app`.
fn parse(text: &str, host: &str) -> Result<(RepositoryName, What), Problem> {
    let invalid = || {
        Problem::invalid(
            "a reference is [host/]repository@digest or [host/]repository:version, with this registry's host",
        )
    };
    let path = text.strip_prefix(host).and_then(|rest| rest.strip_prefix('/')).unwrap_or(text);
    let (repository, reference) = match path.split_once('@') {
        // `repository:tag@digest`: the digest decides.
        Some((name, digest)) => (name.split_once(':').map_or(name, |(name, _)| name), digest),
        None => path.rsplit_once(':').ok_or_else(invalid)?,
    };
    let repository = repository.parse().map_err(|_| invalid())?;
    let what = match reference.parse::<Reference>().map_err(|_| invalid())? {
        Reference::Digest(digest) => What::Digest(digest),
        Reference::Tag(version) => What::Version(version),
    };
    Ok((repository, what))
}
