//! Verifying what references name beyond a version or digest of one repository: something in an
//! environment's view, bytes in whatever repository, something in another registry.

use super::resolve::{NoKnownGood, Purpose, Question, known_good};
use super::store::references as store;
use super::verify::{Verification, no};
use super::view::CURRENT;
use super::{What, verify};
use crate::access::{Grant, Lane, View};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Reference, RepositoryName};
use crate::policy::{GateResult, Mode, Outcome, Verdict, reasons};
use crate::postgres::{Db, database_time};

/// Repositories that are evaluated for one digest.
const MAX_REPOSITORIES: usize = 100;
/// Names of repositories that are read at a time.
const PAGE: usize = 1000;
/// Names that are read, however few of them the caller may pull from.
const MAX_NAMES: usize = 10 * PAGE;

/// Verifies what a reference names in the view of an environment: `current` is the known-good version, and
/// everything else is what it is in the repository.
pub async fn verify_in_view(
    db: &Db,
    grant: &Grant<View, Lane>,
    reference: &Reference,
) -> Result<Verification, Failure> {
    let what = match reference {
        Reference::Digest(digest) => What::Digest(digest.clone()),
        Reference::Tag(tag) if tag.as_str() != CURRENT => What::Version(tag.clone()),
        Reference::Tag(_) => {
            let question = Question { purpose: Purpose::Deploy, platform: None, registry: "" };
            let Lane { repository, environment } = grant.scope();
            let at = database_time(&mut *db.acquire().await?).await?;
            match known_good(db, grant, &question).await {
                Ok(good) => What::Digest(good.digest),
                Err(NoKnownGood::Failed(failure)) => return Err(failure),
                Err(NoKnownGood::Because(candidates)) if !candidates.is_empty() => {
                    let reasons: Vec<String> = candidates.into_iter().flat_map(|c| c.reasons).collect();
                    let reasons = reasons.join("; ");
                    let message = format!(
                        "no promoted version of {repository} is good in {environment} now: {reasons}"
                    );
                    return Ok(no(Some(repository), None, message, at));
                }
                Err(NoKnownGood::Because(_) | NoKnownGood::UnknownEnvironment(_)) => {
                    let message = format!("nothing of {repository} was promoted to {environment}");
                    return Ok(no(Some(repository), None, message, at));
                }
            }
        }
    };
    verify(db, grant, &what).await
}

/// Verifies a digest in every repository that has it and from which the caller may pull in the
/// environment: it is allowed if one of them allows it, and the answer names that repository.
pub async fn verify_anywhere(
    db: &Db,
    environment: &EnvironmentName,
    digest: &Digest,
    may_view: impl Fn(&RepositoryName) -> Option<Grant<View, Lane>>,
) -> Result<Verification, Failure> {
    let (mut grants, more) = grants(db, environment, digest, may_view).await?;
    let at = database_time(&mut *db.acquire().await?).await?;
    let mut best: Option<Verification> = None;
    for grant in grants.drain(..) {
        let answer = verify(db, &grant, &What::Digest(digest.clone())).await?;
        if answer.verdict == Verdict::Allow {
            return Ok(answer);
        }
        // Where it was promoted once, the reasons say more.
        if best.as_ref().is_none_or(|best| best.decision_id.is_none() && answer.decision_id.is_some()) {
            best = Some(answer);
        }
    }
    let mut answer = best.unwrap_or_else(|| {
        let message =
            format!("{digest} was promoted to {environment} in no repository that you may pull from there");
        no(None, Some(digest), message, at)
    });
    if more {
        answer
            .warnings
            .push(format!("only {MAX_REPOSITORIES} of the repositories that have it were evaluated"));
    }
    Ok(answer)
}

/// The grants for the repositories, and whether there are more than are evaluated.
async fn grants(
    db: &Db,
    environment: &EnvironmentName,
    digest: &Digest,
    may_view: impl Fn(&RepositoryName) -> Option<Grant<View, Lane>>,
) -> Result<(Vec<Grant<View, Lane>>, bool), Failure> {
    let mut connection = db.acquire().await?;
    let (mut grants, mut last, mut read) = (Vec::new(), String::new(), 0);
    while read < MAX_NAMES {
        let names = store::promoted_from(&mut connection, environment, digest, &last, PAGE).await?;
        read += PAGE;
        grants.extend(names.iter().filter_map(&may_view));
        let done = names.len() < PAGE;
        last = names.last().map_or(last, ToString::to_string);
        let more = grants.len() > MAX_REPOSITORIES;
        grants.truncate(MAX_REPOSITORIES);
        if more || done {
            return Ok((grants, more));
        }
    }
    Ok((grants, true))
}

/// The answer about something in another registry: nothing of it is promoted here.
pub async fn in_another_registry(db: &Db, host: &str) -> Result<Verification, Failure> {
    let at = database_time(&mut *db.acquire().await?).await?;
    let gate = GateResult {
        gate: "registry",
        policy: None,
        mode: Mode::Enforce,
        outcome: Outcome::Fail,
        message: format!("{host} is another registry, and only what was promoted in this one may run"),
        warnings: Vec::new(),
        waived: Vec::new(),
        overridden: None,
        evidence: Vec::new(),
        solution: Some(
            "push it to this registry and promote it; where this is a name of this registry, the operator adds it \
             to PROOFMARK_ALIASES"
                .to_owned(),
        ),
    };
    let gates = vec![gate];
    Ok(Verification { reasons: reasons(&gates), gates, ..no(None, None, String::new(), at) })
}
