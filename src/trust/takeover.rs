//! Keys that an earlier version registered: each is written in its one form once, at the start of the service.

use super::key::CanonicalKey;
use super::revocations;
use super::scheme::Scheme;
use super::store;
use crate::failure::Failure;
use crate::postgres::Db;

/// Writes every key of an earlier version in its one form. Two signers with one key both stay; the log warns of them,
/// the list of signers names the other one, and where it is revoked for one of them it is revoked for both.
pub async fn take_over(db: &Db) -> Result<(), Failure> {
    let mut tx = db.begin().await?;
    let mut shared = Vec::new();
    for former in store::former(&mut tx).await? {
        let scheme = former.schemes.first().and_then(|text| text.parse::<Scheme>().ok());
        let key = scheme
            .and_then(|scheme| CanonicalKey::of_earlier_version(&former.public_key_pem, scheme.family()));
        let key = key.ok_or_else(|| {
            let why = format!("the key of the signer {} cannot be read", former.signer);
            Failure::new("writing keys in their one form", why)
        })?;
        if let Some(other) = store::take_over(&mut tx, &former, &key).await? {
            shared.push((former.signer.clone(), other.clone()));
            tracing::warn!(
                signer = former.signer,
                other,
                key_id = key.id().as_str(),
                "two signers have one key, and count as one in thresholds: name one of them in policies"
            );
        }
    }
    for (signer, other) in shared {
        revocations::share(&mut tx, &signer, &other).await?;
    }
    tx.commit().await.map_err(|error| Failure::new("writing keys in their one form", error))
}
