//! `/api/v1/principals`, and whether a principal may do something.

use super::Problem;
use super::approvals::Revocation;
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Action, Administer, Everything, InEnvironment, Place, Role};
use crate::app::App;
use crate::exceptions::{self, DisableRefused, Held};
use crate::http::Caller;
use crate::identity::{self, Allowed, PrincipalRow};
use crate::names::{EnvironmentName, Pattern, RepositoryName};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_principals))
        .routes(routes!(disable_principal))
        .routes(routes!(enable_principal))
        .routes(routes!(check_access))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PrincipalsAsked {
    /// Only the one of this name.
    name: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000].
    limit: Option<i64>,
}

/// Principals in the order in which they were made.
#[utoipa::path(get, path = "/api/v1/principals", tag = "access", params(PrincipalsAsked),
    responses((status = 200, body = Page<PrincipalRow>)))]
async fn list_principals(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<PrincipalsAsked>,
) -> Result<Json<Page<PrincipalRow>>, Problem> {
    let grant = caller.may(&Everything)?;
    let (after, limit) = PageOf { cursor: asked.cursor, limit: asked.limit }.bounds()?;
    let items = identity::principals(&app.db, &grant, asked.name.as_deref(), after, limit).await?;
    Ok(Json(Page::of(items, limit, |row| row.id)))
}

/// What ended with a principal, and what stays of it.
#[derive(Debug, Serialize, ToSchema)]
struct PrincipalDisabled {
    principal: PrincipalRow,
    /// Tokens that ended.
    tokens: Vec<Uuid>,
    /// Grants that ended.
    grants: Vec<i64>,
    /// Approvals that ended. What was promoted by them goes on.
    approvals: Vec<i64>,
    /// What stays: somebody else ends it where it should end.
    stays: Held,
}

/// Disables a principal: its tokens, grants and approvals end at once, and it gets no other until it is enabled.
///
/// Its blocks, holds, waivers and overrides stay, and are listed.
#[utoipa::path(post, path = "/api/v1/principals/{id}/revocation", tag = "access", params(("id" = i64, Path)),
    request_body = Revocation, responses((status = 200, body = PrincipalDisabled), (status = 404),
        (status = 409, description = "`last-administrator`; `not-open`: it is disabled already"),
        (status = 422, description = "`principal-refused`: the public or the service itself")))]
async fn disable_principal(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Json<PrincipalDisabled>, Problem> {
    let grant = caller.may::<Administer, _>(&Everything)?;
    let Revocation { reason } = body.json(&grant).await?;
    let ended = exceptions::disable_principal(&app.db, &grant, id, reason.as_str()).await?;
    super::tokens::refresh(&app).await;
    let exceptions::Ended { disabled, approvals, stays } = ended;
    let identity::Disabled { principal, tokens, grants } = disabled;
    Ok(Json(PrincipalDisabled { principal, tokens, grants, approvals, stays }))
}

/// Enables a principal that was disabled: it can be given tokens and grants again, and has none yet.
#[utoipa::path(post, path = "/api/v1/principals/{id}/restoration", tag = "access", params(("id" = i64, Path)),
    request_body = Revocation, responses((status = 200, body = PrincipalRow), (status = 404),
        (status = 409, description = "`not-open`: it is not disabled")))]
async fn enable_principal(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Json<PrincipalRow>, Problem> {
    let grant = caller.may::<Administer, _>(&Everything)?;
    let Revocation { reason } = body.json(&grant).await?;
    Ok(Json(exceptions::enable_principal(&app.db, &grant, id, reason.as_str()).await?))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AccessQuestion {
    /// The principal's name.
    principal: String,
    /// The action, such as `promote`.
    action: String,
    /// The repository; all of them when absent.
    repository: Option<RepositoryName>,
    /// The environment. When absent: regardless of any for what happens in none (push, pull, delete, attest, sign, scan,
    /// audit, administer, revoke), and all of them for what happens in environments.
    environment: Option<EnvironmentName>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AccessAnswer {
    /// Whether it may, with at least one of its tokens.
    allowed: bool,
    principal: PrincipalRow,
    /// The grants that allow it.
    grants: Vec<AllowingGrant>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AllowingGrant {
    id: i64,
    role: Role,
    repositories: Pattern,
    environments: Option<BTreeSet<EnvironmentName>>,
    /// The token that it belongs to; null: it is the principal's own, for its tokens without grants.
    token: Option<Uuid>,
}

impl From<Allowed> for AllowingGrant {
    fn from(allowed: Allowed) -> Self {
        let Allowed { grant, binding, token } = allowed;
        let crate::access::Binding { role, repositories, environments } = binding;
        Self { id: grant, role, repositories, environments, token }
    }
}

/// Whether a principal may do something, and by which grants. Grants that no token carries now allow nothing.
#[utoipa::path(post, path = "/api/v1/access/check", tag = "access", request_body = AccessQuestion,
    responses((status = 200, body = AccessAnswer), (status = 404)))]
async fn check_access(
    State(app): State<App>,
    caller: Caller,
    body: Unread,
) -> Result<Json<AccessAnswer>, Problem> {
    let grant = caller.may::<Administer, _>(&Everything)?;
    let AccessQuestion { principal, action, repository, environment } = body.json(&grant).await?;
    let action = Action::ALL.into_iter().find(|known| known.as_str() == action).ok_or_else(|| {
        let names = Action::ALL.map(Action::as_str).join(", ");
        Problem::invalid(format!("{action:?} is no action; actions are {names}"))
    })?;
    let environment = match &environment {
        Some(environment) => InEnvironment::One(environment),
        None if action.is_of_environments() => InEnvironment::All,
        None => InEnvironment::Regardless,
    };
    let place = Place { repository: repository.as_ref(), environment };
    let found = identity::allowed_by(&app.db, &grant, &principal, action, place).await?;
    let (principal, grants) = found.ok_or_else(Problem::not_found)?;
    let grants: Vec<AllowingGrant> = grants.into_iter().map(AllowingGrant::from).collect();
    Ok(Json(AccessAnswer { allowed: !grants.is_empty(), principal, grants }))
}

impl From<DisableRefused> for Problem {
    fn from(refused: DisableRefused) -> Self {
        match refused {
            DisableRefused::Identity(refused) => refused.into(),
            DisableRefused::Exceptions(refused) => refused.into(),
        }
    }
}
