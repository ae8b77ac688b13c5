//! `/api/v1/decisions`.

use super::Problem;
use super::answers::Prepared;
use super::extract::{Json, Path};
use crate::app::App;
use crate::http::Caller;
use crate::http::body::NotTaken;
use crate::names::Digest;
use crate::promotion::{self, Replayed, StoredDecision};
use crate::storage::Taken;
use axum::Extension;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show_decision)).routes(routes!(replay_decision))
}

/// Room for the decision, if the caller may see its lane.
async fn room(app: &App, caller: &Caller, id: &Digest) -> Result<Taken, Problem> {
    let found = promotion::lane_of(&app.db, id).await?;
    let (lane, size_bytes) = found.ok_or_else(Problem::not_found)?;
    caller.must_see(&lane.repository, Some(&lane.environment))?;
    let mut room = caller.answer_room(app).take();
    room.grow(size_bytes).await.map_err(NotTaken::from)?;
    room.wait_to_read(size_bytes).await.map_err(NotTaken::from)?;
    Ok(room)
}

/// A decision with every input by its digest.
#[utoipa::path(get, path = "/api/v1/decisions/{id}", tag = "promotion", params(("id" = Digest, Path)),
    responses((status = 200, body = StoredDecision), (status = 404)))]
async fn show_decision(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Digest>,
) -> Result<(Extension<Prepared>, Json<StoredDecision>), Problem> {
    let room = room(&app, &caller, &id).await?;
    let found = promotion::decision(&app.db, &id).await?.ok_or_else(Problem::not_found)?;
    Ok((Prepared::of(room), Json(found)))
}

/// Makes the decision again from its inputs: the same answer, or what differs. Records nothing.
#[utoipa::path(post, path = "/api/v1/decisions/{id}/replay", tag = "promotion", params(("id" = Digest, Path)),
    responses((status = 200, body = Replayed), (status = 404)))]
async fn replay_decision(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Digest>,
) -> Result<(Extension<Prepared>, Json<Replayed>), Problem> {
    let room = room(&app, &caller, &id).await?;
    let replayed = promotion::replay(&app.db, &id).await?.ok_or_else(Problem::not_found)?;
    Ok((Prepared::of(room), Json(replayed)))
}
