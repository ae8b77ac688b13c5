//! An audit of the index: what is asked for by column is what the envelopes say. For fsck and for
//! every test's end.

use super::facts::Facts;
use super::received::Received;
use super::scheme::PublicKey;
use super::signers::Signer;
use super::store::{indexed as store, signers};
use super::verify::signed_by;
use crate::failure::Failure;
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap};

/// Envelopes in memory at once.
const BATCH: i64 = 64;

/// Every attestation whose row says something else than its envelope, in words: a signature that
/// does not verify, subjects or facts that are not the signed ones.
pub async fn check_attestations(connection: &mut PgConnection) -> Result<Vec<String>, Failure> {
    let known = signers::all(connection).await?;
    let known: HashMap<i64, Signer> = known.into_iter().map(|signer| (signer.id, signer)).collect();
    let (mut violations, mut last) = (Vec::new(), 0);
    loop {
        let batch = store::page(connection, last, BATCH).await?;
        let Some(end) = batch.last() else { return Ok(violations) };
        last = end.id;
        for row in &batch {
            violations.extend(wrong(row, &known).map(|why| format!("attestation {}: {why}", row.id)));
        }
    }
}

fn wrong(row: &store::Indexed, known: &HashMap<i64, Signer>) -> Option<&'static str> {
    let Some(envelope) = Received::parse_again(&row.media_type, row.beside.as_deref(), &row.body) else {
        return Some("its envelope cannot be read, and it is listed as a statement");
    };
    let Ok(statement) = super::Statement::read(&envelope.payload) else {
        return Some("its payload is no statement, and it is listed as one");
    };
    let keys: Option<Vec<&PublicKey>> = row.signers.iter().map(|id| known.get(id).map(|s| &s.key)).collect();
    let all = keys.is_some_and(|keys| signed_by(&envelope, &keys).keys.len() == keys.len());
    if !all {
        return Some("a recorded signature does not verify");
    }
    if row.misplaced || envelope.message_digest() != row.message {
        return Some("its message is not the one that its signatures count for");
    }
    let subjects: BTreeSet<_> = statement.digests().collect();
    if subjects != row.subjects.iter().cloned().collect() || statement.predicate_type != row.predicate_type {
        return Some("its subjects or its predicate type are not the signed ones");
    }
    if row.files.iter().any(|file| file.as_ref().is_none_or(|file| !subjects.contains(file))) {
        return Some("it counts for an artifact of a file that it does not name");
    }
    let facts = Facts::of(&statement);
    let same = (facts.builder == row.builder && facts.source == row.source && facts.commit == row.commit_id)
        && (facts.source_ref == row.source_ref && facts.result == row.result)
        && facts.configuration == row.configuration;
    (!same).then_some("its facts are not the signed ones")
}
