//! Rows of `attestation_receipts`.

use crate::failure::Failure;
use sqlx::PgConnection;

/// Whether the attestation was received through POST.
pub async fn any(connection: &mut PgConnection, attestation_id: i64) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select exists (select from attestation_receipts where attestation_id = $1) as "any!""#,
        attestation_id,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for a receipt of an attestation", error))
}

/// Notes that the attestation was received through POST; returns the receipt.
pub async fn insert(
    connection: &mut PgConnection,
    attestation_id: i64,
    received_by: i64,
) -> Result<i64, Failure> {
    sqlx::query_scalar!(
        "insert into attestation_receipts(attestation_id, received_by) values ($1, $2) returning id",
        attestation_id,
        received_by,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("recording a receipt of an attestation", error))
}
