//! Reading the log, by index.

use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Entries of one page at the most.
pub const MAX_PAGE: i64 = 1000;

/// What a reader of the log asks for.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Entries with an index of at least this.
    pub from_index: i64,
    /// Entries with an index below this. A reader that filters goes on in windows of it, so that no
    /// statement runs long over entries that do not match.
    pub to_index: i64,
    /// Only this repository.
    pub repository: Option<RepositoryName>,
    /// Only what happened in one of these.
    pub environments: Option<Vec<EnvironmentName>>,
    /// Only about this digest.
    pub digest: Option<Digest>,
    /// Only this kind.
    pub kind: Option<String>,
    /// Only by this principal.
    pub principal: Option<String>,
    /// Only at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Only before this time.
    pub until: Option<DateTime<Utc>>,
    /// Entries at the most.
    pub limit: i64,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            from_index: 0,
            to_index: i64::MAX,
            repository: None,
            environments: None,
            digest: None,
            kind: None,
            principal: None,
            since: None,
            until: None,
            limit: MAX_PAGE,
        }
    }
}

/// An event with its place in the log.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Its index, gapless from 0.
    pub index: i64,
    /// The event's id.
    pub event_id: i64,
    /// Who made it happen, by the name they have now.
    pub principal: String,
    /// The canonical JSON that the log commits to.
    pub leaf: Vec<u8>,
}

/// A page of the log in its order.
pub async fn page(connection: &mut PgConnection, filter: &Filter) -> Result<Vec<Logged>, Failure> {
    sqlx::query_as!(
        Logged,
        r#"select l.idx as "index!", e.id as "event_id!", p.name as "principal!", e.leaf as "leaf!"
           from log_entries l join events e on e.id = l.event_id join principals p on p.id = e.principal_id
           left join repositories r on r.id = e.repository_id
           left join environments v on v.id = e.environment_id
           where l.idx >= $1 and l.idx < $2
             and ($3::text is null or r.name = $3)
             and ($4::text is null or e.digest = $4)
             and ($5::text is null or e.kind = $5)
             and ($6::text is null or p.name = $6)
             and ($7::timestamptz is null or e.at >= $7)
             and ($8::timestamptz is null or e.at < $8)
             and ($9::text[] is null or v.name = any($9))
           order by l.idx limit $10"#,
        filter.from_index,
        filter.to_index,
        filter.repository.as_ref() as Option<&RepositoryName>,
        filter.digest.as_ref() as Option<&Digest>,
        filter.kind,
        filter.principal,
        filter.since,
        filter.until,
        filter.environments.as_deref() as Option<&[EnvironmentName]>,
        filter.limit.clamp(1, MAX_PAGE),
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading the log", error))
}

/// How many entries the log has.
pub async fn size(connection: &mut PgConnection) -> Result<i64, Failure> {
    sqlx::query_scalar!("select size from log_state")
        .fetch_one(connection)
        .await
        .map_err(|error| Failure::new("reading the log's size", error))
}
