//! `/api/v1/build-types`: where provenance of types that are not built in names its source.

use super::Problem;
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Administer, Audit, Everything};
use crate::app::App;
use crate::attestation::{self, BuildType, BuildTypeRefused, Pointers, SourceLocation};
use crate::http::Caller;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_build_types, declare_build_type)).routes(routes!(end_build_type))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BuildTypeRequest {
    /// The URI that provenance names as its `buildType`.
    build_type: String,
    /// A JSON pointer into `externalParameters` to the repository's address, such as `/checkout/url`.
    source: Option<String>,
    /// One to the full ref (`refs/heads/main`; a short one names no branch); when that and `branch` are absent, the
    /// ref stands in the address, `git+https://host/path@ref`.
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// One to the name of the branch (`main`), instead of `ref`.
    branch: Option<String>,
    /// One to the commit; when absent, it is that of the dependency that is the source.
    commit: Option<String>,
    /// Instead of pointers: the `name` of the entry of `resolvedDependencies` that is the source.
    dependency: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BuildTypeRecord {
    id: i64,
    build_type: String,
    source: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    branch: Option<String>,
    commit: Option<String>,
    dependency: Option<String>,
    declared_by: String,
    declared_at: DateTime<Utc>,
    /// Null while it is in force.
    ended_by: Option<String>,
    ended_at: Option<DateTime<Utc>>,
}

impl From<BuildType> for BuildTypeRecord {
    fn from(of: BuildType) -> Self {
        let (source, reference, branch, commit, dependency) = match of.location {
            SourceLocation::Parameters(Pointers { source, reference, branch, commit }) => {
                (Some(source), reference, branch, commit, None)
            }
            SourceLocation::Dependency(name) => (None, None, None, None, Some(name)),
        };
        let (ended_by, ended_at) = of.ended.map(|ended| (ended.by, ended.at)).unzip();
        let (id, build_type, declared_by, declared_at) =
            (of.id, of.build_type, of.declared_by, of.declared_at);
        Self {
            id,
            build_type,
            source,
            reference,
            branch,
            commit,
            dependency,
            declared_by,
            declared_at,
            ended_by,
            ended_at,
        }
    }
}

/// Declared build types, the oldest first, ended declarations included.
#[utoipa::path(get, path = "/api/v1/build-types", tag = "attestations", params(PageOf),
    responses((status = 200, body = Page<BuildTypeRecord>)))]
async fn list_build_types(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageOf>,
) -> Result<Json<Page<BuildTypeRecord>>, Problem> {
    caller.may::<Audit, _>(&Everything)?;
    let (after, limit) = page.bounds::<i64>()?;
    let found = attestation::build_types(&app.db, after.unwrap_or_default(), limit).await?;
    let items = found.into_iter().map(BuildTypeRecord::from).collect();
    Ok(Json(Page::of(items, limit, |one: &BuildTypeRecord| one.id)))
}

/// Declares where provenance (SLSA v1) of a build type names its source; an earlier declaration of the type ends. What
/// was recorded is read again by a job, and counts for promotions from then on; what runs is not touched. The same
/// again changes nothing. Types whose rules are built in cannot be declared.
#[utoipa::path(put, path = "/api/v1/build-types", tag = "attestations", request_body = BuildTypeRequest,
    responses((status = 200, body = BuildTypeRecord),
              (status = 422, description = "`invalid-build-type`")))]
async fn declare_build_type(
    State(app): State<App>,
    caller: Caller,
    body: Unread,
) -> Result<Json<BuildTypeRecord>, Problem> {
    let grant = caller.may::<Administer, _>(&Everything)?;
    let BuildTypeRequest { build_type, source, reference, branch, commit, dependency } =
        body.json(&grant).await?;
    let location = match (source, dependency) {
        (Some(source), None) => SourceLocation::Parameters(Pointers { source, reference, branch, commit }),
        (None, Some(name)) if reference.is_none() && branch.is_none() && commit.is_none() => {
            SourceLocation::Dependency(name)
        }
        (None | Some(_), _) => return Err(BuildTypeRefused::Location.into()),
    };
    Ok(Json(attestation::declare(&app.db, &grant, &build_type, &location).await?.into()))
}

/// Ends a declaration: provenance of the type names no source from then on. What runs is not touched.
#[utoipa::path(delete, path = "/api/v1/build-types/{id}", tag = "attestations", params(("id" = i64, Path)),
    responses((status = 204), (status = 404)))]
async fn end_build_type(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<StatusCode, Problem> {
    let grant = caller.may::<Administer, _>(&Everything)?;
    attestation::end_build_type(&app.db, &grant, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<BuildTypeRefused> for Problem {
    fn from(refused: BuildTypeRefused) -> Self {
        match refused {
            BuildTypeRefused::Failed(failure) => failure.into(),
            BuildTypeRefused::Unknown => Self::not_found(),
            BuildTypeRefused::BuiltIn(_)
            | BuildTypeRefused::Name(_)
            | BuildTypeRefused::Pointer(_)
            | BuildTypeRefused::Location => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-build-type", refused.to_string())
            }
        }
    }
}
