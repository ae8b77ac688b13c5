//! Bytes against digests.

use super::{Audit, Step};
use crate::audit::store::bytes::{self as rows, ObjectRow};
use crate::evidence;
use crate::failure::Failure;
use crate::names::{Digest, Hasher};
use crate::storage::{Found, Location, Place, Store};
use futures::{StreamExt, TryStreamExt, stream};

/// Rows of one page.
const PAGE: i64 = 500;
/// Objects read at the same time.
const READERS: usize = 4;
/// Names of orphans in the report.
const SOME: usize = 20;

impl Audit<'_> {
    /// Reads every blob in the object store and compares what it hashes to with its row.
    pub(super) async fn objects(&mut self) -> Result<(), Failure> {
        let mut last = String::new();
        loop {
            let page = rows::objects(&mut *self.db.acquire().await?, &last, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = end.digest.to_string();
            let store = self.store;
            let read = page.into_iter().map(|row| async move { (hash(store, &row).await, row) });
            let mut read = stream::iter(read).buffer_unordered(READERS);
            while let Some((hashed, row)) = read.next().await {
                let wrong = match hashed {
                    Ok(digest) if digest == row.digest => None,
                    Ok(digest) => Some(format!("the bytes of blob {} hash to {digest}", row.digest)),
                    Err(failure) => Some(format!("blob {} cannot be read: {}", row.digest, failure.chain())),
                };
                if let Some(wrong) = wrong
                    && rows::is_there(&mut *self.db.acquire().await?, &row).await?
                {
                    self.violation(Step::Objects, wrong);
                }
                self.looked(Step::Objects, 1, row.size_bytes.unsigned_abs());
            }
        }
    }

    /// Compares what lies in the store with the rows: objects without one are orphans, objects of
    /// another size than their row's are wrong.
    pub(super) async fn orphans(&mut self) -> Result<(), Failure> {
        let mut listed = self.store.list().try_chunks(PAGE.unsigned_abs().try_into().unwrap_or(usize::MAX));
        while let Some(page) = listed.next().await {
            let page: Vec<Found> = page.map_err(|error| error.1)?;
            let names: Vec<String> = page.iter().map(|found| found.name.clone()).collect();
            let needed = rows::needed(&mut *self.db.acquire().await?, &names).await?;
            for found in page.iter().filter(|found| found.place == Place::Blobs) {
                match needed.get(&found.name) {
                    Some(size) if size.unsigned_abs() == found.size_bytes => {}
                    Some(size) => self.violation(
                        Step::Store,
                        format!(
                            "the object {} has {} bytes, its row says {size}",
                            found.name, found.size_bytes
                        ),
                    ),
                    None => self.orphan(found),
                }
            }
            self.looked(Step::Store, page.len() as u64, 0);
        }
        Ok(())
    }

    fn orphan(&mut self, found: &Found) {
        self.report.orphans += 1;
        self.report.orphan_bytes += found.size_bytes;
        if self.report.some_orphans.len() < SOME {
            self.report.some_orphans.push(found.name.clone());
        }
    }

    /// Envelopes, decisions and policies are stored under the SHA-256 of their bytes.
    pub(super) async fn documents(&mut self) -> Result<(), Failure> {
        for kind in rows::DOCUMENTS {
            let mut last = String::new();
            loop {
                let page = rows::documents(&mut *self.db.acquire().await?, kind, &last, PAGE).await?;
                let Some(end) = page.last() else { break };
                last.clone_from(&end.digest);
                for document in page {
                    let hashed = Digest::sha256(&document.body);
                    if hashed.as_str() != document.digest {
                        let what =
                            format!("the bytes of {} {} hash to {hashed}", kind.as_str(), document.digest);
                        self.violation(Step::Documents, what);
                    }
                    self.looked(Step::Documents, 1, document.body.len() as u64);
                }
            }
        }
        Ok(())
    }

    /// Every set of findings is what its digest says, and its counts are its findings'.
    pub(super) async fn findings(&mut self) -> Result<(), Failure> {
        let mut last = None;
        loop {
            let mut connection = self.db.acquire().await?;
            let page = evidence::finding_sets(&mut connection, last.as_ref(), PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            for (digest, counts) in page {
                let set = evidence::stored_findings(&mut connection, &digest).await?;
                match set {
                    Ok(set) if *set.digest() != digest => {
                        self.violation(
                            Step::Findings,
                            format!("the findings of {digest} hash to {}", set.digest()),
                        );
                    }
                    Ok(set) if serde_json::json!(set.counts()) != counts => {
                        self.violation(
                            Step::Findings,
                            format!("the counts of {digest} are not its findings'"),
                        );
                    }
                    Ok(_) => {}
                    Err(why) => self.violation(Step::Findings, format!("the findings of {digest}: {why}")),
                }
                self.looked(Step::Findings, 1, 0);
                last = Some(digest);
            }
        }
    }
}

async fn hash(store: &Store, row: &ObjectRow) -> Result<Digest, Failure> {
    let location = Location::Object(row.object_key.clone());
    let mut bytes = store.read(&location, 0..row.size_bytes.unsigned_abs()).await?;
    let mut hasher = Hasher::new(row.digest.algorithm());
    while let Some(chunk) =
        bytes.try_next().await.map_err(|error| Failure::new("reading an object", error))?
    {
        hasher.update(&chunk);
    }
    Ok(hasher.finish())
}
