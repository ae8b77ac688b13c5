//! `/api/v1/holds`.

use super::Problem;
use super::approvals::Revocation;
use super::exceptions::may_list;
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Action, EveryLane, Hold, Lane};
use crate::app::App;
use crate::clock::Moment;
use crate::exceptions::{self, HoldRow, HoldScope, NewHold, Origin, Reason};
use crate::http::{Caller, note_asked};
use crate::names::{EnvironmentName, RepositoryName};
use crate::postgres::Db;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(hold, list_holds)).routes(routes!(end_hold))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HoldRequest {
    /// The repository to hold; every one of the environment when absent.
    repository: Option<RepositoryName>,
    /// The environment to hold; every one of the repository when absent.
    environment: Option<EnvironmentName>,
    reason: Reason,
    /// Until when; until it is lifted when absent.
    until: Option<Moment>,
}

/// The right that a hold of this scope needs.
fn scope(
    caller: &Caller,
    repository: Option<RepositoryName>,
    environment: Option<EnvironmentName>,
) -> Result<HoldScope, Problem> {
    Ok(match (repository, environment) {
        (Some(repository), Some(environment)) => {
            HoldScope::Lane(caller.may(&Lane { repository, environment })?)
        }
        (Some(repository), None) => HoldScope::Repository(caller.may(&EveryLane(repository))?),
        (None, Some(environment)) => HoldScope::Environment(caller.may(&environment)?),
        (None, None) => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-request",
                "a hold names a repository, an environment, or both",
            ));
        }
    })
}

/// Stops promotions of a repository, to an environment, or of one to the other. Neither rollbacks
/// nor answers to deployers are stopped.
#[utoipa::path(post, path = "/api/v1/holds", tag = "promotion", request_body = HoldRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 201, body = HoldRow), (status = 404), (status = 422)))]
async fn hold(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Problem> {
    let once = body.once(&caller.somewhere::<Hold>()?).await?;
    let request: HoldRequest = once.json()?;
    let scope = scope(&caller, request.repository, request.environment)?;
    let until = request.until.map(Into::into);
    let new = NewHold { reason: request.reason, until, origin: Origin::Manual };
    let act = |db: Db| async move { Ok((StatusCode::CREATED, exceptions::hold(&db, &scope, &new).await?)) };
    once.answer(&app, &caller, act).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HoldsAsked {
    /// Holds that stop this repository, those of whole environments among them.
    repository: Option<RepositoryName>,
    /// Holds that count in this environment, those of whole repositories among them.
    environment: Option<EnvironmentName>,
    /// Ended ones too [default: false].
    #[serde(default)]
    ended: bool,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000]; a page may hold fewer and still have a next one.
    limit: Option<i64>,
}

/// Holds, the newest first. Those of repositories and in environments that the caller has no right in are left
/// out.
#[utoipa::path(get, path = "/api/v1/holds", tag = "promotion", params(HoldsAsked),
    responses((status = 200, body = Page<HoldRow>), (status = 404)))]
async fn list_holds(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<HoldsAsked>,
) -> Result<Json<Page<HoldRow>>, Problem> {
    may_list(&caller, asked.repository.as_ref())?;
    let (repository, environment) = (asked.repository.as_ref(), asked.environment.as_ref());
    let (before, limit) = PageOf { cursor: asked.cursor, limit: asked.limit }.bounds()?;
    let found = exceptions::holds(&app.db, repository, environment, asked.ended, before, limit).await?;
    let mut page = Page::of(found, limit, |hold| hold.id);
    page.items.retain(|hold| is_shown(&caller, hold));
    Ok(Json(page))
}

fn is_shown(caller: &Caller, hold: &HoldRow) -> bool {
    match (&hold.repository, &hold.environment) {
        (Some(repository), environment) => caller.sees(repository, environment.as_ref()),
        (None, Some(environment)) => caller.authority().is_in(Action::Pull, environment),
        (None, None) => true,
    }
}

/// Lifts a hold. This needs the right to hold, by a role of its rank or a higher one.
#[utoipa::path(post, path = "/api/v1/holds/{id}/revocation", tag = "promotion", params(("id" = i64, Path)),
    request_body = Revocation, responses((status = 200, body = HoldRow),
        (status = 403, description = "`forbidden`; `rank-too-low`: it was placed with a higher rank"), (status = 404)))]
async fn end_hold(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Json<HoldRow>, Problem> {
    let row = exceptions::find_hold(&app.db, id).await?.ok_or_else(Problem::not_found)?;
    if !is_shown(&caller, &row) {
        return Err(Problem::hidden(Action::Pull));
    }
    note_asked(Action::Hold, row.repository.as_ref());
    let scope = scope(&caller, row.repository, row.environment)?;
    let request: Revocation = body.json(&scope).await?;
    Ok(Json(exceptions::end_hold(&app.db, &scope, id, &request.reason).await?))
}
