//! Rows of `attestations` and what hangs on them.

use crate::attestation::facts::{Facts, Material};
use crate::attestation::received::Received;
use crate::attestation::record::{Carrier, Content, Recorded, kept_predicate};
use crate::attestation::statement::Statement;
use crate::failure::Failure;
use crate::names::{Algorithm, Digest};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::BTreeSet;

const RECORDING: &str = "recording an attestation";

/// The attestation that these bytes are for this subject, if it is known.
pub async fn find(
    connection: &mut PgConnection,
    carrier: Carrier<'_>,
    received: &Received,
) -> Result<Option<Recorded>, Failure> {
    sqlx::query_as!(
        Recorded,
        "select id, received_at from attestations
         where repository_id = $1 and carried_for = $2 and envelope = $3 and coalesce(beside, '') = $4",
        carrier.repository.id,
        carrier.subject as &Digest,
        received.digest() as &Digest,
        received.beside().unwrap_or_default(),
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))
}

/// Keeps the bytes exactly as received.
pub async fn keep_envelope(connection: &mut PgConnection, received: &Received) -> Result<(), Failure> {
    sqlx::query!(
        "insert into envelopes(digest, media_type, body) values ($1, $2, $3) on conflict do nothing",
        received.digest() as &Digest,
        received.media_type(),
        &received.body()[..],
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?;
    Ok(())
}

/// Inserts the attestation; `None` when somebody else just did.
pub async fn insert(
    connection: &mut PgConnection,
    carrier: Carrier<'_>,
    received: &Received,
    content: &Content,
    facts: &Facts,
) -> Result<Option<Recorded>, Failure> {
    let predicate_type_id = match &content.statement {
        Some(statement) => Some(predicate_type(connection, &statement.predicate_type).await?),
        None => None,
    };
    sqlx::query_as!(
        Recorded,
        "insert into attestations(repository_id, carried_for, manifest, envelope, beside, form, why,
           predicate_type_id, builder, source, source_ref, commit_id, result, configuration, predicate,
           received_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         on conflict do nothing returning id, received_at",
        carrier.repository.id,
        carrier.subject as &Digest,
        carrier.manifest as &Digest,
        received.digest() as &Digest,
        received.beside(),
        content.form,
        content.why,
        predicate_type_id,
        facts.builder,
        facts.source,
        facts.source_ref,
        facts.commit,
        facts.result,
        facts.configuration,
        content.statement.as_ref().and_then(kept_predicate) as Option<&Value>,
        carrier.principal.id,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))
}

/// Records a referrer that carries nothing to verify, once.
pub async fn insert_opaque(
    connection: &mut PgConnection,
    carrier: Carrier<'_>,
    why: &str,
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into attestations(repository_id, carried_for, manifest, form, why, received_by)
         values ($1, $2, $3, 'opaque', $4, $5) on conflict do nothing",
        carrier.repository.id,
        carrier.subject as &Digest,
        carrier.manifest as &Digest,
        why,
        carrier.principal.id,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?;
    Ok(())
}

async fn predicate_type(connection: &mut PgConnection, uri: &str) -> Result<i32, Failure> {
    let failed = |error| Failure::new(RECORDING, error);
    loop {
        let found = sqlx::query_scalar!("select id from predicate_types where uri = $1", uri)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        if let Some(id) = found {
            return Ok(id);
        }
        sqlx::query!("insert into predicate_types(uri) values ($1) on conflict do nothing", uri)
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
    }
}

/// The subjects that the statement names, whether the repository has them or not.
pub async fn insert_subjects(
    connection: &mut PgConnection,
    repository_id: i64,
    id: i64,
    statement: &Statement,
) -> Result<(), Failure> {
    let digests: Vec<Digest> = statement.digests().collect::<BTreeSet<_>>().into_iter().collect();
    sqlx::query!(
        "insert into attestation_subjects(repository_id, digest, attestation_id)
         select $1, d, $2 from unnest($3::text[]) d",
        repository_id,
        id,
        &digests as &[Digest],
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?;
    Ok(())
}

/// The artifacts that are just a file which the statement names, each with that file.
pub async fn insert_files(
    connection: &mut PgConnection,
    repository_id: i64,
    id: i64,
    artifacts: &[Digest],
    files: &[Digest],
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into attestation_subjects(repository_id, digest, attestation_id, file)
         select $1, artifact, $2, file from unnest($3::text[], $4::text[]) found(artifact, file)
         on conflict do nothing",
        repository_id,
        id,
        artifacts as &[Digest],
        files as &[Digest],
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?;
    Ok(())
}

/// The artifact is just this file: what is said about the file is said about it.
pub async fn link_pushed(
    connection: &mut PgConnection,
    repository_id: i64,
    artifact: &Digest,
    file: &Digest,
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into attestation_subjects(repository_id, digest, attestation_id, file)
         select repository_id, $2, attestation_id, digest from attestation_subjects
         where repository_id = $1 and digest = $3 and file is null
         on conflict do nothing",
        repository_id,
        artifact as &Digest,
        file as &Digest,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("finding what is attested about a file", error))?;
    Ok(())
}

/// What the provenance says went in.
pub async fn insert_materials(
    connection: &mut PgConnection,
    id: i64,
    materials: &[Material],
) -> Result<(), Failure> {
    let rows = materials.iter().map(|one| json!({"uri": one.uri, "digests": one.digests})).collect();
    sqlx::query!(
        "insert into attestation_materials(attestation_id, position, uri, digests)
         select $1, (place - 1)::int, one ->> 'uri', array(select jsonb_array_elements_text(one -> 'digests'))
         from jsonb_array_elements($2) with ordinality materials(one, place)",
        id,
        Value::Array(rows),
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?;
    Ok(())
}

/// These signers' keys signed exactly these bytes.
pub async fn insert_signatures(
    connection: &mut PgConnection,
    id: i64,
    signers: &[i64],
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into attestation_signatures(attestation_id, signer_id)
         select $1, s from unnest($2::bigint[]) s on conflict do nothing",
        id,
        signers,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?;
    Ok(())
}

/// What a signer that is registered later finds it by.
pub async fn insert_hints(
    connection: &mut PgConnection,
    id: i64,
    hints: &BTreeSet<String>,
) -> Result<(), Failure> {
    let hints: Vec<String> = hints.iter().cloned().collect();
    sqlx::query!(
        "insert into attestation_hints(attestation_id, hint) select $1, h from unnest($2::text[]) h",
        id,
        &hints,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?;
    Ok(())
}

/// An attestation that waits for a key.
pub struct Waiting {
    pub id: i64,
    pub media_type: String,
    pub body: Vec<u8>,
    pub beside: Option<String>,
}

/// A page of what hints at the key, or at none.
pub async fn waiting(
    connection: &mut PgConnection,
    key_id: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Waiting>, Failure> {
    sqlx::query_as!(
        Waiting,
        "select a.id, e.media_type, e.body, a.beside
         from attestations a join envelopes e on e.digest = a.envelope
         where a.id > $2 and a.form = 'statement'
           and a.id in (select attestation_id from attestation_hints where hint in ($1, ''))
         order by a.id limit $3",
        key_id,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading what waits for a signer", error))
}

/// The manifests of the repository whose bytes have one of the digests.
pub async fn subjects_here(
    connection: &mut PgConnection,
    repository_id: i64,
    statement: &Statement,
) -> Result<Vec<Digest>, Failure> {
    let named: Vec<Digest> = statement.digests().collect();
    let long: Vec<Digest> =
        named.iter().filter(|digest| digest.algorithm() == Algorithm::Sha512).cloned().collect();
    sqlx::query_scalar!(
        r#"select m.digest as "digest!: Digest" from (
             select digest, digest as by from manifests where repository_id = $1 and digest = any($2)
             union
             select digest, sha256 from manifests where repository_id = $1 and sha256 = any($2)
             union
             select digest, sha512 from manifests
             where cardinality($3::text[]) > 0 and repository_id = $1 and sha512 = any($3)) m
           group by m.digest order by min(array_position($2, m.by)) limit 64"#,
        repository_id,
        &named as &[Digest],
        &long as &[Digest],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))
}

/// A statement as it is indexed, with its envelope.
pub struct Indexed {
    pub id: i64,
    pub media_type: String,
    pub body: Vec<u8>,
    pub beside: Option<String>,
    pub predicate_type: String,
    pub builder: Option<String>,
    pub source: Option<String>,
    pub source_ref: Option<String>,
    pub commit_id: Option<String>,
    pub result: Option<String>,
    pub configuration: Option<String>,
    pub subjects: Vec<Digest>,
    /// Files through which it counts for artifacts; of those whose artifact holds another, nothing.
    pub files: Vec<Option<Digest>>,
    pub signers: Vec<i64>,
}

/// A page of the statements, by id.
pub async fn indexed(connection: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<Indexed>, Failure> {
    sqlx::query_as!(
        Indexed,
        r#"select a.id, e.media_type, e.body, a.beside, t.uri as predicate_type, a.builder, a.source,
             a.source_ref, a.commit_id, a.result, a.configuration,
             array(select digest from attestation_subjects where attestation_id = a.id and file is null)
               as "subjects!: Vec<Digest>",
             array(select case when not exists (
                     select from manifests m where m.repository_id = s.repository_id and m.sha256 = s.digest
                       and not exists (select from manifest_blobs b where b.repository_id = m.repository_id
                                       and b.manifest = m.digest and b.blob = s.file)) then s.file end
                   from attestation_subjects s where s.attestation_id = a.id and s.file is not null)
               as "files!: Vec<Option<Digest>>",
             array(select signer_id from attestation_signatures where attestation_id = a.id) as "signers!"
           from attestations a
           join envelopes e on e.digest = a.envelope
           join predicate_types t on t.id = a.predicate_type_id
           where a.id > $1 and a.form = 'statement'
           order by a.id limit $2"#,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("auditing attestations", error))
}
