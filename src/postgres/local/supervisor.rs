//! Running Postgres: started, listened to, reaped, and started again when it dies.

use super::Unstartable;
use super::account::Account;
use super::binaries::Installation;
use super::layout::Layout;
use super::leftovers;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a Postgres must have run for its death to be answered at once.
const STEADY: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Lines that are kept to explain a start that failed.
const LINES_KEPT: usize = 20;

/// All that is needed to start it.
#[derive(Debug)]
pub struct Plan {
    pub layout: Layout,
    pub account: Account,
    pub installation: Installation,
    pub connections: u32,
}

/// How the last Postgres ended.
#[derive(Debug)]
pub enum Ended {
    /// As it was asked to.
    Cleanly,
    /// Otherwise.
    With(ExitStatus),
}

/// When Postgres last went away: every connection that is older is broken.
#[derive(Clone, Debug)]
pub struct Restarts(Arc<Mutex<Instant>>);

impl Restarts {
    /// Whether a connection of this age may still work.
    pub fn allow(&self, age: Duration) -> bool {
        age < locked(&self.0).elapsed()
    }

    fn mark(&self) {
        *locked(&self.0) = Instant::now();
    }
}

/// What the thread that supervises and the service tell each other.
#[derive(Debug)]
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
    restarts: Restarts,
}

#[derive(Debug, Default)]
struct State {
    postmaster: Option<Pid>,
    stopping: bool,
}

impl Default for Control {
    fn default() -> Self {
        let restarts = Restarts(Arc::new(Mutex::new(Instant::now())));
        Self { state: Mutex::default(), changed: Condvar::new(), restarts }
    }
}

impl Control {
    /// Asks for a fast shutdown, and for no new start.
    pub fn stop(&self) {
        let mut state = locked(&self.state);
        state.stopping = true;
        if let Some(pid) = state.postmaster {
            // Until the lock is free the process is not reaped, so the number is still its own.
            let _ = kill(pid, Signal::SIGINT);
        }
        self.changed.notify_all();
    }

    /// When Postgres last went away.
    pub fn restarts(&self) -> Restarts {
        self.restarts.clone()
    }

    /// Starts the process, or not when it is to stop.
    fn spawn(&self, command: &mut Command) -> Result<Option<Child>, std::io::Error> {
        let mut state = locked(&self.state);
        if state.stopping {
            return Ok(None);
        }
        let child = command.spawn()?;
        state.postmaster = i32::try_from(child.id()).ok().map(Pid::from_raw);
        Ok(Some(child))
    }

    /// Waits for the process's end without reaping it, and reaps it under the lock, so that nobody
    /// signals a number that is no longer its own.
    fn reap(&self, child: &mut Child) -> Result<ExitStatus, std::io::Error> {
        if let Ok(pid) = i32::try_from(child.id()) {
            while waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                == Err(nix::errno::Errno::EINTR)
            {}
        }
        let mut state = locked(&self.state);
        state.postmaster = None;
        child.wait()
    }

    /// Rests, unless it is to stop; says whether it is.
    fn rest(&self, pause: Duration) -> bool {
        let state = locked(&self.state);
        let waited = self.changed.wait_timeout_while(state, pause, |state| !state.stopping);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }
}

/// Whom to tell that the first start succeeded or failed; later ones are only logged.
type First = Arc<Mutex<Option<oneshot::Sender<Result<(), Unstartable>>>>>;

/// Runs Postgres until it is told to stop. A first start that fails ends it; later ones are tried
/// again for as long as the service runs.
pub fn supervise(plan: &Plan, control: &Control, first: oneshot::Sender<Result<(), Unstartable>>) -> Ended {
    let first: First = Arc::new(Mutex::new(Some(first)));
    let mut pause = Duration::ZERO;
    loop {
        let began = Instant::now();
        let ran = run(plan, control, &first);
        control.restarts.mark();
        if let (Err(_), Some(first)) = (&ran, locked(&first).take()) {
            let _ = first.send(ran.map(|_| ()));
            return Ended::Cleanly;
        }
        pause = if began.elapsed() > STEADY {
            Duration::ZERO
        } else {
            (pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
        };
        let stopping = control.rest(Duration::ZERO);
        match ran {
            Ok(None) => return Ended::Cleanly,
            Ok(Some(status)) if stopping && status.success() => return Ended::Cleanly,
            Ok(Some(status)) if stopping => return Ended::With(status),
            Ok(Some(status)) => tracing::error!(%status, "Postgres ended and is started again"),
            Err(refusal) => tracing::error!(error = %refusal, "Postgres does not start and is tried again"),
        }
        metrics::counter!("proofmark_postgres_restarts_total").increment(1);
        if control.rest(pause) {
            return Ended::Cleanly;
        }
    }
}

/// One life of Postgres: its exit status when it was once ready, `None` when it is to stop.
fn run(plan: &Plan, control: &Control, first: &First) -> Result<Option<ExitStatus>, Unstartable> {
    leftovers::clear(&plan.layout)?;
    let mut command = plan.command();
    let program = || plan.installation.program("postgres");
    let not_runnable = |source| Unstartable::NotRunnable { program: program(), source };
    let Some(mut child) = control.spawn(&mut command).map_err(not_runnable)? else { return Ok(None) };
    let ready = Arc::new(Mutex::new(false));
    let listening = child.stderr.take().map(|stderr| listen(stderr, &control.restarts, first, &ready));
    let status = control.reap(&mut child).map_err(not_runnable)?;
    if *locked(&ready) || control.rest(Duration::ZERO) {
        return Ok(Some(status));
    }
    // All that it wrote explains why it did not start; its children are ending too.
    let said = listening.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let said =
        if said.is_empty() { status.to_string() } else { said.into_iter().collect::<Vec<_>>().join("; ") };
    Err(Unstartable::Postgres { said })
}

impl Plan {
    /// What must hold whatever `postgresql.conf` says; all else the operator may set there.
    fn command(&self) -> Command {
        let socket = self.layout.socket_directory().display().to_string().replace('"', "\"\"");
        let settings = [
            ("listen_addresses", String::new()),
            ("unix_socket_directories", format!("\"{socket}\"")),
            ("unix_socket_permissions", "0700".into()),
            ("hba_file", self.layout.hba().display().to_string()),
            ("ident_file", self.layout.ident().display().to_string()),
            ("max_connections", self.connections.to_string()),
            ("fsync", "on".into()),
            ("full_page_writes", "on".into()),
            // What it logs is read line by line; the service reports failed statements itself.
            ("log_destination", "stderr".into()),
            ("logging_collector", "off".into()),
            ("log_line_prefix", String::new()),
            ("log_min_messages", "log".into()),
            ("log_checkpoints", "off".into()),
            ("lc_messages", "C".into()),
            ("cluster_name", "proofmark".into()),
        ];
        let mut command = self.account.command(&self.installation.program("postgres"));
        command.arg("-D").arg(self.layout.data()).args(["-p", "5432"]);
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// Carries Postgres' lines into the service's log until its last process ends, and learns from them
/// when it is ready; returns the last ones.
fn listen(
    stderr: ChildStderr,
    restarts: &Restarts,
    first: &First,
    ready: &Arc<Mutex<bool>>,
) -> JoinHandle<VecDeque<String>> {
    let (restarts, first, ready) = (restarts.clone(), first.clone(), ready.clone());
    std::thread::spawn(move || {
        let mut last = VecDeque::with_capacity(LINES_KEPT);
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("FATAL:") || line.contains("PANIC:") {
                tracing::error!(target: "postgres", "{line}");
            } else {
                tracing::info!(target: "postgres", "{line}");
            }
            if line.contains("database system is ready to accept connections") {
                *locked(&ready) = true;
                restarts.mark();
                if let Some(first) = locked(&first).take() {
                    let _ = first.send(Ok(()));
                }
            } else if line.contains("terminating any other active server processes") {
                // One of its processes died: Postgres cuts off all and recovers by itself.
                restarts.mark();
            }
            if last.len() == LINES_KEPT {
                last.pop_front();
            }
            last.push_back(line);
        }
        last
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
