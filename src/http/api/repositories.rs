//! `/api/v1/repositories`: which there are, and the rules of each.

use super::Problem;
use super::extract::{Json, Query, Unread};
use crate::access::{Action, Administer, Scope};
use crate::app::App;
use crate::content::{self, Change, RepositoryRecord, Retention, Rules};
use crate::failure::Failure;
use crate::http::Caller;
use crate::jobs;
use crate::names::{Pattern, RepositoryName};
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, put))
}

/// Rules about tags.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TagRules {
    /// Globs over tags that may move; every other tag is write-once, and stays so even when a later
    /// rule lets its name float. cosign's tags and the referrers fallback (`sha256-<hex>.sig`, `.att`, `.sbom`,
    /// `sha256-<hex>`, `sha512-<hex>`) may move in every repository: an answer lists their patterns too, and a
    /// request need not. An empty list adds none.
    floating: Vec<Pattern>,
}

/// A repository as it should be. What is absent stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RepositoryRequest {
    name: RepositoryName,
    /// What people read about it, at most 4096 characters.
    description: Option<String>,
    tags: Option<TagRules>,
    /// Bytes that its blobs and manifests may have; null takes the bound away.
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    quota_bytes: Change<i64>,
    /// Bytes of evidence (envelopes and scan reports as received) that it may hold; null is the default: a tenth of
    /// `quota_bytes` and at least 64 MiB, and `PROOFMARK_EVIDENCE_BYTES` without a quota.
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    evidence_quota_bytes: Change<i64>,
    /// What is kept of its versions. `GET /api/v1/retention` says what would go; nothing does before
    /// `enforce` is true. Null keeps everything.
    #[serde(default)]
    #[schema(value_type = Option<Retention>)]
    retention: Change<Retention>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RepositoryDocument {
    name: RepositoryName,
    description: String,
    tags: TagRules,
    /// Bytes that it may hold; null is no bound.
    quota_bytes: Option<i64>,
    /// Bytes that it holds, blobs and manifests.
    used_bytes: i64,
    /// Bytes of evidence that it may hold; null is the default.
    evidence_quota_bytes: Option<i64>,
    /// Bytes of evidence that it holds: envelopes and scan reports that its manifests carry.
    evidence_used_bytes: i64,
    /// What is kept of its versions; null is everything.
    retention: Option<Retention>,
    created_by: String,
    created_at: DateTime<Utc>,
}

impl From<RepositoryRecord> for RepositoryDocument {
    fn from(record: RepositoryRecord) -> Self {
        Self {
            name: record.name,
            description: record.description,
            tags: TagRules { floating: content::all_floating(record.floating) },
            quota_bytes: record.quota_bytes,
            used_bytes: record.used_bytes,
            evidence_quota_bytes: record.evidence_quota_bytes,
            evidence_used_bytes: record.evidence_used_bytes,
            retention: record.retention.map(|json| json.0),
            created_by: record.created_by,
            created_at: record.created_at,
        }
    }
}

/// A repository after its rules were put.
#[derive(Debug, Serialize, ToSchema)]
struct RepositoryPut {
    #[serde(flatten)]
    repository: RepositoryDocument,
    /// How many floating names the new rules made write-once, each for the digest it had.
    frozen: usize,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only the repository of this name.
    name: Option<RepositoryName>,
    /// The `next` of an earlier page.
    cursor: Option<RepositoryName>,
    /// Maximum number of repositories in a page [default: 100, at most 1000].
    limit: Option<usize>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Repositories {
    items: Vec<RepositoryDocument>,
    /// Where to go on; null at the end.
    next: Option<String>,
}

const MAX_DESCRIPTION: usize = 4096;

/// Bytes of a quota at the most: the greatest whole number that every reader of JSON takes for itself
/// (RFC 8259, section 6), the log's canonical JSON too.
const MAX_QUOTA: i64 = (1 << 53) - 1;

/// The repositories that you may pull from, by name.
#[utoipa::path(get, path = "/api/v1/repositories", tag = "content", params(ListQuery),
    responses((status = 200, body = Repositories)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Repositories>, Problem> {
    let visible = |name: &RepositoryName| caller.allows(Action::Pull, name.place());
    let mut connection = app.db.pool().acquire().await.map_err(Failure::from)?;
    if let Some(name) = query.name {
        let found =
            if visible(&name) { content::repository_record(&mut connection, &name).await? } else { None };
        let items = found.into_iter().map(RepositoryDocument::from).collect();
        return Ok(Json(Repositories { items, next: None }));
    }
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let patterns = caller.authority().patterns(Action::Pull);
    let last = query.cursor.as_ref().map_or("", RepositoryName::as_str);
    let mut rows =
        content::visible_repositories(&mut connection, &patterns, visible, last, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.name.to_string());
    Ok(Json(Repositories { items: rows.into_iter().map(RepositoryDocument::from).collect(), next }))
}

/// Makes a repository or changes its rules. No change lets a write-once name move: a name that
/// floated and may not any more stays at its present digest for ever.
#[utoipa::path(put, path = "/api/v1/repositories", tag = "content", request_body = RepositoryRequest,
    responses((status = 200, description = "changed", body = RepositoryPut),
              (status = 201, description = "made", body = RepositoryPut),
              (status = 403, description = "`forbidden`"), (status = 404, description = "`not-found`")))]
async fn put(
    State(app): State<App>,
    caller: Caller,
    body: Unread,
) -> Result<(StatusCode, Json<RepositoryPut>), Problem> {
    let request: RepositoryRequest = body.json(&caller.somewhere::<Administer>()?).await?;
    let grant = caller.may::<Administer, _>(&request.name)?;
    if let Some(text) = &request.description
        && (text.chars().count() > MAX_DESCRIPTION || text.contains('\0'))
    {
        return Err(Problem::invalid(format!(
            "a description has at most {MAX_DESCRIPTION} characters, none NUL"
        )));
    }
    let quotas = [
        ("quota_bytes", &request.quota_bytes, "no bound"),
        ("evidence_quota_bytes", &request.evidence_quota_bytes, "the default"),
    ];
    for (name, quota, null) in quotas {
        if quota.value().is_some_and(|bytes| !(0..=MAX_QUOTA).contains(bytes)) {
            return Err(Problem::invalid(format!(
                "{name} is a number of bytes, at most {MAX_QUOTA}, or null for {null}"
            )));
        }
    }
    let rules = Rules {
        description: request.description,
        floating: request.tags.map(|tags| tags.floating),
        quota_bytes: request.quota_bytes,
        evidence_quota_bytes: request.evidence_quota_bytes,
        retention: request.retention,
    };
    if let Some(retention) = rules.retention.value() {
        check(retention)?;
    }
    let put = content::put_repository(&app.db, &grant, &rules).await?;
    if rules.retention.value().is_some_and(|retention| retention.enforce) {
        jobs::want(&mut *app.db.acquire().await?, jobs::RETENTION).await?;
    }
    let status = if put.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(RepositoryPut { repository: put.record.into(), frozen: put.frozen })))
}

/// Rules of a retention, and tags of a rule, at the most.
const MAX_RULES: usize = 100;

fn check(retention: &Retention) -> Result<(), Problem> {
    let tags = |tags: usize| (1..=MAX_RULES).contains(&tags);
    if retention.rules.len() <= MAX_RULES && retention.rules.iter().all(|rule| tags(rule.tags.len())) {
        return Ok(());
    }
    Err(Problem::invalid(format!("retention has at most {MAX_RULES} rules, each with 1 to {MAX_RULES} tags")))
}
