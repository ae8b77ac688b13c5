//! Events against the log and against themselves.

use super::Audit;
use crate::audit::store::kept;
use crate::audit::store::log::{self as rows, EventRow};
use crate::failure::Failure;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

/// Events of one page, and bytes of their leaves; one that is larger comes alone.
const PAGE: i64 = 1000;
const BYTES: i64 = 4 << 20;

impl Audit<'_> {
    /// Every event is logged or waits to be, its columns say what its leaf says, and what it tells of is
    /// still so, unless a later event tells otherwise.
    pub(super) async fn events(&mut self) -> Result<(), Failure> {
        loop {
            let last = self.last_id();
            let page = rows::events(&mut *self.db.acquire().await?, last, PAGE, BYTES).await?;
            let Some(end) = page.last().map(|event| event.id) else { return Ok(()) };
            for event in &page {
                if let Some(why) = event.misplaced() {
                    self.violation(format!("event {} {why}", event.id));
                }
                if let Some(why) = event.disagrees() {
                    self.violation(format!("event {}: {why}", event.id));
                }
            }
            let mut connection = self.db.acquire().await?;
            let mut gone = kept::lost(&mut connection, last, end).await?;
            gone.extend(kept::lost_names(&mut connection, last, end).await?);
            gone.extend(kept::lost_parts(&mut connection, last, end).await?);
            drop(connection);
            for what in gone {
                self.violation(what);
            }
            let bytes: u64 = page.iter().map(|event| event.leaf.len() as u64).sum();
            self.looked(page.len() as u64, bytes).await;
            self.came_to(end.to_string())?;
        }
    }
}

impl EventRow {
    fn misplaced(&self) -> Option<&'static str> {
        match (self.logged, self.waits) {
            (false, false) => Some("is neither logged nor waiting to be"),
            (true, true) => Some("is logged and still waits to be"),
            (true, false) | (false, true) => None,
        }
    }

    /// What the columns say otherwise than the leaf, which is what was committed to.
    fn disagrees(&self) -> Option<&'static str> {
        let Ok(leaf) = serde_json::from_slice::<Value>(&self.leaf) else {
            return Some("its leaf is not JSON");
        };
        if serde_json_canonicalizer::to_vec(&leaf).ok().as_deref() != Some(&*self.leaf) {
            return Some("its leaf is not canonical");
        }
        let text = |name: &str| leaf.get(name).and_then(Value::as_str);
        let columns = [
            (text("kind") == Some(&self.kind), "its kind is not its leaf's"),
            (text("at") == Some(&microseconds(self.at)), "its time is not its leaf's"),
            (text("digest") == self.digest.as_deref(), "its digest is not its leaf's"),
            (text("repository") == self.repository.as_deref(), "its repository is not its leaf's"),
            (text("environment") == self.environment.as_deref(), "its environment is not its leaf's"),
            (
                leaf.get("principal").and_then(Value::as_i64) == Some(self.principal_id),
                "its principal is not its leaf's",
            ),
        ];
        columns.into_iter().find_map(|(agrees, why)| (!agrees).then_some(why))
    }
}

fn microseconds(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
