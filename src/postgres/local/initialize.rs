//! Making a cluster, and what every start writes beside it.

use super::Unstartable;
use super::account::{self, Account};
use super::binaries::Installation;
use super::layout::{DATABASE, Layout, RUNTIME_USER, USER};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Makes the cluster when it is not there, and lays out what a start needs.
pub fn prepare(layout: &Layout, account: &Account, installation: &Installation) -> Result<(), Unstartable> {
    account::open_to(account, layout.directory())?;
    if !layout.data().exists() {
        make(layout, account, installation)?;
    }
    socket_directory(layout, account)?;
    who_may_connect(layout, account)
}

/// `initdb` into a directory of another name, which is renamed when it is complete: a crash leaves
/// one that the next start removes.
fn make(layout: &Layout, account: &Account, installation: &Installation) -> Result<(), Unstartable> {
    let unfinished = layout.unfinished();
    let failed = Unstartable::file(&unfinished);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(&failed)?;
    account.give(&unfinished)?;
    tracing::info!(directory = %layout.data().display(), major = installation.major, "making a Postgres cluster");
    let initdb =
        ["--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions", "--auth=peer"];
    let initdb = initdb.iter().map(OsStr::new).chain(["--username", USER, "--pgdata"].map(OsStr::new));
    run(account, installation.program("initdb"), initdb.chain([unfinished.as_os_str()]), "")?;
    // With nobody else to serve yet, so that no start has to ask whether the database is there.
    let single = ["--single", "-c", "exit_on_error=on", "-D"].map(OsStr::new);
    let single = single.into_iter().chain([unfinished.as_os_str(), OsStr::new("postgres")]);
    run(account, installation.program("postgres"), single, &format!("create database {DATABASE}\n"))?;
    fs::rename(&unfinished, layout.data()).map_err(&failed)?;
    File::open(layout.directory()).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Runs one of Postgres' programs to its end with this input.
fn run<'a>(
    account: &Account,
    program: PathBuf,
    arguments: impl Iterator<Item = &'a OsStr>,
    input: &str,
) -> Result<(), Unstartable> {
    let mut command = account.command(&program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let ran = command.spawn().and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            // Who ends before it has read this says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    });
    let output = ran.map_err(|source| Unstartable::NotRunnable { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Unstartable::Initdb { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// The socket's directory, closed to others. One in /tmp may have been put there by anybody, and
/// then is not used.
fn socket_directory(layout: &Layout, account: &Account) -> Result<(), Unstartable> {
    let directory = layout.socket_directory();
    let failed = Unstartable::file(&directory);
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Ok(()) => return account.give(&directory),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let there = fs::symlink_metadata(&directory).map_err(&failed)?;
    if !there.is_dir() || ![account.owner(), nix::unistd::Uid::effective().as_raw()].contains(&there.uid()) {
        return Err(Unstartable::SocketDirectoryTaken(directory));
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).map_err(&failed)?;
    account.give(&directory)
}

/// Only through the socket, and only the user who runs the service, or root. Written anew at each
/// start, as another user may start it than the last time. Neither file holds a secret.
fn who_may_connect(layout: &Layout, account: &Account) -> Result<(), Unstartable> {
    let mut names = BTreeSet::from([account::name_of(account.seen_as())]);
    match account {
        Account::Own | Account::Other { .. } => names.insert("root".to_owned()),
        Account::Namespace { .. } => false,
    };
    let line = |name: &String| [USER, RUNTIME_USER].map(|role| format!("proofmark \"{name}\" {role}"));
    let map: Vec<String> = names.iter().flat_map(line).collect();
    write(&layout.hba(), "local all all peer map=proofmark")?;
    write(&layout.ident(), &map.join("\n"))
}

fn write(path: &Path, text: &str) -> Result<(), Unstartable> {
    let failed = Unstartable::file(path);
    fs::write(path, format!("# Written by Proofmark at each start.\n{text}\n")).map_err(&failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(failed)
}
