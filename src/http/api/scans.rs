//! `/api/v1/scans` and `/api/v1/findings`.

use super::Problem;
use super::approvals::Revocation;
use super::extract::{Json, Path, Query, Unread};
use crate::access::{Action, InEnvironment, Lane, Place, Pull, Revoke};
use crate::app::App;
use crate::clock::Moment;
use crate::content;
use crate::evidence::{
    self, Among, BoundBy, Class, FindingsQuestion, Found, FoundAt, NotBound, Recorded, Retraction, Run,
    RunsQuestion, Scope, Severity,
};
use crate::http::Caller;
use crate::intake::{self, RecordScan, ScanRefused};
use crate::names::{Digest, EnvironmentName, RepositoryName, ScannerName};
use crate::postgres::Db;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, record)).routes(routes!(retract)).routes(routes!(findings))
}

/// Items of a page when the caller does not say, and at the most.
const PAGE: (i64, i64) = (100, 1000);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RecordQuery {
    /// The repository of the artifact that was scanned.
    repository: RepositoryName,
    /// The artifact's digest. Of an index the report counts for the image that it names. What the report states
    /// of the configuration, the manifest, the platform and the kind of thing that was scanned must agree.
    digest: Digest,
    /// Another name to record the scanner by, such as `sample`. It may only re-name to a name that no
    /// known scanner bears, so what is sent under it never passes for a report of Trivy or Grype.
    scanner: Option<ScannerName>,
    /// How new the scanner's vulnerability database was. Only for reports that do not say (Trivy's
    /// without its `VulnerabilityDB`); where one does, the report is believed.
    database_updated_at: Option<Moment>,
    /// What the scanner looked for, separated by commas: `vulnerabilities`, `secrets`, `misconfigurations`,
    /// `licenses`. Only for reports that do not state it, such as an empty one of Trivy; it is recorded as the
    /// uploader's word.
    kinds: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ScanRecorded {
    id: i64,
    repository: RepositoryName,
    /// What it counts for. Of an index it is the image that the report names.
    digest: Digest,
    scanner: ScannerName,
    scanner_version: String,
    database_updated_at: Option<DateTime<Utc>>,
    /// Open findings by severity, and how many the scanner itself suppressed.
    counts: BTreeMap<&'static str, usize>,
    /// The digest of the findings: two runs that found the same have the same.
    finding_set: Digest,
    /// The OCI artifact that keeps the raw report and refers to what was scanned.
    report: Digest,
    /// What the run looked at, as far as the report states it.
    scope: Scope,
    /// By what the report names what was scanned: `config` (the digest of the image's configuration), `manifest`,
    /// `platform` (an index, and the platform there) or `file`; null where only the uploader names it.
    bound_by: Option<&'static str>,
    /// What makes the report count for less than it may seem to.
    warnings: Vec<String>,
}

/// Records a scanner's report about an artifact. The report is known by its content: Trivy's JSON
/// (schema version 2) and Grype's JSON are accepted.
#[utoipa::path(post, path = "/api/v1/scans", tag = "evidence", params(RecordQuery),
    request_body(content = Object, description = "the report, exactly as the scanner wrote it"),
    responses((status = 201, body = ScanRecorded),
        (status = 200, body = ScanRecorded, description = "this very report was recorded before"),
        (status = 400, description = "`invalid-request`"), (status = 403), (status = 404),
        (status = 413, description = "`document-too-large`, `too-many-findings`"),
        (status = 408, description = "`body-too-slow`"),
        (status = 409, description = "`quota-exceeded`: the quota of evidence; never for a version that was promoted"),
        (status = 422, description = "`report-unreadable`, `scanner-name-reserved`, `subject-unknown`, `subject-differs`, \
            `subject-ambiguous`, `report-from-the-future`"),
        (status = 503, description = "`overloaded`, with Retry-After")))]
async fn record(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<RecordQuery>,
    body: Unread,
) -> Result<(StatusCode, Json<ScanRecorded>), Problem> {
    let grant = caller.may(&query.repository)?;
    let report = body.document(&grant).await?;
    let RecordQuery { repository, digest: subject, scanner, database_updated_at, kinds } = query;
    let database_updated_at = database_updated_at.map(Into::into);
    let kinds = kinds_of(kinds.as_deref())?;
    let scan = RecordScan { subject, report, scanner, database_updated_at, kinds };
    let rules = intake::ScanRules { reading: app.scan_reading(), grace: app.config.blob_grace };
    let recorded = intake::record_scan(&app.db, &app.store, rules, &grant, scan).await?;
    let (status, id) = match recorded.run {
        Recorded::New(id) => (StatusCode::CREATED, id),
        Recorded::Known(id) => (StatusCode::OK, id),
    };
    let recorded = ScanRecorded {
        id,
        repository,
        digest: recorded.digest,
        scanner: recorded.scanner,
        scanner_version: recorded.scanner_version,
        database_updated_at: recorded.database_updated_at,
        counts: recorded.counts,
        finding_set: recorded.finding_set,
        report: recorded.report,
        scope: recorded.scope,
        bound_by: recorded.bound_by.map(BoundBy::as_str),
        warnings: recorded.warnings,
    };
    Ok((status, Json(recorded)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only this repository; otherwise every one that the caller may pull from.
    repository: Option<RepositoryName>,
    /// Only scans of this artifact.
    digest: Option<Digest>,
    /// Only by this scanner.
    scanner: Option<ScannerName>,
    /// The `next` of an earlier page.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000].
    limit: Option<i64>,
}

/// A scan as it was recorded.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScanItem {
    id: i64,
    repository: RepositoryName,
    digest: Digest,
    scanner: ScannerName,
    scanner_version: String,
    database_updated_at: Option<DateTime<Utc>>,
    scanned_at: DateTime<Utc>,
    received_at: DateTime<Utc>,
    received_by: String,
    /// Open findings by severity, and how many the scanner itself suppressed.
    counts: Value,
    finding_set: Digest,
    /// The OCI artifact that keeps the raw report. Retention deletes it of runs that are superseded.
    report: Digest,
    /// What the run looked at, as far as the report states it; null for runs recorded before it was read.
    #[schema(value_type = Option<Scope>)]
    scope: Option<sqlx::types::Json<Scope>>,
    /// By what the report names what was scanned: `config`, `manifest`, `platform` or `file`; null where only the
    /// uploader names it.
    bound_by: Option<String>,
    /// The kinds and targets for which no newer run took its place: `vulnerabilities`, `vulnerabilities/os`,
    /// `vulnerabilities/libraries`, `secrets`, `misconfigurations`, `licenses`.
    current_for: Vec<String>,
    /// The digest of the envelope, where the report is a signed statement.
    statement: Option<Digest>,
    /// Why it was retracted; null when it was not.
    #[schema(value_type = Option<Retraction>)]
    retraction: Option<sqlx::types::Json<Retraction>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Scans {
    items: Vec<ScanItem>,
    /// Where to go on; null at the end.
    next: Option<String>,
}

/// Scans, the newest first.
#[utoipa::path(get, path = "/api/v1/scans", tag = "evidence", params(ListQuery),
    responses((status = 200, body = Scans), (status = 400, description = "`invalid-request`"), (status = 404)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Scans>, Problem> {
    let limit = page_limit(query.limit);
    let among = among(&app, &caller, query.repository.as_ref(), None).await?;
    let before =
        query.cursor.as_deref().map(|cursor| cursor.parse().map_err(|_| bad_cursor())).transpose()?;
    let question = RunsQuestion { among, digest: query.digest, scanner: query.scanner, before, limit };
    let runs = evidence::runs(&mut *app.db.acquire().await?, &question).await?;
    let next = full(&runs, limit).map(|last| last.id.to_string());
    Ok(Json(Scans { items: runs.into_iter().map(ScanItem::from).collect(), next }))
}

/// Retracts a scan that should not count, and keeps its record. It makes no image scanned any more, and the
/// scans whose place it took count again. What it found counts until a newer scan of the same kind and target
/// by the same scanner takes its place. This needs the right to revoke: administrators and `security` have it.
#[utoipa::path(post, path = "/api/v1/scans/{id}/revocation", tag = "evidence",
    request_body = Revocation,
    params(("id" = i64, Path), ("Idempotency-Key" = Option<String>, Header, description = "a repetition under the same key is answered, not done again")),
    responses((status = 200, body = ScanItem), (status = 400, description = "`invalid-request`"), (status = 403),
        (status = 404)))]
async fn retract(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
    body: Unread,
) -> Result<Response, Problem> {
    let repository = evidence::repository_of(&mut *app.db.acquire().await?, id).await?;
    let repository = repository.ok_or_else(Problem::not_found)?;
    let grant = caller.may::<Revoke, _>(&repository)?;
    let once = body.once(&grant).await?;
    let request: Revocation = once.json()?;
    let act = |db: Db| async move {
        let run = intake::retract_scan(&db, &grant, id, request.reason.as_str()).await?;
        Ok::<_, Problem>((StatusCode::OK, ScanItem::from(run)))
    };
    once.answer(&app, &caller, act).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FindingsQuery {
    /// Only this repository; otherwise every one that the caller may pull from.
    repository: Option<RepositoryName>,
    /// Only findings in this artifact.
    digest: Option<Digest>,
    /// Only of this scan; otherwise of the scans that count: for each image, scanner, kind and target the newest.
    scan: Option<i64>,
    /// Only by this scanner.
    scanner: Option<ScannerName>,
    /// Only known by this name or alias, such as CVE-2021-44228 or GHSA-jfh8-c2jp-5v3q.
    vulnerability: Option<String>,
    /// Only of these severities, separated by commas.
    severity: Option<String>,
    /// Only in what is promoted to this environment now.
    environment: Option<EnvironmentName>,
    /// With what the scanner itself suppressed [default: false].
    #[serde(default)]
    suppressed: bool,
    /// The `next` of an earlier page.
    cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000].
    limit: Option<i64>,
}

/// A finding with where it was found.
#[derive(Debug, Serialize, ToSchema)]
struct FindingItem {
    scan: i64,
    repository: RepositoryName,
    digest: Digest,
    scanner: ScannerName,
    /// `vulnerability`, `secret`, `misconfiguration` or `license`.
    class: String,
    /// The CVE where exactly one is known, else the scanner's own id.
    vulnerability: String,
    aliases: Vec<String>,
    /// `os` or `libraries`, of a vulnerability.
    target: Option<String>,
    /// The file in which a library was found.
    path: Option<String>,
    package: String,
    purl: Option<String>,
    installed: String,
    fixed_in: Vec<String>,
    severity: String,
    /// Whose rating that is, by the configured order.
    severity_source: String,
    /// What every source says: `[{source, severity, score, vector}]`.
    #[schema(value_type = Vec<Object>)]
    ratings: Value,
    /// Why the scanner set it aside; null is an open finding.
    suppressed: Option<String>,
    title: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Findings {
    items: Vec<FindingItem>,
    /// Where to go on; null at the end.
    next: Option<String>,
}

/// Findings, those of the newest scans first.
#[utoipa::path(get, path = "/api/v1/findings", tag = "evidence", params(FindingsQuery),
    responses((status = 200, body = Findings), (status = 400, description = "`invalid-request`"), (status = 404)))]
async fn findings(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<FindingsQuery>,
) -> Result<Json<Findings>, Problem> {
    let limit = page_limit(query.limit);
    let question = FindingsQuestion {
        among: among(&app, &caller, query.repository.as_ref(), query.environment.as_ref()).await?,
        digest: query.digest,
        scan: query.scan,
        scanner: query.scanner,
        vulnerability: query.vulnerability,
        severities: severities(query.severity.as_deref())?,
        environment: query.environment,
        suppressed: query.suppressed,
        after: query.cursor.as_deref().map(|cursor| found_at(cursor).ok_or_else(bad_cursor)).transpose()?,
        limit,
    };
    let found = evidence::find(&mut *app.db.acquire().await?, &question).await?;
    let next = full(&found, limit).map(|last| format!("{}.{}", last.scan, last.position));
    Ok(Json(Findings { items: found.into_iter().map(FindingItem::from).collect(), next }))
}

/// The repositories that the question is about, of those that the caller may pull from; where it is about what is
/// in an environment, there.
async fn among(
    app: &App,
    caller: &Caller,
    repository: Option<&RepositoryName>,
    environment: Option<&EnvironmentName>,
) -> Result<Among, Problem> {
    let mut connection = app.db.acquire().await?;
    if let Some(name) = repository {
        match environment {
            Some(environment) => {
                caller
                    .may::<Pull, _>(&Lane { repository: name.clone(), environment: environment.clone() })?;
            }
            None => {
                caller.may::<Pull, _>(name)?;
            }
        }
        let found = content::repository(&mut connection, name).await?;
        return Ok(Among::These(vec![found.ok_or_else(Problem::not_found)?.id]));
    }
    let everywhere = Place {
        repository: None,
        environment: environment.map_or(InEnvironment::Regardless, InEnvironment::One),
    };
    if caller.allows(Action::Pull, everywhere) {
        return Ok(Among::Everything);
    }
    let patterns = caller.authority().patterns(Action::Pull);
    let visible =
        |name: &RepositoryName| caller.allows(Action::Pull, Place { repository: Some(name), ..everywhere });
    let visible = content::visible_repositories(&mut connection, &patterns, visible, "", usize::MAX).await?;
    Ok(Among::These(visible.into_iter().map(|repository| repository.id).collect()))
}

fn severities(list: Option<&str>) -> Result<Vec<Severity>, Problem> {
    let words = list.into_iter().flat_map(|list| list.split(','));
    let parse =
        |word: &str| word.parse::<Severity>().map_err(|unknown| Problem::invalid(unknown.to_string()));
    words.map(parse).collect()
}

fn kinds_of(list: Option<&str>) -> Result<BTreeSet<Class>, Problem> {
    let words = list.into_iter().flat_map(|list| list.split(','));
    let unknown = |word: &str| {
        Problem::invalid(format!(
            "{word:?} is no kind of scan; kinds are vulnerabilities, secrets, misconfigurations and licenses"
        ))
    };
    words.map(|word| Class::of(word.trim()).ok_or_else(|| unknown(word))).collect()
}

fn page_limit(wanted: Option<i64>) -> i64 {
    wanted.unwrap_or(PAGE.0).clamp(1, PAGE.1)
}

/// The last item of a page that may have a next one.
fn full<T>(items: &[T], limit: i64) -> Option<&T> {
    (i64::try_from(items.len()).ok() == Some(limit)).then(|| items.last()).flatten()
}

fn found_at(cursor: &str) -> Option<FoundAt> {
    let (scan, position) = cursor.split_once('.')?;
    Some(FoundAt { scan: scan.parse().ok()?, position: position.parse().ok()? })
}

fn bad_cursor() -> Problem {
    Problem::invalid("a cursor is the `next` of an earlier page")
}

impl From<Run> for ScanItem {
    fn from(run: Run) -> Self {
        Self {
            id: run.id,
            repository: run.repository,
            digest: run.manifest,
            scanner: run.scanner,
            scanner_version: run.scanner_version,
            database_updated_at: run.database_updated_at,
            scanned_at: run.scanned_at,
            received_at: run.received_at,
            received_by: run.received_by,
            counts: run.counts,
            finding_set: run.finding_set,
            report: run.report,
            scope: run.scope,
            bound_by: run.bound_by,
            current_for: run.current_for,
            statement: run.statement,
            retraction: run.retraction,
        }
    }
}

impl From<Found> for FindingItem {
    fn from(found: Found) -> Self {
        Self {
            scan: found.scan,
            repository: found.repository,
            digest: found.manifest,
            scanner: found.scanner,
            class: found.class,
            vulnerability: found.vulnerability,
            aliases: found.aliases,
            target: found.target,
            path: found.path,
            package: found.package,
            purl: found.purl,
            installed: found.installed,
            fixed_in: found.fixed_in,
            severity: found.severity,
            severity_source: found.severity_source,
            ratings: found.ratings,
            suppressed: found.suppressed,
            title: found.title,
        }
    }
}

impl From<ScanRefused> for Problem {
    fn from(refused: ScanRefused) -> Self {
        let text = refused.to_string();
        let code = match refused {
            ScanRefused::Failed(failure) => return failure.into(),
            ScanRefused::OverQuota(over) => return over.into(),
            ScanRefused::Unreadable(evidence::Unreadable::TooMany { .. }) => {
                return Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-findings", text);
            }
            ScanRefused::Unreadable(_) => "report-unreadable",
            ScanRefused::ReservedName(_) => "scanner-name-reserved",
            ScanRefused::SubjectUnknown(_) => "subject-unknown",
            ScanRefused::NotBound(NotBound::Ambiguous { .. }) => "subject-ambiguous",
            ScanRefused::NotBound(_) => "subject-differs",
            ScanRefused::FromTheFuture { .. } => "report-from-the-future",
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, text)
    }
}
