//! The deployer's question: which version is known to be good here, now? Judged again at each
//! question with today's facts; nothing is written.

use super::answer::{Candidate, KnownGood};
use super::facts::{self, Gathered, Promotion, Wanted};
use super::standing::{Standing, standing};
use super::store::{environments, promotions};
use crate::access::{Grant, Lane, Pull};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Platform};
use crate::policy::platforms::{self, Chosen};
use crate::policy::{Action, Case, Verdict, reasons};
use crate::postgres::Db;
use sqlx::PgConnection;
use std::sync::Arc;

/// Versions looked at for one answer. Behind so many refused ones in a row, somebody should look
/// before anything older runs.
pub(super) const MAX_CANDIDATES: usize = 10;

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
    /// What for.
    pub purpose: Purpose,
    /// What it is to run on; of an index, the image that fits best is the answer.
    pub platform: Option<&'a Platform>,
    /// How clients reach the registry, for the reference.
    pub registry: &'a str,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoKnownGood {
    /// None of the candidates.
    #[error("no version is known to be good")]
    Because(Vec<Candidate>),
    /// There is no such environment, but there are these.
    #[error("there is no such environment")]
    UnknownEnvironment(Vec<EnvironmentName>),
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Answers with the newest promotion that is still good: the lane's newest, or else the versions
/// before it, each of other bytes. What is judged of each is gathered by one statement, which is one
/// snapshot; as a rule the first is the answer.
pub async fn known_good(
    db: &Db,
    grant: &Grant<Pull, Lane>,
    question: &Question<'_>,
) -> Result<KnownGood, NoKnownGood> {
    let mut connection = db.acquire().await?;
    let Lane { repository, environment } = grant.scope();
    let mut walk = Walk { grant, question, passed_over: Vec::new(), newest: None };
    if question.purpose == Purpose::Deploy {
        match walk.look_at(&mut connection, None).await? {
            Some(good) => return Ok(good),
            None if walk.passed_over.is_empty() => return Err(walk.nothing(&mut connection).await?),
            None => {}
        }
    }
    let left = MAX_CANDIDATES - walk.passed_over.len();
    for earlier in promotions::earlier(&mut connection, repository, environment, walk.newest, left).await? {
        if let Some(good) = walk.look_at(&mut connection, Some(earlier.promotion)).await? {
            return Ok(good);
        }
    }
    Err(walk.nothing(&mut connection).await?)
}

/// One question on its way back through the versions of a lane.
struct Walk<'a> {
    grant: &'a Grant<Pull, Lane>,
    question: &'a Question<'a>,
    passed_over: Vec<Candidate>,
    /// The promotion that was the newest at the first look.
    newest: Option<i64>,
}

impl Walk<'_> {
    /// The answer, if this promotion (or without one the newest) is good; why not is noted.
    async fn look_at(
        &mut self,
        connection: &mut PgConnection,
        promotion: Option<i64>,
    ) -> Result<Option<KnownGood>, Failure> {
        let wanted = Wanted {
            repository: &self.grant.scope().repository,
            environment: &self.grant.scope().environment,
            digest: None,
            promotion,
        };
        let Some(gathered) = facts::gather(connection, wanted).await? else { return Ok(None) };
        let release = Arc::clone(&gathered.release);
        let Some(promotion) = &release.promotion else { return Ok(None) };
        self.newest.get_or_insert(promotion.id);
        if gathered.present && self.question.purpose == Purpose::Rollback {
            return Ok(None);
        }
        let reasons = match child(self.question.platform, &gathered) {
            Ok(chosen) => {
                let (child, warning) = chosen.map_or((None, None), |c| (Some(c.digest), c.warning));
                let (case, mut standing) = judge(connection, promotion, gathered, child).await?;
                standing.warnings.extend(warning);
                if standing.verdict == Verdict::Allow {
                    let over = std::mem::take(&mut self.passed_over);
                    let reference = format!("{}/{}", self.question.registry, self.grant.scope().repository);
                    return KnownGood::new(&reference, &release, promotion, &case, standing, over).map(Some);
                }
                reasons(&standing.gates)
            }
            Err(reason) => vec![reason],
        };
        self.passed_over.push(Candidate::new(promotion, reasons));
        Ok(None)
    }

    /// Why there is no answer. Where nothing at all was promoted, the environment may not be there.
    async fn nothing(self, connection: &mut PgConnection) -> Result<NoKnownGood, Failure> {
        if self.passed_over.is_empty()
            && environments::find(connection, &self.grant.scope().environment).await?.is_none()
        {
            let known = environments::list(connection, "", i64::MAX).await?;
            return Ok(NoKnownGood::UnknownEnvironment(known.into_iter().map(|row| row.name).collect()));
        }
        Ok(NoKnownGood::Because(self.passed_over))
    }
}

/// The child of an index that the platform runs. Of what is no index it is asked only whether it runs there,
/// if that is known.
fn child(wanted: Option<&Platform>, gathered: &Gathered) -> Result<Option<Chosen>, String> {
    let Some(wanted) = wanted else { return Ok(None) };
    let listed = &gathered.facts.subject.platforms;
    if listed.is_empty() {
        let own: Option<Platform> = gathered.release.platform.as_ref().and_then(|text| text.parse().ok());
        return match own {
            Some(own) if wanted.runs(&own).is_none() => {
                Err(format!("platform: the image is for {own}, not for {wanted}"))
            }
            _ => Ok(None),
        };
    }
    let blocked = platforms::blocked(&gathered.facts, gathered.now);
    let chosen = platforms::choose(wanted, listed, &blocked);
    chosen.map(Some).ok_or_else(|| format!("platform: the index has no image for {wanted}"))
}

/// Judges a promotion with today's facts.
pub(super) async fn judge(
    connection: &mut PgConnection,
    promotion: &Promotion,
    gathered: Gathered,
    child: Option<Digest>,
) -> Result<(Case, Standing), Failure> {
    let policies = facts::policies(connection, &gathered).await?;
    let action = Action::Serve { running: gathered.present };
    let case = Case { action, at: gathered.now, child, facts: gathered.facts };
    let standing = standing(promotion, &policies, &case);
    Ok((case, standing))
}
