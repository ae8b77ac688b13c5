//! `/api/v1/retention`: what a repository's rules do not keep, and what would go with it or holds it.

use super::Problem;
use super::extract::{Json, Query};
use crate::access::Delete;
use crate::app::App;
use crate::content::{self, Holder, Planned};
use crate::http::Caller;
use crate::names::{Digest, RepositoryName, Tag};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(plan))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PlanQuery {
    repository: RepositoryName,
    /// The `next` of an earlier page.
    cursor: Option<Digest>,
    /// Maximum number of versions in a page [default: 100, at most 1000].
    limit: Option<usize>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PlannedVersion {
    digest: Digest,
    /// The tags that would go with it; write-once names stay reserved for it.
    tags: BTreeSet<Tag>,
    /// Why no rule keeps it.
    why: Vec<String>,
    /// What would go with it: its referrers, and parts that nothing else needs.
    with: Vec<Digest>,
    /// What keeps it whatever the rules say: promotions, indexes, pins. Empty: it goes.
    #[schema(value_type = Vec<Object>)]
    held_by: Vec<Holder>,
}

impl From<Planned> for PlannedVersion {
    fn from(planned: Planned) -> Self {
        let Planned { digest, tags, why, with, held_by } = planned;
        Self { digest, tags, why, with, held_by }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct RetentionPlan {
    /// Whether the rules are enforced: what is not held goes with the next run.
    enforce: bool,
    items: Vec<PlannedVersion>,
    /// Where to go on; null at the end.
    next: Option<String>,
}

/// What the repository's rules do not keep now, and why: the dry run. Changes nothing.
#[utoipa::path(get, path = "/api/v1/retention", tag = "operations", params(PlanQuery),
    responses((status = 200, body = RetentionPlan), (status = 403, description = "`forbidden`"),
              (status = 404, description = "`not-found`")))]
async fn plan(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PlanQuery>,
) -> Result<Json<RetentionPlan>, Problem> {
    let grant = caller.may::<Delete, _>(&query.repository)?;
    let mut connection = app.db.acquire().await?;
    let found = content::repository_record(&mut connection, grant.repository()).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let retention = found.retention.map(|json| json.0).unwrap_or_default();
    let expired = content::expired(&mut connection, found.id, &retention).await?;
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let behind = |digest: &Digest| query.cursor.as_ref().is_none_or(|cursor| digest > cursor);
    let mut page: Vec<_> = expired.into_iter().filter(|(digest, _)| behind(digest)).take(limit + 1).collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(|(digest, _)| digest.to_string());
    let planned = content::plan(&mut connection, found.id, page).await?;
    let items = planned.into_iter().map(PlannedVersion::from).collect();
    Ok(Json(RetentionPlan { enforce: retention.enforce, items, next }))
}
