//! `/api/v1/attestations`: who signed what about which artifact.

use super::Problem;
use super::answers::Prepared;
use super::extract::{Json, Path, Query, Unread};
use crate::access::{Action, Attest, InEnvironment, Place, Pull};
use crate::app::App;
use crate::attestation::{self, AttestationFilter, Listed, Verdict};
use crate::content;
use crate::failure::Failure;
use crate::http::Caller;
use crate::http::body::NotTaken;
use crate::intake::{self, AttestRefused, Attested};
use crate::names::{Digest, RepositoryName, SourceUri};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_attestations, attest)).routes(routes!(read_attestation))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Where {
    /// The repository that has the subject.
    repository: RepositoryName,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only in this repository; in every one that the caller may read when absent.
    repository: Option<RepositoryName>,
    /// Only about this artifact, or pushed beside it.
    digest: Option<Digest>,
    /// Only of this predicate type.
    predicate_type: Option<String>,
    /// Only signed by this signer.
    signer: Option<String>,
    /// Only provenance by this builder.
    builder: Option<String>,
    /// Only provenance from this source, in whatever spelling, without its ref.
    source: Option<String>,
    /// Only provenance of this ref, such as `refs/heads/main`.
    #[serde(rename = "ref")]
    #[param(rename = "ref")]
    reference: Option<String>,
    /// Only provenance of this commit.
    commit: Option<String>,
    /// Only provenance with this material, by URI or by digest (`sha256:...`, `gitCommit:...`).
    material: Option<String>,
    /// The `next` of the page before.
    cursor: Option<i64>,
    /// Attestations of one page, 1 to 1000; 100 when absent.
    limit: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AttestedRecord {
    id: i64,
    /// The digest of the bytes as they were received.
    envelope_digest: Digest,
    /// The OCI manifest that carries it and refers to the subject.
    manifest: Digest,
    subjects: Vec<Digest>,
    predicate_type: String,
    /// The signer that is trusted for it.
    signer: String,
    /// What makes it count for less than it may seem to: a vulnerability report that makes no scan, and why.
    warnings: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttestationRecord {
    id: i64,
    repository: RepositoryName,
    /// The OCI manifest that carries it.
    manifest: Digest,
    /// The digest of the bytes as they were received; null when there is nothing to verify.
    envelope_digest: Option<Digest>,
    /// What the payload says it is about, at most 100.
    subjects: Vec<Digest>,
    /// What the payload says it is; believed only when the verdict is `trusted`, as all that follows.
    predicate_type: Option<String>,
    /// `trusted`: counts. `pending`: a key signed it that is being verified; counts when that is done.
    /// `untrusted`: readable, and does not count, because no registered key signed it or its signer is not trusted for
    /// it. `malformed`: cannot be read. `opaque`: nothing to verify.
    #[schema(value_type = String, example = "trusted")]
    verdict: Verdict,
    /// Why the verdict is not `trusted`.
    reason: Option<String>,
    /// The signer that is trusted for it, or one that signed it.
    signer: Option<String>,
    /// The signer's key.
    key_id: Option<String>,
    builder: Option<String>,
    /// Of provenance: the build type, by whose rules source, ref and commit are read. What it does not define is null.
    build_type: Option<String>,
    /// `scheme://host/path`, in one spelling for each repository.
    source: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    commit: Option<String>,
    result: Option<String>,
    received_by: String,
    received_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Attestations {
    items: Vec<AttestationRecord>,
    /// The cursor of the next page; null at the end.
    next: Option<String>,
}

/// Records signed statements: a DSSE envelope, a Sigstore bundle, JSON lines or a JSON list of them, or the answer of
/// GitHub's or npm's attestations API (`{"attestations": [{"bundle": ...}]}`); all of a body or none. Each document is
/// kept as the bytes that stand there, and must be signed by a signer that is trusted for it. A byte order mark before
/// UTF-8 is left out. No address in a body is followed.
#[utoipa::path(post, path = "/api/v1/attestations", tag = "attestations", params(Where),
    request_body(content = Vec<u8>, content_type = "application/json",
                 description = "A DSSE envelope, a Sigstore bundle, JSON lines or a list of either, or \
                 `{\"attestations\": [{\"bundle\": ...}]}`"),
    responses((status = 201, body = Vec<AttestedRecord>), (status = 404),
              (status = 409, description = "`quota-exceeded`: the quota of evidence; never for a FAILED"),
              (status = 422, description = "`signature-not-trusted`, `subject-unknown`, `malformed-envelope`"),
              (status = 408, description = "`body-too-slow`"), (status = 413, description = "`document-too-large`"),
              (status = 503, description = "`overloaded`, with Retry-After")))]
async fn attest(
    State(app): State<App>,
    caller: Caller,
    Query(place): Query<Where>,
    body: Unread,
) -> Result<(StatusCode, Json<Vec<AttestedRecord>>), Problem> {
    let grant = caller.may::<Attest, _>(&place.repository)?;
    let body = body.document(&grant).await?;
    let attested =
        intake::attest(&app.db, &app.store, app.scan_reading(), app.config.blob_grace, &grant, &body).await?;
    Ok((StatusCode::CREATED, Json(attested.into_iter().map(AttestedRecord::from).collect())))
}

/// Attestations with how far each is believed, the newest first. The verdict is judged now.
#[utoipa::path(get, path = "/api/v1/attestations", tag = "attestations", params(Which),
    responses((status = 200, body = Attestations), (status = 404)))]
async fn list_attestations(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Attestations>, Problem> {
    let limit = which.limit.unwrap_or(100).clamp(1, 1000);
    let mut connection = app.db.pool().acquire().await.map_err(Failure::from)?;
    let repositories = match &which.repository {
        Some(name) => {
            caller.may::<Pull, _>(name)?;
            content::repository(&mut connection, name).await?.into_iter().map(|found| found.id).collect()
        }
        None => readable(&mut connection, &caller).await?,
    };
    let filter = AttestationFilter {
        digest: which.digest,
        predicate_type: which.predicate_type,
        signer: which.signer,
        builder: which.builder,
        source: which.source.map(|text| match SourceUri::with_ref(&text) {
            Some((source, _)) => source.to_string(),
            None => text,
        }),
        source_ref: which.reference,
        commit: which.commit.map(|commit| commit.to_ascii_lowercase()),
        material: which.material,
        before: which.cursor,
        limit,
    };
    let listed = attestation::attestations(&mut connection, &repositories, &filter).await?;
    let full = i64::try_from(listed.len()).is_ok_and(|len| len == limit);
    let next = listed.last().filter(|_| full).map(|last| last.id.to_string());
    Ok(Json(Attestations { items: listed.into_iter().map(AttestationRecord::from).collect(), next }))
}

/// The bytes of an attestation, exactly as they were received.
#[utoipa::path(get, path = "/api/v1/attestations/{id}", tag = "attestations", params(("id" = i64, Path)),
    responses((status = 200, description = "A DSSE envelope, a Sigstore bundle, or a simple signing payload"),
              (status = 404)))]
async fn read_attestation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    let found = attestation::home(&mut *app.db.acquire().await?, id).await?;
    let (repository, size_bytes) = found.ok_or_else(Problem::not_found)?;
    let grant = caller.may::<Pull, _>(&repository)?;
    let mut room = caller.answer_room(&app).take();
    room.grow(size_bytes).await.map_err(NotTaken::from)?;
    let found = attestation::envelope(&mut *app.db.acquire().await?, &grant, id).await?;
    let (media_type, bytes) = found.ok_or_else(Problem::not_found)?;
    Ok((Prepared::of(room), [(header::CONTENT_TYPE, media_type)], bytes).into_response())
}

/// The repositories in which the caller may read.
async fn readable(connection: &mut sqlx::PgConnection, caller: &Caller) -> Result<Vec<i64>, Failure> {
    let patterns = caller.authority().patterns(Action::Pull);
    let visible = |name: &RepositoryName| {
        let place = Place { repository: Some(name), environment: InEnvironment::Regardless };
        caller.allows(Action::Pull, place)
    };
    let found = content::visible_repositories(connection, &patterns, visible, "", usize::MAX >> 1).await?;
    Ok(found.into_iter().map(|repository| repository.id).collect())
}

impl From<Attested> for AttestedRecord {
    fn from(attested: Attested) -> Self {
        let Attested { id, envelope, manifest, subjects, predicate_type, signer, warnings } = attested;
        Self { id, envelope_digest: envelope, manifest, subjects, predicate_type, signer, warnings }
    }
}

impl From<Listed> for AttestationRecord {
    fn from(listed: Listed) -> Self {
        Self {
            id: listed.id,
            repository: listed.repository,
            manifest: listed.manifest,
            envelope_digest: listed.envelope,
            subjects: listed.subjects,
            predicate_type: listed.predicate_type,
            verdict: listed.verdict,
            reason: listed.reason,
            signer: listed.signer,
            key_id: listed.key_id,
            builder: listed.builder,
            build_type: listed.build_type,
            source: listed.source,
            reference: listed.source_ref,
            commit: listed.commit,
            result: listed.result,
            received_by: listed.received_by,
            received_at: listed.received_at,
        }
    }
}

impl From<AttestRefused> for Problem {
    fn from(refused: AttestRefused) -> Self {
        let code = match refused {
            AttestRefused::Failed(failure) => return failure.into(),
            AttestRefused::OverQuota(over) => return over.into(),
            AttestRefused::RepositoryUnknown => return Self::not_found(),
            AttestRefused::Malformed(_) => "malformed-envelope",
            AttestRefused::NotTrusted(_) => "signature-not-trusted",
            AttestRefused::SubjectUnknown(_) => "subject-unknown",
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, refused.to_string())
    }
}
