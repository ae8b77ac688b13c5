//! An upload as far as it has come: what any replica needs to go on with it.

use super::INLINE_BYTES;
use super::blob::key_of_parts;
use super::parts::MOST_PARTS;
use super::pieces::{PieceHasher, SuspendedPieces};
use crate::failure::Failure;
use crate::names::{Algorithm, Hasher, Resumable};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// An upload as far as it has come. Lives in Postgres between requests; everything it names is
/// durable. Bytes that no state names are the sweep's.
#[derive(Clone, Debug)]
pub struct Staged {
    pub(super) upload: Uuid,
    pub(super) offset_bytes: u64,
    pub(super) hashing: Hashing,
    pub(super) pieces: Pieces,
    /// What is smaller than the store's least piece: kept with the state itself.
    pub(super) tail: Bytes,
}

/// What the store holds of an upload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Pieces {
    /// Nothing yet.
    #[default]
    None,
    /// Files below `staging/`, in order.
    Files(Vec<Segment>),
    /// A multipart upload.
    Parts(Multipart),
}

/// One staged file: written by one lease, never touched again once a state names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Segment {
    pub name: String,
    pub bytes: u64,
}

/// A multipart upload that was begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Multipart {
    /// The store's own name of it.
    pub id: String,
    /// The object that announces it to the sweep.
    pub marker: String,
    /// What the store answered for each part, in order.
    pub parts: Vec<String>,
}

/// The shape in Postgres.
#[derive(Serialize, Deserialize)]
struct Row {
    algorithm: String,
    hash: String,
    /// None in a state of an earlier version.
    piece_hashes: Option<SuspendedPieces>,
    offset_bytes: u64,
    pieces: Pieces,
}

/// The hashes of what has come.
#[derive(Clone, Debug)]
pub(super) struct Hashing {
    pub whole: Hasher,
    /// None where an earlier version took the first bytes.
    pub pieces: Option<PieceHasher>,
}

impl Hashing {
    pub fn new(algorithm: Algorithm) -> Self {
        Self { whole: Hasher::new(algorithm), pieces: Some(PieceHasher::default()) }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.whole.update(bytes);
        if let Some(pieces) = &mut self.pieces {
            pieces.update(bytes);
        }
    }
}

impl Staged {
    /// Whether finishing moves nothing in the store: everything is in this state, small enough to
    /// stay in Postgres.
    pub fn stays_in_postgres(&self) -> bool {
        matches!(self.pieces, Pieces::None) && self.tail.len() <= INLINE_BYTES
    }

    /// Whether its bodies were so small that the store takes no more parts of it.
    pub fn is_cut_too_small(&self) -> bool {
        matches!(&self.pieces, Pieces::Parts(multipart) if multipart.parts.len() >= MOST_PARTS)
    }

    /// An upload of nothing yet. The id is random and names everything that it will stage.
    pub fn new(upload: Uuid, algorithm: Algorithm) -> Self {
        Self {
            upload,
            offset_bytes: 0,
            hashing: Hashing::new(algorithm),
            pieces: Pieces::None,
            tail: Bytes::new(),
        }
    }

    /// The upload's id.
    pub fn upload(&self) -> Uuid {
        self.upload
    }

    /// Bytes taken so far, all durable once this state is saved.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// The algorithm that runs while bytes come in.
    pub fn algorithm(&self) -> Algorithm {
        match self.hashing.whole {
            Hasher::Sha256(_) => Algorithm::Sha256,
            Hasher::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The state for Postgres: a document, and the bytes that no store holds yet.
    pub fn save(&self) -> Result<(Value, &[u8]), Failure> {
        let row = Row {
            algorithm: self.algorithm().as_str().to_owned(),
            hash: hex::encode(self.hashing.whole.suspend().0),
            piece_hashes: self.hashing.pieces.as_ref().map(PieceHasher::suspend),
            offset_bytes: self.offset_bytes,
            pieces: self.pieces.clone(),
        };
        let document =
            serde_json::to_value(row).map_err(|error| Failure::new("writing an upload's state", error))?;
        Ok((document, &self.tail))
    }

    /// The state as it was saved, by any replica.
    pub fn restore(upload: Uuid, document: Value, tail: Vec<u8>) -> Result<Self, Failure> {
        let unreadable = "reading an upload's state";
        let row: Row = serde_json::from_value(document).map_err(|error| Failure::new(unreadable, error))?;
        let algorithm = row.algorithm.parse().map_err(|error| Failure::new(unreadable, error))?;
        let hash = hex::decode(&row.hash).map_err(|error| Failure::new(unreadable, error))?;
        let whole = Hasher::resume(algorithm, &Resumable(hash))
            .ok_or_else(|| Failure::new(unreadable, "the hash's state is of another version"))?;
        let hashing = Hashing { whole, pieces: row.piece_hashes.as_ref().and_then(PieceHasher::resume) };
        Ok(Self { upload, offset_bytes: row.offset_bytes, hashing, pieces: row.pieces, tail: tail.into() })
    }

    pub(super) fn parts_key(&self) -> String {
        key_of_parts(self.upload)
    }
}

/// The name of what one lease stages for an upload.
pub(super) fn staging_name(upload: Uuid, lease: Uuid) -> String {
    format!("staging/{upload}-{lease}")
}
