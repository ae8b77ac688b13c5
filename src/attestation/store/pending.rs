//! Rows of `attestations_waiting`, `attestation_signatures_found` and `attestations_unreadable`.

use crate::failure::Failure;
use crate::names::RepositoryName;
use crate::trust::Scheme;
use sqlx::PgConnection;

const READING: &str = "reading pending envelopes";

/// Notes that a key which is registered later may have signed it.
pub async fn insert(connection: &mut PgConnection, id: i64, repository_id: i64) -> Result<(), Failure> {
    sqlx::query!(
        "insert into attestations_waiting(attestation_id, repository_id) values ($1, $2) on conflict do nothing",
        id,
        repository_id,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("recording a pending envelope", error))?;
    Ok(())
}

/// How many pending envelopes the repositories have, counted up to this.
pub async fn count(connection: &mut PgConnection, repositories: &[i64], up_to: i64) -> Result<i64, Failure> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from (
             select from attestations_waiting where repository_id = any($1) limit $2) pending"#,
        repositories,
        up_to,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new(READING, error))
}

/// The newest pending attestation.
pub async fn newest(connection: &mut PgConnection) -> Result<i64, Failure> {
    sqlx::query_scalar!(r#"select coalesce(max(attestation_id), 0) as "id!" from attestations_waiting"#)
        .fetch_one(connection)
        .await
        .map_err(|error| Failure::new(READING, error))
}

/// A repository that has pending envelopes.
pub struct Repository {
    pub id: i64,
    pub name: RepositoryName,
}

/// The repositories that have pending envelopes.
pub async fn repositories(connection: &mut PgConnection) -> Result<Vec<Repository>, Failure> {
    sqlx::query_as!(
        Repository,
        r#"select r.id, r.name as "name: RepositoryName" from repositories r
           where exists (select from attestations_waiting w where w.repository_id = r.id)"#,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(READING, error))
}

/// A pending attestation, and how long its envelope is.
pub struct Length {
    pub id: i64,
    pub bytes: i32,
}

/// A page of the pending attestations in these repositories, behind the one and up to the other, by id.
pub async fn page(
    connection: &mut PgConnection,
    repositories: &[i64],
    (after, to): (i64, i64),
    limit: i64,
) -> Result<Vec<Length>, Failure> {
    sqlx::query_as!(
        Length,
        r#"select w.attestation_id as "id!", coalesce(octet_length(e.body), 0) as "bytes!"
           from attestations_waiting w join attestations a on a.id = w.attestation_id
           left join envelopes e on e.digest = a.envelope
           where w.repository_id = any($1) and w.attestation_id > $2 and w.attestation_id <= $3
           order by w.attestation_id limit $4"#,
        repositories,
        after,
        to,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(READING, error))
}

/// A pending envelope; nothing of it where its bytes are gone.
pub struct Pending {
    pub id: i64,
    pub media_type: Option<String>,
    pub body: Option<Vec<u8>>,
    pub beside: Option<String>,
}

/// The envelopes of these attestations.
pub async fn envelopes(connection: &mut PgConnection, ids: &[i64]) -> Result<Vec<Pending>, Failure> {
    sqlx::query_as!(
        Pending,
        r#"select a.id as "id!", e.media_type as "media_type?", e.body as "body?", a.beside
           from attestations a left join envelopes e on e.digest = a.envelope where a.id = any($1)"#,
        ids,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(READING, error))
}

/// These are not pending any more.
pub async fn delete(connection: &mut PgConnection, ids: &[i64]) -> Result<(), Failure> {
    sqlx::query!("delete from attestations_waiting where attestation_id = any($1)", ids)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("recording what is not pending any more", error))?;
    Ok(())
}

/// These cannot be read, for these reasons.
pub async fn unreadable(
    connection: &mut PgConnection,
    ids: &[i64],
    reasons: &[String],
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into attestations_unreadable(attestation_id, reason)
         select id, reason from unnest($1::bigint[], $2::text[]) found(id, reason) on conflict do nothing",
        ids,
        reasons,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("recording envelopes that cannot be read", error))?;
    Ok(())
}

/// A signature by a scheme that does not count yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub identity_id: i64,
    pub scheme: Scheme,
}

/// Keeps signatures until their schemes count; those of schemes that count already are no news.
pub async fn keep_found(connection: &mut PgConnection, found: &[(i64, Found)]) -> Result<(), Failure> {
    let attestations: Vec<i64> = found.iter().map(|(id, _)| *id).collect();
    let identities: Vec<i64> = found.iter().map(|(_, one)| one.identity_id).collect();
    let schemes: Vec<String> = found.iter().map(|(_, one)| one.scheme.as_str().to_owned()).collect();
    sqlx::query!(
        "insert into attestation_signatures_found(attestation_id, identity_id, scheme)
         select attestation_id, identity_id, scheme
         from unnest($1::bigint[], $2::bigint[], $3::text[]) found(attestation_id, identity_id, scheme)
         where not exists (select from signer_identities k
                           where k.id = found.identity_id and found.scheme = any(k.active_schemes))
         order by attestation_id, identity_id, scheme on conflict do nothing",
        &attestations,
        &identities,
        &schemes,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("recording signatures of a key that is being verified", error))?;
    Ok(())
}

/// Takes the kept signatures of an identity.
pub async fn take_found(connection: &mut PgConnection, identity_id: i64) -> Result<Vec<i64>, Failure> {
    let mut taken = sqlx::query_scalar!(
        "delete from attestation_signatures_found where identity_id = $1 returning attestation_id",
        identity_id,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading signatures of a key that was verified", error))?;
    taken.sort_unstable();
    taken.dedup();
    Ok(taken)
}

/// The signers of whose keys signatures on these attestations are kept.
pub struct FoundOf {
    pub attestation_id: i64,
    pub signer: String,
    pub key_id: Option<String>,
}

/// Of these attestations, the signatures that are kept for schemes that do not count yet.
pub async fn found_on(connection: &mut PgConnection, ids: &[i64]) -> Result<Vec<FoundOf>, Failure> {
    sqlx::query_as!(
        FoundOf,
        "select f.attestation_id, s.name as signer, k.key_id
         from attestation_signatures_found f join signer_identities k on k.id = f.identity_id
         join signers s on s.id = k.signer_id
         where f.attestation_id = any($1) and f.scheme <> all(k.active_schemes) order by f.attestation_id, s.name",
        ids,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading signatures of keys that are being verified", error))
}
