//! The answer to the deployer's question, with what a deployer needs to check it alone.

use super::evaluate::{Evaluated, Skipped};
use super::facts::{Promotion, Release};
use crate::access::Lane;
use crate::failure::Failure;
use crate::names::{Digest, MediaType, Tag};
use crate::policy::{AtRisk, Case, EvidenceKind, Facts, GateResult, NotToday, Policies, Recorded, in_words};
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
    /// `registry/repository@digest`, for any OCI client; `registry/env/environment/repository@digest` for who may
    /// pull from the environment's view only.
    pub reference: String,
    /// `registry/repository@digest`, for who may pull from the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_reference: Option<String>,
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
    /// The gates that concern what runs, today.
    pub gates: Vec<GateResult>,
    /// What holds for now but will not for ever, such as a finding in its grace.
    pub warnings: Vec<String>,
    /// Named, dated risks; the version goes on running.
    pub at_risk: Vec<AtRisk>,
    /// Gates that would refuse the version if it were promoted today. That ends nothing.
    pub would_not_be_promoted_today: Vec<NotToday>,
    /// Overrides that its promotion used and that nobody reviewed yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub promoted_by_override: Vec<PromotedByOverride>,
    /// Another platform of the newest version has another answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub platform_answers_differ: bool,
    /// Where it comes from, by trusted provenance.
    pub provenance: Option<Provenance>,
    /// The newest run of each scanner.
    pub scan: Vec<ScanSeen>,
    /// Whose approvals the promotion counted.
    pub approvals: BTreeSet<String>,
    /// The version before it.
    pub previous: Option<Earlier>,
    /// Versions promoted later that are not good any more, with the reasons: the answer is not the newest
    /// promotion.
    pub fallback_from: Vec<Candidate>,
    /// The same under its former name.
    pub passed_over: Vec<Candidate>,
    /// When the answer was evaluated; told in the header `Proofmark-Evaluated-At`, so that the body changes
    /// only with the answer.
    #[serde(skip)]
    pub evaluated_at: DateTime<Utc>,
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
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The same under its former name.
    pub source_ref: Option<String>,
    /// The commit.
    pub commit: Option<String>,
    /// The build type, by whose rules source, ref and commit were read.
    pub build_type: Option<String>,
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
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Candidate {
    /// Its digest.
    pub digest: Digest,
    /// Its version.
    pub version: Option<Tag>,
    /// When it was promoted.
    pub promoted_at: DateTime<Utc>,
    /// Why not.
    pub reasons: Vec<String>,
    /// A rollback that names the version would take it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rollback_may_name_it: bool,
}

/// An override that a promotion used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PromotedByOverride {
    /// The override's id.
    pub id: i64,
    /// The gates that it passed.
    pub gates: BTreeSet<String>,
    /// Who created it.
    pub created_by: String,
    /// Its reason.
    pub reason: String,
    /// When another person should have reviewed it, by the policies in force.
    pub review_due_at: DateTime<Utc>,
    /// Whether that time is over.
    pub review_overdue: bool,
}

impl PromotedByOverride {
    /// Those that the promotion used and that are not reviewed.
    pub(super) fn of(case: &Case, in_force: &Policies, promotion: &Promotion) -> Vec<Self> {
        if case.facts.overrides.is_empty() {
            return Vec::new();
        }
        let review = case.override_review(in_force);
        let used: BTreeSet<i64> =
            promotion.recorded.gates.iter().filter_map(|gate| gate.overridden).collect();
        let open =
            case.facts.overrides.iter().filter(|one| used.contains(&one.id) && one.reviewed_by.is_none());
        open.map(|one| Self {
            id: one.id,
            gates: one.gates.clone(),
            created_by: one.created_by.clone(),
            reason: one.reason.clone(),
            review_due_at: one.review_due_at(review),
            review_overdue: one.is_overdue(review, case.at),
        })
        .collect()
    }

    /// What an answer warns of, once the review is overdue. It ends nothing.
    pub(super) fn warning(&self) -> Option<String> {
        let (id, by, due) = (self.id, &self.created_by, in_words(self.review_due_at));
        self.review_overdue.then(|| {
            format!(
                "override-review-overdue: nobody reviewed override {id} of {by} by {due}: another person with the \
                 right to override or to administer reviews it: proofmark override review {id}"
            )
        })
    }
}

impl From<Skipped> for Candidate {
    fn from(skipped: Skipped) -> Self {
        let Promotion { manifest, version, promoted_at, .. } = skipped.promotion;
        let (reasons, rollback_may_name_it) = (skipped.reasons, skipped.named);
        Self { digest: manifest, version, promoted_at, reasons, rollback_may_name_it }
    }
}

impl KnownGood {
    /// Names the environment's view instead of the repository: for who may pull from nothing else.
    pub fn name_by_view(&mut self, registry: &str, lane: &Lane) {
        self.reference = format!("{registry}/{lane}@{}", self.digest);
        self.repository_reference = None;
    }

    /// Puts the answer together; `registry` is how clients reach us.
    pub(super) fn new(
        registry: &str,
        evaluated: Evaluated,
        fallback_from: Vec<Candidate>,
        platform_answers_differ: bool,
    ) -> Result<Self, Failure> {
        let platform_answers_differ = platform_answers_differ || evaluated.platforms_differ();
        let Evaluated { release, promotion, policies, case, status, .. } = evaluated;
        let summary = summary_of(&release)?;
        let promoted_by_override = PromotedByOverride::of(&case, &policies.in_force, &promotion);
        let index = case.child.is_some().then(|| promotion.manifest.clone());
        let digest = case.child.clone().unwrap_or(promotion.manifest);
        let reference = format!("{registry}/{}@{digest}", case.facts.subject.repository);
        Ok(Self {
            repository_reference: Some(reference.clone()),
            reference,
            digest: digest.clone(),
            index,
            version: promotion.version,
            media_type: release.media_types.get(&digest).unwrap_or(&release.media_type).clone(),
            promoted_at: promotion.promoted_at,
            promoted_by: promotion.promoted_by,
            decision: promotion.decision,
            provenance: provenance(&case.facts, &status.gates),
            scan: scans(&case.facts),
            approvals: approvals(&promotion.recorded),
            gates: status.gates,
            warnings: status.warnings,
            at_risk: status.at_risk,
            would_not_be_promoted_today: status.would_not_be_promoted_today,
            promoted_by_override,
            platform_answers_differ,
            previous: promotion.previous.map(|previous| Earlier {
                digest: previous.manifest,
                version: previous.version,
                promoted_at: previous.promoted_at,
            }),
            passed_over: fallback_from.clone(),
            fallback_from,
            evaluated_at: case.at,
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

/// The newest summary of a promotion, as it was signed.
pub(super) fn summary_of(release: &Release) -> Result<Box<RawValue>, Failure> {
    let summary = String::from_utf8(release.summary.clone().unwrap_or_default())
        .map_err(|error| Failure::new("reading a promotion's summary", error))?;
    RawValue::from_string(summary).map_err(|error| Failure::new("reading a promotion's summary", error))
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
        reference: attestation.source_ref.clone(),
        source_ref: attestation.source_ref.clone(),
        commit: attestation.commit.clone(),
        build_type: attestation.build_type.clone(),
        signers: used.by.iter().cloned().collect(),
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

/// The approvals that the decision counted.
fn approvals(recorded: &Recorded) -> BTreeSet<String> {
    let evidence = recorded.gates.iter().flat_map(|gate| &gate.evidence);
    evidence.filter(|one| one.kind == EvidenceKind::Approval).flat_map(|one| one.by.clone()).collect()
}
