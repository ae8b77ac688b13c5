//! `/api/v1/blocks`.

use super::Problem;
use super::approvals::{FactsAsked, Revocation};
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Action, Block, EveryLane, Lane, SomeLane};
use crate::app::App;
use crate::clock::Moment;
use crate::exceptions::{self, BlockRow, BlockScope, BlockedDigests, NewBlock, Reason};
use crate::http::{Caller, note_asked};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::postgres::Db;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(block, list_blocks)).routes(routes!(end_block))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BlockRequest {
    repository: RepositoryName,
    /// A manifest of the repository. Its bytes are blocked here, and in every repository where the caller has the
    /// right to block.
    digest: Option<Digest>,
    /// The same for several manifests, at most 100: all are blocked, or none.
    #[serde(default)]
    #[schema(max_items = 100)]
    digests: Vec<Digest>,
    /// Where; everywhere when absent.
    environment: Option<EnvironmentName>,
    reason: Reason,
    /// Until when; until it is lifted when absent.
    until: Option<Moment>,
}

/// What was blocked, as it was asked: one digest, or several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum PlacedBlocks {
    /// The block.
    One(Box<BlockRow>),
    /// A block for each digest.
    Several {
        /// In the order of the digests.
        items: Vec<BlockRow>,
    },
}

/// The right that a block of this scope needs.
fn scope(
    caller: &Caller,
    repository: RepositoryName,
    environment: Option<EnvironmentName>,
) -> Result<BlockScope, Problem> {
    Ok(match environment {
        Some(environment) => BlockScope::Lane(caller.may(&Lane { repository, environment })?),
        None => BlockScope::EveryLane(caller.may(&EveryLane(repository))?),
    })
}

/// Blocks the bytes of a manifest, or of up to 100, in one environment or in all.
///
/// With `digest` the answer is the block; with `digests` it is `{"items": [...]}`, one for each. The same block by the
/// same principal, while it is open, is the one that is there.
///
/// When it is acknowledged, no promotion is decided without it any more, and no question of a
/// deployer is answered with these bytes.
#[utoipa::path(post, path = "/api/v1/blocks", tag = "promotion", request_body = BlockRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 201, body = PlacedBlocks), (status = 404), (status = 422)))]
async fn block(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Problem> {
    let once = body.once(&caller.somewhere::<Block>()?).await?;
    let request: BlockRequest = once.json()?;
    let scope = scope(&caller, request.repository, request.environment)?;
    let is_single = match (&request.digest, request.digests.is_empty()) {
        (Some(_), true) => true,
        (None, false) => false,
        (Some(_), false) | (None, true) => {
            return Err(Problem::invalid("give either digest, or digests with 1 to 100 of them"));
        }
    };
    let digests = BlockedDigests::new(request.digest.into_iter().chain(request.digests));
    let digests = digests.map_err(|error| Problem::invalid(error.to_string()))?;
    let new = NewBlock { digests, reason: request.reason, until: request.until.map(Into::into) };
    let act = move |db: Db| async move {
        let mut items = exceptions::block(&db, &scope, &new).await?;
        let only = if is_single { items.pop() } else { None };
        let placed =
            only.map_or_else(|| PlacedBlocks::Several { items }, |row| PlacedBlocks::One(Box::new(row)));
        Ok((StatusCode::CREATED, placed))
    };
    once.answer(&app, &caller, act).await
}

/// Blocks on bytes of a repository, the newest first. A block that was placed in another repository counts here too
/// where its author had the right to block here when it was placed; its repository, reason and author are null for
/// callers that may not see that repository. Blocks in environments that the caller has no right in are left out.
#[utoipa::path(get, path = "/api/v1/blocks", tag = "promotion", params(FactsAsked),
    responses((status = 200, body = Page<BlockRow>), (status = 404)))]
async fn list_blocks(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<FactsAsked>,
) -> Result<Json<Page<BlockRow>>, Problem> {
    let grant = caller.may(&SomeLane(asked.repository.clone()))?;
    let (before, limit) = PageOf { cursor: asked.cursor, limit: asked.limit }.bounds()?;
    let items = exceptions::blocks(&app.db, &grant, asked.ended, before, limit).await?;
    let mut page = Page::of(items, limit, |row| row.id);
    page.items.retain(|block| {
        block.counts_in(&asked.repository) && caller.sees(&asked.repository, block.environment.as_ref())
    });
    page.items = page
        .items
        .into_iter()
        .map(|block| match &block.repository {
            Some(repository) if caller.sees(repository, block.environment.as_ref()) => block,
            Some(_) | None => block.from_elsewhere(),
        })
        .collect();
    Ok(Json(page))
}

/// Lifts a block. This needs the right to block, by a role of its rank or a higher one.
#[utoipa::path(post, path = "/api/v1/blocks/{id}/revocation", tag = "promotion", params(("id" = i64, Path)),
    request_body = Revocation, responses((status = 200, body = BlockRow),
        (status = 403, description = "`forbidden`; `rank-too-low`: it was placed with a higher rank"), (status = 404)))]
async fn end_block(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Json<BlockRow>, Problem> {
    let row = exceptions::find_block(&app.db, id).await?.ok_or_else(Problem::not_found)?;
    let repository = row.repository.ok_or_else(Problem::not_found)?;
    caller.must_see(&repository, row.environment.as_ref())?;
    note_asked(Action::Block, Some(&repository));
    let scope = scope(&caller, repository, row.environment)?;
    let request: Revocation = body.json(&scope).await?;
    Ok(Json(exceptions::end_block(&app.db, &scope, id, &request.reason).await?))
}
