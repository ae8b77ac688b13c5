//! An audit of the index: what is asked for by column is what the envelopes say. For fsck and for
//! every test's end.

use super::build_types::BuildType;
use super::facts::{Facts, signed_at};
use super::origins::Reading;
use super::received::Received;
use super::store::{build_types, indexed as store};
use super::verify::signed_by;
use crate::failure::Failure;
use crate::keys;
use crate::names::SourceUri;
use crate::trust::{self, SigningKey, Wanted};
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap};

/// Bytes of envelopes in memory at once, and one that may be larger.
const AT_ONCE: i64 = 4 << 20;

/// A page of statements that were looked at.
pub struct StatementsPage {
    /// How many.
    pub rows: u64,
    /// Bytes of their envelopes.
    pub bytes: u64,
    /// What is wrong with them, in words.
    pub wrong: Vec<String>,
    /// The last one; none behind the end.
    pub last: Option<i64>,
}

/// Looks at the next statements behind this one, at most `limit`: whether their rows say what their
/// envelopes say, a signature that does not verify, subjects or facts that are not the signed ones.
pub async fn check_attestations(
    connection: &mut PgConnection,
    behind: i64,
    limit: i64,
) -> Result<StatementsPage, Failure> {
    let rows = store::page(connection, behind, limit, AT_ONCE).await?;
    let ids: BTreeSet<i64> = rows.iter().flat_map(|row| &row.identities).copied().collect();
    let mut known: HashMap<i64, Vec<SigningKey>> = HashMap::new();
    for key in trust::signing_keys(connection, Wanted::Identities(&Vec::from_iter(ids))).await? {
        known.entry(key.identity_id).or_default().push(key);
    }
    let verifier_id = keys::verifier_id(connection).await?;
    let declared = build_types::page(connection, 0, i64::MAX, None).await?;
    let mut page = StatementsPage {
        rows: rows.len() as u64,
        bytes: 0,
        wrong: Vec::new(),
        last: rows.last().map(|row| row.id),
    };
    for row in &rows {
        page.bytes += row.body.as_ref().map_or(0, |body| body.len() as u64);
        page.wrong.extend(
            wrong(row, &known, verifier_id.as_deref(), &declared)
                .map(|why| format!("attestation {}: {why}", row.id)),
        );
    }
    Ok(page)
}

fn wrong(
    row: &store::Indexed,
    known: &HashMap<i64, Vec<SigningKey>>,
    verifier_id: Option<&str>,
    declared: &[BuildType],
) -> Option<&'static str> {
    let (Some(media_type), Some(body)) = (&row.media_type, &row.body) else {
        return Some("its envelope is gone");
    };
    let Some(envelope) = Received::parse_again(media_type, row.beside.as_deref(), body) else {
        return Some("its envelope cannot be read, and it is listed as a statement");
    };
    let Ok(statement) = super::Statement::read(&envelope.payload) else {
        return Some("its payload is no statement, and it is listed as one");
    };
    // Each key by any of its schemes.
    let signed = |id: &i64| {
        let keys: Vec<_> = known.get(id).into_iter().flatten().map(|one| &one.key).collect();
        !signed_by(&envelope, &keys).keys.is_empty()
    };
    if !row.identities.iter().all(signed) {
        return Some("a recorded signature does not verify");
    }
    if row.misplaced || row.message.as_deref() != Some(envelope.message_digest().as_str()) {
        return Some("its message is not the one that its signatures count for");
    }
    if !row.found {
        return Some("gates do not find it by all of its signers and subjects");
    }
    let subjects: BTreeSet<String> = statement.digests().map(|digest| digest.to_string()).collect();
    if subjects != row.subjects.iter().cloned().collect()
        || row.predicate_type.as_ref() != Some(&statement.predicate_type)
    {
        return Some("its subjects or its predicate type are not the signed ones");
    }
    if row.files.iter().any(|file| file.as_ref().is_none_or(|file| !subjects.contains(file))) {
        return Some("it counts for an artifact of a file that it does not name");
    }
    let facts = Facts::of(&statement);
    let same = (facts.builder == row.builder && facts.result == row.result)
        && facts.configuration == row.configuration
        && verifier_id.and_then(|id| signed_at(&statement, id)) == row.signed_at;
    if !same {
        return Some("its facts are not the signed ones");
    }
    (!is_read_right(row, &statement, declared))
        .then_some("where it was built from is not what the statement says")
}

/// Whether the newest reading, where this release's reader made it, is what it reads now by the same declaration.
fn is_read_right(row: &store::Indexed, statement: &super::Statement, declared: &[BuildType]) -> bool {
    if row.reader.is_none() {
        return true;
    }
    let declaration =
        declared.iter().filter(|one| Some(one.id) == row.declaration).cloned().collect::<Vec<_>>();
    let Some(read) = Reading::of(statement, &declaration) else { return false };
    let origin = read.origin;
    (Some(read.declarable), read.declaration) == (row.declarable, row.declaration)
        && (origin.build_type, origin.reference) == (row.build_type.clone(), row.source_ref.clone())
        && origin.source.as_ref().map(SourceUri::as_str) == row.source.as_deref()
        && origin.commit == row.commit_id
}
