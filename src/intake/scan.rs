//! Recording a scan: the report is kept whole, what it found is stored once.

use super::brought::Brought;
use super::push;
use super::scan_statement::ScanReading;
use crate::access::{Grant, Revoke, Scan};
use crate::content::{self, Attachment, Manifest, OverQuota, Repository};
use crate::cpu;
use crate::evidence::{
    self, BoundBy, CLOCK_SKEW, Candidate, Class, NamedDigest, NewRun, NotBound, Recorded, Report, Run, Scope,
    Unreadable,
};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Algorithm, Digest, MediaType, ScannerName};
use crate::policy::in_words;
use crate::postgres::queue::{self, Changed};
use crate::postgres::{self, Db, Generation, Scopes, Tx, agreed_time, refusal};
use crate::storage::{Store, StoredBlob};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The artifact type of a raw report.
const REPORT_TYPE: &str = "application/vnd.proofmark.scan-report.v1+json";
/// Where the report's manifest names the scanner.
const SCANNER_ANNOTATION: &str = "dev.proofmark.scan.scanner";
/// Where the report's manifest names the kinds that only the uploader stated.
const KINDS_ANNOTATION: &str = "dev.proofmark.scan.kinds";

/// A report as it came in.
#[derive(Clone, Debug)]
pub struct RecordScan {
    /// What was scanned, as the uploader says.
    pub subject: Digest,
    /// The raw report.
    pub report: Bytes,
    /// Another name for the scanner; never one that a known scanner bears.
    pub scanner: Option<ScannerName>,
    /// How new the scanner's database was, for reports that do not say.
    pub database_updated_at: Option<DateTime<Utc>>,
    /// What the scanner looked for, for reports that do not say.
    pub kinds: BTreeSet<Class>,
}

/// How reports are read and kept.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// How they are read.
    pub reading: ScanReading<'a>,
    /// How long bytes that nothing refers to yet are protected.
    pub grace: Duration,
}

/// What was recorded.
#[derive(Clone, Debug)]
pub struct RecordedScan {
    /// The run, new or known.
    pub run: Recorded,
    /// The manifest that it counts for: of an index, the image that the report names.
    pub digest: Digest,
    /// What it looked at.
    pub scope: Scope,
    /// By what the report names what was scanned.
    pub bound_by: Option<BoundBy>,
    /// What the uploader should know about the report.
    pub warnings: Vec<String>,
    /// Who scanned, by the name recorded.
    pub scanner: ScannerName,
    /// Its version.
    pub scanner_version: String,
    /// How new its database was.
    pub database_updated_at: Option<DateTime<Utc>>,
    /// The artifact that keeps the report.
    pub report: Digest,
    /// The digest of the findings.
    pub finding_set: Digest,
    /// Open findings by severity, and how many the scanner suppressed.
    pub counts: BTreeMap<&'static str, usize>,
}

/// Why a scan is not recorded.
#[derive(Debug, thiserror::Error)]
pub enum ScanRefused {
    /// The report cannot be read.
    #[error(transparent)]
    Unreadable(Unreadable),
    /// A known scanner's name for another's report.
    #[error("the name {0} belongs to a scanner whose own reports bear it; give another, such as sample")]
    ReservedName(ScannerName),
    /// No such manifest.
    #[error("the repository has no manifest {0}; push it before its scans")]
    SubjectUnknown(Digest),
    /// The report is about something else.
    #[error(transparent)]
    NotBound(#[from] NotBound),
    /// The report comes from the future.
    #[error(
        "the report says {}, and it is {} here; a time may be at most {} minutes ahead, so set the scanner's clock",
        in_words(*claimed),
        in_words(*now),
        CLOCK_SKEW.num_minutes()
    )]
    FromTheFuture {
        /// When the scan ran or its database was made, as the report says.
        claimed: DateTime<Utc>,
        /// The database's time.
        now: DateTime<Utc>,
    },
    /// More evidence than the repository may hold.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

refusal!(ScanRefused);

impl From<Unreadable> for ScanRefused {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Failed(failure) => Self::Failed(failure),
            Unreadable::NotJson(_)
            | Unreadable::UnknownKind(_)
            | Unreadable::Malformed { .. }
            | Unreadable::TooMany { .. } => Self::Unreadable(unreadable),
        }
    }
}

/// Records a scan. The report is read before anything is written, then its bytes become durable,
/// then one transaction does the rest; a crash between leaves bytes to the sweep. The same report
/// sent again is the same run and changes nothing.
pub async fn record_scan(
    db: &Db,
    store: &Store,
    rules: Rules<'_>,
    grant: &Grant<Scan>,
    scan: RecordScan,
) -> Result<RecordedScan, ScanRefused> {
    let report = read(rules, &scan).await?;
    let blob = store.hold(scan.report.clone(), Algorithm::Sha256).await?;
    let act = Act { grant, scan: &scan, report: &report, blob: &blob, rules };
    match postgres::act(|| act.attempt(db)).await {
        Ok((recorded, true)) => Ok(recorded),
        Ok((recorded, false)) => {
            store.discard(blob).await;
            Ok(recorded)
        }
        // Whether a commit that failed happened is unknown: those bytes are the sweep's to judge.
        Err(ScanRefused::Failed(failure)) => Err(ScanRefused::Failed(failure)),
        Err(refused) => {
            store.discard(blob).await;
            Err(refused)
        }
    }
}

/// Retracts a run of the repository, once: it makes nothing fresh any more, and the runs whose place it took count
/// again.
pub async fn retract_scan(db: &Db, grant: &Grant<Revoke>, run: i64, reason: &str) -> Result<Run, Failure> {
    let missing = || Failure::new("retracting a scan", "it is not there");
    postgres::act(|| async {
        let mut tx = db.begin().await?;
        let repository = content::repository(&mut tx, grant.repository()).await?.ok_or_else(missing)?;
        Scopes::repository(repository.id).lock(&mut tx).await?;
        let at = agreed_time(&mut tx).await?;
        let digest = evidence::run(&mut tx, repository.id, run).await?.ok_or_else(missing)?.manifest;
        if evidence::retract(&mut tx, run, reason, grant.principal(), at).await? {
            let mut changes = Vec::new();
            for scanned_as in evidence::scanned_as(&mut tx, run).await? {
                for (digest, sha256) in evidence::scanned_alike(&mut tx, repository.id, &scanned_as).await? {
                    queue::reevaluate(&mut tx, &Changed::Bytes(sha256)).await?;
                    changes.push(Generation::bytes(&digest));
                }
            }
            let event = Event {
                kind: Kind::ScanRetracted,
                at,
                principal: grant.principal(),
                repository: Some((repository.id, &repository.name)),
                environment: None,
                digest: Some(&digest),
                facts: json!({"scan": run, "reason": reason}),
                changes,
            };
            ledger::append(&mut tx, event).await?;
        }
        let shown = evidence::run(&mut tx, repository.id, run).await?.ok_or_else(missing)?;
        tx.commit().await.map_err(|error| Failure::new("retracting a scan", error))?;
        Ok(shown)
    })
    .await
}

/// Parses off the threads that serve requests, and settles the scanner's name.
async fn read(rules: Rules<'_>, scan: &RecordScan) -> Result<Report, ScanRefused> {
    let (bytes, order, max_findings) =
        (scan.report.clone(), rules.reading.order.clone(), rules.reading.max_findings);
    let parse = move || evidence::read(&bytes, &order, max_findings);
    let mut report = cpu::run("reading a scan report", parse).await??;
    if let Some(name) = scan.scanner.as_ref().filter(|name| **name != report.scanner) {
        if name.is_reserved() {
            return Err(ScanRefused::ReservedName(name.clone()));
        }
        report.scanner = name.clone();
    }
    report.database_updated_at = report.database_updated_at.or(scan.database_updated_at);
    report.scope.state_kinds(&scan.kinds);
    Ok(report)
}

/// One report about to be recorded.
struct Act<'a> {
    grant: &'a Grant<Scan>,
    scan: &'a RecordScan,
    report: &'a Report,
    blob: &'a StoredBlob,
    rules: Rules<'a>,
}

impl Act<'_> {
    /// One transaction: locks the repository alone, since a scan can turn a yes into a no; finds the
    /// subject; links and attaches the report; stores the findings and the run; and appends the
    /// event. Says too whether the blob's bytes were taken.
    async fn attempt(&self, db: &Db) -> Result<(RecordedScan, bool), ScanRefused> {
        let unknown = || ScanRefused::SubjectUnknown(self.scan.subject.clone());
        let mut tx = db.begin().await?;
        let repository = content::repository(&mut tx, self.grant.repository()).await?.ok_or_else(unknown)?;
        Scopes::repository(repository.id).lock(&mut tx).await?;
        let found = self.bind(&mut tx, repository.id).await?;
        let (bound, bound_by) = found.ok_or_else(unknown)?;
        let subject = content::manifest(&mut tx, repository.id, &bound.digest).await?.ok_or_else(unknown)?;
        let linked = content::blobs::link(&mut tx, repository.id, self.blob, self.rules.grace).await?;
        let artifact = self.attach(&mut tx, &repository, &subject).await?;
        let findings = &self.report.findings;
        evidence::store_findings(&mut tx, findings).await?;
        let at = agreed_time(&mut tx).await?;
        let new = NewRun {
            repository_id: repository.id,
            manifest: &subject.digest,
            sha256: &subject.sha256,
            scanner: &self.report.scanner,
            scanner_version: &self.report.scanner_version,
            database_updated_at: self.report.database_updated_at,
            scanned_at: self.report.scanned_at,
            finding_set: findings.digest(),
            scope: &self.report.scope,
            bound_by,
            scanned_as: &bound.scanned_as,
            is_image: bound.is_image,
            report: &artifact,
            attestation_id: None,
            principal: self.grant.principal(),
            at,
        };
        if let Some(claimed) = new.impossible_time() {
            return Err(ScanRefused::FromTheFuture { claimed, now: at });
        }
        let run = evidence::record(&mut tx, &new).await?;
        let recorded = self.recorded(run, &subject, bound_by, artifact.clone());
        if let Recorded::New(_) = run {
            announce(&mut tx, &repository, &new, run.id(), self.report).await?;
        }
        let mut brought = Brought::default();
        brought.report(self.blob.digest(), self.blob.size_bytes(), run.id());
        if let Some(over) = brought.count(&mut tx, repository.id, self.rules.reading.evidence_bytes).await? {
            return Err(over.into());
        }
        tx.commit().await.map_err(|error| Failure::new("recording a scan", error))?;
        Ok((recorded, linked.bytes_taken))
    }

    /// The manifest that the report counts for, and by what it names it.
    async fn bind(
        &self,
        connection: &mut PgConnection,
        repository_id: i64,
    ) -> Result<Option<(Candidate, Option<BoundBy>)>, ScanRefused> {
        let scope = &self.report.scope;
        let (family, above) = family(connection, repository_id, &self.scan.subject, scope).await?;
        let bound = evidence::bind(scope, &family, &above)?;
        Ok(bound.map(|(candidate, by)| (candidate.clone(), by)))
    }

    async fn attach(
        &self,
        tx: &mut Tx,
        repository: &Repository,
        subject: &Manifest,
    ) -> Result<Digest, Failure> {
        let media_type = |text: &str| -> Result<MediaType, Failure> {
            text.parse().map_err(|error| Failure::new("naming a scan report's media type", error))
        };
        let attachment = Attachment {
            subject,
            artifact_type: media_type(REPORT_TYPE)?,
            layers: vec![(self.blob.clone(), media_type("application/json")?, "report.json")],
            annotations: self.annotations(),
        };
        push::attach(tx, repository, self.grant.principal(), attachment).await
    }

    /// Kinds that only the uploader states make another run of the same report.
    fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations =
            BTreeMap::from([(SCANNER_ANNOTATION.to_owned(), self.report.scanner.to_string())]);
        let stated = &self.report.scope.kinds_by_uploader;
        if !stated.is_empty() {
            let kinds: Vec<&str> = stated.iter().map(|kind| kind.plural()).collect();
            annotations.insert(KINDS_ANNOTATION.to_owned(), kinds.join(","));
        }
        annotations
    }

    fn recorded(
        &self,
        run: Recorded,
        subject: &Manifest,
        bound_by: Option<BoundBy>,
        report: Digest,
    ) -> RecordedScan {
        let findings = &self.report.findings;
        RecordedScan {
            run,
            digest: subject.digest.clone(),
            scope: self.report.scope.clone(),
            bound_by,
            warnings: self.report.warnings(bound_by),
            scanner: self.report.scanner.clone(),
            scanner_version: self.report.scanner_version.clone(),
            database_updated_at: self.report.database_updated_at,
            report,
            finding_set: findings.digest().clone(),
            counts: findings.counts(),
        }
    }
}

/// Announces a new run, of a report or of a signed statement: every manifest of the image is evaluated again, since
/// images with one configuration are one image, and the event is appended.
pub(super) async fn announce(
    tx: &mut Tx,
    repository: &Repository,
    new: &NewRun<'_>,
    run: i64,
    report: &Report,
) -> Result<(), Failure> {
    let alike = evidence::scanned_alike(tx, repository.id, new.scanned_as).await?;
    for (_, sha256) in &alike {
        queue::reevaluate(tx, &Changed::Bytes(sha256.clone())).await?;
    }
    let mut facts = json!({
        "scan": run,
        "scanner": report.scanner,
        "scanner_version": report.scanner_version,
        "database_updated_at": report.database_updated_at,
        "scanned_at": new.scanned_at,
        "report": new.report,
        "finding_set": new.finding_set,
        "counts": report.findings.counts(),
        "scope": report.scope,
        "bound_by": new.bound_by.map(BoundBy::as_str),
    });
    if let Some(attestation) = new.attestation_id {
        facts["attestation"] = json!(attestation);
    }
    let event = Event {
        kind: Kind::ScanRecorded,
        at: new.at,
        principal: new.principal,
        repository: Some((repository.id, &repository.name)),
        environment: None,
        digest: Some(new.manifest),
        facts,
        changes: alike.iter().map(|(digest, _)| Generation::bytes(digest)).collect(),
    };
    ledger::append(tx, event).await.map(|_| ())
}

/// What a report about the manifest may be about, and the indexes of it that the report names.
pub(super) async fn family(
    connection: &mut PgConnection,
    repository_id: i64,
    manifest: &Digest,
    scope: &Scope,
) -> Result<(Vec<Candidate>, BTreeSet<Digest>), Failure> {
    let mut family = evidence::candidates(connection, repository_id, manifest).await?;
    if let [only] = family.as_mut_slice()
        && !only.is_image
        && let Some(stored) = content::manifest(connection, repository_id, &only.digest).await?
    {
        only.file = stored.file()?;
    }
    let named = scope.image_ids.iter().chain(&scope.manifests).filter_map(NamedDigest::digest);
    let named: Vec<&Digest> = named.collect();
    let above = match family.first() {
        Some(subject) => evidence::indexes_among(connection, repository_id, &named, &subject.digest).await?,
        None => BTreeSet::new(),
    };
    Ok((family, above))
}
