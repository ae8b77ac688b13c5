//! `/api/v1/environments`.

use super::Problem;
use super::extract::{Json, Query};
use super::page::{Page, PageOf};
use crate::access::Administer;
use crate::app::App;
use crate::http::Caller;
use crate::names::EnvironmentName;
use crate::promotion::{self, EnvironmentRow};
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(put_environment, list_environments))
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
    Json(request): Json<EnvironmentRequest>,
) -> Result<(StatusCode, Json<EnvironmentMade>), Problem> {
    let EnvironmentRequest { name, description } = request;
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
    page.items.retain(|environment| caller.authority().is_in(&environment.name));
    Ok(Json(page))
}
