//! `/api/v1/waivers`.

use super::Problem;
use super::approvals::Revocation;
use super::exceptions::{Remark, may_list, paged};
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Accept, Action, Denied, Matching, Waive};
use crate::app::App;
use crate::clock::Moment;
use crate::exceptions::{self, NewWaiver, Reason, WaiverEnd, WaiverFilter, WaiverRow, WaiverState};
use crate::http::Caller;
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName};
use crate::policy::{Justification, WaiverStatus, canonical_package, canonical_vulnerability};
use crate::postgres::Db;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const PATH: &str = "/api/v1/waivers";

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_waiver, list_waivers))
        .routes(routes!(get_waiver))
        .routes(routes!(approve_waiver))
        .routes(routes!(revoke_waiver))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WaiverRequest {
    /// The repositories in which it counts, as a pattern such as `payments/*` ...
    repositories: Option<Pattern>,
    /// ... or one repository.
    repository: Option<RepositoryName>,
    /// A manifest of the one repository: it counts for these bytes only. All that is in the repositories when
    /// absent.
    digest: Option<Digest>,
    /// The environment in which it counts; every one when absent.
    environment: Option<EnvironmentName>,
    /// The vulnerabilities that it accepts, such as CVE-2021-44228; at most 100. Each matches a finding by its
    /// name or an alias, in any case.
    vulnerabilities: Vec<String>,
    /// The package URL for which it counts, such as `pkg:deb/debian/openssl`. Its qualifiers are ignored;
    /// without a version it matches every version. Every package when absent.
    package: Option<String>,
    /// Why the findings are accepted.
    status: WaiverStatus,
    /// Why the vulnerability does not affect the artifact; required for `not_affected`.
    justification: Option<Justification>,
    reason: Reason,
    /// When it expires; required for `accepted_risk`.
    expires_at: Option<Moment>,
}

impl WaiverRequest {
    fn parts(self) -> Result<(Matching, NewWaiver), Problem> {
        let (repositories, manifest) = match (self.repositories, self.repository, self.digest) {
            (Some(pattern), None, None) => (pattern, None),
            (None, Some(name), digest) => {
                let pattern = name.as_str().parse().map_err(|error| unprocessable(format!("{error}")))?;
                (pattern, digest.map(|digest| (name, digest)))
            }
            (Some(_), _, _) | (None, None, _) => {
                return Err(unprocessable(
                    "give either repositories (a pattern), or a repository, and perhaps a digest in it",
                ));
            }
        };
        let package = self.package.as_deref().map(canonical_package).transpose();
        let new = NewWaiver {
            manifest,
            vulnerabilities: self
                .vulnerabilities
                .iter()
                .map(|name| canonical_vulnerability(name.trim()))
                .collect(),
            package: package.map_err(|error| unprocessable(error.to_string()))?,
            status: self.status,
            justification: self.justification,
            reason: self.reason,
            expires_at: self.expires_at.map(Into::into),
        };
        Ok((Matching { repositories, environment: self.environment }, new))
    }
}

fn unprocessable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", detail)
}

/// Why a right does not cover a waiver's scope. A pattern is the caller's own text, so saying so tells nothing of
/// what there is.
fn not_covered(caller: &Caller, denied: Denied, scope: &Matching) -> Problem {
    if caller.is_anonymous() || scope.repositories.as_str().parse::<RepositoryName>().is_ok() {
        return denied.into();
    }
    let held = caller.authority().patterns(denied.action);
    let held: Vec<String> = held.into_iter().map(|pattern| format!("'{pattern}'")).collect();
    let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
    let place = scope.environment.as_ref().map_or("every environment".to_owned(), |name| format!("'{name}'"));
    Problem::refused(
        denied,
        "forbidden",
        format!(
            "this needs the right to {} in all repositories that match '{}', in {place}, by one grant whose pattern \
             plainly covers it; the caller's grants with this right are on {held}",
            denied.action.as_str(),
            scope.repositories,
        ),
    )
}

/// Proposes a waiver: findings that are accepted for a reason.
///
/// It counts for nothing until another person approves it.
#[utoipa::path(post, path = "/api/v1/waivers", tag = "exceptions", request_body = WaiverRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 201, body = WaiverRow, headers(("Location" = String, description = "the waiver"))),
        (status = 403, description = "`forbidden`: the right does not cover its repositories and environment"),
        (status = 404), (status = 422, description = "`invalid-request`")))]
async fn create_waiver(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Problem> {
    let once = body.once(&caller.somewhere::<Waive>()?).await?;
    let (scope, new) = once.json::<WaiverRequest>()?.parts()?;
    let grant = caller.may::<Waive, _>(&scope).map_err(|denied| not_covered(&caller, denied, &scope))?;
    let act = |db: Db| async move {
        Ok((StatusCode::CREATED, exceptions::create_waiver(&db, &grant, &new).await?))
    };
    once.created(&app, &caller, PATH, act).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WaiversAsked {
    /// Only those that cover this repository.
    repository: Option<RepositoryName>,
    /// Only those that count in this environment, those of every environment among them.
    environment: Option<EnvironmentName>,
    /// Only those that name this vulnerability.
    vulnerability: Option<String>,
    /// Only those in this state. `status` is another spelling.
    #[serde(alias = "status")]
    state: Option<WaiverState>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000]; a page may hold fewer and still have a next one.
    limit: Option<i64>,
}

/// Waivers, the newest first, with warnings about those that match nothing or end soon.
///
/// Those that cover no repository, or no environment, in which the caller has a right are left out.
#[utoipa::path(get, path = "/api/v1/waivers", tag = "exceptions", params(WaiversAsked),
    responses((status = 200, body = Page<WaiverRow>), (status = 404)))]
async fn list_waivers(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<WaiversAsked>,
) -> Result<Json<Page<WaiverRow>>, Problem> {
    may_list(&caller, asked.repository.as_ref())?;
    let (before, limit) = PageOf { cursor: asked.cursor, limit: asked.limit }.bounds()?;
    let filter = WaiverFilter {
        repository: asked.repository,
        environment: asked.environment,
        vulnerability: asked.vulnerability,
        state: asked.state,
    };
    let shown = |row: &WaiverRow| match &filter.repository {
        Some(name) => row.repositories.matches(name.as_str()) && caller.sees(name, row.environment.as_ref()),
        None => caller.authority().sees_matching(&row.scope()),
    };
    Ok(Json(paged(exceptions::waivers(&app.db, &filter, shown, before, limit).await?)))
}

async fn visible(app: &App, caller: &Caller, id: i64) -> Result<WaiverRow, Problem> {
    let row = exceptions::find_waiver(&app.db, id).await?;
    let row = row.ok_or_else(Problem::not_found)?;
    if caller.authority().sees_matching(&row.scope()) { Ok(row) } else { Err(Problem::hidden(Action::Pull)) }
}

/// One waiver.
#[utoipa::path(get, path = "/api/v1/waivers/{id}", tag = "exceptions", params(("id" = i64, Path)),
    responses((status = 200, body = WaiverRow), (status = 404)))]
async fn get_waiver(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Json<WaiverRow>, Problem> {
    Ok(Json(visible(&app, &caller, id).await?))
}

/// Approves a waiver that another person proposed. It counts from then on.
///
/// This needs the right to accept in all its repositories, in its environment: administrators and `security` have it.
#[utoipa::path(post, path = "/api/v1/waivers/{id}/approval", tag = "exceptions", request_body = Remark,
    params(("id" = i64, Path), ("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 200, body = WaiverRow), (status = 403), (status = 404),
        (status = 409, description = "`approver-is-creator`, `approver-is-author`, `already-approved`, `not-open`")))]
async fn approve_waiver(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Response, Problem> {
    let scope = visible(&app, &caller, id).await?.scope();
    let grant = caller.may::<Accept, _>(&scope).map_err(|denied| not_covered(&caller, denied, &scope))?;
    let once = body.once(&grant).await?;
    let reason = Remark::of(&once)?;
    let act = |db: Db| async move {
        Ok((StatusCode::OK, exceptions::approve_waiver(&db, &grant, id, &reason).await?))
    };
    once.answer(&app, &caller, act).await
}

/// Revokes a waiver, approved or not. When it is acknowledged, no promotion is decided with it any more.
#[utoipa::path(post, path = "/api/v1/waivers/{id}/revocation", tag = "exceptions", request_body = Revocation,
    params(("id" = i64, Path), ("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 200, body = WaiverRow), (status = 403), (status = 404)))]
async fn revoke_waiver(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Response, Problem> {
    let scope = visible(&app, &caller, id).await?.scope();
    let grant = match caller.may(&scope) {
        Ok(grant) => WaiverEnd::Waive(grant),
        Err(denied) => {
            let accepts = caller.may(&scope);
            WaiverEnd::Accept(accepts.map_err(|_| not_covered(&caller, denied, &scope))?)
        }
    };
    let once = body.once(&grant).await?;
    let request: Revocation = once.json()?;
    let act = |db: Db| async move {
        Ok((StatusCode::OK, exceptions::revoke_waiver(&db, &grant, id, &request.reason).await?))
    };
    once.answer(&app, &caller, act).await
}
