//! The private cluster: a Postgres in the data directory that starts and stops with the service.
//!
//! Knows how to find the machine's Postgres, make a cluster, run it as a user that Postgres accepts
//! and talk to it over a unix socket that only its owner reaches. Promises that one service at a
//! time runs it, with fsync on; that it ends when the service does, killed or not; that it is
//! started again when it dies; and that nobody but the operator has to mend what a crash leaves.
//! Never knows what is stored in it. Linux only: elsewhere there is `DATABASE_URL`.

mod account;
mod binaries;
mod initialize;
mod layout;
mod leftovers;
mod refusal;
mod supervisor;

pub use refusal::Unstartable;
pub use supervisor::Restarts;

use crate::failure::Failure;
use layout::Layout;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use supervisor::{Control, Ended, Plan};
use tokio::sync::oneshot;

/// Connections that are not the pool's: the listener, a `token create` beside the service, a person.
const SPARE_CONNECTIONS: u32 = 16;

/// A running private cluster. Dropping it asks Postgres to stop and does not wait.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    control: Arc<Control>,
    ended: oneshot::Receiver<Ended>,
}

/// Starts the cluster, making it when it is not there, and returns when it accepts connections.
///
/// All of its processes are children of one thread that ends only with the cluster: Linux ties the
/// signal that stops Postgres when the service dies to the thread that started it.
pub async fn start(directory: &Path, connections: u32) -> Result<Cluster, Failure> {
    let failed = |error: Unstartable| Failure::new("starting the private Postgres", error);
    let layout = Layout::prepare(directory).map_err(failed)?;
    let control = Arc::new(Control::default());
    let (ready, is_ready) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let cluster = Cluster { layout: layout.clone(), control: control.clone(), ended };
    std::thread::Builder::new()
        .name("postgres".into())
        .spawn(move || match plan(layout, connections + SPARE_CONNECTIONS) {
            Ok((plan, lock)) => {
                let how = supervisor::supervise(&plan, &control, ready);
                // Unlocked when Postgres has ended, and before it is said: the next may start.
                drop(lock);
                let _ = end.send(how);
            }
            Err(refusal) => drop(ready.send(Err(refusal))),
        })
        .map_err(|error| Failure::new("starting the thread that runs Postgres", error))?;
    match is_ready.await {
        Ok(started) => started.map_err(failed)?,
        Err(_) => return Err(failed(Unstartable::Stopped)),
    }
    Ok(cluster)
}

fn plan(layout: Layout, connections: u32) -> Result<(Plan, File), Unstartable> {
    let lock = leftovers::lock(&layout)?;
    let account = account::choose(&layout)?;
    let installation = binaries::choose(&layout, &binaries::find())?;
    initialize::prepare(&layout, &account, &installation)?;
    Ok((Plan { layout, account, installation, connections }, lock))
}

/// How to reach the cluster in this directory while a service runs it, for whoever may read the
/// directory; `None` when no Postgres runs there.
pub fn connect_url(directory: &Path) -> Result<Option<String>, Failure> {
    let Some(layout) = Layout::existing(directory) else { return Ok(None) };
    let running = leftovers::postmaster(&layout)
        .map_err(|error| Failure::new("looking for the private Postgres", error))?;
    Ok(running.filter(|postmaster| postmaster.ready).map(|_| layout.url(layout::DATABASE)))
}

impl Cluster {
    /// How to connect as the superuser, who migrates.
    pub fn url(&self) -> String {
        self.layout.url(layout::DATABASE)
    }

    /// The same for the service while it runs, as a role that owns nothing; made where it is missing.
    pub async fn runtime_url(&self) -> Result<String, Failure> {
        super::roles::ensure(&self.url(), layout::RUNTIME_USER).await?;
        Ok(self.layout.url_for(layout::RUNTIME_USER, layout::DATABASE))
    }

    /// When Postgres was last started again; connections that are older are broken.
    pub fn restarts(&self) -> Restarts {
        self.control.restarts()
    }

    /// Stops it cleanly (what is still connected is cut off) and waits for its end.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.control.stop();
        match (&mut self.ended).await {
            Ok(Ended::Cleanly) => Ok(()),
            Ok(Ended::With(status)) => {
                Err(Failure::new("stopping the private Postgres", format!("it ended with {status}")))
            }
            Err(error) => Err(Failure::new("stopping the private Postgres", error)),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.control.stop();
    }
}
