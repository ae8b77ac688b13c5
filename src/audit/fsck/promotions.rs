//! Promotions against what they stand on.

use super::Audit;
use crate::audit::store::promotions as rows;
use crate::failure::Failure;

impl Audit<'_> {
    /// Every promotion stands on a decision that said yes about the same manifest in the same place,
    /// and on its event.
    pub(super) async fn promotions(&mut self) -> Result<(), Failure> {
        let wrong = rows::wrong(&mut *self.db.acquire().await?).await?;
        for what in wrong {
            self.violation(what);
        }
        self.looked(1, 0).await;
        self.came_to(String::new())
    }
}
