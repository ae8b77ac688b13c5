//! The answer to the deployer's question, with what a deployer needs to check it alone.

use super::facts::{Promotion, Release};
use super::standing::Standing;
use crate::failure::Failure;
use crate::names::{Digest, MediaType, Tag};
use crate::policy::{Case, Facts, GateResult};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct KnownGood {
    /// `registry/repository@digest`, for any OCI client.
    pub reference: String,
    /// What to run.
    pub digest: Digest,
    /// The index that it is a child of, when a platform was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// The version it was promoted as.
    pub version: Option<Tag>,
    /// Its media type.
    pub media_type: MediaType,
    /// When it was promoted.
    pub promoted_at: DateTime<Utc>,
    /// By whom.
    pub promoted_by: String,
    /// The recorded decision that allowed it.
    pub decision: Digest,
    /// Today's outcome of every gate.
    pub gates: Vec<GateResult>,
    /// What holds for now but will not for ever, such as a finding in its grace.
    pub warnings: Vec<String>,
    /// Where it comes from, by trusted provenance.
    pub provenance: Option<Provenance>,
    /// The newest run of each scanner.
    pub scan: Vec<ScanSeen>,
    /// Whose approval counts, each once: where a gate asks for approvals, those that it counted.
    pub approvals: BTreeSet<String>,
    /// The version before it.
    pub previous: Option<Earlier>,
    /// Versions promoted later that are not good any more, with the reasons.
    pub passed_over: Vec<Candidate>,
    /// Until when the summary may be relied on.
    pub valid_until: DateTime<Utc>,
    /// The verification summary that was signed at its promotion, a DSSE envelope.
    #[schema(value_type = Object)]
    pub summary: Box<RawValue>,
    /// The event of its promotion.
    pub event: EventSeen,
    /// The proof that the event is in the log.
    #[schema(value_type = Option<Object>)]
    pub log_proof: Option<()>,
}

/// Provenance in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct Provenance {
    /// The envelope.
    pub attestation: Digest,
    /// Who built it.
    pub builder: Option<String>,
    /// From what.
    pub source: Option<String>,
    /// The branch or tag.
    pub source_ref: Option<String>,
    /// Who signed that.
    pub signers: Vec<String>,
}

/// A scan in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScanSeen {
    /// The SHA-256 of what was scanned.
    pub sha256: Digest,
    /// By what.
    pub scanner: String,
    /// When.
    pub scanned_at: DateTime<Utc>,
    /// With what knowledge.
    pub database_updated_at: Option<DateTime<Utc>>,
    /// The raw report.
    pub report: Digest,
}

/// An earlier version.
#[derive(Debug, Serialize, ToSchema)]
pub struct Earlier {
    /// Its digest.
    pub digest: Digest,
    /// Its version.
    pub version: Option<Tag>,
    /// When it was promoted.
    pub promoted_at: DateTime<Utc>,
}

/// The event of a promotion.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventSeen {
    /// Its id.
    pub id: i64,
    /// Its canonical JSON, base64: the bytes that the log commits to.
    pub leaf: String,
}

/// A promoted version that is not known to be good, and why.
#[derive(Debug, Serialize, ToSchema)]
pub struct Candidate {
    /// Its digest.
    pub digest: Digest,
    /// Its version.
    pub version: Option<Tag>,
    /// When it was promoted.
    pub promoted_at: DateTime<Utc>,
    /// Why not.
    pub reasons: Vec<String>,
}

impl Candidate {
    pub(super) fn new(promotion: &Promotion, reasons: Vec<String>) -> Self {
        let Promotion { manifest, version, promoted_at, .. } = promotion.clone();
        Self { digest: manifest, version, promoted_at, reasons }
    }
}

impl KnownGood {
    /// Puts the answer together; `repository` is how clients name it.
    pub(super) fn new(
        repository: &str,
        release: &Release,
        promotion: &Promotion,
        case: &Case,
        standing: Standing,
        passed_over: Vec<Candidate>,
    ) -> Result<Self, Failure> {
        let summary = String::from_utf8(release.summary.clone().unwrap_or_default())
            .map_err(|error| Failure::new("reading a promotion's summary", error))?;
        let summary = RawValue::from_string(summary)
            .map_err(|error| Failure::new("reading a promotion's summary", error))?;
        let promotion = promotion.clone();
        let index = case.child.is_some().then(|| promotion.manifest.clone());
        let digest = case.child.clone().unwrap_or(promotion.manifest);
        Ok(Self {
            reference: format!("{repository}@{digest}"),
            digest,
            index,
            version: promotion.version,
            media_type: release.media_type.clone(),
            promoted_at: promotion.promoted_at,
            promoted_by: promotion.promoted_by,
            decision: promotion.decision,
            provenance: provenance(&case.facts, &standing.gates),
            scan: scans(&case.facts),
            approvals: approvals(case, &standing.gates),
            gates: standing.gates,
            warnings: standing.warnings,
            previous: promotion.previous.map(|previous| Earlier {
                digest: previous.manifest,
                version: previous.version,
                promoted_at: previous.promoted_at,
            }),
            passed_over,
            valid_until: promotion.valid_until,
            summary,
            event: EventSeen {
                id: promotion.event_id,
                leaf: STANDARD.encode(release.leaf.as_deref().unwrap_or_default()),
            },
            log_proof: None,
        })
    }
}

/// The provenance that a gate relied on.
fn provenance(facts: &Facts, gates: &[GateResult]) -> Option<Provenance> {
    let gate = gates.iter().find(|gate| gate.gate == "provenance")?;
    let used = gate.evidence.first()?;
    let attestation = facts.attestations.iter().find(|a| a.envelope.as_str() == used.id)?;
    Some(Provenance {
        attestation: attestation.envelope.clone(),
        builder: attestation.builder.clone(),
        source: attestation.source.clone(),
        source_ref: attestation.source_ref.clone(),
        signers: attestation.signatures.iter().map(|signature| signature.signer.clone()).collect(),
    })
}

fn scans(facts: &Facts) -> Vec<ScanSeen> {
    let seen = facts.scans.iter().map(|scan| ScanSeen {
        sha256: scan.sha256.clone(),
        scanner: scan.scanner.clone(),
        scanned_at: scan.scanned_at,
        database_updated_at: scan.database_updated_at,
        report: scan.report.clone(),
    });
    seen.collect()
}

/// Approvals that gates counted; where no gate asks, those that last and are not the author's own.
fn approvals(case: &Case, gates: &[GateResult]) -> BTreeSet<String> {
    let asking = || gates.iter().filter(|gate| gate.gate == "approvals");
    let counted: BTreeSet<&str> =
        asking().flat_map(|gate| &gate.evidence).map(|evidence| evidence.id.as_str()).collect();
    let asked = asking().next().is_some();
    let counts = case.facts.approvals.iter().filter(|approval| {
        if asked {
            return counted.contains(approval.id.to_string().as_str());
        }
        let lasts = approval.until.is_none_or(|until| case.at < until);
        lasts && !case.facts.subject.authors.contains(&approval.by)
    });
    counts.map(|approval| approval.by.clone()).collect()
}
