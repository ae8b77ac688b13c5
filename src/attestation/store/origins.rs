//! Rows of `provenance_origins`.

use crate::attestation::origins::Reading;
use crate::attestation::provenance::READER;
use crate::failure::Failure;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A statement of provenance that is to be read.
pub struct Unread {
    pub id: i64,
    pub media_type: String,
    pub beside: Option<String>,
    pub body: Vec<u8>,
    /// The SHA-256 or SHA-512 of what it is about.
    pub subjects: Vec<String>,
}

/// Ends the newest reading at a time at which no decision is made, if the new one says otherwise. It is kept for what was
/// promoted by it.
pub async fn supersede(
    connection: &mut PgConnection,
    id: i64,
    reading: &Reading,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    let origin = &reading.origin;
    sqlx::query!(
        "update provenance_origins set superseded = true, superseded_at = $7
         where attestation_id = $1 and not superseded and (declaration, build_type, source, source_ref, commit_id)
           is distinct from ($2::bigint, $3::text, $4::text, $5::text, $6::text)",
        id,
        reading.declaration,
        origin.build_type,
        origin.source.as_ref().map(ToString::to_string),
        origin.reference,
        origin.commit,
        at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("superseding where something was built from", error))?;
    Ok(())
}

/// Writes the newest reading. One that says the same and was read by another reader is this one.
pub async fn write(connection: &mut PgConnection, id: i64, reading: &Reading) -> Result<(), Failure> {
    let origin = &reading.origin;
    sqlx::query!(
        "insert into provenance_origins(attestation_id, reader, declarable, declaration, build_type, source, source_ref,
           commit_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (attestation_id) where not superseded do update set reader = $2, declarable = $3",
        id,
        READER,
        reading.declarable,
        reading.declaration,
        origin.build_type,
        origin.source.as_ref().map(ToString::to_string),
        origin.reference,
        origin.commit,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("recording where something was built from", error))?;
    Ok(())
}

/// Whether the newest reading of some statement is another reader's: an earlier one's, or a later one's after a return
/// to an earlier release.
pub async fn any_older(connection: &mut PgConnection) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select exists (select from provenance_origins where not superseded and reader < $1)
             or exists (select from provenance_origins where not superseded and reader > $1) as "any!""#,
        READER
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for provenance that is to be read", error))
}

/// The next statements of provenance behind this one whose newest reading is of another reader or of a declaration
/// that is not in force; so many that their envelopes have few bytes together, and at least one.
pub async fn unread(
    connection: &mut PgConnection,
    after: i64,
    limit: i64,
    bytes: i64,
) -> Result<Vec<Unread>, Failure> {
    sqlx::query_as!(
        Unread,
        r#"select p.id as "id!", p.media_type as "media_type!", p.beside, p.body as "body!",
             array(select s.digest from attestation_subjects s where s.attestation_id = p.id) as "subjects!"
           from (select a.id, e.media_type, a.beside, e.body,
                   sum(octet_length(e.body)) over (order by a.id) - octet_length(e.body) as before
                 from (select a.id, a.beside, a.envelope from attestations a
                       join predicate_types t on t.id = a.predicate_type_id
                       where a.id > $1 and t.uri in ('https://slsa.dev/provenance/v1', 'https://slsa.dev/provenance/v0.2')
                         and not exists (select from provenance_origins o
                           where o.attestation_id = a.id and not o.superseded and o.reader = $4
                             and (not o.declarable or o.declaration is not distinct from (
                               select b.id from build_types b where b.build_type = o.build_type and b.ended_at is null)))
                       order by a.id limit $2) a
                 join envelopes e on e.digest = a.envelope) p
           where p.before <= $3 order by p.id"#,
        after,
        limit,
        bytes,
        READER,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for provenance that is to be read", error))
}
