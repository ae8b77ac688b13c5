//! Rows of `signers`, `signer_identities` and `signer_revocations`.

use crate::failure::Failure;
use crate::names::Pattern;
use crate::policy::{Revocation, Signature};
use crate::trust::key::{CanonicalKey, KeyId};
use crate::trust::revocations::Revoked;
use crate::trust::scheme::Scheme;
use crate::trust::signers::{
    CertificateIdentity, GivenKey, Identity, NewSigner, Registered, Signer, SigningKey, Verifying, Wanted,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap};

const READING: &str = "reading signers";

struct SignerRow {
    id: i64,
    name: String,
    repositories: Vec<Pattern>,
    predicate_types: Vec<Pattern>,
    registered_by: String,
    registered_at: DateTime<Utc>,
}

struct IdentityRow {
    id: i64,
    signer_id: i64,
    public_key_pem: Option<String>,
    schemes: Vec<String>,
    active_schemes: Vec<String>,
    issuer: Option<String>,
    identity: Option<String>,
    claims: Option<Value>,
    valid_from: DateTime<Utc>,
    valid_until: Option<DateTime<Utc>>,
    registered_by: String,
    registered_at: DateTime<Utc>,
    shares_key_with: Option<String>,
}

/// What a row says that does not fit what the code knows.
fn unreadable(why: impl std::fmt::Display) -> Failure {
    Failure::new("reading a registered key", why.to_string())
}

fn schemes(texts: &[String]) -> Result<BTreeSet<Scheme>, Failure> {
    texts.iter().map(|text| text.parse().map_err(|error| unreadable(format!("{text}: {error}")))).collect()
}

impl IdentityRow {
    fn registered(self) -> Result<Registered, Failure> {
        let identity = match (self.public_key_pem, self.issuer, self.identity) {
            (Some(pem), _, _) => Identity::Key {
                key: CanonicalKey::stored(&pem).map_err(unreadable)?,
                schemes: schemes(&self.schemes)?,
            },
            (None, Some(issuer), Some(identity)) => {
                let claims = serde_json::from_value(self.claims.unwrap_or_default()).map_err(unreadable)?;
                Identity::Certificate(CertificateIdentity { issuer, identity, claims })
            }
            (None, _, _) => return Err(unreadable("it is neither a key nor a certificate identity")),
        };
        Ok(Registered {
            id: self.id,
            identity,
            valid_from: self.valid_from,
            valid_until: self.valid_until,
            registered_by: self.registered_by,
            registered_at: self.registered_at,
            active: schemes(&self.active_schemes)?,
            revocations: Vec::new(),
            shares_key_with: self.shares_key_with,
        })
    }
}

/// Signers by name, after this one.
pub async fn page(connection: &mut PgConnection, after: &str, limit: i64) -> Result<Vec<Signer>, Failure> {
    select(connection, None, (after, limit)).await
}

/// The signer of this name.
pub async fn signer(connection: &mut PgConnection, name: &str) -> Result<Option<Signer>, Failure> {
    Ok(select(connection, Some(name), ("", 1)).await?.pop())
}

async fn select(
    connection: &mut PgConnection,
    name: Option<&str>,
    (after, limit): (&str, i64),
) -> Result<Vec<Signer>, Failure> {
    let failed = |error| Failure::new(READING, error);
    let rows = sqlx::query_as!(
        SignerRow,
        r#"select s.id, s.name, s.repositories as "repositories: Vec<Pattern>",
             s.predicate_types as "predicate_types: Vec<Pattern>", p.name as registered_by, s.registered_at
           from signers s join principals p on p.id = s.registered_by
           where ($1::text is null or s.name = $1) and s.name > $2 order by s.name limit $3"#,
        name,
        after,
        limit,
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let identities = sqlx::query_as!(
        IdentityRow,
        r#"select k.id, k.signer_id, k.public_key_pem, k.schemes, k.active_schemes, k.issuer, k.identity,
             k.claims, k.valid_from, k.valid_until, p.name as registered_by, k.registered_at,
             (select s.name from signer_identities o join signers s on s.id = o.signer_id
              where o.id <> k.id and (o.id = k.shares_key_with or o.shares_key_with = k.id)
              order by o.id limit 1) as shares_key_with
           from signer_identities k join principals p on p.id = k.registered_by
           where k.signer_id = any($1) order by k.id"#,
        &ids,
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    let mut revocations = revocations(connection, &ids).await?;
    let mut of_signer: HashMap<i64, Vec<Registered>> = HashMap::new();
    for row in identities {
        let signer_id = row.signer_id;
        let mut identity = row.registered()?;
        identity.revocations = revocations.remove(&identity.id).unwrap_or_default();
        of_signer.entry(signer_id).or_default().push(identity);
    }
    let signers = rows.into_iter().map(|row| Signer {
        id: row.id,
        name: row.name,
        repositories: row.repositories,
        predicate_types: row.predicate_types,
        registered_by: row.registered_by,
        registered_at: row.registered_at,
        identities: of_signer.remove(&row.id).unwrap_or_default(),
    });
    Ok(signers.collect())
}

async fn revocations(
    connection: &mut PgConnection,
    signers: &[i64],
) -> Result<HashMap<i64, Vec<Revoked>>, Failure> {
    let rows = sqlx::query!(
        "select v.identity_id, v.distrusted_from, v.compromised, v.reason, p.name, v.revoked_at
         from signer_revocations v join principals p on p.id = v.revoked_by
         where v.signer_id = any($1) order by v.id",
        signers,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading revocations", error))?;
    let mut of_identity: HashMap<i64, Vec<Revoked>> = HashMap::new();
    for row in rows {
        let revocation = Revocation { distrusted_from: row.distrusted_from, compromised: row.compromised };
        let revoked = Revoked { revocation, reason: row.reason, by: row.name, at: row.revoked_at };
        of_identity.entry(row.identity_id).or_default().push(revoked);
    }
    Ok(of_identity)
}

/// The signer to whom a key belongs.
pub async fn owner(connection: &mut PgConnection, key: &KeyId) -> Result<Option<String>, Failure> {
    sqlx::query_scalar!(
        "select s.name from signer_identities k join signers s on s.id = k.signer_id
         where k.key_id = $1 order by k.id limit 1",
        key.as_str(),
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("looking for a key's signer", error))
}

/// Every signer that has any of these keys.
pub async fn owners(connection: &mut PgConnection, key_ids: &[String]) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        "select distinct s.name from signer_identities k join signers s on s.id = k.signer_id
         where k.key_id = any($1) order by s.name",
        key_ids,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for the signers of a key", error))
}

/// Keys of signers, each with each of its schemes.
pub async fn signing_keys(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> Result<Vec<SigningKey>, Failure> {
    let (keys, identities) = match wanted {
        Wanted::All => (None, None),
        Wanted::Keys(ids) => {
            let ids: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
            (Some(ids), None)
        }
        Wanted::Identities(ids) => (None, Some(ids)),
    };
    let rows = sqlx::query!(
        r#"select k.id, k.signer_id, s.name, k.key_id as "key_id!", k.public_key_pem as "public_key_pem!", k.schemes,
             k.active_schemes, s.repositories as "repositories: Vec<Pattern>",
             s.predicate_types as "predicate_types: Vec<Pattern>", k.valid_from, k.valid_until,
             v.distrusted_from as "distrusted_from?", v.compromised as "compromised?"
           from signer_identities k join signers s on s.id = k.signer_id
           left join lateral (
             select min(distrusted_from) as distrusted_from, bool_or(compromised) as compromised
             from signer_revocations where identity_id = k.id) v on true
           where k.kind = 'key' and ($1::text[] is null or k.key_id = any($1))
             and ($2::bigint[] is null or k.id = any($2))
           order by s.name, k.id"#,
        keys.as_deref(),
        identities,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new(READING, error))?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let key = CanonicalKey::stored(&row.public_key_pem).map_err(unreadable)?;
        let active = schemes(&row.active_schemes)?;
        let revocation = row.distrusted_from.map(|distrusted_from| Revocation {
            distrusted_from,
            compromised: row.compromised.unwrap_or_default(),
        });
        let signature = Signature {
            signer: row.name,
            key_id: row.key_id,
            repositories: row.repositories.into_iter().collect(),
            predicate_types: row.predicate_types.into_iter().collect(),
            valid_from: row.valid_from,
            valid_until: row.valid_until,
            revocation,
            pushed: false,
            repeated_at: None,
        };
        for scheme in schemes(&row.schemes)? {
            found.push(SigningKey {
                identity_id: row.id,
                signer_id: row.signer_id,
                key: key.by(scheme).map_err(unreadable)?,
                is_active: active.contains(&scheme),
                signature: signature.clone(),
            });
        }
    }
    Ok(found)
}

/// Inserts a signer, which has no identity yet.
pub async fn insert(
    connection: &mut PgConnection,
    new: &NewSigner,
    at: DateTime<Utc>,
    by: i64,
) -> Result<i64, Failure> {
    sqlx::query_scalar!(
        "insert into signers(name, repositories, predicate_types, registered_by, registered_at)
         values ($1, $2, $3, $4, $5) returning id",
        new.name,
        &new.repositories as &[Pattern],
        &new.predicate_types as &[Pattern],
        by,
        at,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("registering a signer", error))
}

fn texts(schemes: &BTreeSet<Scheme>) -> Vec<String> {
    schemes.iter().map(|scheme| scheme.as_str().to_owned()).collect()
}

/// Inserts a key of a signer, of which no scheme counts yet.
pub async fn insert_key(
    connection: &mut PgConnection,
    signer_id: i64,
    key: &GivenKey,
    at: DateTime<Utc>,
    by: i64,
) -> Result<i64, Failure> {
    sqlx::query_scalar!(
        "insert into signer_identities(signer_id, kind, key_id, public_key_pem, schemes, valid_from, valid_until,
           registered_by, registered_at, changed_by, changed_at)
         values ($1, 'key', $2, $3, $4, $5, $6, $7, $8, $7, $8) returning id",
        signer_id,
        key.key.id().as_str(),
        key.key.pem(),
        &texts(&key.new_schemes()),
        key.new_valid_from(),
        key.valid_until,
        by,
        at,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("registering a key", error))
}

/// Extends an identity.
pub async fn extend(
    connection: &mut PgConnection,
    identity_id: i64,
    schemes: &BTreeSet<Scheme>,
    (from, until): (DateTime<Utc>, Option<DateTime<Utc>>),
    at: DateTime<Utc>,
    by: i64,
) -> Result<(), Failure> {
    sqlx::query!(
        "update signer_identities set schemes = $2, valid_from = $3, valid_until = $4, changed_at = $5, changed_by = $6
         where id = $1",
        identity_id,
        &texts(schemes),
        from,
        until,
        at,
        by,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("extending a key of a signer", error))?;
    Ok(())
}

/// Inserts revocations of these identities of a signer.
pub async fn revoke(
    connection: &mut PgConnection,
    signer_id: i64,
    identities: &[i64],
    (revocation, reason): (Revocation, &str),
    at: DateTime<Utc>,
    by: i64,
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into signer_revocations(signer_id, identity_id, distrusted_from, compromised, reason, revoked_by,
           revoked_at)
         select $1, id, $3, $4, $5, $6, $7 from unnest($2::bigint[]) id order by id",
        signer_id,
        identities,
        revocation.distrusted_from,
        revocation.compromised,
        reason,
        by,
        at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("revoking a signer", error))?;
    Ok(())
}

const VERIFYING: &str = "verifying pending envelopes by a key";

/// The identity, if it is being verified.
pub async fn verifying(
    connection: &mut PgConnection,
    identity_id: i64,
) -> Result<Option<Verifying>, Failure> {
    let row = sqlx::query!(
        r#"select s.name, s.repositories as "repositories: Vec<Pattern>", k.public_key_pem as "public_key_pem!",
             array(select unnest(k.schemes) except select unnest(k.active_schemes)) as "schemes!",
             k.verify_to, k.verified_to
           from signer_identities k join signers s on s.id = k.signer_id
           where k.id = $1 and k.schemes <> k.active_schemes and k.kind = 'key'"#,
        identity_id,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new(VERIFYING, error))?;
    let Some(row) = row else { return Ok(None) };
    let key = CanonicalKey::stored(&row.public_key_pem).map_err(unreadable)?;
    let keys = schemes(&row.schemes)?.into_iter().map(|scheme| key.by(scheme).map_err(unreadable));
    let keys = keys.collect::<Result<_, _>>()?;
    let (signer, repositories) = (row.name, row.repositories);
    Ok(Some(Verifying { signer, repositories, keys, to: row.verify_to, done: row.verified_to }))
}

/// Every identity that is being verified.
pub async fn being_verified(connection: &mut PgConnection) -> Result<Vec<i64>, Failure> {
    sqlx::query_scalar!("select id from signer_identities where schemes <> active_schemes order by id")
        .fetch_all(connection)
        .await
        .map_err(|error| Failure::new(VERIFYING, error))
}

/// Begins to verify up to this attestation, from the first one.
pub async fn verify_up_to(connection: &mut PgConnection, identity_id: i64, to: i64) -> Result<(), Failure> {
    sqlx::query!(
        "update signer_identities set verify_to = $2, verified_to = 0 where id = $1",
        identity_id,
        to
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(VERIFYING, error))?;
    Ok(())
}

/// Notes how far it is verified. Where it begins anew meanwhile, what was noted holds for the earlier schemes only.
pub async fn verified_to(
    connection: &mut PgConnection,
    identity_id: i64,
    (begun, done): (&[String], i64),
) -> Result<(), Failure> {
    sqlx::query!(
        "update signer_identities set verified_to = greatest(verified_to, $3)
         where id = $1 and schemes <@ (active_schemes || $2)",
        identity_id,
        begun,
        done,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new(VERIFYING, error))?;
    Ok(())
}

/// Makes all schemes of an identity count.
pub async fn activate(connection: &mut PgConnection, identity_id: i64) -> Result<(), Failure> {
    sqlx::query!("update signer_identities set active_schemes = schemes where id = $1", identity_id)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("making a key count", error))?;
    Ok(())
}

/// A key as an earlier version registered it.
pub struct Former {
    pub id: i64,
    pub signer: String,
    pub public_key_pem: String,
    pub schemes: Vec<String>,
}

/// The keys that an earlier version registered and that are not in their one form yet.
pub async fn former(connection: &mut PgConnection) -> Result<Vec<Former>, Failure> {
    sqlx::query_as!(
        Former,
        r#"select k.id, s.name as signer, k.public_key_pem as "public_key_pem!", k.schemes
           from signer_identities k join signers s on s.id = k.signer_id
           where not k.is_canonical and k.kind = 'key' order by k.id for update of k"#,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading keys of an earlier version", error))
}

/// Writes a key of an earlier version in its one form; names the signer that has the same key, if one has.
pub async fn take_over(
    connection: &mut PgConnection,
    former: &Former,
    key: &CanonicalKey,
) -> Result<Option<String>, Failure> {
    sqlx::query_scalar!(
        r#"with same as (
             select o.id, s.name from signer_identities o join signers s on s.id = o.signer_id
             where o.key_id = $2 and o.is_canonical and o.shares_key_with is null and o.id <> $1),
           written as (
             update signer_identities set key_id = $2, public_key_pem = $3, is_canonical = true,
               former_key_id = nullif(key_id, $2), shares_key_with = (select id from same)
             where id = $1)
           select name from same"#,
        former.id,
        key.id().as_str(),
        key.pem(),
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("writing a key in its one form", error))
}
