//! `/api/v1/decisions`.

use super::Problem;
use super::extract::{Json, Path};
use crate::access::{Lane, Pull};
use crate::app::App;
use crate::http::Caller;
use crate::names::Digest;
use crate::promotion::{self, Replayed, StoredDecision};
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show_decision)).routes(routes!(replay_decision))
}

/// The decision, if the caller may see its repository.
async fn visible(app: &App, caller: &Caller, id: &Digest) -> Result<StoredDecision, Problem> {
    let found = promotion::decision(&app.db, id).await?.ok_or_else(Problem::not_found)?;
    let lane = Lane { repository: found.repository.clone(), environment: found.environment.clone() };
    caller.may::<Pull, _>(&lane)?;
    Ok(found)
}

/// A decision with every input by its digest.
#[utoipa::path(get, path = "/api/v1/decisions/{id}", tag = "promotion", params(("id" = Digest, Path)),
    responses((status = 200, body = StoredDecision), (status = 404)))]
async fn show_decision(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Digest>,
) -> Result<Json<StoredDecision>, Problem> {
    Ok(Json(visible(&app, &caller, &id).await?))
}

/// Makes the decision again from its inputs: the same answer, or what differs. Records nothing.
#[utoipa::path(post, path = "/api/v1/decisions/{id}/replay", tag = "promotion", params(("id" = Digest, Path)),
    responses((status = 200, body = Replayed), (status = 404)))]
async fn replay_decision(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Digest>,
) -> Result<Json<Replayed>, Problem> {
    visible(&app, &caller, &id).await?;
    let replayed = promotion::replay(&app.db, &id).await?;
    Ok(Json(replayed.ok_or_else(Problem::not_found)?))
}
