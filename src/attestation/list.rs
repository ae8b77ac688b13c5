//! Attestations as people see them: with a verdict, given when they are read.

use super::store::{listed as store, pending, signatures};
use crate::access::{Grant, Pull};
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName};
use crate::trust::{self, SigningKey, Wanted};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap};

/// How far an attestation is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A signer that is trusted for it signed it, and it is about the artifact: it counts.
    Trusted,
    /// It is readable, shown, and does not count.
    Untrusted,
    /// A registered key signed it by which pending envelopes are being verified: it counts when that is done.
    Pending,
    /// It cannot be read.
    Malformed,
    /// There is nothing to verify.
    Opaque,
}

/// What a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct AttestationFilter {
    /// About this artifact, or carried for it.
    pub digest: Option<Digest>,
    /// Of this predicate type.
    pub predicate_type: Option<String>,
    /// With a signature of this signer.
    pub signer: Option<String>,
    /// Provenance by this builder.
    pub builder: Option<String>,
    /// Provenance from this source, in whatever spelling, without its ref.
    pub source: Option<String>,
    /// Provenance of this ref, such as `refs/heads/main`.
    pub source_ref: Option<String>,
    /// Provenance of this commit.
    pub commit: Option<String>,
    /// Provenance with this material: its URI, or a digest as `algorithm:hex`.
    pub material: Option<String>,
    /// Only older than this attestation; lists begin with the newest.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// An attestation as it is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: i64,
    /// The repository.
    pub repository: RepositoryName,
    /// The OCI manifest that carries it.
    pub manifest: Digest,
    /// The digest of the bytes as received; none when there is nothing to verify.
    pub envelope: Option<Digest>,
    /// What the payload says it is about.
    pub subjects: Vec<Digest>,
    /// What the payload says it is.
    pub predicate_type: Option<String>,
    /// How far it is believed.
    pub verdict: Verdict,
    /// Why not further, or since when.
    pub reason: Option<String>,
    /// The signer that is trusted for it, or one whose key signed it.
    pub signer: Option<String>,
    /// The signer's key.
    pub key_id: Option<String>,
    /// Provenance: who built.
    pub builder: Option<String>,
    /// Provenance: the build type.
    pub build_type: Option<String>,
    /// Provenance: the source.
    pub source: Option<String>,
    /// Provenance: the ref of the source.
    pub source_ref: Option<String>,
    /// Provenance: the commit.
    pub commit: Option<String>,
    /// Of a test result or a summary.
    pub result: Option<String>,
    /// Who brought it.
    pub received_by: String,
    /// When.
    pub received_at: DateTime<Utc>,
}

/// A page of the attestations in these repositories, the newest first.
pub async fn attestations(
    connection: &mut PgConnection,
    repository_ids: &[i64],
    filter: &AttestationFilter,
) -> Result<Vec<Listed>, Failure> {
    let rows = store::page(connection, repository_ids, filter).await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let signatures = signatures::of(connection, &ids).await?;
    let mut found: HashMap<i64, pending::FoundOf> = HashMap::new();
    for one in pending::found_on(connection, &ids).await? {
        found.entry(one.attestation_id).or_insert(one);
    }
    let ids: BTreeSet<i64> = signatures.iter().map(|signature| signature.identity_id).collect();
    let ids: Vec<i64> = ids.into_iter().collect();
    let keys = trust::signing_keys(connection, Wanted::Identities(&ids)).await?;
    let keys: HashMap<i64, SigningKey> = keys.into_iter().map(|key| (key.identity_id, key)).collect();
    let mut signed: HashMap<i64, Vec<Signed<'_>>> = HashMap::new();
    for signature in &signatures {
        if let Some(signer) = keys.get(&signature.identity_id) {
            signed.entry(signature.attestation_id).or_default().push(Signed { signer, signature });
        }
    }
    let judge = |row: store::Row| {
        let (signed, found) = (signed.get(&row.id), found.get(&row.id));
        judged(signed.map(Vec::as_slice).unwrap_or_default(), found, row)
    };
    Ok(rows.into_iter().map(judge).collect())
}

/// The repository of an attestation, and how many bytes its envelope has.
pub async fn home(connection: &mut PgConnection, id: i64) -> Result<Option<(RepositoryName, u64)>, Failure> {
    store::home(connection, id).await
}

/// The bytes of an attestation exactly as received, with their media type.
pub async fn envelope(
    connection: &mut PgConnection,
    grant: &Grant<Pull>,
    id: i64,
) -> Result<Option<(String, Vec<u8>)>, Failure> {
    store::envelope(connection, grant.repository(), id).await
}

/// A signature with whose it is.
struct Signed<'a> {
    signer: &'a SigningKey,
    signature: &'a signatures::Signature,
}

fn judged(proofs: &[Signed<'_>], found: Option<&pending::FoundOf>, row: store::Row) -> Listed {
    let (mut verdict, mut reason, signer) = verdict(&row, proofs);
    let (mut name, mut key_id) = (
        signer.map(|signer| signer.signature.signer.clone()),
        signer.map(|signer| signer.signature.key_id.clone()),
    );
    if let (Verdict::Untrusted, Some(found)) = (verdict, found) {
        verdict = Verdict::Pending;
        reason = Some(format!(
            "{} signed it, whose key counts once all pending envelopes were verified by it",
            found.signer
        ));
        (name, key_id) = (Some(found.signer.clone()), found.key_id.clone());
    }
    Listed {
        id: row.id,
        manifest: row.manifest,
        envelope: row.envelope,
        subjects: row.subjects,
        predicate_type: row.predicate_type,
        verdict,
        reason,
        signer: name,
        key_id,
        builder: row.builder,
        build_type: row.build_type,
        source: row.source,
        source_ref: row.source_ref,
        commit: row.commit_id,
        result: row.result,
        received_by: row.received_by,
        received_at: row.received_at,
        repository: row.repository,
    }
}

fn verdict<'a>(row: &store::Row, proofs: &[Signed<'a>]) -> (Verdict, Option<String>, Option<&'a SigningKey>) {
    // What a registered key signed could be read.
    if let (Some(reason), None) = (&row.unreadable, proofs.first()) {
        return (Verdict::Malformed, Some(reason.clone()), None);
    }
    let kind = match (row.form.as_str(), &row.predicate_type) {
        ("statement", Some(predicate_type)) => predicate_type,
        ("opaque", _) => return (Verdict::Opaque, row.why.clone(), None),
        ("malformed", _) => return (Verdict::Malformed, row.why.clone(), None),
        _ => return (Verdict::Untrusted, row.why.clone(), None),
    };
    if let (None, Some(why)) = (proofs.first(), &row.why) {
        return (Verdict::Untrusted, Some(why.clone()), None);
    }
    if !row.about {
        let why = "the signed statement is not about this artifact".to_owned();
        return (Verdict::Untrusted, Some(why), proofs.first().map(|one| one.signer));
    }
    let trust = |one: &Signed<'_>| one.signer.trusted_for(&row.repository, kind, one.signature.received_at);
    if let Some(Signed { signer, signature }) = proofs.iter().find(|one| trust(one).is_ok()) {
        let again = signature.counts_from != row.id;
        let since = || format!("the same as attestation {}, and as old", signature.counts_from);
        return (Verdict::Trusted, again.then(since), Some(signer));
    }
    let Some(first) = proofs.first() else {
        return (Verdict::Untrusted, Some("no registered key verifies its signature".to_owned()), None);
    };
    let signer = first.signer;
    let why = trust(first).err().map(|why| format!("{} signed it, but {why}", signer.signature.signer));
    (Verdict::Untrusted, why, Some(signer))
}
