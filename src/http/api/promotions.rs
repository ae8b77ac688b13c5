//! `/api/v1/promotions`.

use super::Problem;
use super::extract::{Json, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Lane, Promote, Pull, SomeLane};
use crate::app::App;
use crate::failure::Failure;
use crate::http::Caller;
use crate::names::{Digest, EnvironmentName, RepositoryName, Tag};
use crate::policy::{Decision, Verdict};
use crate::postgres::Db;
use crate::promotion::{self, Asked, DryRun, Promoted, PromotionRow, Reason, Refused, What};
use crate::shares::Taken;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(promote, list_promotions))
}

/// Either a digest or a version.
pub(super) fn what(digest: Option<Digest>, version: Option<Tag>) -> Result<What, Problem> {
    match (digest, version) {
        (Some(digest), None) => Ok(What::Digest(digest)),
        (None, Some(version)) => Ok(What::Version(version)),
        (Some(_), Some(_)) | (None, None) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-request",
            "give either a digest or a version (a write-once tag)",
        )),
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PromotionRequest {
    repository: RepositoryName,
    /// What to promote, by digest ...
    digest: Option<Digest>,
    /// ... or by version.
    version: Option<Tag>,
    environment: EnvironmentName,
    /// Why; it is recorded.
    #[serde(default)]
    reason: String,
}

/// A promotion that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PromotionMade {
    id: i64,
    repository: RepositoryName,
    environment: EnvironmentName,
    digest: Digest,
    version: Option<Tag>,
    decision: Decision,
    /// The signed verification summary: a DSSE envelope with a SLSA VSA.
    #[schema(value_type = Object)]
    summary: Box<RawValue>,
    /// Until when the summary may be relied on.
    valid_until: DateTime<Utc>,
    event_id: i64,
    promoted_at: DateTime<Utc>,
    /// What was allowed with a warning.
    warnings: Vec<String>,
}

impl PromotionMade {
    pub(super) fn of(lane: Lane, promoted: Promoted) -> Result<Self, Failure> {
        let summary = String::from_utf8(promoted.summary)
            .map_err(|error| Failure::new("showing a promotion's summary", error))?;
        let summary = RawValue::from_string(summary)
            .map_err(|error| Failure::new("showing a promotion's summary", error))?;
        Ok(Self {
            id: promoted.id,
            repository: lane.repository,
            environment: lane.environment,
            digest: promoted.digest,
            version: promoted.version,
            warnings: promoted.decision.warnings().into_iter().chain(promoted.warnings).collect(),
            decision: promoted.decision,
            summary,
            valid_until: promoted.valid_until,
            event_id: promoted.event_id,
            promoted_at: promoted.at,
        })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PromotionMode {
    /// Say what would be decided, and promote nothing; needs the right to pull there [default: false].
    #[serde(default)]
    dry_run: bool,
}

/// One of the dry runs that may be under way at once.
pub(super) fn dry_run_slot(app: &App, caller: &Caller) -> Result<Taken, Problem> {
    app.dry_runs.try_take_one(caller.principal().id).ok_or_else(|| {
        let detail = "too many dry runs are under way; ask again when one has ended";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail)
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    })
}

/// Promotes a release to an environment, if the policies allow it.
///
/// The answer carries the decision with every gate and the signed verification summary. A refusal
/// is recorded as a decision too. A dry run answers 200 with the decision that there would be now, records
/// nothing and takes no lock.
#[utoipa::path(post, path = "/api/v1/promotions", tag = "promotion", request_body = PromotionRequest,
    params(PromotionMode,
        ("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 201, body = PromotionMade), (status = 200, body = DryRun, description = "a dry run"),
        (status = 404, description = "`not-found`, `environment-unknown`, `artifact-unknown`"),
        (status = 429, description = "`too-many-requests`: so many dry runs of the caller are under way, or 60 of its \
            promotions were refused within a minute"),
        (status = 409, description = "`promotion-denied` with every gate, or `promotion-deferred` with Retry-After"),
        (status = 422, description = "`invalid-request`, `idempotency-key-reused`")))]
async fn promote(
    State(app): State<App>,
    caller: Caller,
    Query(mode): Query<PromotionMode>,
    body: Unread,
) -> Result<Response, Problem> {
    let right = if mode.dry_run { caller.somewhere::<Pull>() } else { caller.somewhere::<Promote>() };
    let once = body.once(&right?).await?;
    let request: PromotionRequest = once.json()?;
    let lane = Lane { repository: request.repository, environment: request.environment };
    if mode.dry_run {
        let grant = caller.may::<Pull, _>(&lane)?;
        let what = what(request.digest, request.version)?;
        let _slot = dry_run_slot(&app, &caller)?;
        return Ok(Json(promotion::dry_run(&app.db, &grant, &what).await?).into_response());
    }
    let grant = caller.may::<Promote, _>(&lane)?;
    let what = what(request.digest, request.version)?;
    let reason = Reason::optional(&request.reason).map_err(Refused::Reason)?;
    let asked = Asked { what, reason, validity: app.config.summary_validity };
    let run = app.clone();
    let act = |db: Db| {
        Box::pin(async move {
            let promoted = promotion::promote(&db, &run.keys, &grant, &asked).await?;
            Ok((StatusCode::CREATED, PromotionMade::of(lane, promoted)?))
        })
    };
    once.answer(&app, &caller, act).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PromotionsAsked {
    repository: RepositoryName,
    /// Only to this environment.
    environment: Option<EnvironmentName>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000].
    limit: Option<i64>,
}

/// Promotions of a repository, the newest first. Those to environments that the caller has no right in
/// are left out.
#[utoipa::path(get, path = "/api/v1/promotions", tag = "promotion", params(PromotionsAsked),
    responses((status = 200, body = Page<PromotionRow>), (status = 404)))]
async fn list_promotions(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<PromotionsAsked>,
) -> Result<Json<Page<PromotionRow>>, Problem> {
    let grant = caller.may::<Pull, _>(&SomeLane(asked.repository.clone()))?;
    if let Some(environment) = &asked.environment {
        let lane = Lane { repository: asked.repository.clone(), environment: environment.clone() };
        caller.may::<Pull, _>(&lane)?;
    }
    let (before, limit) = PageOf { cursor: asked.cursor, limit: asked.limit }.bounds()?;
    let items = promotion::promotions(&app.db, &grant, asked.environment.as_ref(), before, limit).await?;
    let mut page = Page::of(items, limit, |row| row.id);
    page.items.retain(|row| caller.sees(&asked.repository, Some(&row.environment)));
    Ok(Json(page))
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Failed(failure) => failure.into(),
            Refused::Unknown | Refused::UnknownRepository(_) => {
                Self::new(StatusCode::NOT_FOUND, "not-found", detail)
            }
            Refused::UnknownEnvironment(_) => Self::new(StatusCode::NOT_FOUND, "environment-unknown", detail),
            Refused::UnknownArtifact(_) => Self::new(StatusCode::NOT_FOUND, "artifact-unknown", detail),
            Refused::Reason(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", detail),
            Refused::PolicyDoesNotFit(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-policy", detail)
            }
            Refused::Policy(invalid) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-policy", invalid.message)
                    .with("line", invalid.line)
                    .with("column", invalid.column)
            }
            Refused::PolicyEndsRunning(count) => {
                Self::new(StatusCode::CONFLICT, "policy-ends-running", detail).with("ends", count)
            }
            Refused::Denied(decision) => denied(&decision, detail),
            Refused::TooManyRefusals => Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail)
                .header(header::RETRY_AFTER, HeaderValue::from_static("60")),
            Refused::NothingToGoBackTo(reasons) => {
                Self::new(StatusCode::CONFLICT, "nothing-to-go-back-to", detail).with("reasons", reasons)
            }
        }
    }
}

/// 409 with every gate; what only has to wait says for how long.
fn denied(decision: &Decision, detail: String) -> Problem {
    let problem = match decision.verdict {
        Verdict::Defer { until } => {
            let seconds = (until - crate::clock::now()).num_seconds().max(1);
            Problem::new(StatusCode::CONFLICT, "promotion-deferred", detail)
                .with("until", json!(until))
                .header(header::RETRY_AFTER, HeaderValue::from(seconds))
        }
        Verdict::Allow | Verdict::Deny => Problem::new(StatusCode::CONFLICT, "promotion-denied", detail),
    };
    problem.with("decision", decision.id.as_str()).with("gates", json!(decision.gates))
}
