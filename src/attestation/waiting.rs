//! What waits: statements with a signature that no registered key verified when they came in.

use super::facts::Facts;
use super::received::Received;
use super::scheme::PublicKey;
use super::signers::Signer;
use super::statement::Statement;
use super::store::{attestations, signatures, signers, waiting as store};
use super::verify::signed_by;
use crate::failure::Failure;
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// Rows of a page; each is an id and a length.
const PAGE: i64 = 1000;
/// Envelopes in memory at once have as many bytes, or are one.
const BATCH_BYTES: usize = 8 << 20;
/// Envelopes in memory at once of those that the key signed.
const SIGNED_AT_ONCE: usize = 16;

/// The search for what a key signed that is about to be registered. Every waiting envelope is held
/// against it, whatever its signatures hint at.
///
/// Verifying takes its time, and registering a signer stops the whole registry. So the search begins
/// before anything is locked, and under the locks only what came meanwhile is left to look at.
pub(super) struct Search<'a> {
    key: &'a PublicKey,
    known: Vec<Signer>,
    seen: BTreeSet<i64>,
    signed: Vec<i64>,
    /// Of these, what has no other signature to wait for.
    settled: Vec<i64>,
}

impl<'a> Search<'a> {
    /// Looks at all that waits, outside of any lock.
    pub(super) async fn begin(connection: &mut PgConnection, key: &'a PublicKey) -> Result<Self, Failure> {
        let known = signers::all(connection).await?;
        let mut search = Self { key, known, seen: BTreeSet::new(), signed: Vec::new(), settled: Vec::new() };
        search.look(connection).await?;
        Ok(search)
    }

    /// Looks at what came since, under the locks of the registration, and records what the key
    /// signed. Returns how many that are.
    pub(super) async fn finish(
        mut self,
        connection: &mut PgConnection,
        signer_id: i64,
    ) -> Result<usize, Failure> {
        self.look(connection).await?;
        signatures::insert(connection, &self.signed, &[signer_id]).await?;
        store::delete(connection, &self.settled).await?;
        for ids in self.signed.chunks(SIGNED_AT_ONCE) {
            for waiting in store::envelopes(connection, ids).await? {
                index_materials(connection, &waiting).await?;
            }
        }
        Ok(self.signed.len())
    }

    async fn look(&mut self, connection: &mut PgConnection) -> Result<(), Failure> {
        let mut last = 0;
        loop {
            let mut page = store::page(connection, last, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = end.id;
            page.retain(|one| self.seen.insert(one.id));
            for ids in batches(&page) {
                for waiting in store::envelopes(connection, &ids).await? {
                    self.hold_against(&waiting);
                }
            }
        }
    }

    fn hold_against(&mut self, waiting: &store::Waiting) {
        let beside = waiting.beside.as_deref();
        let Some(envelope) = Received::parse_again(&waiting.media_type, beside, &waiting.body) else {
            return;
        };
        if signed_by(&envelope, &[self.key]).keys.is_empty() {
            return;
        }
        self.signed.push(waiting.id);
        let every: Vec<&PublicKey> = self.known.iter().map(|one| &one.key).chain([self.key]).collect();
        if !signed_by(&envelope, &every).waits {
            self.settled.push(waiting.id);
        }
    }
}

/// What the key signed names its materials from now on.
async fn index_materials(connection: &mut PgConnection, waiting: &store::Waiting) -> Result<(), Failure> {
    let beside = waiting.beside.as_deref();
    let envelope = Received::parse_again(&waiting.media_type, beside, &waiting.body);
    let statement = envelope.and_then(|envelope| Statement::read(&envelope.payload).ok());
    let materials = statement.map(|statement| Facts::of(&statement).materials).unwrap_or_default();
    attestations::insert_materials(connection, waiting.id, &materials).await
}

/// Cuts a page where the bytes become many.
fn batches(page: &[store::Length]) -> Vec<Vec<i64>> {
    let (mut batches, mut bytes) = (Vec::<Vec<i64>>::new(), 0);
    for one in page {
        let length = usize::try_from(one.bytes).unwrap_or(0);
        match batches.last_mut() {
            Some(batch) if bytes + length <= BATCH_BYTES => {
                batch.push(one.id);
                bytes += length;
            }
            _ => {
                batches.push(vec![one.id]);
                bytes = length;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_before_its_bytes_become_many_and_holds_one_at_least() {
        let most = i32::try_from(BATCH_BYTES).unwrap();
        let page = [1, most, most - 1, 1, 1].into_iter().zip(1..);
        let page: Vec<_> = page.map(|(bytes, id)| store::Length { id, bytes }).collect();
        assert_eq!(batches(&page), [vec![1], vec![2], vec![3, 4], vec![5]]);
        assert!(batches(&[]).is_empty());
    }
}
