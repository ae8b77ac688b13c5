//! One digest: may it run here, now? Nothing is written.

use super::What;
use super::answer::{PromotedByOverride, summary_of};
use super::evaluate::{self, Evaluation, never_promoted};
use super::store::promotions;
use crate::access::{Grant, Lane, View};
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName, Tag};
use crate::policy::{AtRisk, GateResult, NotToday, Verdict, reasons};
use crate::postgres::{Db, database_time};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verification {
    /// Whether it may run.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The repository that the answer is about, where it is one of this registry.
    pub repository: Option<RepositoryName>,
    /// What was asked about.
    pub digest: Option<Digest>,
    /// The promoted index that it is a child of, when it was not promoted itself.
    pub index: Option<Digest>,
    /// Whether it is the version that known-good answers.
    pub current: bool,
    /// When it was evaluated: the database's time.
    pub evaluated_at: DateTime<Utc>,
    /// The version it was promoted as.
    pub version: Option<Tag>,
    /// When it was promoted.
    pub promoted_at: Option<DateTime<Utc>>,
    /// The recorded decision that allowed its promotion.
    pub decision_id: Option<Digest>,
    /// Every gate, today.
    pub gates: Vec<GateResult>,
    /// Why not.
    pub reasons: Vec<String>,
    /// What holds for now but will not for ever.
    pub warnings: Vec<String>,
    /// Named, dated risks.
    pub at_risk: Vec<AtRisk>,
    /// Gates that would refuse it if it were promoted today.
    pub would_not_be_promoted_today: Vec<NotToday>,
    /// Overrides that its promotion used and that nobody reviewed yet.
    pub promoted_by_override: Vec<PromotedByOverride>,
    /// Until when the summary may be relied on.
    pub valid_until: Option<DateTime<Utc>>,
    /// The newest verification summary of its promotion, a DSSE envelope; null where it was never promoted.
    #[schema(value_type = Option<Object>)]
    pub summary: Option<Box<RawValue>>,
}

/// Verifies a digest: it, or an index that holds it, was promoted here, and may go on running. The answer is
/// allow or deny, never defer.
pub async fn verify(db: &Db, grant: &Grant<View, Lane>, what: &What) -> Result<Verification, Failure> {
    let mut snapshot = db.snapshot().await?;
    let lane = grant.scope();
    let Lane { repository, environment } = lane;
    let digest = match what {
        What::Digest(digest) => Some(digest.clone()),
        What::Version(tag) => promotions::digest_of_version(&mut snapshot, repository, tag).await?,
    };
    let Some(digest) = digest else {
        let at = database_time(&mut snapshot).await?;
        let mut answer = no(Some(repository), None, format!("there is no such version of {repository}"), at);
        answer.gates.iter_mut().for_each(|gate| gate.solution = Some("check the version's name".to_owned()));
        return Ok(answer);
    };
    let evaluated = evaluate::digest(&mut snapshot, lane, &digest, matches!(what, What::Version(_))).await?;
    let (found, current) = match evaluated {
        Evaluation::Found(found, current) => (found, current),
        Evaluation::NeverPromoted => {
            let at = database_time(&mut snapshot).await?;
            let message = format!("{digest} of {repository} was never promoted to {environment}");
            return Ok(no(Some(repository), Some(&digest), message, at));
        }
        Evaluation::NotAnImage(index) => {
            let at = database_time(&mut snapshot).await?;
            let message = format!("{digest} is part of {index}, but not an image that runs");
            return Ok(no(Some(repository), Some(&digest), message, at));
        }
    };
    let (promotion, status) = (found.promotion, found.status);
    Ok(Verification {
        verdict: status.verdict,
        repository: Some(repository.clone()),
        digest: Some(digest),
        index: found.case.child.as_ref().map(|_| promotion.manifest.clone()),
        current,
        evaluated_at: found.case.at,
        version: promotion.version.clone(),
        promoted_at: Some(promotion.promoted_at),
        decision_id: Some(promotion.decision.clone()),
        reasons: reasons(&status.gates),
        gates: status.gates,
        warnings: status.warnings,
        at_risk: status.at_risk,
        would_not_be_promoted_today: status.would_not_be_promoted_today,
        promoted_by_override: PromotedByOverride::of(&found.case, &found.policies.in_force, &promotion),
        valid_until: Some(promotion.valid_until),
        summary: Some(summary_of(&found.release)?),
    })
}

impl Verification {
    /// Turns an allow into a deny where the version is at risk.
    pub fn deny_at_risk(&mut self) {
        if self.verdict == Verdict::Allow && !self.at_risk.is_empty() {
            self.verdict = Verdict::Deny;
            let risks = self.at_risk.iter().map(|risk| format!("at_risk: {}: {}", risk.gate, risk.message));
            self.reasons = risks.collect();
        }
    }
}

/// The answer about something that was never promoted.
pub(super) fn no(
    repository: Option<&RepositoryName>,
    digest: Option<&Digest>,
    message: String,
    evaluated_at: DateTime<Utc>,
) -> Verification {
    let gates = vec![never_promoted(message)];
    Verification {
        verdict: Verdict::Deny,
        repository: repository.cloned(),
        digest: digest.cloned(),
        index: None,
        current: false,
        evaluated_at,
        version: None,
        promoted_at: None,
        decision_id: None,
        reasons: reasons(&gates),
        gates,
        warnings: Vec::new(),
        at_risk: Vec::new(),
        would_not_be_promoted_today: Vec::new(),
        promoted_by_override: Vec::new(),
        valid_until: None,
        summary: None,
    }
}
