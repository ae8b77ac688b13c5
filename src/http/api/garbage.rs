//! `/api/v1/garbage` and `/api/v1/collections`: what a collection would take and why, and asking for one.

use super::Problem;
use super::extract::{Json, Query};
use crate::access::{Administer, Everything};
use crate::app::App;
use crate::content::{self, Garbage, GarbageCursor, Why};
use crate::http::Caller;
use crate::jobs;
use crate::names::{Digest, RepositoryName};
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(garbage)).routes(routes!(standing, collect))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GarbageQuery {
    /// The `next` of an earlier page.
    cursor: Option<String>,
    /// About how many items a page has [default: 100, at most 1000].
    limit: Option<usize>,
}

#[derive(Debug, Serialize, ToSchema)]
struct GarbageItem {
    /// The repository that would let go of a blob.
    repository: Option<RepositoryName>,
    /// The blob.
    digest: Option<Digest>,
    /// The object in the store, of a blob that was collected before.
    object: Option<String>,
    size_bytes: i64,
    /// `unreferenced`: no manifest of the repository needs it and its grace period is over;
    /// `unreferenced_everywhere`: the same, and no other repository keeps it; `unlinked`: no repository
    /// has it; `blob_collected`: its blob is gone, the bytes go after their delay.
    #[schema(value_type = String)]
    why: Why,
    /// Since when.
    since: Option<DateTime<Utc>>,
}

impl From<Garbage> for GarbageItem {
    fn from(garbage: Garbage) -> Self {
        let Garbage { repository, digest, object, size_bytes, why, since } = garbage;
        Self { repository, digest, object, size_bytes, why, since }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct GarbagePage {
    items: Vec<GarbageItem>,
    /// Where to go on; null at the end. A page may be short, or empty, before it.
    next: Option<String>,
}

/// How collection stands.
#[derive(Debug, Serialize, ToSchema)]
struct CollectionStanding {
    /// Whether a replica collects now.
    running: bool,
    /// Where the run under way goes on and what it has done; also of one that was cut off, which goes
    /// on by itself.
    state: Option<Value>,
    /// What the last whole run did: `looked_at`, `links`, `blobs`, `blob_bytes`, `objects`,
    /// `object_bytes`, `objects_left`.
    report: Option<Value>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    /// When somebody last asked for a run; one that began later has answered it.
    wanted_at: Option<DateTime<Utc>>,
}

/// What a collection would take now, and why: the dry run. Changes nothing.
#[utoipa::path(get, path = "/api/v1/garbage", tag = "operations", params(GarbageQuery),
    responses((status = 200, body = GarbagePage), (status = 404, description = "`not-found`")))]
async fn garbage(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<GarbageQuery>,
) -> Result<Json<GarbagePage>, Problem> {
    caller.may::<Administer, _>(&Everything)?;
    let cursor: Option<GarbageCursor> = query
        .cursor
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|_| Problem::invalid("cursor is the `next` of the page before"))?;
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let mut connection = app.db.acquire().await?;
    let (items, next) = content::garbage(&mut connection, cursor.unwrap_or_default(), limit).await?;
    let next = next.map(|next| serde_json::json!(next).to_string());
    Ok(Json(GarbagePage { items: items.into_iter().map(GarbageItem::from).collect(), next }))
}

/// How collection stands: what runs, and what the last run did.
#[utoipa::path(get, path = "/api/v1/collections", tag = "operations",
    responses((status = 200, body = CollectionStanding), (status = 404, description = "`not-found`")))]
async fn standing(State(app): State<App>, caller: Caller) -> Result<Json<CollectionStanding>, Problem> {
    caller.may::<Administer, _>(&Everything)?;
    Ok(Json(read(&app).await?))
}

/// Asks for a collection: the first replica that looks begins it, within seconds, and
/// `GET /api/v1/collections` tells how far it is. One that is under way goes on and another follows it.
#[utoipa::path(post, path = "/api/v1/collections", tag = "operations",
    responses((status = 202, body = CollectionStanding), (status = 404, description = "`not-found`")))]
async fn collect(
    State(app): State<App>,
    caller: Caller,
) -> Result<(StatusCode, Json<CollectionStanding>), Problem> {
    caller.may::<Administer, _>(&Everything)?;
    jobs::want(&mut *app.db.acquire().await?, jobs::COLLECTION).await?;
    Ok((StatusCode::ACCEPTED, Json(read(&app).await?)))
}

async fn read(app: &App) -> Result<CollectionStanding, Problem> {
    let standing = jobs::standing(&mut *app.db.acquire().await?, jobs::COLLECTION).await?;
    let jobs::Standing { running, state, report, started_at, finished_at, wanted_at } =
        standing.unwrap_or_default();
    Ok(CollectionStanding { running, state, report, started_at, finished_at, wanted_at })
}
