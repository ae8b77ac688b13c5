//! Rows that decide something, against the events that made them.

use super::Audit;
use crate::audit::store::facts as rows;
use crate::failure::Failure;

/// Rows of one page.
const PAGE: i64 = 500;

impl Audit<'_> {
    /// Every manifest, name, block, hold, approval, waiver, override, policy, signer, role, token and scan was made and ended
    /// by an event: what is written behind the service decides nothing unseen.
    pub(super) async fn facts(&mut self) -> Result<(), Failure> {
        let begin = self.last();
        let (from, mut last) =
            begin.split_once(':').map_or(("", String::new()), |(kind, last)| (kind, last.to_owned()));
        for kind in rows::FACTS.into_iter().skip_while(|kind| !from.is_empty() && kind.as_str() != from) {
            loop {
                let page = rows::page(&mut *self.db.acquire().await?, kind, &last, PAGE).await?;
                let Some(end) = page.last() else { break };
                last.clone_from(&end.key);
                let looked = page.len() as u64;
                for untold in page.into_iter().filter_map(|row| row.untold) {
                    self.violation(untold);
                }
                self.looked(looked, 0).await;
                self.came_to(format!("{}:{last}", kind.as_str()))?;
            }
            last.clear();
        }
        Ok(())
    }
}
