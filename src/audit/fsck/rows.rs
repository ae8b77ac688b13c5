//! Rows of content and of evidence, against each other and against their bytes.

use super::Audit;
use crate::attestation;
use crate::audit::Repair;
use crate::content;
use crate::evidence;
use crate::failure::Failure;

/// Rows of one page.
const PAGE: i64 = 500;

impl Audit<'_> {
    /// Tags against manifests, and what repositories hold against what is counted.
    pub(super) async fn content(&mut self) -> Result<(), Failure> {
        let mut connection = self.db.acquire().await?;
        for what in content::check_tags(&mut connection).await? {
            self.violation(what);
        }
        for what in content::check_hidden(&mut connection).await? {
            self.repairable(what, Some(Repair::HiddenTags));
        }
        for (repository_id, what) in content::check_usage(&mut connection).await? {
            self.repairable(what, Some(Repair::Usage { repository_id }));
        }
        self.looked(1, 0).await;
        self.came_to(String::new())
    }

    /// Manifests against their digests, and that what they need is held for them.
    pub(super) async fn manifests(&mut self) -> Result<(), Failure> {
        loop {
            let mut connection = self.db.acquire().await?;
            let last = self.last();
            let (repository_id, digest) = last.split_once('/').unwrap_or(("0", ""));
            let repository_id = repository_id.parse().unwrap_or_default();
            let page = content::manifests_page(&mut connection, repository_id, digest, PAGE).await?;
            let Some(end) = &page.last else { return Ok(()) };
            match content::check_manifests(&mut connection, (repository_id, digest), end).await {
                Ok(violations) => {
                    for what in violations {
                        self.violation(what);
                    }
                }
                // A row that cannot be decoded any more stops the page, not the audit.
                Err(failure) => self.violation(failure.chain()),
            }
            drop(connection);
            self.looked(page.rows, page.bytes).await;
            self.came_to(format!("{}/{}", end.0, end.1))?;
        }
    }

    /// Blobs that lie in their rows, against their digests, and those that are known to be damaged.
    pub(super) async fn small_blobs(&mut self) -> Result<(), Failure> {
        loop {
            let last = self.last();
            let page = content::check_small_blobs(&mut *self.db.acquire().await?, &last, PAGE).await?;
            let Some(end) = page.last else { return Ok(()) };
            for digest in page.wrong {
                let what = format!("a small blob is not the bytes of its digest: {digest}");
                self.repairable(what, Some(Repair::Blob { digest }));
            }
            for digest in page.damaged {
                self.violation(format!("blob {digest} is damaged and waits to be pushed again"));
            }
            self.looked(page.rows, page.bytes).await;
            self.came_to(end)?;
        }
    }

    /// Attestations against their envelopes.
    pub(super) async fn attestations(&mut self) -> Result<(), Failure> {
        let violations = attestation::check_attestations(&mut *self.db.acquire().await?).await?;
        for what in violations {
            self.violation(what);
        }
        self.looked(1, 0).await;
        self.came_to(String::new())
    }

    /// Every set of findings is what its digest says, and its counts are its findings'.
    pub(super) async fn findings(&mut self) -> Result<(), Failure> {
        loop {
            let mut connection = self.db.acquire().await?;
            let last = self.last().parse().ok();
            let page = evidence::finding_sets(&mut connection, last.as_ref(), PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            for (digest, counts) in page {
                match evidence::stored_findings(&mut connection, &digest).await? {
                    Ok(set) if *set.digest() != digest => {
                        self.violation(format!("the findings of {digest} hash to {}", set.digest()));
                    }
                    Ok(set) if serde_json::json!(set.counts()) != counts => {
                        self.violation(format!("the counts of {digest} are not its findings'"));
                    }
                    Ok(_) => {}
                    Err(why) => self.violation(format!("the findings of {digest}: {why}")),
                }
                self.looked(1, 0).await;
                self.came_to(digest.to_string())?;
            }
        }
    }
}
