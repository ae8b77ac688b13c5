//! `/api/v1/exceptions`, and what the routes of exceptions have in common.

use super::Problem;
use super::extract::{Json, Query};
use super::idempotency::Once;
use super::page::{Page, PageOf};
use crate::access::{Action, Denied, Matching, Pull, SomeLane};
use crate::app::App;
use crate::clock::Moment;
use crate::exceptions::{self, ExceptionFilter, ExceptionKind, ExceptionRow, Reason, Refused};
use crate::http::Caller;
use crate::names::{EnvironmentName, RepositoryName};
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use std::fmt::Display;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_exceptions))
}

/// What somebody may say with an approval or a review.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Remark {
    /// Why; it is recorded.
    #[serde(default)]
    reason: String,
}

impl Remark {
    /// The reason in a body, which may be absent.
    pub fn of(once: &Once) -> Result<Reason, Problem> {
        let remark: Self = if once.body.is_empty() { Self::default() } else { once.json()? };
        Ok(Reason::optional(&remark.reason).map_err(Refused::Reason)?)
    }
}

/// Fails unless the caller may list exceptions: those in this repository, or, without one, those in every
/// repository that the caller has a right in.
pub(super) fn may_list(caller: &Caller, repository: Option<&RepositoryName>) -> Result<(), Problem> {
    match repository {
        Some(repository) => {
            caller.may::<Pull, _>(&SomeLane(repository.clone()))?;
            Ok(())
        }
        None if caller.is_anonymous() => Err(Problem::unauthenticated_for(Action::Pull)),
        None => Ok(()),
    }
}

/// A page with its cursor as text.
pub(super) fn paged<T, C: Display>(page: exceptions::Page<T, C>) -> Page<T> {
    Page { items: page.items, next: page.next.map(|next| next.to_string()) }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExceptionsAsked {
    /// Only those that count in this repository: those of every repository, those whose pattern matches it, and
    /// blocks that were placed elsewhere on bytes that it has.
    repository: Option<RepositoryName>,
    /// Only those that count in this environment, those of every environment among them.
    environment: Option<EnvironmentName>,
    /// Only this kind.
    kind: Option<ExceptionKind>,
    /// Only those that expire before this time and did not yet.
    ending_before: Option<Moment>,
    /// Expired and ended ones too [default: false]. Overrides are listed until they are reviewed.
    #[serde(default)]
    ended: bool,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000]; a page may hold fewer and still have a next one.
    limit: Option<i64>,
}

/// Approvals, blocks, holds, waivers and overrides in one list, the newest first, with what needs attention.
///
/// Those in repositories and environments that the caller has no right in are left out. A block that was
/// placed in a repository that the caller may not see is listed without its name, reason and author.
#[utoipa::path(get, path = "/api/v1/exceptions", tag = "exceptions", params(ExceptionsAsked),
    responses((status = 200, body = Page<ExceptionRow>), (status = 404)))]
async fn list_exceptions(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<ExceptionsAsked>,
) -> Result<Json<Page<ExceptionRow>>, Problem> {
    may_list(&caller, asked.repository.as_ref())?;
    let (before, limit) = PageOf { cursor: asked.cursor, limit: asked.limit }.bounds()?;
    let filter = ExceptionFilter {
        repository: asked.repository,
        environment: asked.environment,
        kind: asked.kind,
        ending_before: asked.ending_before.map(Into::into),
        ended: asked.ended,
    };
    let shown = |row: ExceptionRow| shown(&caller, filter.repository.as_ref(), row);
    Ok(Json(paged(exceptions::exceptions(&app.db, &filter, shown, before, limit).await?)))
}

/// What the caller is shown of an exception, when the exceptions in this repository are asked for.
fn shown(caller: &Caller, asked: Option<&RepositoryName>, row: ExceptionRow) -> Option<ExceptionRow> {
    let environment = row.scope.environment.as_ref();
    if let Some(repositories) = &row.scope.repositories {
        let sees = match asked {
            Some(name) => caller.sees(name, environment),
            None => caller.authority().sees_matching(&Matching {
                repositories: repositories.clone(),
                environment: environment.cloned(),
            }),
        };
        return sees.then_some(row);
    }
    match (&row.scope.repository, environment) {
        (Some(repository), environment) if caller.sees(repository, environment) => Some(row),
        (Some(_), environment) if row.kind == ExceptionKind::Block => {
            let sees = asked.is_some_and(|name| caller.sees(name, environment));
            sees.then(|| row.from_elsewhere())
        }
        (Some(_), _) => None,
        (None, Some(environment)) => caller.authority().is_in(Action::Pull, environment).then_some(row),
        (None, None) => Some(row),
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        let (status, code) = match refused {
            Refused::Failed(failure) => return failure.into(),
            Refused::Unknown | Refused::UnknownRepository(_) => (StatusCode::NOT_FOUND, "not-found"),
            Refused::UnknownEnvironment(_) => (StatusCode::NOT_FOUND, "environment-unknown"),
            Refused::UnknownArtifact(_) => (StatusCode::NOT_FOUND, "artifact-unknown"),
            Refused::UntilIsPast | Refused::Reason(_) | Refused::Invalid(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid-request")
            }
            Refused::NotOverridable { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "gate-not-overridable"),
            Refused::RankTooLow { action, .. } => {
                return Self::refused(Denied { action, visible: true }, "rank-too-low", detail);
            }
            Refused::NotOpen(_) => (StatusCode::CONFLICT, "not-open"),
            Refused::AlreadyApproved(_) => (StatusCode::CONFLICT, "already-approved"),
            Refused::AlreadyReviewed(_) => (StatusCode::CONFLICT, "already-reviewed"),
            Refused::ApproverIsCreator => (StatusCode::CONFLICT, "approver-is-creator"),
            Refused::ApproverIsAuthor => (StatusCode::CONFLICT, "approver-is-author"),
            Refused::ReviewerIsCreator => (StatusCode::CONFLICT, "reviewer-is-creator"),
            Refused::ReviewerIsAuthor => (StatusCode::CONFLICT, "reviewer-is-author"),
        };
        Self::new(status, code, detail)
    }
}
