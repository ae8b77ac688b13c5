//! Vulnerability reports in signed statements: each is a run of its scanner as well, which counts for the signers
//! of the statement.

use super::scan::{announce, family};
use crate::attestation::{self, COSIGN_VULN, Carrier, Received, Through, VULNS};
use crate::cpu;
use crate::evidence::{self, BoundBy, NewRun, Recorded, Report, SeverityOrder, Source};
use crate::failure::Failure;
use crate::policy::in_words;
use crate::postgres::{Tx, agreed_time};
use chrono::DateTime;
use std::collections::BTreeSet;

/// How signed statements, and reports in them, are read.
#[derive(Clone, Copy, Debug)]
pub struct ScanReading<'a> {
    /// Whose severity is followed.
    pub order: &'a SeverityOrder,
    /// Findings of one report.
    pub max_findings: usize,
    /// Pending envelopes of one repository.
    pub max_pending: u32,
    /// Bytes of evidence of a repository without a quota.
    pub evidence_bytes: u64,
}

/// The reports in what was received, one for each, where it is a report that can be read.
#[derive(Debug, Default)]
pub(super) struct ScanStatements(Vec<Option<Result<Report, String>>>);

impl ScanStatements {
    /// Reads them on a thread that may take its time. What cannot be read is an attestation like any other, and no
    /// run.
    pub(super) async fn read(reading: ScanReading<'_>, received: &[Received]) -> Result<Self, Failure> {
        if !received.iter().any(is_scan) {
            return Ok(Self::default());
        }
        let (order, max, received) = (reading.order.clone(), reading.max_findings, received.to_vec());
        let read = cpu::run("reading signed scan reports", move || {
            let report = |one: &Received| {
                let statement = is_scan(one).then(|| one.claimed()).flatten()?;
                let read = evidence::read_vulns(&statement.predicate_type, &statement.predicate, &order, max);
                Some(read.map_err(|error| error.to_string()).map(|mut report| {
                    // The statement says what it is about.
                    if report.scope.source == Source::Image {
                        report.scope.source = Source::Unknown;
                    }
                    report
                }))
            };
            received.iter().map(report).collect()
        });
        read.await.map(Self)
    }

    /// Records the report of the `place`th of what was received, whose attestation was recorded. Says why it makes no
    /// scan, where it makes none.
    pub(super) async fn record(
        &self,
        tx: &mut Tx,
        place: usize,
        received: &Received,
        carrier: Carrier<'_>,
        attestation_id: i64,
    ) -> Result<Vec<String>, Failure> {
        let (Some(Some(report)), Some(statement)) = (self.0.get(place), received.claimed()) else {
            return Ok(Vec::new());
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => return Ok(vec![format!("the statement makes no scan: {error}")]),
        };
        // A statement that only a push brought may have been held back. If it does not say when the scan was, it
        // takes no run's place.
        let scanned_at = report.scanned_at.or(match carrier.through {
            Through::Push => Some(DateTime::UNIX_EPOCH),
            Through::Post => None,
        });
        let mut warnings = Vec::new();
        let repository = carrier.repository;
        let at = agreed_time(tx).await?;
        let mut counted = BTreeSet::new();
        for digest in attestation::subjects_here(tx, repository.id, statement).await? {
            let (family, above) = family(tx, repository.id, &digest, &report.scope).await?;
            let (image, bound_by) = match evidence::bind(&report.scope, &family, &above) {
                Ok(Some(bound)) => bound,
                Ok(None) => continue,
                Err(error) => {
                    warnings.push(format!("the statement makes no scan of {digest}: {error}"));
                    continue;
                }
            };
            if !counted.insert(image.scanned_as.clone()) {
                continue;
            }
            let new = NewRun {
                repository_id: repository.id,
                manifest: &image.digest,
                sha256: &image.sha256,
                scanner: &report.scanner,
                scanner_version: &report.scanner_version,
                database_updated_at: report.database_updated_at,
                scanned_at,
                finding_set: report.findings.digest(),
                scope: &report.scope,
                // The signer names the digest.
                bound_by: Some(bound_by.unwrap_or(BoundBy::Manifest)),
                scanned_as: &image.scanned_as,
                is_image: image.is_image,
                report: carrier.manifest,
                attestation_id: Some(attestation_id),
                principal: carrier.principal,
                at,
            };
            if let Some(claimed) = new.impossible_time() {
                warnings.push(format!(
                    "the statement makes no scan: it says {}, which is later than now",
                    in_words(claimed)
                ));
                return Ok(warnings);
            }
            evidence::store_findings(tx, &report.findings).await?;
            if let Recorded::New(run) = evidence::record(tx, &new).await? {
                announce(tx, repository, &new, run, report).await?;
            }
        }
        Ok(warnings)
    }
}

/// Whether it is a statement with a vulnerability report that somebody signed.
fn is_scan(received: &Received) -> bool {
    let is_type = |kind: &str| kind == VULNS || kind == COSIGN_VULN;
    received.signatures() > 0
        && received.claimed().is_some_and(|statement| is_type(&statement.predicate_type))
}
