//! `/api/v1/tags`: every name that a repository holds, those that were deleted too.

use super::Problem;
use super::extract::{Json, Query, Unread};
use crate::access::{Administer, Pull};
use crate::app::App;
use crate::content::{self, NameRecord, ReserveRefused};
use crate::http::Caller;
use crate::names::{Digest, RepositoryName, Tag};
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(reserve))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    repository: RepositoryName,
    /// The `next` of an earlier page.
    cursor: Option<Tag>,
    /// Maximum number of names in a page [default: 100, at most 1000].
    limit: Option<i64>,
}

/// A name that is held.
#[derive(Debug, Serialize, ToSchema)]
struct HeldName {
    name: Tag,
    /// What it names; of a deleted one, what it stays reserved for.
    digest: Digest,
    /// Whether it is held for that digest for ever.
    write_once: bool,
    /// Whether it names nothing now, and is reserved.
    deleted: bool,
    /// Since when it names that digest.
    since: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
struct HeldNames {
    items: Vec<HeldName>,
    /// Where to go on; null at the end.
    next: Option<String>,
}

impl From<NameRecord> for HeldName {
    fn from(record: NameRecord) -> Self {
        let NameRecord { tag, digest, write_once, deleted, since } = record;
        Self { name: tag, digest, write_once, deleted, since }
    }
}

/// Every name that a repository holds, sorted: write-once ones, deleted or not, and floating ones that point
/// at something.
#[utoipa::path(get, path = "/api/v1/tags", tag = "content", params(ListQuery),
    responses((status = 200, body = HeldNames), (status = 404, description = "`not-found`")))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<HeldNames>, Problem> {
    caller.may::<Pull, _>(&query.repository)?;
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let last = query.cursor.as_ref().map_or("", Tag::as_str);
    let mut connection = app.db.acquire().await?;
    let found = content::repository(&mut connection, &query.repository).await?;
    let repository = found.ok_or_else(Problem::not_found)?;
    let mut names = content::names(&mut connection, repository.id, last, limit + 1).await?;
    let page = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = names.len() > page;
    names.truncate(page);
    let next = names.last().filter(|_| more).map(|record| record.tag.to_string());
    Ok(Json(HeldNames { items: names.into_iter().map(HeldName::from).collect(), next }))
}

/// Names of one reservation at the most.
const MAX_NAMES: usize = 1000;

/// Names to be held for digests.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReservationRequest {
    repository: RepositoryName,
    /// Each name with the digest it is held for, 1 to 1000 of them. The digest need not be here.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    tags: BTreeMap<Tag, Digest>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Reserved {
    repository: RepositoryName,
    /// The names that are held only now; the others were held for their digest already.
    reserved: Vec<Tag>,
}

/// Holds write-once names for digests without showing them, as names that were deleted are held: nobody can
/// push other bytes under them. One that floats at its digest now stays shown. All of them, or none.
#[utoipa::path(post, path = "/api/v1/tags/reservations", tag = "content", request_body = ReservationRequest,
    responses((status = 201, body = Reserved), (status = 403), (status = 404),
              (status = 409, description = "`version-taken` with `current`")))]
async fn reserve(
    State(app): State<App>,
    caller: Caller,
    body: Unread,
) -> Result<(StatusCode, Json<Reserved>), Problem> {
    let request: ReservationRequest = body.json(&caller.somewhere::<Administer>()?).await?;
    let grant = caller.may::<Administer, _>(&request.repository)?;
    if !(1..=MAX_NAMES).contains(&request.tags.len()) {
        return Err(Problem::invalid(format!("a reservation has 1 to {MAX_NAMES} names")));
    }
    let reserved = content::reserve(&app.db, &grant, &request.tags).await?;
    Ok((StatusCode::CREATED, Json(Reserved { repository: request.repository, reserved })))
}

impl From<ReserveRefused> for Problem {
    fn from(refused: ReserveRefused) -> Self {
        let text = refused.to_string();
        match refused {
            ReserveRefused::Failed(failure) => failure.into(),
            ReserveRefused::Unknown => Self::not_found(),
            ReserveRefused::Taken { tag, current, hidden } => {
                Self::new(StatusCode::CONFLICT, "version-taken", text)
                    .with("version", tag.as_str())
                    .with("current", current.as_str())
                    .with("deleted", hidden)
            }
        }
    }
}
