//! Why the private cluster cannot be started, in words that tell the operator the way on.

use std::io;
use std::path::{Path, PathBuf};

/// What the operator has to mend.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Unstartable {
    #[error(
        "{directory} is in use by another Proofmark ({holder}): stop it first, give this one its own \
         PROOFMARK_DATA, or give both the same DATABASE_URL"
    )]
    InUse { directory: PathBuf, holder: String },
    #[error(
        "no Postgres ({MINIMUM} or newer) on this machine: install one (Debian and Ubuntu: apt install \
         postgresql; Fedora: dnf install postgresql-server), or set DATABASE_URL to one that runs elsewhere",
        MINIMUM = super::binaries::MINIMUM_MAJOR
    )]
    NotInstalled,
    #[error(
        "only Postgres {found} is on this machine, and {MINIMUM} or newer is needed: install a newer one, \
         or set DATABASE_URL to one that runs elsewhere",
        MINIMUM = super::binaries::MINIMUM_MAJOR
    )]
    TooOld { found: String },
    #[error(
        "the cluster in {data} was made by Postgres {cluster} and this machine has {found}: install \
         Postgres {cluster} beside it (Debian: apt install postgresql-{cluster}), and Proofmark uses it; to \
         move to a newer one, follow \"Another Postgres\" in README.md"
    )]
    OtherMajor { data: PathBuf, cluster: u32, found: String },
    #[error("{directory} belongs to {owner}: start Proofmark as that user, or give PROOFMARK_DATA")]
    NotYours { directory: PathBuf, owner: String },
    #[error(
        "Postgres refuses to run as root, the user postgres cannot reach {directory}, and this machine \
         allows no user namespaces ({said}): start Proofmark as an ordinary user, or make every directory \
         above it searchable (chmod o+x), or set DATABASE_URL"
    )]
    NoAccount { directory: PathBuf, said: String },
    #[error("cannot run {program}: {source} (on Debian it is in the package util-linux)")]
    NoTool { program: &'static str, source: io::Error },
    #[error("the path {0:?} is not UTF-8: give another PROOFMARK_DATA")]
    NotText(PathBuf),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} belongs to somebody else: remove it, or give a PROOFMARK_DATA with a shorter path")]
    SocketDirectoryTaken(PathBuf),
    #[error("making the cluster failed: {said}")]
    Initdb { said: String },
    #[error("cannot run {program}: {source}")]
    NotRunnable { program: PathBuf, source: io::Error },
    #[error("Postgres did not start: {said}")]
    Postgres { said: String },
    #[error("processes of an earlier Postgres are still at work in {data} and do not end: {pids}")]
    Leftovers { data: PathBuf, pids: String },
    #[error("it was stopped before it was ready")]
    Stopped,
}

impl Unstartable {
    /// For `map_err` on what is done with a file.
    pub fn file(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path: path.clone(), source }
    }
}
