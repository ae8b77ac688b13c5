//! `/api/v1/artifacts/{digest}`: one artifact with all that is said about it.

use super::Problem;
use super::answers::Prepared;
use super::artifact_content;
use super::artifacts::{ArtifactSummary, WhichQuery};
use super::attestations::AttestationRecord;
use super::extract::{Json, Path, Query};
use super::scans::ScanItem;
use crate::access::{Lane, View};
use crate::app::App;
use crate::attestation::{self, AttestationFilter};
use crate::content::{self, Manifest, REFERRERS_BYTES};
use crate::evidence::{self, Among, RunsQuestion};
use crate::http::Caller;
use crate::http::body::NotTaken;
use crate::names::{Digest, EnvironmentName, MediaType, RepositoryName, Tag};
use crate::policy::Verdict;
use crate::promotion::{self, What};
use axum::Extension;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(record))
}

/// A layer, as a file.
#[derive(Debug, Serialize, ToSchema)]
struct ArtifactFile {
    filename: Option<String>,
    digest: Digest,
    size_bytes: i64,
    media_type: MediaType,
}

/// What refers to an artifact: attestations, scan reports, SBOMs, signatures.
#[derive(Debug, Serialize, ToSchema)]
struct ArtifactReferrer {
    digest: Digest,
    artifact_type: Option<MediaType>,
    size_bytes: i64,
}

/// How an artifact stands in an environment, judged now.
#[derive(Debug, Serialize, ToSchema)]
struct ArtifactStanding {
    environment: EnvironmentName,
    /// Whether it may run there: `allow`, `deny`, or `defer` with `until`.
    #[serde(flatten)]
    verdict: Verdict,
    /// When it was promoted there; null when it never was.
    promoted_at: Option<DateTime<Utc>>,
    /// The version it was promoted as.
    version: Option<Tag>,
    /// The promoted index that it is a child of, when it was not promoted itself.
    index: Option<Digest>,
    /// The decision that allowed its promotion.
    decision_id: Option<Digest>,
    /// Why it may not run.
    reasons: Vec<String>,
    /// What holds for now but will not for ever.
    warnings: Vec<String>,
}

/// An artifact with what it holds and what is said about it.
#[derive(Debug, Serialize, ToSchema)]
struct ArtifactDetail {
    #[serde(flatten)]
    artifact: ArtifactSummary,
    sha256: Digest,
    sha512: Digest,
    /// Its layers.
    files: Vec<ArtifactFile>,
    /// The first thousand, or of large manifests those of the first mebibyte; the referrers API of OCI has all.
    referrers: Vec<ArtifactReferrer>,
    /// The newest hundred, each with its verdict; `/api/v1/attestations` has all.
    attestations: Vec<AttestationRecord>,
    /// The newest hundred; `/api/v1/scans` has all.
    scans: Vec<ScanItem>,
    /// In every environment that the caller has a right in.
    standing: Vec<ArtifactStanding>,
}

/// One artifact: what it is, who pushed it, which versions name it, what is attested about it and how
/// far that is believed, its scans, and how it stands in each environment. Any digest of the manifest's
/// bytes finds it.
#[utoipa::path(get, path = "/api/v1/artifacts/{digest}", tag = "content",
    params(("digest" = Digest, Path, description = "the manifest's digest"), WhichQuery),
    responses((status = 200, body = ArtifactDetail), (status = 404, description = "`not-found`")))]
async fn record(
    State(app): State<App>,
    caller: Caller,
    Path(digest): Path<Digest>,
    Query(which): Query<WhichQuery>,
) -> Result<(Extension<Prepared>, Json<ArtifactDetail>), Problem> {
    const REFERRERS: i64 = 1000;
    const NEWEST: i64 = 100;
    let grant = caller.may(&which.repository)?;
    let (found, manifest, mut room) = artifact_content::manifest(&app, &caller, &grant, digest).await?;
    let files = manifest.layers()?.into_iter().map(ArtifactFile::from).collect();
    let Manifest { sha256, sha512, .. } = manifest;
    // Until the answer is made of them: what a page of referrers takes at the most, unless one is larger.
    room.shrink(REFERRERS_BYTES);
    room.grow(REFERRERS_BYTES.min(room.most_bytes())).await.map_err(NotTaken::from)?;
    let (repository_id, digest) = (found.repository_id, found.digest);
    let mut connection = app.db.acquire().await?;
    let row = content::artifact(&mut connection, repository_id, &digest).await?;
    let row = row.ok_or_else(Problem::not_found)?;
    let referrers = content::referrers(&mut connection, repository_id, &digest, None, "", REFERRERS).await?;
    let about =
        AttestationFilter { digest: Some(digest.clone()), limit: NEWEST, ..AttestationFilter::default() };
    let attestations = attestation::attestations(&mut connection, &[repository_id], &about).await?;
    let among = Among::These(vec![repository_id]);
    let of = RunsQuestion { among, digest: Some(digest.clone()), scanner: None, before: None, limit: NEWEST };
    let scans = evidence::runs(&mut connection, &of).await?;
    drop(connection);
    let detail = ArtifactDetail {
        artifact: ArtifactSummary::new(&app, &which.repository, row),
        files,
        sha256,
        sha512,
        referrers: referrers.page.into_iter().map(ArtifactReferrer::from).collect(),
        attestations: attestations.into_iter().map(AttestationRecord::from).collect(),
        scans: scans.into_iter().map(ScanItem::from).collect(),
        standing: standing(&app, &caller, &which.repository, digest).await?,
    };
    Ok((Prepared::of(room), Json(detail)))
}

/// Asked as deployers ask, environment by environment; those that the caller has no right in are left out.
async fn standing(
    app: &App,
    caller: &Caller,
    repository: &RepositoryName,
    digest: Digest,
) -> Result<Vec<ArtifactStanding>, Problem> {
    let what = What::Digest(digest);
    let mut standing = Vec::new();
    for environment in promotion::environments(&app.db, "", i64::MAX).await? {
        let lane = Lane { repository: repository.clone(), environment: environment.name.clone() };
        let Ok(grant) = caller.may::<View, _>(&lane) else { continue };
        let now = promotion::verify(&app.db, &grant, &what).await?;
        standing.push(ArtifactStanding {
            environment: environment.name,
            verdict: now.verdict,
            promoted_at: now.promoted_at,
            version: now.version,
            index: now.index,
            decision_id: now.decision_id,
            reasons: now.reasons,
            warnings: now.warnings,
        });
    }
    Ok(standing)
}

impl From<content::StoredLayer> for ArtifactFile {
    fn from(layer: content::StoredLayer) -> Self {
        Self {
            filename: layer.title().map(str::to_owned),
            digest: layer.digest,
            size_bytes: layer.size_bytes,
            media_type: layer.media_type,
        }
    }
}

impl From<content::Referrer> for ArtifactReferrer {
    fn from(row: content::Referrer) -> Self {
        Self { digest: row.digest, artifact_type: row.artifact_type, size_bytes: row.size_bytes }
    }
}
