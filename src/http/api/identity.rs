//! `/api/v1/whoami`: who the caller is and what they may do.

use super::Problem;
use crate::access::Role;
use crate::app::App;
use crate::http::Caller;
use crate::names::{EnvironmentName, Pattern};
use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(whoami))
}

#[derive(Debug, Serialize, ToSchema)]
struct Whoami {
    principal: String,
    anonymous: bool,
    grants: Vec<Held>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Held {
    role: Role,
    repositories: Pattern,
    environments: Option<Vec<EnvironmentName>>,
}

/// Who the caller is and what they may do.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "access", responses((status = 200, body = Whoami), (status = 401)))]
async fn whoami(caller: Caller) -> Result<Json<Whoami>, Problem> {
    if !caller.showed_credential() {
        return Err(Problem::unauthenticated());
    }
    let held = caller.authority().bindings().iter().map(|binding| Held {
        role: binding.role,
        repositories: binding.repositories.clone(),
        environments: binding.environments.clone(),
    });
    Ok(Json(Whoami {
        principal: caller.principal().name.clone(),
        anonymous: caller.is_anonymous(),
        grants: held.collect(),
    }))
}
