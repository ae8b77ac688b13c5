//! What waits: attestations whose signatures no registered key verified when they came in.

use super::received::Received;
use super::scheme::PublicKey;
use super::store::attestations as store;
use super::verify::signed_by;
use crate::failure::Failure;
use sqlx::PgConnection;

/// Envelopes in memory at once while a new signer is judged.
const BATCH: i64 = 64;

/// Verifies what waits for a key that was just registered, found by the hints of its signatures;
/// a signature without a usable hint waits for every key. Returns how many the key signed.
pub(super) async fn judge(
    connection: &mut PgConnection,
    signer_id: i64,
    key: &PublicKey,
) -> Result<u64, Failure> {
    let (mut last, mut judged) = (0, 0);
    loop {
        let batch = store::waiting(connection, key.id().as_str(), last, BATCH).await?;
        let Some(end) = batch.last() else { return Ok(judged) };
        last = end.id;
        for waiting in batch {
            let beside = waiting.beside.as_deref();
            let Some(envelope) = Received::parse_again(&waiting.media_type, beside, &waiting.body) else {
                continue;
            };
            if !signed_by(&envelope, &[key]).is_empty() {
                store::insert_signatures(connection, waiting.id, &[signer_id]).await?;
                judged += 1;
            }
        }
    }
}
