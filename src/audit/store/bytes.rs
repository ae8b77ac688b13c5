//! Rows with bytes, and objects with rows.

use crate::failure::Failure;
use crate::names::Digest;
use sqlx::PgConnection;
use std::collections::HashMap;

/// A blob whose bytes lie in the object store.
#[derive(Clone, Debug)]
pub struct ObjectRow {
    pub digest: Digest,
    pub size_bytes: i64,
    pub object_key: String,
    /// The digests of its pieces, where it has them.
    pub pieces: Option<Vec<u8>>,
}

/// A page of blobs in the object store, by digest.
pub async fn objects(
    connection: &mut PgConnection,
    last: &str,
    limit: i64,
) -> Result<Vec<ObjectRow>, Failure> {
    sqlx::query_as!(
        ObjectRow,
        r#"select digest as "digest: Digest", size_bytes, object_key as "object_key!", pieces
           from blobs
           where object_key is not null and damaged_at is null and digest > $1 order by digest limit $2"#,
        last,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading blobs", error))
}

/// Whether the row is still there, unchanged.
pub async fn is_there(connection: &mut PgConnection, row: &ObjectRow) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select exists(select from blobs where digest = $1 and object_key = $2) as "there!""#,
        &row.digest as &Digest,
        row.object_key,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("reading a blob again", error))
}

/// Of these objects the ones that a row needs or collection keeps for a while, with the size that is said.
pub async fn needed(
    connection: &mut PgConnection,
    names: &[String],
) -> Result<HashMap<String, i64>, Failure> {
    let rows = sqlx::query!(
        r#"select object_key as "object_key!", size_bytes as "size_bytes!" from blobs
           where object_key = any($1) and damaged_at is null
           union all
           select object_key, size_bytes from doomed_objects where object_key = any($1)"#,
        names
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for objects' rows", error))?;
    Ok(rows.into_iter().map(|row| (row.object_key, row.size_bytes)).collect())
}

/// Documents that are stored under their SHA-256.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Envelope,
    Decision,
    Policy,
}

/// Every kind.
pub const DOCUMENTS: [Kind; 3] = [Kind::Envelope, Kind::Decision, Kind::Policy];

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Decision => "decision",
            Self::Policy => "policy",
        }
    }
}

/// A document as it is stored.
#[derive(Clone, Debug)]
pub struct Document {
    pub digest: String,
    pub body: Vec<u8>,
}

/// Documents of one kind as they are stored: so many that they have few bytes together, and one at the
/// least. What is too large for that is not read before it is wanted.
macro_rules! documents {
    ($table:literal, $($argument:tt)*) => {
        sqlx::query_as!(
            Document,
            "select digest, body from (
               select digest, body, sum(octet_length(body)) over (order by digest) - octet_length(body) as before
               from (" + $table + " where digest > $1 order by digest limit $2) page) sized
             where before <= $3 order by digest",
            $($argument)*
        )
    };
}

/// A page of documents, by digest.
pub async fn documents(
    connection: &mut PgConnection,
    kind: Kind,
    last: &str,
    limit: i64,
    bytes: i64,
) -> Result<Vec<Document>, Failure> {
    let page = match kind {
        Kind::Envelope => {
            let envelopes = documents!("select digest, body from envelopes", last, limit, bytes);
            envelopes.fetch_all(connection).await
        }
        Kind::Decision => {
            let decisions = documents!(
                "select * from (select id as digest, inputs as body from decisions) d",
                last,
                limit,
                bytes
            );
            decisions.fetch_all(connection).await
        }
        Kind::Policy => {
            let policies = documents!("select digest, body from policy_documents", last, limit, bytes);
            policies.fetch_all(connection).await
        }
    };
    page.map_err(|error| Failure::new("reading documents", error))
}
