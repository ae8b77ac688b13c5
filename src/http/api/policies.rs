//! `/api/v1/policies`.

use super::Problem;
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use super::promotions::dry_run_slot;
use crate::access::{Action, Administer, Everything, Pull, Scope, SomeLane};
use crate::app::App;
use crate::cpu;
use crate::http::Caller;
use crate::json;
use crate::names::{EnvironmentName, RepositoryName};
use crate::policy::{Policy, PolicyName};
use crate::promotion::{self, Consequences, Naming, PolicyRow, PutPolicy, Reason, Refused};
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(put_policy, list_policies))
        .routes(routes!(simulate))
        .routes(routes!(end_policy))
        .routes(routes!(policy_schema))
}

/// Puts a policy (YAML or JSON) in force for its environment.
///
/// It takes the place of the policy with the same name; every version is kept and named by its
/// digest. What is unknown is refused with its line and column and what would be accepted. The answer says what
/// the policy changes for what runs.
#[utoipa::path(put, path = "/api/v1/policies", tag = "promotion", params(PolicyPut),
    request_body(content((Policy = "application/yaml"), (Policy = "application/json"))),
    responses((status = 200, body = PutPolicy, description = "it was in force already"),
        (status = 201, body = PutPolicy), (status = 404),
        (status = 409, description = "`policy-ends-running`: a gate counts for what runs from a time in the past, and \
            `ends` is not the number of versions that it ends"),
        (status = 422, description = "`invalid-policy` with line and column")))]
async fn put_policy(
    State(app): State<App>,
    caller: Caller,
    Query(put): Query<PolicyPut>,
    body: Unread,
) -> Result<(StatusCode, Json<PutPolicy>), Problem> {
    let (body, policy) = read(&caller, body).await?;
    let grant = caller.may::<Administer, _>(&policy.environment)?;
    let sees = |repository: &RepositoryName| caller.sees(repository, Some(&policy.environment));
    let source = String::from_utf8_lossy(json::utf8(&body).unwrap_or(&body));
    let put = promotion::put_policy(&app.db, &grant, &policy, &source, put.ends, sees).await?;
    let status = if put.changed { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(put)))
}

/// Reads a policy, off the threads that serve requests.
async fn read(caller: &Caller, body: Unread) -> Result<(Bytes, Policy), Problem> {
    let body = body.request(&caller.in_some_environment::<Administer>()?).await?;
    let text = body.clone();
    let parsed = cpu::run("reading a policy", move || Policy::parse(&text)).await?;
    Ok((body, parsed.map_err(Refused::Policy)?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PolicyPut {
    /// How many running versions the policy ends at once, as `simulate` counts them.
    ends: Option<usize>,
}

/// Says what a policy would change for what runs now, and puts nothing in force.
///
/// Computed on one snapshot. All release channels of the environment are counted; `consequences` names a page of
/// them, of those that the caller may see. `consequences.next` is the cursor of the next page.
#[utoipa::path(post, path = "/api/v1/policies/simulate", tag = "promotion", params(PageOf),
    request_body(content((Policy = "application/yaml"), (Policy = "application/json"))),
    responses((status = 200, body = Simulated), (status = 404),
        (status = 422, description = "`invalid-policy` with line and column")))]
async fn simulate(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageOf>,
    body: Unread,
) -> Result<Json<Simulated>, Problem> {
    let (_, policy) = read(&caller, body).await?;
    let grant = caller.may::<Administer, _>(&policy.environment)?;
    let sees = |repository: &RepositoryName| caller.sees(repository, Some(&policy.environment));
    let _slot = dry_run_slot(&app, &caller)?;
    let (after, limit) = page.bounds::<RepositoryName>()?;
    let after = after.map_or(String::new(), |after| after.to_string());
    let naming = Naming { after, limit: usize::try_from(limit).unwrap_or(1) };
    let consequences = promotion::simulate(&app.db, &grant, &policy, &naming, sees).await?;
    let warnings = promotion::policy_warnings(&app.db, &policy).await?;
    Ok(Json(Simulated { warnings, consequences }))
}

/// What a policy would change.
#[derive(Debug, Serialize, ToSchema)]
struct Simulated {
    /// What it names that is not there, and what is probably not meant.
    warnings: Vec<String>,
    /// What it changes for what runs now.
    consequences: Consequences,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PoliciesAsked {
    /// Only those that cover this repository; needed from callers who may not audit everything.
    repository: Option<RepositoryName>,
    /// Only of this environment.
    environment: Option<EnvironmentName>,
    /// Earlier versions too [default: false].
    #[serde(default)]
    history: bool,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000]; a page may hold fewer and still have a next one.
    limit: Option<i64>,
}

/// Policies as they were written, the newest first. Those of environments that the caller has no right in are
/// left out.
#[utoipa::path(get, path = "/api/v1/policies", tag = "promotion", params(PoliciesAsked),
    responses((status = 200, body = Page<PolicyRow>), (status = 404)))]
async fn list_policies(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<PoliciesAsked>,
) -> Result<Json<Page<PolicyRow>>, Problem> {
    if let Some(repository) = &asked.repository {
        caller.may::<Pull, _>(&SomeLane(repository.clone()))?;
    } else if !caller.allows(Action::Audit, Everything.place()) {
        return Err(Problem::hidden(Action::Audit));
    }
    let (before, limit) = PageOf { cursor: asked.cursor, limit: asked.limit }.bounds()?;
    let (environment, history) = (asked.environment.as_ref(), asked.history);
    let found = promotion::policies(&app.db, environment, history, before, limit).await?;
    let mut page = Page::of(found, limit, |row| row.id);
    if let Some(repository) = &asked.repository {
        let covers = |row: &PolicyRow| row.repositories.iter().any(|one| one.matches(repository.as_str()));
        page.items.retain(|row| covers(row) && caller.sees(repository, Some(&row.environment)));
    }
    Ok(Json(page))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PolicyEnd {
    reason: Reason,
}

/// Ends a policy. Where no other covers a repository, nothing is allowed from now on.
#[utoipa::path(post, path = "/api/v1/policies/{environment}/{name}/revocation", tag = "promotion",
    params(("environment" = EnvironmentName, Path), ("name" = String, Path)), request_body = PolicyEnd,
    responses((status = 204), (status = 404)))]
async fn end_policy(
    State(app): State<App>,
    caller: Caller,
    Path((environment, name)): Path<(EnvironmentName, PolicyName)>,
    body: Unread,
) -> Result<StatusCode, Problem> {
    let grant = caller.may::<Administer, _>(&environment)?;
    let request: PolicyEnd = body.json(&grant).await?;
    promotion::end_policy(&app.db, &grant, &name, &request.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The JSON Schema of a policy, for editors and checks before it is put in force.
#[utoipa::path(get, path = "/api/v1/policies/schema", tag = "promotion",
    responses((status = 200, description = "JSON Schema 2020-12", content_type = "application/schema+json")))]
async fn policy_schema() -> Result<Json<serde_json::Value>, Problem> {
    let mut parts = Vec::new();
    Policy::schemas(&mut parts);
    let written = serde_json::to_value(Policy::schema()).and_then(|root| {
        let parts: serde_json::Map<_, _> = parts
            .into_iter()
            .map(|(name, schema)| Ok((name, serde_json::to_value(schema)?)))
            .collect::<Result<_, serde_json::Error>>()?;
        Ok((root, parts))
    });
    let (mut root, parts) =
        written.map_err(|error| crate::failure::Failure::new("writing the policy's schema", error))?;
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "Proofmark policy".into();
    root["$defs"] = parts.into();
    let text = root.to_string().replace("#/components/schemas/", "#/$defs/");
    let root = serde_json::from_str(&text)
        .map_err(|error| crate::failure::Failure::new("writing the policy's schema", error))?;
    Ok(Json(root))
}
