//! `/api/v1/environments`.

use super::Problem;
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Action, Administer};
use crate::app::App;
use crate::http::Caller;
use crate::names::{EnvironmentName, Pattern, RepositoryName};
use crate::promotion::{self, EnvironmentRow, ReleaseFilter, ReleaseRow, Releases};
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(put_environment, list_environments)).routes(routes!(list_releases))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EnvironmentRequest {
    name: EnvironmentName,
    /// What it is; as it was when absent.
    description: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct EnvironmentMade {
    name: EnvironmentName,
    description: String,
}

/// Makes an environment, or describes it anew.
#[utoipa::path(put, path = "/api/v1/environments", tag = "promotion", request_body = EnvironmentRequest,
    responses((status = 200, body = EnvironmentMade), (status = 201, body = EnvironmentMade), (status = 404)))]
async fn put_environment(
    State(app): State<App>,
    caller: Caller,
    body: Unread,
) -> Result<(StatusCode, Json<EnvironmentMade>), Problem> {
    let right = caller.in_some_environment::<Administer>()?;
    let EnvironmentRequest { name, description } = body.json(&right).await?;
    let grant = caller.may::<Administer, _>(&name)?;
    let put = promotion::put_environment(&app.db, &grant, description.as_deref()).await?;
    let status = if put.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(EnvironmentMade { name, description: put.description })))
}

/// The environments in which the caller has any role, by name. A page may hold fewer than its limit and
/// still have a next one.
#[utoipa::path(get, path = "/api/v1/environments", tag = "promotion", params(PageOf),
    responses((status = 200, body = Page<EnvironmentRow>), (status = 401)))]
async fn list_environments(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageOf>,
) -> Result<Json<Page<EnvironmentRow>>, Problem> {
    if caller.is_anonymous() {
        return Err(Problem::unauthenticated());
    }
    let (after, limit) = page.bounds::<String>()?;
    let found = promotion::environments(&app.db, after.as_deref().unwrap_or_default(), limit).await?;
    let mut page = Page::of(found, limit, |environment| environment.name.clone());
    page.items.retain(|environment| caller.authority().is_in(Action::Pull, &environment.name));
    Ok(Json(page))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ReleasesWanted {
    /// Only repositories that match this pattern, such as `payments/*`.
    repository: Option<Pattern>,
    /// Only those with a current version at risk, or without.
    at_risk: Option<bool>,
    /// Only those whose newest promotion is blocked, or not.
    blocked: Option<bool>,
    /// Only those in which promotions are held, or not.
    held: Option<bool>,
    /// Only those whose current version would not be promoted today, or would be.
    would_not_be_promoted_today: Option<bool>,
    /// Only those whose current version is not the newest promotion, or is.
    fallback: Option<bool>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Repositories that are evaluated [default: 100, maximum: 1000]; a page may hold fewer and still have a
    /// next one.
    limit: Option<i64>,
}

/// What runs in an environment: the current version of every repository, evaluated now, by name.
///
/// Repositories in which the caller may not pull there are left out.
#[utoipa::path(get, path = "/api/v1/environments/{name}/releases", tag = "promotion",
    params(("name" = EnvironmentName, Path), ReleasesWanted),
    responses((status = 200, body = Page<ReleaseRow>), (status = 401),
        (status = 404, description = "`environment-unknown`, `not-found`")))]
async fn list_releases(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<EnvironmentName>,
    Query(wanted): Query<ReleasesWanted>,
) -> Result<Json<Page<ReleaseRow>>, Problem> {
    if caller.is_anonymous() {
        return Err(Problem::unauthenticated_for(Action::Pull));
    }
    if !caller.authority().is_in(Action::Pull, &name) {
        return Err(Problem::hidden(Action::Pull));
    }
    let (after, limit) = PageOf { cursor: wanted.cursor, limit: wanted.limit }.bounds::<RepositoryName>()?;
    let sees = |repository: &RepositoryName| {
        let matches = |pattern: &Pattern| pattern.matches(repository.as_str());
        wanted.repository.as_ref().is_none_or(matches) && caller.sees(repository, Some(&name))
    };
    let filter = ReleaseFilter {
        at_risk: wanted.at_risk,
        blocked: wanted.blocked,
        held: wanted.held,
        would_not_be_promoted_today: wanted.would_not_be_promoted_today,
        fallback: wanted.fallback,
    };
    let after = after.as_ref().map_or("", RepositoryName::as_str);
    let limit = usize::try_from(limit).unwrap_or(1);
    let Releases { rows, next } = promotion::releases(&app.db, &name, sees, after, limit, filter).await?;
    Ok(Json(Page { items: rows, next: next.map(|name| name.to_string()) }))
}
