//! The log's rows.

use crate::failure::Failure;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A page of the log's entries that were looked at.
pub struct Entries {
    pub rows: u64,
    /// What is wrong with them, in words.
    pub wrong: Vec<String>,
    /// The last index; none behind the end.
    pub last: Option<i64>,
}

/// The next entries from this index on: a gap before each, or an event that is not there.
pub async fn entries(connection: &mut PgConnection, from: i64, limit: i64) -> Result<Entries, Failure> {
    let rows = sqlx::query!(
        r#"select l.idx, l.event_id, e.id is not null as "there!"
           from (select idx, event_id from log_entries where idx >= $1 order by idx limit $2) l
             left join events e on e.id = l.event_id
           order by l.idx"#,
        from,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing the log", error))?;
    let (mut wrong, mut next) = (Vec::new(), from);
    for row in &rows {
        if row.idx != next {
            let before = if next == 0 { "nothing".to_owned() } else { (next - 1).to_string() };
            wrong.push(format!("the index {} comes after {before}", row.idx));
        }
        if !row.there {
            wrong.push(format!("the index {} is of event {}, which is gone", row.idx, row.event_id));
        }
        next = row.idx + 1;
    }
    Ok(Entries { rows: rows.len() as u64, wrong, last: rows.last().map(|row| row.idx) })
}

/// Whether the log says another size than its last index gives it; one snapshot, so that it may be asked
/// beside the sequencer.
pub async fn size(connection: &mut PgConnection) -> Result<Option<String>, Failure> {
    let row = sqlx::query!(
        r#"select (select size from log_state) as says,
             (select coalesce(max(idx) + 1, 0) from log_entries) as "has!""#
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("auditing the log's size", error))?;
    Ok(match row.says {
        Some(says) if says == row.has => None,
        Some(says) => Some(format!("the log says that it has {says} entries and has {}", row.has)),
        None => Some("the log does not say how many entries it has".to_owned()),
    })
}

/// An event with its columns, and where it stands.
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
    pub logged: bool,
    pub waits: bool,
}

/// A page of events, by id; so many that their leaves have few bytes together, and one at the least. Ids
/// are no order of what happened, only a way through the table; an event that commits behind the page is
/// the next audit's.
pub async fn events(
    connection: &mut PgConnection,
    last: i64,
    limit: i64,
    bytes: i64,
) -> Result<Vec<EventRow>, Failure> {
    sqlx::query_as!(
        EventRow,
        r#"select e.id as "id!", e.kind as "kind!", e.at as "at!", e.principal_id as "principal_id!",
             r.name as "repository?", v.name as "environment?", e.digest, e.leaf as "leaf!",
             exists (select from log_entries l where l.event_id = e.id) as "logged!",
             exists (select from log_pending p where p.event_id = e.id) as "waits!"
           from (select *, sum(octet_length(leaf)) over (order by id) - octet_length(leaf) as before
                 from (select * from events where id > $1 order by id limit $2) page) e
             left join repositories r on r.id = e.repository_id
             left join environments v on v.id = e.environment_id
           where e.before <= $3
           order by e.id"#,
        last,
        limit,
        bytes,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading events", error))
}
