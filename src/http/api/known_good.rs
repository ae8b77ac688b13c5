//! `/api/v1/known-good`: the deployer's question.

use super::Problem;
use super::extract::Query;
use crate::access::{Action, Lane, Pull, View};
use crate::app::App;
use crate::failure::Failure;
use crate::http::{Caller, matches_etag};
use crate::names::{Digest, EnvironmentName, Platform, RepositoryName};
use crate::promotion::{self, KnownGood, NoKnownGood, Purpose, Question};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::SecondsFormat;
use serde::Deserialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(known_good))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct KnownGoodAsked {
    repository: RepositoryName,
    environment: EnvironmentName,
    /// What it is to run on, such as `linux/arm64` or `windows(10.0.20348)/amd64`: of an index, the image
    /// that fits best is the answer.
    platform: Option<Platform>,
    /// What it is wanted for; for a rollback the present version is no candidate [default: deploy].
    #[serde(default)]
    r#for: Wanted,
    /// `text` is the reference alone [default: json].
    #[serde(default)]
    format: Format,
    /// `deny`: a version at risk is no answer; 409 `at-risk` with its risks [default: allow].
    #[serde(default)]
    at_risk: OnRisk,
}

/// What a risk does to an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnRisk {
    #[default]
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    #[default]
    Deploy,
    Rollback,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Text,
}

/// The version that is known to be good in an environment, judged again now; nothing is recorded.
///
/// The newest promotion that today's policies still allow, with every gate's outcome and the
/// verification summary that was signed at its promotion. The ETag changes when the answer does. A caller whose right
/// to pull is limited to environments, or to viewing, gets a reference of the environment's view.
#[utoipa::path(get, path = "/api/v1/known-good", tag = "deployers",
    params(KnownGoodAsked, ("If-None-Match" = Option<String>, Header, description = "the ETag of an earlier answer")),
    responses((status = 200, content((KnownGood = "application/json"), (String = "text/plain")),
            headers(("ETag" = String, description = "changes when the answer does"),
                ("Proofmark-Evaluated-At" = String, description = "when the answer was evaluated (RFC 3339)"))),
        (status = 304, description = "the answer is still the one with this ETag"),
        (status = 403, description = "`forbidden`: no right in this environment"),
        (status = 409, description = "`at-risk` with the risks, where the question says `at_risk=deny`"),
        (status = 404, description = "`no-known-good` with the reasons for each candidate; `environment-unknown` with \
            those that there are; `not-found`")))]
async fn known_good(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(asked): Query<KnownGoodAsked>,
) -> Result<Response, Problem> {
    let lane = Lane { repository: asked.repository.clone(), environment: asked.environment.clone() };
    let grant = caller.may::<View, _>(&lane)?;
    let question = Question {
        purpose: match asked.r#for {
            Wanted::Deploy => Purpose::Deploy,
            Wanted::Rollback => Purpose::Rollback,
        },
        platform: asked.platform.as_ref(),
        registry: app.config.public_url.authority(),
    };
    let good = promotion::known_good(&app.db, &grant, &question).await;
    let mut good = good.map_err(|none| refusal(none, &caller, &asked))?;
    if caller.may::<Pull, _>(&lane.repository).is_err() {
        good.name_by_view(question.registry, &lane);
    }
    if asked.at_risk == OnRisk::Deny && !good.at_risk.is_empty() {
        let detail = format!("{} is at risk in {}", good.reference, asked.environment);
        return Err(Problem::new(StatusCode::CONFLICT, "at-risk", detail)
            .with("reference", json!(good.reference))
            .with("at_risk", json!(good.at_risk)));
    }
    let evaluated_at = good.evaluated_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let (kind, body) = match asked.format {
        Format::Text => ("text/plain; charset=utf-8", format!("{}\n", good.reference).into_bytes()),
        Format::Json => ("application/json", json_of(&good)?),
    };
    let etag = format!("\"{}\"", &Digest::sha256(&body).hex()[..32]);
    // Kept answers must be asked about again: a block counts at once.
    let headers_out = [
        (header::ETAG, etag.as_str()),
        (header::CACHE_CONTROL, "private, no-cache"),
        // The reference differs for callers that may pull from the repository.
        (header::VARY, "authorization"),
        (HeaderName::from_static("proofmark-evaluated-at"), evaluated_at.as_str()),
    ];
    if matches_etag(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers_out).into_response());
    }
    Ok((StatusCode::OK, headers_out, [(header::CONTENT_TYPE, kind)], body).into_response())
}

fn json_of(good: &KnownGood) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(good).map_err(|error| Failure::new("writing an answer", error))
}

fn refusal(none: NoKnownGood, caller: &Caller, asked: &KnownGoodAsked) -> Problem {
    let (repository, environment) = (&asked.repository, &asked.environment);
    let candidates = match none {
        NoKnownGood::Failed(failure) => return failure.into(),
        // Who has no role there does not learn which environments there are.
        NoKnownGood::UnknownEnvironment(known) if caller.authority().is_in(Action::View, environment) => {
            return unknown_environment(caller, environment, known);
        }
        NoKnownGood::UnknownEnvironment(_) => Vec::new(),
        NoKnownGood::Because(candidates) => candidates,
    };
    let detail = match asked.r#for {
        Wanted::Deploy if !candidates.is_empty() => {
            format!("no promoted version of {repository} is good in {environment} now")
        }
        Wanted::Rollback if !candidates.is_empty() => {
            format!("no earlier version of {repository} in {environment} can be rolled back to now")
        }
        Wanted::Deploy => format!("nothing of {repository} was promoted to {environment}"),
        Wanted::Rollback => {
            format!("nothing of {repository} was promoted to {environment} before what is there now")
        }
    };
    Problem::new(StatusCode::NOT_FOUND, "no-known-good", detail).with("candidates", json!(candidates))
}

fn unknown_environment(
    caller: &Caller,
    environment: &EnvironmentName,
    mut known: Vec<EnvironmentName>,
) -> Problem {
    known.retain(|known| caller.authority().is_in(Action::View, known));
    let names = known.iter().map(EnvironmentName::as_str).collect::<Vec<_>>().join(", ");
    let others = if known.is_empty() { String::new() } else { format!("; there are {names}") };
    let detail = format!("there is no environment {environment}{others}");
    Problem::new(StatusCode::NOT_FOUND, "environment-unknown", detail).with("environments", json!(known))
}
