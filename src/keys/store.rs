//! The registered identity and public keys.

use super::private::{PrivateKeys, key_id, public_pem};
use super::trust::{KeyRole, Names, TRUST_VERSION, Trust, TrustedKey, TrustedScheme};
use crate::failure::Failure;
use crate::postgres::Scopes;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// One replica writes the identity; the others wait and then read it.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), Failure> {
    Scopes::signers().lock(connection).await
}

/// What was written at the first start, if there was one.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Option<Trust>, Failure> {
    let failed = |error| Failure::new("reading the registry's identity", error);
    let identity = sqlx::query!("select verifier_id, log_origin, public_name from registry_identity")
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?;
    let Some(identity) = identity else { return Ok(None) };
    let rows = sqlx::query!(
        "select key_id, role, public_key_pem, valid_from, valid_until from registry_keys
         order by valid_from desc, key_id"
    )
    .fetch_all(connection)
    .await
    .map_err(failed)?;
    let mut keys: BTreeMap<KeyRole, Vec<TrustedKey>> = BTreeMap::new();
    for row in rows {
        let role = KeyRole::parse(&row.role).ok_or_else(|| {
            Failure::new("reading the registry's keys", format!("{:?} is no key's role", row.role))
        })?;
        keys.entry(role).or_default().push(TrustedKey {
            key_id: row.key_id,
            scheme: TrustedScheme::Ed25519,
            public_key: row.public_key_pem,
            valid_from: row.valid_from,
            valid_until: row.valid_until,
        });
    }
    Ok(Some(Trust {
        version: TRUST_VERSION,
        verifier_id: identity.verifier_id,
        log_origin: identity.log_origin,
        public_name: identity.public_name,
        keys,
    }))
}

/// What the registry is called as a verifier of artifacts, once that was written.
pub async fn verifier_id(connection: &mut PgConnection) -> Result<Option<String>, Failure> {
    sqlx::query_scalar!("select verifier_id from registry_identity")
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new("reading the registry's identity", error))
}

/// Writes the identity: once for ever, since the row is unique and never changes.
pub(super) async fn write(
    connection: &mut PgConnection,
    names: &Names,
    private: &PrivateKeys,
) -> Result<Trust, Failure> {
    let failed = |error| Failure::new("writing the registry's identity", error);
    sqlx::query!(
        "insert into registry_identity(verifier_id, log_origin, public_name) values ($1, $2, $3)",
        names.verifier_id,
        names.log_origin,
        names.public_name,
    )
    .execute(&mut *connection)
    .await
    .map_err(failed)?;
    for role in KeyRole::ALL {
        let key = private.key(role).verifying_key();
        sqlx::query!(
            "insert into registry_keys(key_id, role, public_key_pem) values ($1, $2, $3)",
            key_id(&key),
            role.as_str(),
            public_pem(&key)?,
        )
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    }
    read(connection).await?.ok_or_else(|| {
        Failure::new("writing the registry's identity", "it is not there after it was written")
    })
}
