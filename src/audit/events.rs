//! What happened, in the log's order.

use crate::access::{Audit, Everything, Grant, SomeLane};
use crate::failure::Failure;
use crate::ledger::{self, Filter, Logged, MAX_PAGE};
use crate::names::{Digest, EnvironmentName};
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use futures::Stream;
use futures::stream::try_unfold;
use std::collections::BTreeSet;

/// Who may read: the whole log, or one repository's part of it.
#[derive(Debug)]
pub enum Auditor {
    /// Everything that happened.
    Everything(Grant<Audit, Everything>),
    /// What happened to one repository, in one of these environments; `None` is all that happened to it.
    Repository(Grant<Audit, SomeLane>, Option<BTreeSet<EnvironmentName>>),
}

impl Auditor {
    fn filter(&self) -> Filter {
        match self {
            Self::Everything(_) => Filter::default(),
            Self::Repository(grant, environments) => Filter {
                repository: Some(grant.scope().0.clone()),
                environments: environments.as_ref().map(|names| names.iter().cloned().collect()),
                ..Filter::default()
            },
        }
    }
}

/// Which events are asked for. The repository comes with the [`Auditor`].
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// From this index on.
    pub from_index: i64,
    /// Only about this digest.
    pub digest: Option<Digest>,
    /// Only of this kind.
    pub kind: Option<ledger::Kind>,
    /// Only by this principal.
    pub principal: Option<String>,
    /// Only at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Only before this time.
    pub until: Option<DateTime<Utc>>,
}

impl Question {
    fn filter(self, auditor: &Auditor) -> Filter {
        Filter {
            from_index: self.from_index.max(0),
            digest: self.digest,
            kind: self.kind.map(|kind| kind.as_str().to_owned()),
            principal: self.principal,
            since: self.since,
            until: self.until,
            ..auditor.filter()
        }
    }
}

/// Indices that one statement looks at: even a filter that matches nothing ends soon and lets go of
/// its snapshot, which would otherwise keep the sequencer's dead rows alive.
const WINDOW: i64 = 5 * MAX_PAGE;

/// Windows of one page: what a request looks at before it answers with what it has.
const WINDOWS_PER_PAGE: usize = 100;

/// A page of events.
#[derive(Clone, Debug)]
pub struct Page {
    /// The events, by index.
    pub events: Vec<Logged>,
    /// Where to go on; `None` at the end of the log. Everything before it was looked at.
    pub next_index: Option<i64>,
    /// How many entries the log had.
    pub size: i64,
}

/// Events by index, at most `limit`. A page may hold fewer, even none, and still have a next one.
pub async fn page(db: &Db, auditor: &Auditor, question: Question, limit: i64) -> Result<Page, Failure> {
    let limit = limit.clamp(1, MAX_PAGE);
    let mut filter = question.filter(auditor);
    let mut connection = db.acquire().await?;
    let size = ledger::size(&mut connection).await?;
    let mut events: Vec<Logged> = Vec::new();
    for _ in 0..WINDOWS_PER_PAGE {
        let wanted = limit - i64::try_from(events.len()).unwrap_or(limit);
        if wanted == 0 || filter.from_index >= size {
            break;
        }
        filter.to_index = size.min(filter.from_index.saturating_add(WINDOW));
        filter.limit = wanted;
        let found = ledger::page(&mut connection, &filter).await?;
        let full = i64::try_from(found.len()).unwrap_or(wanted) >= wanted;
        filter.from_index = match found.last() {
            Some(last) if full => last.index + 1,
            Some(_) | None => filter.to_index,
        };
        events.extend(found);
    }
    let next_index = (filter.from_index < size).then_some(filter.from_index);
    Ok(Page { events, next_index, size })
}

/// All events, or the first `limit`, up to the size that the log had at the start, with that size, page
/// by page. Every page is a statement of its own: an export may take hours.
pub async fn export(
    db: &Db,
    auditor: &Auditor,
    question: Question,
    limit: Option<i64>,
) -> Result<(i64, impl Stream<Item = Result<Vec<Logged>, Failure>> + Send + use<>), Failure> {
    let filter = question.filter(auditor);
    let db = db.clone();
    let size = ledger::size(&mut *db.acquire().await?).await?;
    let left = limit.unwrap_or(i64::MAX);
    let pages = try_unfold((db, filter, left), move |(db, mut filter, left)| async move {
        if filter.from_index >= size || left <= 0 {
            return Ok(None);
        }
        filter.to_index = size.min(filter.from_index.saturating_add(WINDOW));
        filter.limit = left.min(MAX_PAGE);
        let found = ledger::page(&mut *db.acquire().await?, &filter).await?;
        let count = i64::try_from(found.len()).unwrap_or(MAX_PAGE);
        let full = count >= filter.limit;
        filter.from_index = match found.last() {
            Some(last) if full => last.index + 1,
            Some(_) | None => filter.to_index,
        };
        Ok(Some((found, (db, filter, left - count))))
    });
    Ok((size, pages))
}
