//! Rows of `attestations` and what hangs on them.

use crate::attestation::facts::{Facts, Material};
use crate::attestation::received::Received;
use crate::attestation::record::{Carrier, Content, Through, kept_predicate};
use crate::attestation::statement::Statement;
use crate::failure::Failure;
use crate::names::{Algorithm, Digest};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::BTreeSet;

const RECORDING: &str = "recording an attestation";

/// An attestation, when it came, and whether it came with a push.
pub struct Receipt {
    pub id: i64,
    pub received_at: DateTime<Utc>,
    pub pushed: bool,
}

/// The attestation that these bytes are for this subject, if it is known.
pub async fn find(
    connection: &mut PgConnection,
    carrier: Carrier<'_>,
    received: &Received,
) -> Result<Option<Receipt>, Failure> {
    sqlx::query_as!(
        Receipt,
        "select id, received_at, pushed from attestations
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
) -> Result<Option<Receipt>, Failure> {
    let predicate_type_id = match &content.statement {
        Some(statement) => Some(predicate_type(connection, &statement.predicate_type).await?),
        None => None,
    };
    sqlx::query_as!(
        Receipt,
        "insert into attestations(repository_id, carried_for, manifest, envelope, beside, form, why,
           predicate_type_id, message, builder, result, configuration, predicate, received_by, signed_at, pushed)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         on conflict do nothing returning id, received_at, pushed",
        carrier.repository.id,
        carrier.subject as &Digest,
        carrier.manifest as &Digest,
        received.digest() as &Digest,
        received.beside(),
        content.form,
        content.why,
        predicate_type_id,
        content.message.as_ref() as Option<&Digest>,
        facts.builder,
        facts.result,
        facts.configuration,
        content.statement.as_deref().and_then(kept_predicate) as Option<&Value>,
        carrier.principal.id,
        content.signed_at,
        carrier.through == Through::Push,
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

/// Whether an attestation of the manifest is recorded for the subject.
pub async fn is_carried(
    connection: &mut PgConnection,
    repository_id: i64,
    manifest: &Digest,
    subject: &Digest,
) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select exists (select from attestations
                          where repository_id = $1 and carried_for = $2 and manifest = $3) as "there!""#,
        repository_id,
        subject as &Digest,
        manifest as &Digest,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for an attestation", error))
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

/// Makes the statement count for the artifacts that are just one of these files, each with that file; returns those
/// that are new.
pub async fn link_files(
    connection: &mut PgConnection,
    repository_id: i64,
    id: i64,
    files: &[Digest],
) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"insert into attestation_subjects(repository_id, digest, attestation_id, file)
         select distinct $1::bigint, sha256, $2::bigint, file from manifests
         where repository_id = $1 and file = any($3)
         on conflict (repository_id, digest, attestation_id) do update set former = false
           where attestation_subjects.former
         returning digest as "digest: Digest""#,
        repository_id,
        id,
        files as &[Digest],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))
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
         on conflict (repository_id, digest, attestation_id) do update set former = false
           where attestation_subjects.former",
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
         from jsonb_array_elements($2) with ordinality materials(one, place) on conflict do nothing",
        id,
        Value::Array(rows),
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))?;
    Ok(())
}

/// The artifacts that are just a file which the statement names, the oldest first.
pub async fn artifacts_of_files(
    connection: &mut PgConnection,
    repository_id: i64,
    statement: &Statement,
) -> Result<Vec<Digest>, Failure> {
    let files: Vec<Digest> = statement.digests().collect();
    sqlx::query_scalar!(
        r#"select digest as "digest: Digest" from manifests
           where repository_id = $1 and file = any($2) order by pushed_at, digest limit 64"#,
        repository_id,
        &files as &[Digest],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(RECORDING, error))
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
