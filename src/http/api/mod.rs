//! `/api/v1/`: our own API, JSON with RFC 9457 problems; OpenAPI at `/api/v1/openapi.json`.

mod answers;
pub mod extract;
pub mod idempotency;
mod page;
pub mod problem;
mod schema;

pub mod approvals;
pub mod artifact_content;
pub mod artifact_record;
pub mod artifacts;
pub mod attestations;
pub mod audit;
pub mod blocks;
pub mod build_types;
pub mod decisions;
pub mod environments;
pub mod exceptions;
pub mod garbage;
pub mod holds;
pub mod identity;
pub mod known_good;
pub mod overrides;
pub mod policies;
pub mod principals;
pub mod promotions;
pub mod repositories;
pub mod retention;
pub mod rollbacks;
pub mod scans;
pub mod security_events;
pub mod signers;
pub mod tags;
pub mod tokens;
pub mod verify;
pub mod waivers;

pub use answers::SMALL_ANSWER;
pub use problem::Problem;

use crate::app::App;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use bytes::Bytes;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

#[derive(OpenApi)]
#[openapi(info(
    title = "Proofmark",
    description = "The artifact registry that hands a deployer only what it can prove. Refusals are RFC 9457 \
                   problem documents with a stable `code` and a `request_id`.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

/// Each file below gives its handlers with their documentation; the path, the handler and its
/// description cannot drift apart.
fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(approvals::routes())
        .merge(artifact_content::routes())
        .merge(artifact_record::routes())
        .merge(artifacts::routes())
        .merge(attestations::routes())
        .merge(audit::routes())
        .merge(blocks::routes())
        .merge(decisions::routes())
        .merge(environments::routes())
        .merge(exceptions::routes())
        .merge(garbage::routes())
        .merge(holds::routes())
        .merge(identity::routes())
        .merge(known_good::routes())
        .merge(overrides::routes())
        .merge(policies::routes())
        .merge(principals::routes())
        .merge(promotions::routes())
        .merge(repositories::routes())
        .merge(retention::routes())
        .merge(rollbacks::routes())
        .merge(scans::routes())
        .merge(security_events::routes())
        .merge(build_types::routes())
        .merge(signers::routes())
        .merge(tags::routes())
        .merge(tokens::routes())
        .merge(verify::routes())
        .merge(waivers::routes())
}

/// The OpenAPI document, as `proofmark openapi` prints it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

/// The routes below `/api/v1/`. No handler takes a body but as `extract::Unread`, which knows its bounds and asks for a
/// right.
pub fn routes(app: &App) -> Router<App> {
    let (router, document) = documented().split_for_parts();
    // The same bytes for everybody, however many read them slowly.
    let document = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    router
        .route_layer(from_fn_with_state(app.clone(), answers::counted))
        .route("/api/v1/openapi.json", get(|| async { ([(CONTENT_TYPE, "application/json")], document) }))
}
