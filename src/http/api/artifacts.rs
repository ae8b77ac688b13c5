//! `/api/v1/artifacts`: any file in with one PUT, and the list of what is there.

use super::Problem;
use super::extract::{Json, Query, Unread};
use crate::access::{Pull, Push};
use crate::app::App;
use crate::clock::Moment;
use crate::content::{self, ArtifactCursor, ArtifactFilter, ArtifactRecord, Filename, OverQuota};
use crate::failure::Failure;
use crate::http::Caller;
use crate::intake::{self, ArtifactRefused, PutFile, Shelf};
use crate::names::{Digest, MediaType, RepositoryName, Tag};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, put))
}

/// What a file is when nobody says; the type that oras gives too.
const UNKNOWN_TYPE: &str = "application/vnd.unknown.artifact.v1";

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PutQuery {
    repository: RepositoryName,
    /// A write-once tag to claim for it.
    version: Option<Tag>,
    /// The file's name as clients will write it [default: the last part of the repository's name].
    filename: Option<String>,
    /// What it is [default: application/vnd.unknown.artifact.v1].
    artifact_type: Option<MediaType>,
    /// The body's digest; other bytes are refused. `Content-Digest` (RFC 9530) says the same.
    digest: Option<Digest>,
}

/// An artifact that is there now.
#[derive(Debug, Serialize, ToSchema)]
struct ArtifactPut {
    repository: RepositoryName,
    digest: Digest,
    version: Option<Tag>,
    /// How OCI clients name it.
    reference: String,
    /// The file's bytes.
    size_bytes: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    repository: RepositoryName,
    /// Only what this tag names.
    version: Option<Tag>,
    /// Only of this type: `artifactType`, or an image's config type.
    artifact_type: Option<String>,
    /// Only what was pushed after this time.
    pushed_after: Option<Moment>,
    /// The `next` of an earlier page.
    cursor: Option<String>,
    /// Maximum number of artifacts in a page [default: 100, at most 1000].
    limit: Option<usize>,
}

/// An artifact: a manifest with what names it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArtifactSummary {
    repository: RepositoryName,
    digest: Digest,
    reference: String,
    media_type: MediaType,
    /// `artifactType`, or an image's config type.
    artifact_type: Option<MediaType>,
    /// The artifact that it refers to.
    subject: Option<Digest>,
    manifest_size_bytes: i64,
    /// With everything that it refers to.
    size_bytes: i64,
    /// The write-once tags that name it.
    versions: Vec<Tag>,
    /// The floating tags that name it now.
    floating_tags: Vec<Tag>,
    pushed_by: String,
    pushed_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Artifacts {
    items: Vec<ArtifactSummary>,
    /// Where to go on; null at the end.
    next: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[allow(missing_docs, reason = "described by its name")]
pub struct WhichQuery {
    pub repository: RepositoryName,
}

/// Stores a file of any size as a one-layer OCI artifact; `curl -T` is enough. The same PUT twice is
/// one artifact.
#[utoipa::path(put, path = "/api/v1/artifacts", tag = "content", params(PutQuery),
    request_body(content = String, content_type = "application/octet-stream", description = "the file"),
    responses((status = 201, body = ArtifactPut),
              (status = 400, description = "`digest-mismatch`, `body-interrupted` or `invalid-request`"),
              (status = 403, description = "`forbidden`"), (status = 404, description = "`not-found`"),
              (status = 409, description = "`version-taken` with `current`, `version-floats`, or `listed-as-blob` with `index`"),
              (status = 413, description = "`file-too-large`"),
              (status = 429, description = "`busy`, with Retry-After")))]
async fn put(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PutQuery>,
    headers: HeaderMap,
    body: Unread,
) -> Result<(StatusCode, Json<ArtifactPut>), Problem> {
    let grant = caller.may::<Push, _>(&query.repository)?;
    let file = describe(&query, &headers)?;
    let _slot = app.uploads.slot(&grant).map_err(|_| busy())?;
    let limits = app.config.limits;
    let shelf = Shelf {
        db: &app.db,
        store: &app.store,
        blob_bytes: limits.blob_bytes,
        blob_grace: app.config.blob_grace,
    };
    let put = intake::put_artifact(shelf, &grant, &file, body.stream(&grant)).await?;
    let reference = reference(&app, &query.repository, &put.digest);
    let document = ArtifactPut {
        repository: query.repository,
        digest: put.digest,
        version: query.version,
        reference,
        size_bytes: put.size_bytes,
    };
    Ok((StatusCode::CREATED, Json(document)))
}

/// A repository's artifacts, newest first.
#[utoipa::path(get, path = "/api/v1/artifacts", tag = "content", params(ListQuery),
    responses((status = 200, body = Artifacts), (status = 404, description = "`not-found`")))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Artifacts>, Problem> {
    caller.may::<Pull, _>(&query.repository)?;
    let after = query.cursor.as_deref().map(parse_cursor).transpose()?;
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let filter = ArtifactFilter {
        version: query.version,
        artifact_type: query.artifact_type,
        pushed_after: query.pushed_after.map(Into::into),
    };
    let mut connection = app.db.pool().acquire().await.map_err(Failure::from)?;
    let found = content::repository(&mut connection, &query.repository).await?;
    let repository = found.ok_or_else(Problem::not_found)?;
    let asked = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut rows = content::artifacts(&mut connection, repository.id, &filter, after.as_ref(), asked).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(cursor);
    let items = rows.into_iter().map(|row| ArtifactSummary::new(&app, &repository.name, row)).collect();
    Ok(Json(Artifacts { items, next }))
}

fn describe(query: &PutQuery, headers: &HeaderMap) -> Result<PutFile, Problem> {
    let filename = match &query.filename {
        None => Filename::of_repository(&query.repository),
        Some(text) => text.parse().map_err(|error| Problem::invalid(format!("filename: {error}")))?,
    };
    let artifact_type = match &query.artifact_type {
        None => UNKNOWN_TYPE.parse().map_err(|error| Failure::new("naming an artifact's type", error))?,
        Some(given) => given.clone(),
    };
    let mut announced: Vec<Digest> = query.digest.iter().cloned().collect();
    announced.extend(content_digests(headers)?);
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let declared_bytes = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    Ok(PutFile { version: query.version.clone(), filename, artifact_type, announced, declared_bytes })
}

/// RFC 9530: `sha-256=:<base64>:, sha-512=:<base64>:`; other algorithms are ignored.
fn content_digests(headers: &HeaderMap) -> Result<Vec<Digest>, Problem> {
    let malformed = || Problem::invalid("Content-Digest is written sha-256=:<base64>: (RFC 9530)");
    let mut digests = Vec::new();
    for value in headers.get_all("content-digest") {
        for member in value.to_str().map_err(|_| malformed())?.split(',') {
            let (algorithm, rest) = member.trim().split_once('=').ok_or_else(malformed)?;
            let algorithm = match algorithm {
                "sha-256" => "sha256",
                "sha-512" => "sha512",
                _ => continue,
            };
            let base64 =
                rest.strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).ok_or_else(malformed)?;
            let bytes = STANDARD.decode(base64).map_err(|_| malformed())?;
            digests.push(format!("{algorithm}:{}", hex::encode(bytes)).parse().map_err(|_| malformed())?);
        }
    }
    Ok(digests)
}

fn cursor(row: &ArtifactRecord) -> String {
    format!("{}~{}", row.pushed_at.to_rfc3339_opts(SecondsFormat::Micros, true), row.digest)
}

fn parse_cursor(text: &str) -> Result<ArtifactCursor, Problem> {
    let parsed = text.split_once('~').and_then(|(at, digest)| {
        Some((DateTime::parse_from_rfc3339(at).ok()?.with_timezone(&Utc), digest.parse().ok()?))
    });
    parsed.ok_or_else(|| Problem::invalid("cursor is the next of an earlier page"))
}

/// `<host>/<repository>@<digest>`, as OCI clients write it.
fn reference(app: &App, repository: &RepositoryName, digest: &Digest) -> String {
    let host = app.config.public_url.authority();
    format!("{host}/{repository}@{digest}")
}

impl ArtifactSummary {
    pub(super) fn new(app: &App, repository: &RepositoryName, row: ArtifactRecord) -> Self {
        Self {
            repository: repository.clone(),
            reference: reference(app, repository, &row.digest),
            digest: row.digest,
            media_type: row.media_type,
            artifact_type: row.artifact_type,
            subject: row.subject,
            manifest_size_bytes: row.manifest_size_bytes,
            size_bytes: row.total_size_bytes,
            versions: row.versions,
            floating_tags: row.floating_tags,
            pushed_by: row.pushed_by,
            pushed_at: row.pushed_at,
        }
    }
}

impl From<ArtifactRefused> for Problem {
    fn from(refused: ArtifactRefused) -> Self {
        let text = refused.to_string();
        match refused {
            ArtifactRefused::VersionTaken { version, current, hidden } => {
                Self::new(StatusCode::CONFLICT, "version-taken", text)
                    .with("version", version.as_str())
                    .with("current", current.as_str())
                    .with("deleted", hidden)
            }
            ArtifactRefused::VersionFloats(version) => {
                Self::new(StatusCode::CONFLICT, "version-floats", text).with("version", version.as_str())
            }
            ArtifactRefused::ListedAsBlob { index, .. } => {
                Self::new(StatusCode::CONFLICT, "listed-as-blob", text).with("index", index.as_str())
            }
            ArtifactRefused::WrongDigest { actual, .. } => {
                Self::new(StatusCode::BAD_REQUEST, "digest-mismatch", text).with("actual", actual.as_str())
            }
            ArtifactRefused::TooLarge { limit_bytes } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "file-too-large", text)
                    .with("limit_bytes", limit_bytes)
            }
            ArtifactRefused::OverQuota(over) => over.into(),
            ArtifactRefused::Interrupted(_) => Self::new(StatusCode::BAD_REQUEST, "body-interrupted", text),
            ArtifactRefused::Failed(failure) => failure.into(),
        }
    }
}

impl From<OverQuota> for Problem {
    fn from(over: OverQuota) -> Self {
        Self::new(StatusCode::CONFLICT, "quota-exceeded", over.to_string())
            .with("quota_bytes", over.quota_bytes)
            .with("used_bytes", over.used_bytes)
    }
}

fn busy() -> Problem {
    let text = "as many uploads as this service takes are under way; try again";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", text)
        .header(header::RETRY_AFTER, HeaderValue::from_static("2"))
}
