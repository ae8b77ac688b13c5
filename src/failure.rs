//! What went wrong on our side: logged once, at the door, and never shown to a caller.

use nix::errno::Errno;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::ErrorKind;

/// A fault of ours (the database is away, a disk is full): the caller sees "internal error" and a
/// request id, the log sees what we were doing and the whole chain of causes.
#[derive(Debug)]
pub struct Failure {
    doing: &'static str,
    cause: Box<dyn Error + Send + Sync>,
}

/// Others hold all the memory that there is for documents, or all the connections.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("others use all the memory or all the connections that there are; try again in a moment")]
pub struct Overloaded;

/// Too many wrong credentials came from one address.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many wrong credentials came from this address; try again in {seconds} s")]
pub struct TooManyWrong {
    /// When the next one is looked at.
    pub seconds: u64,
}

/// Nothing may be dated now.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the clocks of Postgres and of this service differ by more than 60 s; nothing was changed")]
pub struct ClocksDiffer;

/// What was taken in of an upload is not there any more, so it can never be completed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("what was staged of the upload is gone")]
pub struct LostUpload;

/// There is no file where a blob's bytes should be, and all of the storage is not away.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("its file is not there")]
pub struct MissingFile;

impl Failure {
    /// A failure with what was being done, in words such as `"reading a tag"`.
    pub fn new(doing: &'static str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { doing, cause: cause.into() }
    }

    /// Whether Postgres says that the transaction lost a race (40001, 40P01) and may be run again.
    pub fn is_transient(&self) -> bool {
        matches!(self.code().as_deref(), Some("40001" | "40P01"))
    }

    /// Whether Postgres says that a value can never be kept: text with a NUL character (22021,
    /// 22P05) or a time beyond its calendar (22008). No code of ours makes such values, so the fault
    /// is the caller's after all, and nothing was done.
    pub fn is_unstorable(&self) -> bool {
        matches!(self.code().as_deref(), Some("22021" | "22P05" | "22008"))
    }

    /// In how many seconds the caller may try again, where it sent too many wrong credentials.
    pub fn retry_after(&self) -> Option<u64> {
        self.cause.downcast_ref::<TooManyWrong>().map(|wrong| wrong.seconds)
    }

    /// Whether this is what caused it.
    pub fn is<E: std::error::Error + 'static>(&self) -> bool {
        self.cause.is::<E>()
    }

    /// Whether Postgres is away, has no connection to spare, did not come by a lock or did not end a statement in its time, there is no room in memory
    /// or on the disk, no more files can be open, or the object store does not answer as it should, however often
    /// it was asked: nothing was done, or nothing is known of it, and the caller may try again in a moment.
    pub fn is_overloaded(&self) -> bool {
        if self.cause.is::<Overloaded>() || self.cause.is::<ClocksDiffer>() {
            return true;
        }
        if let Some(error) = self.cause.downcast_ref() {
            return is_away(error);
        }
        if let Some(error) = self.cause.downcast_ref::<std::io::Error>() {
            let no_files_left = [Errno::EMFILE, Errno::ENFILE].map(|one| Some(one as i32));
            return matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
                || no_files_left.contains(&error.raw_os_error());
        }
        let away = self
            .cause
            .downcast_ref::<sqlx::Error>()
            .is_some_and(|error| matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::Io(_)));
        away || matches!(
            self.code().as_deref(),
            Some("53300" | "55P03" | "57014" | "57P01" | "57P02" | "57P03" | "25P03")
        )
    }

    /// Whether an upload can never be completed: what was staged in files is gone, or the object store says
    /// that an upload in parts is not there any more (404), or not as it was saved, because somebody aborted
    /// it, or a late writer wrote one of its parts again.
    pub fn is_of_a_lost_upload(&self) -> bool {
        if let Some(error) = self.cause.downcast_ref::<std::io::Error>() {
            return error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<LostUpload>);
        }
        match self.cause.downcast_ref() {
            Some(object_store::Error::NotFound { source, .. }) => !says_one_of(&**source, &MISSING_STORES),
            Some(object_store::Error::Generic { source, .. }) => says_one_of(&**source, &LOST_UPLOADS),
            Some(_) | None => false,
        }
    }

    /// Whether the store has no bytes where a blob's should be, or fewer than there should be. Bytes that it
    /// does not give for another reason may be whole.
    pub fn is_of_missing_bytes(&self) -> bool {
        let said = match self.cause.downcast_ref::<std::io::Error>() {
            Some(error) if error.kind() == ErrorKind::UnexpectedEof => return true,
            Some(error) if error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<MissingFile>) => {
                return true;
            }
            Some(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
            None => self.cause.downcast_ref(),
        };
        match said {
            Some(object_store::Error::NotFound { source, .. }) => !says_one_of(&**source, &MISSING_STORES),
            Some(object_store::Error::Generic { source, .. }) => {
                says_one_of(&**source, &["status code: 416"])
            }
            Some(_) | None => false,
        }
    }

    /// Whether a row holds what cannot be read as what it should be.
    pub fn is_of_an_unreadable_row(&self) -> bool {
        matches!(self.cause.downcast_ref(), Some(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)))
    }

    /// Whether Postgres says that what it stored of a row is damaged (XX001, XX002), or the row cannot be read as what
    /// it should be: trying again gives the same.
    pub fn is_of_a_damaged_row(&self) -> bool {
        self.is_of_an_unreadable_row() || matches!(self.code().as_deref(), Some("XX001" | "XX002"))
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.cause
            .downcast_ref::<sqlx::Error>()
            .and_then(sqlx::Error::as_database_error)
            .and_then(sqlx::error::DatabaseError::code)
    }

    /// Whether Postgres says that this constraint was broken.
    pub fn broke(&self, constraint: &str) -> bool {
        self.cause
            .downcast_ref::<sqlx::Error>()
            .and_then(sqlx::Error::as_database_error)
            .and_then(sqlx::error::DatabaseError::constraint)
            == Some(constraint)
    }

    /// What caused it, where a caller may know.
    pub fn cause(&self) -> String {
        self.cause.to_string()
    }

    /// The chain of causes on one line.
    pub fn chain(&self) -> String {
        let mut text = format!("{}: {}", self.doing, self.cause);
        let mut next = self.cause.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.doing)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(cause: sqlx::Error) -> Self {
        Self::new("asking Postgres", cause)
    }
}

/// What stores say of an upload in parts that is not as it was saved: S3 and Google (CompleteMultipartUpload),
/// Azure (Put Block List).
const LOST_UPLOADS: [&str; 4] = ["NoSuchUpload", "InvalidPart", "InvalidBlockList", "EntityTooSmall"];

/// What they say where all of the bucket or container is not there.
const MISSING_STORES: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];

/// The library tells what a store answered in words only.
fn says_one_of(source: &(dyn Error + Send + Sync), words: &[&str]) -> bool {
    let text = source.to_string();
    words.iter().any(|word| text.contains(word))
}

/// Whether the object store could not be reached, or said to the last that it cannot now. What it says no
/// to for good mostly has a variant of its own; the library tells the rest of it in words only.
fn is_away(error: &object_store::Error) -> bool {
    let object_store::Error::Generic { source, .. } = error else { return false };
    let text = source.to_string();
    !text.contains("status code: 4")
        || ["408", "429"].iter().any(|code| text.contains(&format!("status code: {code}")))
}
