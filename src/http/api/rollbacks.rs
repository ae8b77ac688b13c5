//! `/api/v1/rollbacks`.

use super::Problem;
use super::extract::Unread;
use super::promotions::PromotionMade;
use crate::access::{Lane, Rollback};
use crate::app::App;
use crate::http::Caller;
use crate::names::{EnvironmentName, Reference, RepositoryName};
use crate::postgres::Db;
use crate::promotion::{self, AskedBack, Reason, What};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(roll_back))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RollbackRequest {
    repository: RepositoryName,
    environment: EnvironmentName,
    reason: Reason,
    /// A digest or version that was promoted here before; the newest that is still allowed when
    /// absent.
    to: Option<String>,
}

/// Goes back to an earlier version that the policies still allow now.
///
/// Promotions of the repository to the environment are held afterwards, until somebody lifts the
/// hold.
#[utoipa::path(post, path = "/api/v1/rollbacks", tag = "promotion", request_body = RollbackRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 201, body = PromotionMade), (status = 404),
        (status = 409, description = "`nothing-to-go-back-to` with the reasons for each earlier version")))]
async fn roll_back(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Problem> {
    let once = body.once(&caller.somewhere::<Rollback>()?).await?;
    let request: RollbackRequest = once.json()?;
    let lane = Lane { repository: request.repository, environment: request.environment };
    let grant = caller.may::<Rollback, _>(&lane)?;
    let to = request.to.as_deref().map(str::parse::<Reference>).transpose();
    let to = to.map_err(|error| Problem::invalid(error.to_string()))?.map(|reference| match reference {
        Reference::Tag(version) => What::Version(version),
        Reference::Digest(digest) => What::Digest(digest),
    });
    let asked = AskedBack { to, reason: request.reason, validity: app.config.summary_validity };
    let run = app.clone();
    let act = |db: Db| {
        Box::pin(async move {
            let promoted = promotion::rollback(&db, &run.keys, &grant, &asked).await?;
            Ok((StatusCode::CREATED, PromotionMade::of(lane, promoted)?))
        })
    };
    once.answer(&app, &caller, act).await
}
