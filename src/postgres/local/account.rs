//! As whom Postgres runs: it refuses to run as root.

use super::Unstartable;
use super::layout::Layout;
use crate::config;
use nix::unistd::{Uid, User};
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Who runs the cluster's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// The service's own user, an ordinary one.
    Own,
    /// Another user, which root can become.
    Other {
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
    },
    /// The service's own user under another one's name, in a user namespace: for root below a
    /// closed directory, and for a user id without a name.
    Namespace {
        /// The user id that Postgres sees.
        uid: u32,
        /// The group id that Postgres sees.
        gid: u32,
    },
}

/// For a cluster that is there its owner decides, as files cannot change hands; for a new one root
/// takes the user postgres when that user can reach the directory.
pub fn choose(layout: &Layout) -> Result<Account, Unstartable> {
    let me = Uid::effective();
    let owner = fs::metadata(layout.data()).ok().map(|data| (data.uid(), data.gid()));
    if !me.is_root() {
        let Some((owner, _)) = owner.filter(|(owner, _)| *owner != me.as_raw()) else {
            let named = matches!(User::from_uid(me), Ok(Some(_)));
            return if named { Ok(Account::Own) } else { namespace(layout) };
        };
        return Err(Unstartable::NotYours {
            directory: layout.directory().to_owned(),
            owner: name_of(owner),
        });
    }
    match owner {
        Some((0, _)) => namespace(layout),
        Some((uid, gid)) => Ok(Account::Other { uid, gid }),
        None => match User::from_name("postgres") {
            Ok(Some(user)) => {
                let other = Account::Other { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
                open_to(&other, layout.directory())?;
                if other.reaches(layout.directory())? { Ok(other) } else { namespace(layout) }
            }
            Ok(None) | Err(_) => namespace(layout),
        },
    }
}

/// A user's name, or its number where it has none.
pub fn name_of(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

/// Lets the account, and nobody else as far as that goes, through the cluster's directory.
pub fn open_to(account: &Account, directory: &Path) -> Result<(), Unstartable> {
    let mode = match account {
        Account::Other { .. } => 0o711,
        Account::Own | Account::Namespace { .. } => 0o700,
    };
    fs::set_permissions(directory, fs::Permissions::from_mode(mode)).map_err(Unstartable::file(directory))
}

/// Inside the namespace the service's user gets the number of one that has a name, which is never
/// `nobody`: that is what everybody outside the namespace looks like from inside.
fn namespace(layout: &Layout) -> Result<Account, Unstartable> {
    let stand_in = ["postgres", "daemon", "bin"].iter().find_map(|name| User::from_name(name).ok().flatten());
    let refused = |said: String| Unstartable::NoAccount { directory: layout.directory().to_owned(), said };
    let user = stand_in.ok_or_else(|| refused("no user postgres, daemon or bin".into()))?;
    let account = Account::Namespace { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    let tried = account.command(Path::new("true")).output().map_err(no_tool("unshare"))?;
    if tried.status.success() {
        Ok(account)
    } else {
        Err(refused(String::from_utf8_lossy(&tried.stderr).trim().to_owned()))
    }
}

fn no_tool(program: &'static str) -> impl Fn(std::io::Error) -> Unstartable {
    move |source| Unstartable::NoTool { program, source }
}

impl Account {
    /// A command that runs the program as this account, away from the terminal's signals, and gets
    /// SIGINT when the thread that starts it ends. The signal is asked for last: a change of
    /// identity would forget it.
    pub fn command(&self, program: &Path) -> Command {
        let words: Vec<OsString> = match self {
            Self::Own => Vec::new(),
            Self::Other { uid, gid } => ["setpriv".into(), "--clear-groups".into()]
                .into_iter()
                .chain([format!("--reuid={uid}"), format!("--regid={gid}"), "--".into()])
                .map(OsString::from)
                .collect(),
            Self::Namespace { uid, gid } => ["unshare".into(), "--user".into()]
                .into_iter()
                .chain([format!("--map-user={uid}"), format!("--map-group={gid}"), "--".into()])
                .map(OsString::from)
                .collect(),
        };
        let mut words = words.into_iter().chain(["setpriv", "--pdeathsig=INT", "--"].map(OsString::from));
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg(program).process_group(0).current_dir("/").stdin(Stdio::null());
        // Nothing of the service's environment steers Postgres (PGDATA, PGPORT, LC_ALL, secrets).
        command.env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            command.envs(config::variable(name).map(|value| (name, value)));
        }
        command
    }

    /// Gives a file or directory that root made to the account.
    pub fn give(&self, path: &Path) -> Result<(), Unstartable> {
        match self {
            Self::Other { uid, gid } => {
                std::os::unix::fs::chown(path, Some(*uid), Some(*gid)).map_err(Unstartable::file(path))
            }
            Self::Own | Self::Namespace { .. } => Ok(()),
        }
    }

    /// The user id that owns the account's files, as seen from here.
    pub fn owner(&self) -> u32 {
        match self {
            Self::Other { uid, .. } => *uid,
            Self::Own | Self::Namespace { .. } => Uid::effective().as_raw(),
        }
    }

    /// The service's own user id, as Postgres sees it when the service connects.
    pub fn seen_as(&self) -> u32 {
        match self {
            Self::Own | Self::Other { .. } => Uid::effective().as_raw(),
            Self::Namespace { uid, .. } => *uid,
        }
    }

    /// Whether the account can search the directory and all above it.
    fn reaches(&self, directory: &Path) -> Result<bool, Unstartable> {
        let tried = self.command(Path::new("test")).arg("-x").arg(directory).output();
        match tried {
            Ok(output) => Ok(output.status.success()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(no_tool("setpriv")(error)),
            Err(error) => Err(Unstartable::file(directory)(error)),
        }
    }
}
