//! One list over all exceptions, in one shape.

use super::reviews::ReviewTimes;
use super::shown::{Page, Shown};
use super::store::every as store;
use super::{Origin, block_counts, waivers};
use crate::access::{Lane, Rank};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName};
use crate::policy::package_accepts;
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// What kind of exception.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the word itself")]
pub enum ExceptionKind {
    Approval,
    Block,
    Hold,
    Override,
    Waiver,
}

impl ExceptionKind {
    const ALL: [Self; 5] = [Self::Approval, Self::Block, Self::Hold, Self::Override, Self::Waiver];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Block => "block",
            Self::Hold => "hold",
            Self::Override => "override",
            Self::Waiver => "waiver",
        }
    }
}

/// Why somebody should look at an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// A waiver: no open finding of the newest scans has its names.
    MatchesNothing,
    /// It expires within seven days.
    EndsWithinAWeek,
    /// An override: nobody reviewed it yet.
    Unreviewed,
    /// An override: nobody reviewed it in the time that the policies in force state.
    ReviewOverdue,
    /// A waiver: nobody approved it yet.
    Proposed,
}

/// Where an exception counts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExceptionScope {
    /// The repository; null: every one, those of `repositories`, or one that the caller may not see.
    pub repository: Option<RepositoryName>,
    /// A waiver's pattern of repositories.
    pub repositories: Option<Pattern>,
    /// The environment; null: every one.
    pub environment: Option<EnvironmentName>,
    /// The manifest.
    pub digest: Option<Digest>,
}

/// An exception of any kind.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExceptionRow {
    /// What kind.
    pub kind: ExceptionKind,
    /// Its id among those of its kind.
    pub id: i64,
    /// Where it counts.
    pub scope: ExceptionScope,
    /// Why; null where the caller may not see where it was made.
    pub reason: Option<String>,
    /// Who made it; null likewise.
    pub created_by: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether somebody asked for it, or a rollback left it.
    pub origin: Origin,
    /// The rank of a block or hold: the same or a higher one lifts it.
    #[schema(value_type = Option<String>)]
    pub rank: Option<Rank>,
    /// Why somebody should look at it.
    pub needs_attention: Vec<Attention>,
    /// Where a block counts beside its own repository.
    #[serde(skip)]
    pub(super) reach: Vec<Pattern>,
    /// A waiver's package.
    #[serde(skip)]
    pub(super) package: Option<String>,
}

impl ExceptionRow {
    /// What is shown of a block to a caller who may not see where it was made.
    #[must_use]
    pub fn from_elsewhere(self) -> Self {
        let scope = ExceptionScope { repository: None, ..self.scope };
        Self { scope, reason: None, created_by: None, ..self }
    }

    fn at(&self) -> ExceptionAt {
        ExceptionAt { created_at: self.created_at, kind: self.kind, id: self.id }
    }
}

/// What the list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct ExceptionFilter {
    /// Those that count in this repository.
    pub repository: Option<RepositoryName>,
    /// Those that count in this environment.
    pub environment: Option<EnvironmentName>,
    /// Of this kind.
    pub kind: Option<ExceptionKind>,
    /// Those that expire before this time, and did not yet.
    pub ending_before: Option<DateTime<Utc>>,
    /// Expired and ended ones too.
    pub ended: bool,
}

/// A place in the list: it is ordered by time, kind and id, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionAt {
    pub(super) created_at: DateTime<Utc>,
    pub(super) kind: ExceptionKind,
    pub(super) id: i64,
}

/// Not such a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the list of exceptions")]
pub struct InvalidPlace;

impl fmt::Display for ExceptionAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.created_at.timestamp_micros(), self.kind.as_str(), self.id)
    }
}

impl FromStr for ExceptionAt {
    type Err = InvalidPlace;
    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(InvalidPlace);
        let micros: i64 = part()?.parse().map_err(|_| InvalidPlace)?;
        let kind = part()?;
        Ok(Self {
            created_at: DateTime::from_timestamp_micros(micros).ok_or(InvalidPlace)?,
            kind: ExceptionKind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or(InvalidPlace)?,
            id: part()?.parse().map_err(|_| InvalidPlace)?,
        })
    }
}

/// Exceptions of which `shown` shows something, the newest first, and where the next page begins.
pub async fn exceptions(
    db: &Db,
    filter: &ExceptionFilter,
    shown: impl Fn(ExceptionRow) -> Option<ExceptionRow>,
    before: Option<ExceptionAt>,
    limit: i64,
) -> Result<Page<ExceptionRow, ExceptionAt>, Failure> {
    let mut connection = db.acquire().await?;
    let mut page = Shown::new(before, limit);
    while let Some(rows) = page.rows() {
        let found = store::list(&mut connection, filter, page.before(), rows).await?;
        page.take(found, ExceptionRow::at, |row| {
            let covers = |name: &RepositoryName| {
                let is_own = row.kind != ExceptionKind::Block || row.scope.repository.as_ref() == Some(name);
                row.scope.repositories.as_ref().is_none_or(|pattern| pattern.matches(name.as_str()))
                    && block_counts(is_own, &row.reach, name)
            };
            if filter.repository.as_ref().is_none_or(covers) { shown(row) } else { None }
        });
    }
    let mut page = page.done();
    flag_overdue(&mut connection, &mut page.items).await?;
    let now = crate::postgres::database_time(&mut connection).await?;
    let counts =
        |row: &ExceptionRow| row.ended_at.is_none() && row.expires_at.is_none_or(|expires| now < expires);
    let open: Vec<&ExceptionRow> =
        page.items.iter().filter(|row| row.kind == ExceptionKind::Waiver && counts(row)).collect();
    let ids: Vec<i64> = open.iter().map(|row| row.id).collect();
    let matching = waivers::matching(&mut connection, &ids, |id, repository, purl| {
        open.iter().find(|row| row.id == id).is_some_and(|row| {
            row.scope.repositories.as_ref().is_some_and(|pattern| pattern.matches(repository.as_str()))
                && package_accepts(row.package.as_deref(), purl)
        })
    })
    .await?;
    for row in page.items.iter_mut().filter(|row| ids.contains(&row.id) && row.kind == ExceptionKind::Waiver)
    {
        if !matching.contains(&row.id) {
            row.needs_attention.push(Attention::MatchesNothing);
        }
    }
    Ok(page)
}

async fn flag_overdue(connection: &mut PgConnection, rows: &mut [ExceptionRow]) -> Result<(), Failure> {
    let lane = |row: &ExceptionRow| {
        let unreviewed = row.needs_attention.contains(&Attention::Unreviewed);
        let (repository, environment) = (row.scope.repository.clone()?, row.scope.environment.clone()?);
        unreviewed.then_some(Lane { repository, environment })
    };
    let lanes: Vec<Lane> = rows.iter().filter_map(lane).collect();
    let environments = lanes.iter().map(|lane| &lane.environment).collect();
    let times = ReviewTimes::read(connection, &environments).await?;
    for row in rows {
        if lane(row).is_some_and(|lane| times.due(&lane, row.created_at).1) {
            row.needs_attention.push(Attention::ReviewOverdue);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_list_is_read_back() {
        let at = ExceptionAt {
            created_at: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
            kind: ExceptionKind::Override,
            id: 42,
        };
        assert_eq!(at.to_string().parse(), Ok(at));
        for bad in ["", "1", "1.hold", "1.stop.2", "x.hold.2", "1.hold.x", "1.hold.2.3"] {
            assert_eq!(bad.parse::<ExceptionAt>(), Err(InvalidPlace), "{bad}");
        }
    }
}
