//! The log's indices.

use super::Audit;
use crate::audit::store::log as rows;
use crate::failure::Failure;

/// Entries of one page.
const PAGE: i64 = 10_000;

impl Audit<'_> {
    /// The indices run from 0 to the log's size without a gap, and each names an event that is there. In
    /// pages: entries are only ever added behind, so no snapshot need see them all.
    pub(super) async fn log(&mut self) -> Result<(), Failure> {
        loop {
            let next = self.last_id();
            let page = rows::entries(&mut *self.db.acquire().await?, next, PAGE).await?;
            for what in page.wrong {
                self.violation(what);
            }
            let Some(end) = page.last else { break };
            self.looked(page.rows, 0).await;
            self.came_to((end + 1).to_string())?;
        }
        if let Some(what) = rows::size(&mut *self.db.acquire().await?).await? {
            self.violation(what);
        }
        Ok(())
    }
}
