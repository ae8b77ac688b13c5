//! The evidence that one act brings, held against the repository's quota of evidence.

use crate::attestation;
use crate::content::{self, OverQuota};
use crate::evidence;
use crate::failure::Failure;
use crate::names::Digest;
use crate::postgres::Tx;
use std::collections::BTreeMap;

/// What an act brought, all of it recorded.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// The blobs that are documents, with their bytes.
    documents: BTreeMap<Digest, u64>,
    attestations: Vec<i64>,
    runs: Vec<i64>,
    is_adverse: bool,
}

impl Brought {
    pub(super) fn attestation(&mut self, blob: &Digest, bytes: u64, recorded: &attestation::Recorded) {
        self.documents.insert(blob.clone(), bytes);
        self.attestations.push(recorded.id);
        self.is_adverse |= recorded.is_adverse;
    }

    pub(super) fn report(&mut self, blob: &Digest, bytes: u64, run: i64) {
        self.documents.insert(blob.clone(), bytes);
        self.runs.push(run);
    }

    /// Counts it; says why it does not fit. Evidence that can make a decision stricter is never refused, nor the act
    /// that brings it: a FAILED, and a scan of what was promoted. The last thing of a transaction.
    pub(super) async fn count(
        self,
        tx: &mut Tx,
        repository_id: i64,
        unbounded: u64,
    ) -> Result<Option<OverQuota>, Failure> {
        let new_bytes = content::count_evidence(tx, repository_id, &self.documents).await?;
        if new_bytes == 0 || self.is_adverse {
            return Ok(None);
        }
        let over = content::over_evidence_quota(tx, repository_id, unbounded, new_bytes).await?;
        if over.is_some() && evidence::are_of_promoted(tx, &self.runs, &self.attestations).await? {
            return Ok(None);
        }
        Ok(over)
    }
}
