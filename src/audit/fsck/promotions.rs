//! Promotions against what they stand on.

use super::Audit;
use crate::audit::store::promotions as rows;
use crate::failure::Failure;

/// Promotions of one page.
const PAGE: i64 = 500;

impl Audit<'_> {
    /// Every promotion stands on a decision that said yes about the same manifest in the same place,
    /// on its event, and on a pin that keeps what was promoted.
    pub(super) async fn promotions(&mut self) -> Result<(), Failure> {
        loop {
            let behind = self.last_id();
            let page = rows::page(&mut *self.db.acquire().await?, behind, PAGE).await?;
            let Some(end) = page.last().map(|row| row.id) else { return Ok(()) };
            let looked = page.len() as u64;
            for what in page.into_iter().filter_map(|row| row.wrong) {
                self.violation(what);
            }
            self.looked(looked, 0).await;
            self.came_to(end.to_string())?;
        }
    }
}
