//! `/api/v1/overrides`.

use super::Problem;
use super::approvals::Revocation;
use super::exceptions::{Remark, may_list, paged};
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Lane, Override};
use crate::app::App;
use crate::clock::Moment;
use crate::exceptions::{self, NewOverride, OverrideFilter, OverrideRow, OverrideState, Reason, Reviewer};
use crate::http::Caller;
use crate::names::{Digest, EnvironmentName, Reference, RepositoryName, Tag};
use crate::postgres::Db;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use std::collections::BTreeSet;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const PATH: &str = "/api/v1/overrides";

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_override, list_overrides))
        .routes(routes!(get_override))
        .routes(routes!(review_override))
        .routes(routes!(revoke_override))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OverrideRequest {
    repository: RepositoryName,
    /// The artifact, by digest ...
    digest: Option<Digest>,
    /// ... or by version.
    version: Option<Tag>,
    environment: EnvironmentName,
    /// The gates that it passes: any of `attestation`, `scan`, `promoted_in`, `approvals`, `min_age`.
    gates: BTreeSet<String>,
    reason: Reason,
    /// When it expires: at most 30 days ahead.
    expires_at: Moment,
}

/// Passes failed gates of one version in one environment, for a reason and for a time.
///
/// It counts at once; another person reviews it afterwards. It never passes a block, `signed_by` or
/// `provenance`.
#[utoipa::path(post, path = "/api/v1/overrides", tag = "exceptions", request_body = OverrideRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 201, body = OverrideRow, headers(("Location" = String, description = "the override"))),
        (status = 403), (status = 404), (status = 422, description = "`invalid-request`, `gate-not-overridable`")))]
async fn create_override(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Problem> {
    let once = body.once(&caller.somewhere::<Override>()?).await?;
    let request: OverrideRequest = once.json()?;
    let lane = Lane { repository: request.repository, environment: request.environment };
    let grant = caller.may::<Override, _>(&lane)?;
    let artifact = match (request.digest, request.version) {
        (Some(digest), None) => Reference::Digest(digest),
        (None, Some(version)) => Reference::Tag(version),
        (Some(_), Some(_)) | (None, None) => {
            let wrong = "give either a digest or a version (an immutable tag)";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", wrong));
        }
    };
    let new = NewOverride {
        artifact,
        gates: request.gates,
        reason: request.reason,
        expires_at: request.expires_at.into(),
    };
    let act = |db: Db| async move {
        Ok((StatusCode::CREATED, exceptions::create_override(&db, &grant, &new).await?))
    };
    once.created(&app, &caller, PATH, act).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct OverridesAsked {
    /// Only those in this repository.
    repository: Option<RepositoryName>,
    /// Only those in this environment.
    environment: Option<EnvironmentName>,
    /// Only those in this state.
    state: Option<OverrideState>,
    /// Only those that were reviewed, or only those that were not.
    reviewed: Option<bool>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000]; a page may hold fewer and still have a next one.
    limit: Option<i64>,
}

/// Overrides, the newest first. Those in repositories and environments that the caller has no right in are left
/// out.
#[utoipa::path(get, path = "/api/v1/overrides", tag = "exceptions", params(OverridesAsked),
    responses((status = 200, body = Page<OverrideRow>), (status = 404)))]
async fn list_overrides(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<OverridesAsked>,
) -> Result<Json<Page<OverrideRow>>, Problem> {
    may_list(&caller, asked.repository.as_ref())?;
    let (before, limit) = PageOf { cursor: asked.cursor, limit: asked.limit }.bounds()?;
    let filter = OverrideFilter {
        repository: asked.repository,
        environment: asked.environment,
        state: asked.state,
        reviewed: asked.reviewed,
    };
    let shown = |row: &OverrideRow| caller.sees(&row.repository, Some(&row.environment));
    Ok(Json(paged(exceptions::overrides(&app.db, &filter, shown, before, limit).await?)))
}

async fn visible(app: &App, caller: &Caller, id: i64) -> Result<OverrideRow, Problem> {
    let row = exceptions::find_override(&app.db, id).await?;
    let row = row.ok_or_else(Problem::not_found)?;
    caller.must_see(&row.repository, Some(&row.environment))?;
    Ok(row)
}

/// One override.
#[utoipa::path(get, path = "/api/v1/overrides/{id}", tag = "exceptions", params(("id" = i64, Path)),
    responses((status = 200, body = OverrideRow), (status = 404)))]
async fn get_override(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Json<OverrideRow>, Problem> {
    Ok(Json(visible(&app, &caller, id).await?))
}

/// Records that another person reviewed an override, also after it expired or was revoked.
///
/// This needs the right to override, or to administer.
#[utoipa::path(post, path = "/api/v1/overrides/{id}/review", tag = "exceptions", request_body = Remark,
    params(("id" = i64, Path), ("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 200, body = OverrideRow), (status = 403), (status = 404),
        (status = 409, description = "`reviewer-is-creator`, `reviewer-is-author`, `already-reviewed`")))]
async fn review_override(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Response, Problem> {
    let lane = visible(&app, &caller, id).await?.lane();
    let reviewer = match caller.may(&lane) {
        Ok(grant) => Reviewer::Override(grant),
        Err(_) => Reviewer::Administer(caller.may(&lane)?),
    };
    let once = body.once(&reviewer).await?;
    let reason = Remark::of(&once)?;
    let act = |db: Db| async move {
        Ok((StatusCode::OK, exceptions::review_override(&db, &reviewer, id, &reason).await?))
    };
    once.answer(&app, &caller, act).await
}

/// Revokes an override. When it is acknowledged, no promotion is decided with it any more.
#[utoipa::path(post, path = "/api/v1/overrides/{id}/revocation", tag = "exceptions", request_body = Revocation,
    params(("id" = i64, Path), ("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 200, body = OverrideRow), (status = 403), (status = 404)))]
async fn revoke_override(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Response, Problem> {
    let lane = visible(&app, &caller, id).await?.lane();
    let grant = caller.may::<Override, _>(&lane)?;
    let once = body.once(&grant).await?;
    let request: Revocation = once.json()?;
    let act = |db: Db| async move {
        Ok((StatusCode::OK, exceptions::revoke_override(&db, &grant, id, &request.reason).await?))
    };
    once.answer(&app, &caller, act).await
}
