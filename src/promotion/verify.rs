//! One digest: may it run here, now? Nothing is written.

use super::What;
use super::facts::{self, Wanted};
use super::resolve::judge;
use super::standing::never_promoted;
use super::store::promotions;
use crate::access::{Grant, Lane, Pull};
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName, Tag};
use crate::policy::{GateResult, Verdict, reasons};
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::sync::Arc;
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
}

/// Verifies a digest: it, or an index that holds it, was promoted here, and is still good. A
/// promoted version that another has replaced may still run; only what is current has grace.
pub async fn verify(db: &Db, grant: &Grant<Pull, Lane>, what: &What) -> Result<Verification, Failure> {
    let mut connection = db.acquire().await?;
    let Lane { repository, environment } = grant.scope();
    let digest = match what {
        What::Digest(digest) => Some(digest.clone()),
        What::Version(tag) => promotions::digest_of_version(&mut connection, repository, tag).await?,
    };
    let Some(digest) = &digest else {
        return Ok(no(Some(repository), None, format!("there is no such version of {repository}")));
    };
    let carrying = promotions::carrying(&mut connection, repository, environment, digest).await?;
    let message = || format!("{digest} of {repository} was never promoted to {environment}");
    let never = || no(Some(repository), Some(digest), message());
    if carrying.is_none() {
        return Ok(never());
    }
    let wanted = Wanted { repository, environment, digest: None, promotion: carrying };
    let Some(gathered) = facts::gather(&mut connection, wanted).await? else { return Ok(never()) };
    let release = Arc::clone(&gathered.release);
    let Some(promotion) = &release.promotion else { return Ok(never()) };
    let subject = &gathered.facts.subject;
    let itself = subject.digest == *digest || subject.sha256 == *digest;
    let platform = subject.platforms.iter().find(|p| p.digest == *digest || p.sha256 == *digest);
    let child = if itself { None } else { platform.filter(|p| !p.is_document()).map(|p| p.digest.clone()) };
    if !itself && child.is_none() {
        let message = format!("{digest} is part of {}, but not an image that runs", subject.digest);
        return Ok(no(Some(repository), Some(digest), message));
    }
    let (case, standing) = judge(&mut connection, promotion, gathered, child).await?;
    Ok(Verification {
        verdict: standing.verdict,
        repository: Some(repository.clone()),
        digest: Some(digest.clone()),
        index: case.child.map(|_| promotion.manifest.clone()),
        version: promotion.version.clone(),
        promoted_at: Some(promotion.promoted_at),
        decision_id: Some(promotion.decision.clone()),
        reasons: reasons(&standing.gates),
        gates: standing.gates,
        warnings: standing.warnings,
    })
}

/// The answer about something that was never promoted.
pub(super) fn no(
    repository: Option<&RepositoryName>,
    digest: Option<&Digest>,
    message: String,
) -> Verification {
    let gates = vec![never_promoted(message)];
    Verification {
        verdict: Verdict::Deny,
        repository: repository.cloned(),
        digest: digest.cloned(),
        index: None,
        version: None,
        promoted_at: None,
        decision_id: None,
        reasons: reasons(&gates),
        gates,
        warnings: Vec::new(),
    }
}
