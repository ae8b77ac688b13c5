//! Lists of attestations.

use crate::attestation::list::AttestationFilter;
use crate::attestation::provenance::READER;
use crate::failure::Failure;
use crate::names::{Digest, RepositoryName};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// An attestation before it is judged.
pub struct Row {
    pub id: i64,
    pub repository: RepositoryName,
    pub manifest: Digest,
    pub envelope: Option<Digest>,
    pub subjects: Vec<Digest>,
    pub predicate_type: Option<String>,
    pub form: String,
    pub why: Option<String>,
    /// Why its envelope could not be read when a key was verified by it.
    pub unreadable: Option<String>,
    /// Whether the statement names the artifact that was asked about, or that it was carried for.
    pub about: bool,
    pub builder: Option<String>,
    pub build_type: Option<String>,
    pub source: Option<String>,
    pub source_ref: Option<String>,
    pub commit_id: Option<String>,
    pub result: Option<String>,
    pub received_by: String,
    pub received_at: DateTime<Utc>,
}

/// A page, the newest first. A manifest is known by each digest of its bytes.
pub async fn page(
    connection: &mut PgConnection,
    repository_ids: &[i64],
    filter: &AttestationFilter,
) -> Result<Vec<Row>, Failure> {
    sqlx::query_as!(
        Row,
        r#"with asked as (
             select $2::text as digest where $2 is not null
             union
             select d from manifests m cross join lateral (values (m.sha256), (m.sha512)) same(d)
             where m.repository_id = any($1) and m.digest = $2)
           select a.id, r.name as "repository: RepositoryName", a.manifest as "manifest: Digest",
             a.envelope as "envelope: Digest",
             array(select s.digest from attestation_subjects s
                   where s.repository_id = a.repository_id and s.attestation_id = a.id
                   order by s.digest limit 100) as "subjects!: Vec<Digest>",
             t.uri as "predicate_type?", a.form, a.why,
             (select u.reason from attestations_unreadable u where u.attestation_id = a.id) as unreadable,
             exists (select from attestation_subjects s
                     where s.repository_id = a.repository_id and s.attestation_id = a.id and not s.former
                       and (s.digest in (select digest from asked)
                            or $2::text is null and (s.digest = a.carried_for or exists (
                              select from manifests m where m.repository_id = a.repository_id
                                and m.digest = a.carried_for and s.digest in (m.sha256, m.sha512))))) as "about!",
             a.builder, o.build_type as "build_type?", o.source as "source?", o.source_ref as "source_ref?",
             o.commit_id as "commit_id?", a.result, p.name as received_by, a.received_at
           from attestations a
           join repositories r on r.id = a.repository_id
           join principals p on p.id = a.received_by
           left join predicate_types t on t.id = a.predicate_type_id
           left join provenance_origins o on o.attestation_id = a.id and not o.superseded
             and o.reader = $11 and (not o.declarable or o.declaration is not distinct from (
               select b.id from build_types b where b.build_type = o.build_type and b.ended_at is null))
           where a.repository_id = any($1)
             and ($2::text is null or a.id = any(array(
               select attestation_id from attestation_subjects
               where repository_id = any($1) and digest = any(array(select digest from asked))
               union
               select id from attestations
               where repository_id = any($1) and carried_for = any(array(select digest from asked)))))
             and ($3::text is null or t.uri = $3)
             and ($4::text is null or exists (
               select from attestation_signatures g join signers n on n.id = g.signer_id
               where g.attestation_id = a.id and n.name = $4))
             and ($5::text is null or a.builder = $5)
             and ($6::text is null or o.source = $6)
             and ($7::text is null or o.commit_id = $7)
             and ($12::text is null or o.source_ref = $12)
             and ($8::text is null or exists (
               select from attestation_materials m
               where m.attestation_id = a.id and (m.uri = $8 or m.digests @> array[$8])))
             and ($9::bigint is null or a.id < $9)
           order by a.id desc limit $10"#,
        repository_ids,
        filter.digest.as_ref() as Option<&Digest>,
        filter.predicate_type,
        filter.signer,
        filter.builder,
        filter.source,
        filter.commit,
        filter.material,
        filter.before,
        filter.limit,
        READER,
        filter.source_ref,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing attestations", error))
}

/// The repository of an attestation, and the bytes of its envelope.
pub async fn home(connection: &mut PgConnection, id: i64) -> Result<Option<(RepositoryName, u64)>, Failure> {
    let row = sqlx::query!(
        r#"select r.name as "name: RepositoryName", octet_length(e.body) as "size_bytes!"
           from attestations a join repositories r on r.id = a.repository_id
           join envelopes e on e.digest = a.envelope where a.id = $1"#,
        id,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("finding an envelope", error))?;
    Ok(row.map(|row| (row.name, u64::from(row.size_bytes.unsigned_abs()))))
}

/// The bytes of an attestation with their media type.
pub async fn envelope(
    connection: &mut PgConnection,
    repository: &RepositoryName,
    id: i64,
) -> Result<Option<(String, Vec<u8>)>, Failure> {
    let row = sqlx::query!(
        "select e.media_type, e.body
         from attestations a join repositories r on r.id = a.repository_id
         join envelopes e on e.digest = a.envelope where a.id = $1 and r.name = $2",
        id,
        repository as &RepositoryName,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading an envelope", error))?;
    Ok(row.map(|row| (row.media_type, row.body)))
}
