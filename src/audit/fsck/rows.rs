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
    /// Names against manifests and against their history.
    pub(super) async fn tags(&mut self) -> Result<(), Failure> {
        loop {
            let (repository_id, name) = self.last_in_repository();
            let mut connection = self.db.acquire().await?;
            let page = content::check_names(&mut connection, (repository_id, &name), PAGE).await?;
            drop(connection);
            let Some((repository_id, name)) = page.last else { return Ok(()) };
            for what in page.wrong {
                self.violation(what);
            }
            for what in page.hidden {
                self.repairable(what, Some(Repair::HiddenTags));
            }
            self.looked(page.rows, 0).await;
            self.came_to(format!("{repository_id}/{name}"))?;
        }
    }

    /// What repositories hold against what is counted.
    pub(super) async fn usage(&mut self) -> Result<(), Failure> {
        loop {
            let behind = self.last_id();
            let checked = content::check_usage(&mut *self.db.acquire().await?, behind).await?;
            let Some(checked) = checked else { return Ok(()) };
            let repository_id = checked.repository_id;
            if let Some(what) = checked.wrong {
                self.repairable(what, Some(Repair::Usage { repository_id }));
            }
            self.looked(checked.rows, 0).await;
            self.came_to(repository_id.to_string())?;
        }
    }

    /// Manifests against their digests, and that what they need is held for them.
    pub(super) async fn manifests(&mut self) -> Result<(), Failure> {
        loop {
            let mut connection = self.db.acquire().await?;
            let (repository_id, digest) = self.last_in_repository();
            let page = content::manifests_page(&mut connection, repository_id, &digest, PAGE).await?;
            let Some(end) = &page.last else { return Ok(()) };
            match content::check_manifests(&mut connection, (repository_id, &digest), end).await {
                Ok(violations) => {
                    for what in violations {
                        self.violation(what);
                    }
                }
                // A row that cannot be decoded any more stops the page, not the audit.
                Err(failure) if failure.is_of_an_unreadable_row() => self.violation(failure.chain()),
                Err(failure) => return Err(failure),
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
        loop {
            let behind = self.last_id();
            let page = attestation::check_attestations(&mut *self.db.acquire().await?, behind, PAGE).await?;
            let Some(end) = page.last else { return Ok(()) };
            for what in page.wrong {
                self.violation(what);
            }
            self.looked(page.rows, page.bytes).await;
            self.came_to(end.to_string())?;
        }
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
