//! Rows of `signers` and `signer_revocations`.

use crate::attestation::scheme::{KeyId, PublicKey};
use crate::attestation::signers::{NewRevocation, NewSigner, Revoked, Signer, revocation};
use crate::failure::Failure;
use crate::names::Pattern;
use crate::policy::Signature;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

struct Row {
    id: i64,
    name: String,
    scheme: String,
    key_id: String,
    public_key_pem: String,
    repositories: Vec<Pattern>,
    predicate_types: Vec<Pattern>,
    valid_from: DateTime<Utc>,
    valid_until: Option<DateTime<Utc>>,
    registered_by: String,
    registered_at: DateTime<Utc>,
    distrusted_from: Option<DateTime<Utc>>,
    compromised: Option<bool>,
    reason: Option<String>,
    revoked_by: Option<String>,
    revoked_at: Option<DateTime<Utc>>,
}

impl Row {
    fn signer(self) -> Result<Signer, Failure> {
        let unreadable = |why: String| Failure::new("reading a registered key", why);
        let scheme = self.scheme.parse().map_err(|_| unreadable(format!("scheme {}", self.scheme)))?;
        let key = PublicKey::from_pem(&self.public_key_pem, Some(scheme))
            .map_err(|error| unreadable(format!("{}: {error}", self.name)))?;
        let revoked = match (self.reason, self.revoked_by, self.revoked_at) {
            (Some(reason), Some(by), Some(at)) => Some(Revoked { reason, by, at }),
            _ => None,
        };
        Ok(Signer {
            id: self.id,
            key,
            signature: Signature {
                signer: self.name,
                key_id: self.key_id,
                repositories: self.repositories.into_iter().collect(),
                predicate_types: self.predicate_types.into_iter().collect(),
                valid_from: self.valid_from,
                valid_until: self.valid_until,
                revocation: revocation(self.distrusted_from, self.compromised),
                pushed: false,
                repeated_at: None,
            },
            registered_by: self.registered_by,
            registered_at: self.registered_at,
            revoked,
        })
    }
}

/// Every signer, by name.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<Signer>, Failure> {
    page(connection, "", i64::MAX).await
}

/// Signers by name, after this one.
pub async fn page(connection: &mut PgConnection, after: &str, limit: i64) -> Result<Vec<Signer>, Failure> {
    select(connection, None, None, None, (after, limit)).await
}

/// The signer of this name.
pub async fn by_name(connection: &mut PgConnection, name: &str) -> Result<Option<Signer>, Failure> {
    Ok(select(connection, Some(name), None, None, ALL).await?.pop())
}

/// The signers of these keys; one key may be registered with two schemes.
pub async fn by_key_ids(connection: &mut PgConnection, ids: &[KeyId]) -> Result<Vec<Signer>, Failure> {
    let ids: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
    select(connection, None, Some(&ids), None, ALL).await
}

/// The signers of these rows.
pub async fn by_ids(connection: &mut PgConnection, ids: &[i64]) -> Result<Vec<Signer>, Failure> {
    select(connection, None, None, Some(ids), ALL).await
}

/// From the first to the last.
const ALL: (&str, i64) = ("", i64::MAX);

async fn select(
    connection: &mut PgConnection,
    name: Option<&str>,
    key_ids: Option<&[String]>,
    ids: Option<&[i64]>,
    (after, limit): (&str, i64),
) -> Result<Vec<Signer>, Failure> {
    let rows = sqlx::query_as!(
        Row,
        r#"select s.id, s.name, s.scheme, s.key_id, s.public_key_pem,
             s.repositories as "repositories: Vec<Pattern>", s.predicate_types as "predicate_types: Vec<Pattern>",
             s.valid_from, s.valid_until, p.name as registered_by, s.registered_at,
             v.distrusted_from as "distrusted_from?", v.compromised as "compromised?", v.reason as "reason?",
             w.name as "revoked_by?", v.revoked_at as "revoked_at?"
           from signers s join principals p on p.id = s.registered_by
           left join signer_revocations v on v.signer_id = s.id
           left join principals w on w.id = v.revoked_by
           where ($1::text is null or s.name = $1)
             and ($2::text[] is null or s.key_id = any($2))
             and ($3::bigint[] is null or s.id = any($3))
             and s.name > $4
           order by s.name limit $5"#,
        name,
        key_ids,
        ids,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading signers", error))?;
    rows.into_iter().map(Row::signer).collect()
}

/// Inserts a signer.
pub async fn insert(
    connection: &mut PgConnection,
    new: &NewSigner,
    key: &PublicKey,
    at: DateTime<Utc>,
    by: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        "insert into signers(name, scheme, key_id, public_key_pem, repositories, predicate_types,
           valid_from, valid_until, registered_by, registered_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning id",
        new.name,
        key.scheme().as_str(),
        key.id().as_str(),
        key.pem(),
        &new.repositories as &[Pattern],
        &new.predicate_types as &[Pattern],
        new.valid_from(),
        new.valid_until,
        by,
        at,
    )
    .fetch_one(connection)
    .await
}

/// Inserts a revocation, made at the one time and counting from the other.
pub async fn revoke(
    connection: &mut PgConnection,
    signer_id: i64,
    revocation: &NewRevocation,
    (at, from): (DateTime<Utc>, DateTime<Utc>),
    by: i64,
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into signer_revocations(signer_id, distrusted_from, compromised, reason, revoked_by, revoked_at)
         values ($1, $2, $3, $4, $5, $6)",
        signer_id,
        from,
        revocation.compromised,
        revocation.reason,
        by,
        at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("revoking a signer", error))?;
    Ok(())
}
