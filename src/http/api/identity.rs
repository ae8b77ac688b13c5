//! `/api/v1/whoami`: who the caller is and what they may do.

use super::Problem;
use crate::access::{Action, Narrowing, Role};
use crate::app::App;
use crate::clock;
use crate::http::Caller;
use crate::identity::ENDS_SOON;
use crate::names::{EnvironmentName, Pattern, RepositoryName};
use axum::Json;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(whoami))
}

#[derive(Debug, Serialize, ToSchema)]
struct Whoami {
    principal: String,
    anonymous: bool,
    /// When the credential ends by itself.
    expires_at: Option<DateTime<Utc>>,
    /// It ends within 14 days: rotate it (`POST /api/v1/tokens/{id}/rotation`).
    ends_soon: bool,
    /// The token's id, shown itself or behind a docker token.
    token: Option<Uuid>,
    /// What the token may do: by the grants that were made with it, or else by those of its principal.
    grants: Vec<Held>,
    /// What the token that is shown was made for, where it was made for less: it does nothing else.
    narrowed_to: Option<NarrowedTo>,
}

#[derive(Debug, Serialize, ToSchema)]
struct NarrowedTo {
    repositories: Vec<NarrowedOn>,
    /// Listing the names of the repositories that the principal may pull from.
    catalog: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct NarrowedOn {
    repository: RepositoryName,
    actions: Vec<&'static str>,
}

impl From<&Narrowing> for NarrowedTo {
    fn from(narrowing: &Narrowing) -> Self {
        let on = |(repository, actions): &(RepositoryName, Vec<Action>)| NarrowedOn {
            repository: repository.clone(),
            actions: actions.iter().map(|action| action.as_str()).collect(),
        };
        Self { repositories: narrowing.repositories.iter().map(on).collect(), catalog: narrowing.catalog }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Held {
    role: Role,
    repositories: Pattern,
    environments: Option<BTreeSet<EnvironmentName>>,
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
    let expires_at = caller.known().expires_at;
    Ok(Json(Whoami {
        principal: caller.principal().name.clone(),
        anonymous: caller.is_anonymous(),
        expires_at,
        ends_soon: expires_at.is_some_and(|end| end < clock::now() + ENDS_SOON)
            && !caller.authority().is_narrowed(),
        token: caller.known().token,
        grants: held.collect(),
        narrowed_to: caller.authority().narrowing().map(NarrowedTo::from),
    }))
}
