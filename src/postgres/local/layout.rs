//! Where everything of the private cluster lies.

use super::Unstartable;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The service's database.
pub const DATABASE: &str = "proofmark";

/// The cluster's superuser, who owns the tables.
pub const USER: &str = "proofmark";

/// The role that the service has while it runs.
pub const RUNTIME_USER: &str = "proofmark_runtime";

/// A unix socket's name is its directory and this.
pub const SOCKET: &str = ".s.PGSQL.5432";

/// What a unix socket's address holds, without the zero at its end.
const SOCKET_PATH_BYTES: usize = 107;

/// The directory of the private cluster, absolute and without links:
/// `data/` is Postgres' own, `data.new/` one that is being made, `lock` names the service that runs
/// it, `socket/` holds the socket, `hba.conf` and `ident.conf` say who may connect.
#[derive(Clone, Debug)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// Makes the directory when it is not there. What is made above it can be searched but not
    /// listed by others when root makes it, so that the user postgres gets through.
    pub fn prepare(directory: &Path) -> Result<Self, Unstartable> {
        let mode = if nix::unistd::Uid::effective().is_root() { 0o711 } else { 0o700 };
        let failed = Unstartable::file(directory);
        match fs::DirBuilder::new().recursive(true).mode(mode).create(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let directory = directory.canonicalize().map_err(failed)?;
        if directory.to_str().is_none() {
            return Err(Unstartable::NotText(directory));
        }
        Ok(Self { directory })
    }

    /// The directory as it is, if it is one.
    pub fn existing(directory: &Path) -> Option<Self> {
        let directory = directory.canonicalize().ok()?;
        directory.to_str()?;
        Some(Self { directory })
    }

    /// The whole.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Postgres' own directory; it is there only complete.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A cluster in the making, renamed when it is complete.
    pub fn unfinished(&self) -> PathBuf {
        self.directory.join("data.new")
    }

    /// Locked by the service that runs the cluster.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// Who may connect.
    pub fn hba(&self) -> PathBuf {
        self.directory.join("hba.conf")
    }

    /// Which users of the machine they are.
    pub fn ident(&self) -> PathBuf {
        self.directory.join("ident.conf")
    }

    /// Where the socket is. A socket's address holds 107 bytes: below a longer path it lies in a
    /// directory of its own under /tmp, named by the data directory and closed to others.
    pub fn socket_directory(&self) -> PathBuf {
        let beside = self.directory.join("socket");
        if beside.join(SOCKET).as_os_str().len() <= SOCKET_PATH_BYTES {
            return beside;
        }
        let name = hex::encode(&Sha256::digest(self.directory.as_os_str().as_encoded_bytes())[..8]);
        PathBuf::from(format!("/tmp/proofmark-{name}"))
    }

    /// A URL through the socket, for the superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_for(USER, database)
    }

    /// A URL through the socket.
    pub fn url_for(&self, user: &str, database: &str) -> String {
        let socket = self.socket_directory();
        format!("postgres://{user}@localhost/{database}?host={}", percent_encoded(&socket.to_string_lossy()))
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_below_a_long_path_lies_in_a_short_place() {
        let short = Layout { directory: "/srv/proofmark/postgres".into() };
        assert_eq!(short.socket_directory(), Path::new("/srv/proofmark/postgres/socket"));
        let long = Layout { directory: Path::new("/srv").join("x".repeat(90)) };
        let socket = long.socket_directory().join(SOCKET);
        assert!(socket.starts_with("/tmp") && socket.as_os_str().len() <= SOCKET_PATH_BYTES);
        let other = Layout { directory: Path::new("/srv").join("y".repeat(90)) };
        assert_ne!(long.socket_directory(), other.socket_directory());
    }

    #[test]
    fn a_url_survives_any_directory_name() {
        let layout = Layout { directory: "/srv/a b&c=d?é/postgres".into() };
        let url = layout.url(DATABASE);
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        assert_eq!(options.get_socket().unwrap(), &layout.socket_directory());
        assert_eq!(options.get_database(), Some(DATABASE));
    }
}
