//! Rows of `attestation_signatures`.

use crate::failure::Failure;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::BTreeMap;

const RECORDING: &str = "recording who signed an attestation";

/// What was noted of signatures.
pub struct Noted {
    /// Whether each signature of each message came for the first time.
    pub first: bool,
    /// Whether any is new.
    pub any: bool,
}

/// These keys signed exactly these bytes.
///
/// What comes first is settled by a unique index, which waits for whoever is about to record the same.
/// So what was found to be taken is read in a statement of its own, whose snapshot is newer.
pub async fn insert(
    connection: &mut PgConnection,
    attestations: &[i64],
    identities: &[i64],
) -> Result<Noted, Failure> {
    let first = sqlx::query!(
        "insert into attestation_signatures(attestation_id, identity_id, signer_id, repository_id, message, counts_from)
         select a.id, k.id, k.signer_id, a.repository_id, a.message, a.id
         from attestations a cross join signer_identities k
         where a.id = any($1) and k.id = any($2) order by a.id, k.id on conflict do nothing",
        attestations,
        identities,
    )
    .execute(&mut *connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?
    .rows_affected();
    if first == (attestations.len() * identities.len()) as u64 {
        return Ok(Noted { first: true, any: first > 0 });
    }
    let known = sqlx::query!(
        "insert into attestation_signatures(attestation_id, identity_id, signer_id, repository_id, message, counts_from)
         select a.id, f.identity_id, f.signer_id, a.repository_id, a.message, f.attestation_id
         from attestations a join attestation_signatures f
           on f.repository_id = a.repository_id and f.message = a.message and f.identity_id = any($2)
             and f.counts_from = f.attestation_id
         where a.id = any($1) order by a.id, f.identity_id on conflict do nothing",
        attestations,
        identities,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?
    .rows_affected();
    Ok(Noted { first: false, any: first + known > 0 })
}

/// The keys by which an attestation is signed whose signature of the same message came before it, and when.
pub async fn received_earlier(
    connection: &mut PgConnection,
    id: i64,
) -> Result<BTreeMap<i64, DateTime<Utc>>, Failure> {
    let of = of(connection, &[id]).await?;
    Ok(of
        .into_iter()
        .filter(|one| one.counts_from != id)
        .map(|one| (one.identity_id, one.received_at))
        .collect())
}

/// A signature of a registered key on an attestation.
pub struct Signature {
    pub attestation_id: i64,
    pub identity_id: i64,
    /// The attestation by which it came first, and when that was.
    pub counts_from: i64,
    pub received_at: DateTime<Utc>,
}

/// The signatures on these attestations.
pub async fn of(connection: &mut PgConnection, attestations: &[i64]) -> Result<Vec<Signature>, Failure> {
    sqlx::query_as!(
        Signature,
        "select g.attestation_id, g.identity_id, g.counts_from, f.received_at
         from attestation_signatures g join attestations f on f.id = g.counts_from
         where g.attestation_id = any($1) order by g.attestation_id, g.identity_id",
        attestations,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading who signed an attestation", error))
}
