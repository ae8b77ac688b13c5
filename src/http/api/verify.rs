//! `/api/v1/verify`: may this digest run here?

use super::Problem;
use super::extract::{Json, Query, Unread};
use super::known_good::OnRisk;
use super::promotions::what;
use crate::access::{Action, Lane, View};
use crate::app::App;
use crate::http::Caller;
use crate::names::{Digest, EnvironmentName, ImageReference, Reference, RepositoryName, Tag};
use crate::promotion::{self, Verification, What};
use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(verify))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerifyRequest {
    /// As pods and commands name images: `[host/]repository@digest` or `[host/]repository:version`, with
    /// this registry's host or none; `env/<environment>/<repository>:current` as the environment sees it; a
    /// digest alone. What tools write before it (`docker-pullable://`, `docker://`, `oci://`, `https://`) is
    /// read over. Another host is another registry ...
    reference: Option<String>,
    /// ... or a repository, with a digest or version ...
    repository: Option<RepositoryName>,
    /// ... or a digest alone: every repository from which the caller may pull there is asked.
    digest: Option<Digest>,
    version: Option<Tag>,
    /// May be absent when the reference names one.
    environment: Option<EnvironmentName>,
}

/// What a request asks about.
#[derive(Debug)]
enum Wanted {
    Of(RepositoryName, What),
    InView(RepositoryName, Reference),
    Anywhere(Digest),
    InAnotherRegistry(String),
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct VerifyMode {
    /// `deny`: a version at risk may not run, whatever its gates say [default: allow].
    #[serde(default)]
    at_risk: OnRisk,
}

/// Whether a digest may run in an environment: it, or an index that holds it, was promoted there
/// and is still good. Records nothing.
#[utoipa::path(post, path = "/api/v1/verify", tag = "deployers", params(VerifyMode), request_body = VerifyRequest,
    responses((status = 200, body = Verification), (status = 400),
        (status = 403, description = "`forbidden`: no right in this environment"), (status = 404)))]
async fn verify(
    State(app): State<App>,
    caller: Caller,
    Query(mode): Query<VerifyMode>,
    body: Unread,
) -> Result<Json<Verification>, Problem> {
    let request: VerifyRequest = body.json(&caller.somewhere::<View>()?).await?;
    let (environment, wanted) = wanted(request, &app.config.hosts())?;
    let may_view = |repository: RepositoryName| {
        caller.may::<View, _>(&Lane { repository, environment: environment.clone() })
    };
    let mut answer = match wanted {
        Wanted::Of(repository, what) => promotion::verify(&app.db, &may_view(repository)?, &what).await?,
        Wanted::InView(repository, reference) => {
            promotion::verify_in_view(&app.db, &may_view(repository)?, &reference).await?
        }
        // Who has no role there learns nothing, as with a repository.
        Wanted::Anywhere(_) | Wanted::InAnotherRegistry(_)
            if !caller.authority().is_in(Action::View, &environment) =>
        {
            return Err(Problem::hidden(Action::View));
        }
        Wanted::Anywhere(digest) => {
            let may_view = |repository: &RepositoryName| may_view(repository.clone()).ok();
            promotion::verify_anywhere(&app.db, &environment, &digest, may_view).await?
        }
        Wanted::InAnotherRegistry(host) => promotion::in_another_registry(&app.db, &host).await?,
    };
    if mode.at_risk == OnRisk::Deny {
        answer.deny_at_risk();
    }
    Ok(Json(answer))
}

fn wanted(request: VerifyRequest, hosts: &[&str]) -> Result<(EnvironmentName, Wanted), Problem> {
    let VerifyRequest { reference, repository, digest, version, environment } = request;
    let (own, wanted) = match (reference, repository, digest, version) {
        (Some(reference), None, None, None) => named(&reference, hosts)?,
        (None, Some(repository), digest, version) => (None, Wanted::Of(repository, what(digest, version)?)),
        (None, None, Some(digest), None) => (None, Wanted::Anywhere(digest)),
        _ => {
            return Err(Problem::invalid(
                "give either a reference, or a repository with a digest or version, or a digest alone",
            ));
        }
    };
    match (environment, own) {
        (Some(asked), Some(own)) if asked != own => Err(Problem::invalid(format!(
            "the reference is of the environment {own}, and the question is about {asked}"
        ))),
        (Some(environment), _) | (None, Some(environment)) => Ok((environment, wanted)),
        (None, None) => Err(Problem::invalid("give the environment: the reference names none")),
    }
}

/// What a reference names, and the environment of a view.
fn named(reference: &str, hosts: &[&str]) -> Result<(Option<EnvironmentName>, Wanted), Problem> {
    let named = ImageReference::parse(reference, hosts).map_err(|why| Problem::invalid(why.to_string()))?;
    Ok(match named {
        ImageReference::Repository { repository, reference } => {
            let what = match reference {
                Reference::Digest(digest) => What::Digest(digest),
                Reference::Tag(version) => What::Version(version),
            };
            (None, Wanted::Of(repository, what))
        }
        ImageReference::View { environment, repository, reference } => {
            (Some(environment), Wanted::InView(repository, reference))
        }
        ImageReference::Digest(digest) => (None, Wanted::Anywhere(digest)),
        ImageReference::OtherHost(host) => (None, Wanted::InAnotherRegistry(host)),
    })
}
