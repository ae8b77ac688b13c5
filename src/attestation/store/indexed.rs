//! Statements as they are indexed, for audits.

use crate::attestation::provenance::READER;
use crate::failure::Failure;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A statement as it is indexed, with its envelope; text as it stands, since it may be wrong.
pub struct Indexed {
    pub id: i64,
    /// Nothing when the envelope is gone.
    pub media_type: Option<String>,
    pub body: Option<Vec<u8>>,
    pub beside: Option<String>,
    pub predicate_type: Option<String>,
    pub message: Option<String>,
    pub builder: Option<String>,
    /// The newest reading of where it was built from, if this release's reader read it.
    pub reader: Option<i32>,
    pub declarable: Option<bool>,
    pub declaration: Option<i64>,
    pub build_type: Option<String>,
    pub source: Option<String>,
    pub source_ref: Option<String>,
    pub commit_id: Option<String>,
    pub result: Option<String>,
    pub configuration: Option<String>,
    pub signed_at: Option<DateTime<Utc>>,
    pub subjects: Vec<String>,
    /// Files through which it counts for artifacts; of those whose artifact holds another, nothing.
    pub files: Vec<Option<String>>,
    pub identities: Vec<i64>,
    /// Whether a signature counts as if it were in another repository or over another message.
    pub misplaced: bool,
    /// Whether gates find it by each of its signers and subjects.
    pub found: bool,
}

/// A page of the statements, by id; so many that their envelopes have few bytes together, and one at the
/// least.
pub async fn page(
    connection: &mut PgConnection,
    after: i64,
    limit: i64,
    bytes: i64,
) -> Result<Vec<Indexed>, Failure> {
    sqlx::query_as!(
        Indexed,
        r#"select a.id as "id!", e.media_type as "media_type?", e.body as "body?", a.beside,
             t.uri as "predicate_type?", a.message, a.builder, o.reader as "reader?", o.declarable as "declarable?",
             o.declaration as "declaration?", o.build_type as "build_type?", o.source as "source?", o.source_ref as "source_ref?",
             o.commit_id as "commit_id?", a.result,
             a.configuration, a.signed_at,
             array(select digest from attestation_subjects where attestation_id = a.id and file is null)
               as "subjects!",
             array(select case when not exists (
                     select from manifests m where m.repository_id = s.repository_id and m.sha256 = s.digest
                       and case when s.former then m.file is not null or not exists (
                             select from manifest_blobs b where b.repository_id = m.repository_id
                               and b.manifest = m.digest and b.blob = s.file)
                           else m.file is distinct from s.file end) then s.file end
                   from attestation_subjects s where s.attestation_id = a.id and s.file is not null)
               as "files!: Vec<Option<String>>",
             array(select identity_id from attestation_signatures where attestation_id = a.id) as "identities!",
             exists (select from attestation_signatures g join attestations f on f.id = g.counts_from
                     where g.attestation_id = a.id and ((g.repository_id, g.message) <> (a.repository_id, a.message)
                       or (f.repository_id, f.message) <> (a.repository_id, a.message))) as "misplaced!",
             not exists (select from attestation_subjects s
                         join attestation_signatures g on g.attestation_id = a.id and g.counts_from = a.id
                         where s.attestation_id = a.id and not exists (select from attestation_evidence v
                           where (v.repository_id, v.digest, v.predicate_type_id, v.signer_id, v.attestation_id, v.failed)
                             = (s.repository_id, s.digest, a.predicate_type_id, g.signer_id, a.id,
                                coalesce(a.result ilike '%failed%', false))
                             and v.envelope is not distinct from a.envelope)) as "found!"
           from (select a.*, sum(coalesce(octet_length(e.body), 0)) over (order by a.id)
                        - coalesce(octet_length(e.body), 0) as before
                 from (select * from attestations where id > $1 and form = 'statement' order by id limit $2) a
                 left join envelopes e on e.digest = a.envelope) a
           left join envelopes e on e.digest = a.envelope
           left join predicate_types t on t.id = a.predicate_type_id
           left join provenance_origins o on o.attestation_id = a.id and not o.superseded and o.reader = $4
           where a.before <= $3
           order by a.id"#,
        after,
        limit,
        bytes,
        READER,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing attestations", error))
}
