//! Why an upload was not taken.

use crate::content::OverQuota;
use crate::failure::Failure;
use crate::names::Digest;
use crate::storage::WriteRefused;

/// Why an upload was not taken.
#[derive(Debug)]
pub enum UploadRefused {
    /// There is no such session in this repository.
    Unknown,
    /// The body does not begin where the session is, or somebody else is writing to it.
    OutOfOrder {
        /// Where the session is.
        offset_bytes: u64,
    },
    /// The blob would have more bytes than this.
    TooLarge {
        /// The most that would be accepted.
        limit_bytes: u64,
    },
    /// It came in bodies so small that the object store takes no more of it.
    CutTooSmall,
    /// The body has another length than it said.
    WrongLength {
        /// What it said.
        declared_bytes: u64,
    },
    /// The body ended before its end; what came of a session's is kept.
    Interrupted(String),
    /// The bytes have another digest than they should.
    WrongDigest {
        /// The one they have.
        actual: Digest,
    },
    /// As many bodies as the service takes, altogether or of this principal, are being taken.
    Busy,
    /// The principal has as many open sessions as it may.
    TooManySessions {
        /// The most that it may have.
        limit: u32,
    },
    /// More than the repository may hold.
    OverQuota(OverQuota),
    /// A fault of ours.
    Failed(Failure),
}

crate::postgres::refusal!(UploadRefused);

impl From<Failure> for UploadRefused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<WriteRefused> for UploadRefused {
    fn from(refused: WriteRefused) -> Self {
        match refused {
            WriteRefused::TooLarge { limit_bytes } => Self::TooLarge { limit_bytes },
            WriteRefused::Interrupted(why) => Self::Interrupted(why),
            WriteRefused::Failed(failure) => Self::Failed(failure),
        }
    }
}
