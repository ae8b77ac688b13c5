//! `/api/v1/whoami`: who the caller is and what they may do.

use super::Problem;
use crate::access::{Action, Narrowing, Role};
use crate::app::App;
use crate::http::Caller;
use crate::names::{EnvironmentName, Pattern, RepositoryName};
use axum::Json;
use serde::Serialize;
use std::collections::BTreeSet;
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
    /// What the principal holds.
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
    Ok(Json(Whoami {
        principal: caller.principal().name.clone(),
        anonymous: caller.is_anonymous(),
        grants: held.collect(),
        narrowed_to: caller.authority().narrowing().map(NarrowedTo::from),
    }))
}
