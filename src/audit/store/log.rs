//! The log's rows.

use crate::failure::Failure;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// One line for each thing that is wrong with the indices, 100 at the most of each kind; one
/// snapshot for all, so that it may run beside the sequencer.
pub async fn gaps(connection: &mut PgConnection) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"(select 'the log says that it has ' || s.size || ' entries and has ' || l.entries as "wrong!"
            from log_state s, (select count(*) as entries from log_entries) l where s.size <> l.entries)
           union all
           (select 'the index ' || g.idx || ' comes after ' || coalesce(g.before::text, 'nothing')
            from (select idx, lag(idx) over (order by idx) as before from log_entries) g
            where g.idx <> coalesce(g.before + 1, 0) order by g.idx limit 100)
           union all
           (select 'event ' || e.id || ' is neither logged nor waiting to be' from events e
            where not exists (select from log_entries l where l.event_id = e.id)
              and not exists (select from log_pending p where p.event_id = e.id) order by e.id limit 100)
           union all
           (select 'event ' || p.event_id || ' is logged and still waits to be' from log_pending p
            where exists (select from log_entries l where l.event_id = p.event_id) order by p.event_id limit 100)"#
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing the log", error))
}

/// An event with its columns.
#[derive(Clone, Debug)]
pub struct EventRow {
    pub id: i64,
    pub kind: String,
    pub at: DateTime<Utc>,
    pub principal_id: i64,
    pub repository: Option<String>,
    pub environment: Option<String>,
    pub digest: Option<String>,
    pub leaf: Vec<u8>,
}

/// A page of events, by id. Ids are no order of what happened, only a way through the table; an
/// event that commits behind the page is the next audit's.
pub async fn events(connection: &mut PgConnection, last: i64, limit: i64) -> Result<Vec<EventRow>, Failure> {
    sqlx::query_as!(
        EventRow,
        r#"select e.id, e.kind, e.at, e.principal_id, r.name as "repository?", v.name as "environment?", e.digest, e.leaf
           from events e
             left join repositories r on r.id = e.repository_id
             left join environments v on v.id = e.environment_id
           where e.id > $1 order by e.id limit $2"#,
        last,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading events", error))
}
