//! Who else is at work on the directory: another service, or what a crash left.

use super::Unstartable;
use super::account::name_of;
use super::layout::{Layout, SOCKET};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an orderly end may take (it writes a checkpoint), and then a hard one.
const PATIENCE: Duration = Duration::from_mins(1);
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// Processes that are not our children cannot be waited for: they are looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The postmaster that `postmaster.pid` names, when it runs in this directory.
#[derive(Clone, Copy, Debug)]
pub struct Postmaster {
    /// Its process.
    pub pid: Pid,
    /// Whether it accepts connections.
    pub ready: bool,
}

/// Takes the lock that says which service runs the cluster. It ends with the file handle, and so
/// with the process, however that ends.
pub fn lock(layout: &Layout) -> Result<File, Unstartable> {
    let path = layout.lock();
    let failed = Unstartable::file(&path);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|error| match (error.kind(), fs::metadata(layout.directory())) {
        (ErrorKind::PermissionDenied, Ok(directory)) => Unstartable::NotYours {
            directory: layout.directory().to_owned(),
            owner: name_of(directory.uid()),
        },
        _ => failed(error),
    })?;
    match lock_soon(&file) {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            let holder = holder.trim().to_owned();
            return Err(Unstartable::InUse { directory: layout.directory().to_owned(), holder });
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).map_err(&failed)?;
    writeln!(file, "process {}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// For how long a lock that is taken is tried again.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Takes the lock, with a little patience: a service that has just ended may have forked a child
/// that shares the handle until it becomes another program.
fn lock_soon(file: &File) -> Result<(), fs::TryLockError> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) if began.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// Whether a postmaster runs in the directory.
pub fn postmaster(layout: &Layout) -> Result<Option<Postmaster>, std::io::Error> {
    let text = match fs::read_to_string(layout.data().join("postmaster.pid")) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lines = text.lines();
    let Some(pid) = lines.next().and_then(|line| line.trim().parse().ok()).map(Pid::from_raw) else {
        return Ok(None);
    };
    let ready = lines.nth(6).is_some_and(|status| status.trim() == "ready");
    Ok(works_in(pid, &layout.data()).then_some(Postmaster { pid, ready }))
}

/// Ends what an earlier service's Postgres left: a postmaster that outlived its service, or, when
/// the postmaster was killed, its children, which would keep a new one from starting. Then removes
/// pid files whose number a stranger has now: Postgres would take it for a running postmaster.
pub fn clear(layout: &Layout) -> Result<(), Unstartable> {
    let data = layout.data();
    let began = Instant::now();
    let mut sent = None;
    loop {
        let left = residents(&data);
        if left.is_empty() {
            return forget_strangers(layout);
        }
        let postmaster = postmaster(layout).map_err(Unstartable::file(&data))?.map(|found| found.pid);
        let elapsed = began.elapsed();
        let (signal, to) = match postmaster {
            _ if elapsed > PATIENCE + LAST_PATIENCE => {
                let pids: Vec<String> = left.iter().map(ToString::to_string).collect();
                return Err(Unstartable::Leftovers { data, pids: pids.join(", ") });
            }
            _ if elapsed > PATIENCE => (Signal::SIGKILL, left),
            Some(postmaster) => (Signal::SIGINT, vec![postmaster]),
            // Without their postmaster they come to no orderly end, and one that recovers the data heeds no
            // gentler word. Whatever they leave, the next start recovers from.
            None => (Signal::SIGKILL, left),
        };
        if sent != Some((signal, to.clone())) {
            tracing::info!(?signal, processes = ?to, "ending what an earlier Postgres left");
            for pid in &to {
                // One that has ended in between is what is wanted.
                let _ = kill(*pid, signal);
            }
            sent = Some((signal, to));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn forget_strangers(layout: &Layout) -> Result<(), Unstartable> {
    for path in
        [layout.data().join("postmaster.pid"), layout.socket_directory().join(format!("{SOCKET}.lock"))]
    {
        let failed = Unstartable::file(&path);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
        // Postgres itself checks, and better, a number that nobody has.
        if pid.is_some_and(|pid| pid > 0 && kill(Pid::from_raw(pid), None).is_ok()) {
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// Every Postgres process at work in the directory: each of them has it as its working directory.
fn residents(data: &Path) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| works_in(*pid, data))
        .collect()
}

fn works_in(pid: Pid, data: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "postgres")
        && fs::read_link(process.join("cwd")).is_ok_and(|directory| directory == data)
}
