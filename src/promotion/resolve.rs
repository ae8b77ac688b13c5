//! The deployer's question: which version is known to be good here, now? Evaluated at each question with
//! today's facts; nothing is written.

use super::answer::{Candidate, KnownGood};
use super::evaluate::{self, Part};
use super::store::environments;
use crate::access::{Grant, Lane, View};
use crate::failure::Failure;
use crate::names::{EnvironmentName, Platform};
use crate::policy::Position;
use crate::postgres::Db;
use sqlx::PgConnection;

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

/// Answers with the newest promotion that may go on running, or else with the newest earlier version that a
/// rollback would take without naming it. As a rule the first is the answer, and is gathered by one
/// statement; what follows reads one snapshot.
pub async fn known_good(
    db: &Db,
    grant: &Grant<View, Lane>,
    question: &Question<'_>,
) -> Result<KnownGood, NoKnownGood> {
    if question.purpose == Purpose::Deploy {
        let mut connection = db.acquire().await?;
        let (lane, part) = (grant.scope(), question.part());
        let newest = evaluate::promoted(&mut connection, lane, None, part, Some(Position::Current)).await?;
        if let Some(Ok(newest)) = newest
            && newest.is_allowed()
        {
            return Ok(KnownGood::new(question.registry, newest, Vec::new(), false)?);
        }
    }
    let mut snapshot = db.snapshot().await?;
    let for_rollback = question.purpose == Purpose::Rollback;
    let lane = grant.scope();
    let walk = evaluate::walk(&mut snapshot, lane, question.part(), for_rollback).await?;
    let skipped: Vec<Candidate> = walk.skipped.into_iter().map(Candidate::from).collect();
    match walk.answer {
        Some(found) => Ok(KnownGood::new(question.registry, found, skipped, walk.platforms_differ)?),
        None => Err(nothing(&mut snapshot, lane, skipped).await?),
    }
}

/// Why there is no answer. Where nothing at all was promoted, the environment may not be there.
async fn nothing(
    connection: &mut PgConnection,
    lane: &Lane,
    skipped: Vec<Candidate>,
) -> Result<NoKnownGood, Failure> {
    if skipped.is_empty() && environments::find(connection, &lane.environment).await?.is_none() {
        let known = environments::list(connection, "", i64::MAX).await?;
        return Ok(NoKnownGood::UnknownEnvironment(known.into_iter().map(|row| row.name).collect()));
    }
    Ok(NoKnownGood::Because(skipped))
}

impl<'a> Question<'a> {
    fn part(&self) -> Part<'a> {
        self.platform.map_or(Part::Whole, Part::Platform)
    }
}
