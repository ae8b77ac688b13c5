//! `/api/v1/approvals`.

use super::Problem;
use super::exceptions::may_list;
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use super::promotions::dry_run_slot;
use crate::access::{Approve, Lane, Pull, SomeLane};
use crate::app::App;
use crate::clock::Moment;
use crate::exceptions::{self, ApprovalRow, NewApproval, Reason};
use crate::http::Caller;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::postgres::Db;
use crate::promotion::{self, PendingApproval};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(approve, list_approvals)).routes(routes!(end_approval))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApprovalRequest {
    repository: RepositoryName,
    digest: Digest,
    environment: EnvironmentName,
    reason: Reason,
    /// Until when it counts; until it is taken back when absent.
    until: Option<Moment>,
}

/// An act that ends something.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    /// Why.
    pub reason: Reason,
}

/// What a list of facts in a repository is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct FactsAsked {
    /// The repository.
    pub repository: RepositoryName,
    /// Ended ones too [default: false].
    #[serde(default)]
    pub ended: bool,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000].
    pub limit: Option<i64>,
}

/// Approves the bytes of a manifest for an environment.
#[utoipa::path(post, path = "/api/v1/approvals", tag = "promotion", request_body = ApprovalRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 201, body = ApprovalRow), (status = 404), (status = 422)))]
async fn approve(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Problem> {
    let once = body.once(&caller.somewhere::<Approve>()?).await?;
    let request: ApprovalRequest = once.json()?;
    let lane = Lane { repository: request.repository, environment: request.environment };
    let grant = caller.may::<Approve, _>(&lane)?;
    let new =
        NewApproval { digest: request.digest, reason: request.reason, until: request.until.map(Into::into) };
    let act =
        |db: Db| async move { Ok((StatusCode::CREATED, exceptions::approve(&db, &grant, &new).await?)) };
    once.answer(&app, &caller, act).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ApprovalsAsked {
    /// The repository; not needed with `pending`.
    repository: Option<RepositoryName>,
    /// Only for this environment.
    environment: Option<EnvironmentName>,
    /// Promotions of the last 30 days that were refused for want of approvals, each with what it still waits
    /// for; the newest 100 [default: false].
    #[serde(default)]
    pending: bool,
    /// Ended ones too [default: false].
    #[serde(default)]
    ended: bool,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000].
    limit: Option<i64>,
}

/// Approvals in a repository, the newest first; or promotions that wait for approvals. Those for environments
/// that the caller has no right in are left out.
#[utoipa::path(get, path = "/api/v1/approvals", tag = "promotion", params(ApprovalsAsked),
    responses((status = 200, content((Page<ApprovalRow> = "application/json"), (Page<PendingApproval> = "application/json"))),
        (status = 404)))]
async fn list_approvals(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<ApprovalsAsked>,
) -> Result<Response, Problem> {
    if asked.pending {
        return pending(&app, &caller, asked).await;
    }
    let Some(repository) = asked.repository else {
        return Err(Problem::invalid("name a repository, or ask for pending=true"));
    };
    let grant = caller.may(&SomeLane(repository))?;
    let (before, limit) = PageOf { cursor: asked.cursor, limit: asked.limit }.bounds()?;
    let items = exceptions::approvals(&app.db, &grant, asked.ended, before, limit).await?;
    let mut page = Page::of(items, limit, |row| row.id);
    page.items.retain(|row| {
        let wanted = asked.environment.as_ref().is_none_or(|environment| *environment == row.environment);
        wanted && caller.sees(&row.repository, Some(&row.environment))
    });
    Ok(Json(page).into_response())
}

/// Promotions that are looked at for one list.
const PENDING: usize = 100;

async fn pending(app: &App, caller: &Caller, asked: ApprovalsAsked) -> Result<Response, Problem> {
    if asked.ended || asked.cursor.is_some() || asked.limit.is_some() {
        return Err(Problem::invalid("pending=true takes no ended, cursor or limit"));
    }
    let _slot = dry_run_slot(app, caller)?;
    may_list(caller, asked.repository.as_ref())?;
    let (repository, environment) = (asked.repository.as_ref(), asked.environment.as_ref());
    let may = |lane: &Lane| caller.may::<Pull, _>(lane).ok();
    let items = promotion::pending_approvals(&app.db, repository, environment, PENDING, may).await?;
    Ok(Json(Page { items, next: None }).into_response())
}

/// Takes an approval back.
#[utoipa::path(post, path = "/api/v1/approvals/{id}/revocation", tag = "promotion", params(("id" = i64, Path)),
    request_body = Revocation, responses((status = 200, body = ApprovalRow), (status = 404)))]
async fn end_approval(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Json<ApprovalRow>, Problem> {
    let row = exceptions::find_approval(&app.db, id).await?.ok_or_else(Problem::not_found)?;
    caller.must_see(&row.repository, Some(&row.environment))?;
    let grant =
        caller.may::<Approve, _>(&Lane { repository: row.repository, environment: row.environment })?;
    let request: Revocation = body.json(&grant).await?;
    Ok(Json(exceptions::end_approval(&app.db, &grant, id, &request.reason).await?))
}
