//! The deployer's question: which version is known to be good here, now? Judged again at each
//! question with today's facts; nothing is written.

use super::facts::{self, Gathered, Standing, Wanted};
use super::standing::{reasons, standing};
use crate::access::{Grant, Pull};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, MediaType, Tag};
use crate::policy::{Action, Case, GateResult, Verdict, decide};
use crate::postgres::Db;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Candidates looked at for one answer. Behind so many refused versions in a row, somebody should
/// look before anything older runs.
const MAX_CANDIDATES: usize = 10;

/// What the version is wanted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To run it.
    #[default]
    Deploy,
    /// To go back to it: the present version is no candidate.
    Rollback,
}

/// A question.
#[derive(Debug)]
pub struct Question<'a> {
    /// The environment.
    pub environment: &'a EnvironmentName,
    /// What for.
    pub purpose: Purpose,
    /// A child of the index by "os/architecture[/variant]".
    pub platform: Option<&'a str>,
    /// How clients reach the registry, for the reference.
    pub registry: &'a str,
}

/// The answer, with what a deployer needs to check it alone.
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
    /// Who approved.
    pub approvals: Vec<String>,
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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoKnownGood {
    /// None of the candidates.
    #[error("no version is known to be good")]
    Because(Vec<Candidate>),
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<sqlx::Error> for NoKnownGood {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Answers with the newest promotion that is still good. Each candidate is gathered by one
/// statement, which is one snapshot; as a rule the first is the answer.
pub async fn known_good(
    db: &Db,
    grant: &Grant<Pull>,
    question: &Question<'_>,
) -> Result<KnownGood, NoKnownGood> {
    let mut connection = db.pool().acquire().await?;
    let mut passed_over = Vec::new();
    let mut promotion = None;
    while passed_over.len() < MAX_CANDIDATES {
        let wanted = Wanted {
            repository: grant.repository(),
            environment: question.environment,
            digest: None,
            promotion,
            promoting: false,
        };
        let Some(mut gathered) = facts::gather(&mut connection, wanted).await? else { break };
        let Some(candidate) = gathered.standing.take() else { break };
        let back = candidate.previous.as_ref().map(|previous| previous.id);
        if question.purpose == Purpose::Deploy || !candidate.newest {
            match judge(&mut connection, question, &candidate, &gathered).await? {
                Ok(good) => return answer(grant, question, candidate, gathered, good, passed_over),
                Err(reasons) => passed_over.push(Candidate {
                    digest: candidate.manifest,
                    version: candidate.version,
                    promoted_at: candidate.promoted_at,
                    reasons,
                }),
            }
        }
        promotion = back;
        if promotion.is_none() {
            break;
        }
    }
    Err(NoKnownGood::Because(passed_over))
}

/// What makes a candidate the answer.
struct Good {
    child: Option<Digest>,
    gates: Vec<GateResult>,
    warnings: Vec<String>,
}

/// Judges a promotion with today's facts.
async fn judge(
    connection: &mut PgConnection,
    question: &Question<'_>,
    candidate: &Standing,
    gathered: &Gathered,
) -> Result<Result<Good, Vec<String>>, Failure> {
    let mut child = None;
    if let Some(wanted) = question.platform {
        let platforms = &gathered.facts.subject.platforms;
        let found = platforms.iter().find(|p| !p.is_document() && p.platform.as_deref() == Some(wanted));
        // What is no index runs on whatever it was built for; nothing here says what that is.
        if found.is_none() && !platforms.is_empty() {
            return Ok(Err(vec![format!("platform: the index has no image for {wanted}")]));
        }
        child = found.map(|platform| platform.digest.clone());
    }
    let policies = facts::policies(connection, gathered).await?;
    let action = Action::Serve { running: candidate.newest };
    let case = Case { action, at: gathered.now, child: child.clone(), facts: gathered.facts.clone() };
    let decision = decide(&policies, &case)?;
    let (verdict, gates) = standing(candidate, &decision, gathered.now);
    Ok(match verdict {
        Verdict::Allow => Ok(Good { child, gates, warnings: decision.warnings() }),
        Verdict::Deny | Verdict::Defer { .. } => Err(reasons(&gates)),
    })
}

fn answer(
    grant: &Grant<Pull>,
    question: &Question<'_>,
    candidate: Standing,
    gathered: Gathered,
    good: Good,
    passed_over: Vec<Candidate>,
) -> Result<KnownGood, NoKnownGood> {
    let summary = String::from_utf8(gathered.summary.unwrap_or_default())
        .map_err(|error| Failure::new("reading a promotion's summary", error))?;
    let summary = RawValue::from_string(summary)
        .map_err(|error| Failure::new("reading a promotion's summary", error))?;
    let index = good.child.is_some().then(|| candidate.manifest.clone());
    let digest = good.child.unwrap_or(candidate.manifest);
    let facts = &gathered.facts;
    Ok(KnownGood {
        reference: format!("{}/{}@{digest}", question.registry, grant.repository()),
        digest,
        index,
        version: candidate.version,
        media_type: gathered.media_type,
        promoted_at: candidate.promoted_at,
        promoted_by: candidate.promoted_by,
        decision: candidate.decision,
        provenance: provenance(facts, &good.gates),
        gates: good.gates,
        warnings: good.warnings,
        scan: scans(facts),
        approvals: facts.approvals.iter().map(|approval| approval.by.clone()).collect(),
        previous: candidate.previous.map(|previous| Earlier {
            digest: previous.manifest,
            version: previous.version,
            promoted_at: previous.promoted_at,
        }),
        passed_over,
        valid_until: candidate.valid_until,
        summary,
        event: EventSeen { id: candidate.event_id, leaf: STANDARD.encode(gathered.leaf.unwrap_or_default()) },
        log_proof: None,
    })
}

/// The provenance that a gate relied on.
fn provenance(facts: &crate::policy::Facts, gates: &[GateResult]) -> Option<Provenance> {
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

fn scans(facts: &crate::policy::Facts) -> Vec<ScanSeen> {
    let seen = facts.scans.iter().map(|scan| ScanSeen {
        sha256: scan.sha256.clone(),
        scanner: scan.scanner.clone(),
        scanned_at: scan.scanned_at,
        database_updated_at: scan.database_updated_at,
        report: scan.report.clone(),
    });
    seen.collect()
}
