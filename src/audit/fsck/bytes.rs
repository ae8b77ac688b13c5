//! Bytes against digests.

use super::Audit;
use crate::audit::Repair;
use crate::audit::store::bytes::{self as rows, ObjectRow};
use crate::audit::store::repairs::BlobRow;
use crate::failure::Failure;
use crate::names::{Algorithm, Digest, Hasher};
use crate::storage::{Found, Location, PieceDigests, PieceHasher, Place, Store};
use futures::{StreamExt, TryStreamExt, stream};

/// Rows of one page.
const PAGE: i64 = 500;
/// Bytes of documents in memory at once, and one that may be larger.
const DOCUMENTS: i64 = 4 << 20;
/// Objects of one page, each of which is read whole.
const OBJECTS: i64 = 8;
/// Objects read at the same time.
const READERS: usize = 4;
/// Names of orphans in the report.
const SOME: usize = 20;

impl Audit<'_> {
    /// Reads every blob in the object store and compares what it hashes to with its row.
    pub(super) async fn objects(&mut self) -> Result<(), Failure> {
        loop {
            let page = rows::objects(&mut *self.db.acquire().await?, &self.last(), OBJECTS).await?;
            let Some(end) = page.last().map(|row| row.digest.to_string()) else { return Ok(()) };
            let store = self.store;
            let read = page.into_iter().map(|row| async move { (hash(store, &row).await, row) });
            let mut read = stream::iter(read).buffer_unordered(READERS);
            while let Some((hashed, row)) = read.next().await {
                let again = Some(Repair::Blob { digest: row.digest.clone() });
                let wrong = match hashed {
                    Ok((digest, pieces)) if digest == row.digest => {
                        let differ = row.pieces.as_deref().is_some_and(|kept| kept != pieces.as_bytes());
                        let what =
                            || format!("the pieces of blob {digest} have other digests than its row says");
                        differ.then(|| (what(), None))
                    }
                    Ok((digest, _)) => {
                        Some((format!("the bytes of blob {} hash to {digest}", row.digest), again))
                    }
                    Err(failure) if failure.is_overloaded() => return Err(failure),
                    Err(failure) => {
                        // What is not given for another reason may be whole.
                        let repair = again.filter(|_| failure.is_of_missing_bytes());
                        Some((format!("blob {} cannot be read: {}", row.digest, failure.chain()), repair))
                    }
                };
                if let Some((wrong, repair)) = wrong
                    && rows::is_there(&mut *self.db.acquire().await?, &row).await?
                {
                    self.repairable(wrong, repair);
                }
                self.looked(1, row.size_bytes.unsigned_abs()).await;
            }
            self.came_to(end)?;
        }
    }

    /// Compares what lies in the store with the rows: objects without one are orphans, objects of
    /// another size than their row's are wrong. A store has no order to go on in: this is done again.
    pub(super) async fn orphans(&mut self) -> Result<(), Failure> {
        let report = &mut self.run.from.report;
        (report.orphans, report.orphan_bytes) = (0, 0);
        report.some_orphans.clear();
        let store = self.store;
        let mut listed = store.list().try_chunks(PAGE.unsigned_abs().try_into().unwrap_or(usize::MAX));
        while let Some(page) = listed.next().await {
            let page: Vec<Found> = page.map_err(|error| error.1)?;
            let names: Vec<String> = page.iter().map(|found| found.name.clone()).collect();
            let needed = rows::needed(&mut *self.db.acquire().await?, &names).await?;
            for found in page.iter().filter(|found| found.place == Place::Blobs) {
                match needed.get(&found.name) {
                    Some(size) if size.unsigned_abs() == found.size_bytes => {}
                    Some(size) => self.violation(format!(
                        "the object {} has {} bytes, its row says {size}",
                        found.name, found.size_bytes
                    )),
                    None => self.orphan(found),
                }
            }
            self.looked(page.len() as u64, 0).await;
        }
        Ok(())
    }

    fn orphan(&mut self, found: &Found) {
        let report = &mut self.run.from.report;
        report.orphans += 1;
        report.orphan_bytes += found.size_bytes;
        if report.some_orphans.len() < SOME {
            report.some_orphans.push(found.name.clone());
        }
    }

    /// Envelopes, decisions and policies are stored under the SHA-256 of their bytes.
    pub(super) async fn documents(&mut self) -> Result<(), Failure> {
        let begin = self.last();
        let (from, mut last) =
            begin.split_once('/').map_or(("", String::new()), |(kind, last)| (kind, last.to_owned()));
        for kind in rows::DOCUMENTS.into_iter().skip_while(|kind| !from.is_empty() && kind.as_str() != from) {
            loop {
                let mut connection = self.db.acquire().await?;
                let page = rows::documents(&mut connection, kind, &last, PAGE, DOCUMENTS).await?;
                drop(connection);
                let Some(end) = page.last() else { break };
                last.clone_from(&end.digest);
                for document in page {
                    let hashed = Digest::sha256(&document.body);
                    if hashed.as_str() != document.digest {
                        let what =
                            format!("the bytes of {} {} hash to {hashed}", kind.as_str(), document.digest);
                        self.violation(what);
                    }
                    self.looked(1, document.body.len() as u64).await;
                }
                self.came_to(format!("{}/{last}", kind.as_str()))?;
            }
            last.clear();
        }
        Ok(())
    }
}

/// Whether the blob's bytes are there and are those of its digest. A store that does not give them says nothing
/// of them.
pub(in crate::audit) async fn is_whole(store: &Store, blob: &BlobRow) -> Result<bool, Failure> {
    let hashed = match &blob.location {
        Location::Inline(bytes) if bytes.len() as u64 != blob.size_bytes => return Ok(false),
        location @ (Location::Inline(_) | Location::Object(_)) => {
            hash_at(store, location, blob.size_bytes, blob.digest.algorithm()).await
        }
    };
    match hashed {
        Ok((digest, _)) => Ok(digest == blob.digest),
        Err(failure) if failure.is_of_missing_bytes() => Ok(false),
        Err(failure) => Err(failure),
    }
}

async fn hash(store: &Store, row: &ObjectRow) -> Result<(Digest, PieceDigests), Failure> {
    let location = Location::Object(row.object_key.clone());
    hash_at(store, &location, row.size_bytes.unsigned_abs(), row.digest.algorithm()).await
}

async fn hash_at(
    store: &Store,
    location: &Location,
    size_bytes: u64,
    algorithm: Algorithm,
) -> Result<(Digest, PieceDigests), Failure> {
    let mut bytes = store.read(location, 0..size_bytes).await?;
    let (mut hasher, mut pieces) = (Hasher::new(algorithm), PieceHasher::default());
    while let Some(chunk) =
        bytes.try_next().await.map_err(|error| Failure::new("reading an object", error))?
    {
        hasher.update(&chunk);
        pieces.update(&chunk);
    }
    Ok((hasher.finish(), pieces.finish()))
}
