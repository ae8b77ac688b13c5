//! `fsck`: the audit of the whole house, and repairs of what it finds.

use super::output::Output;
use super::server::Host;
use super::stop::Stop;
use crate::app::must_be_its_store;
use crate::audit::{self, Checkpoint, Report, Run};
use crate::config::Settings;
use crate::failure::Failure;
use crate::identity;
use crate::keys;
use crate::storage::Store;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Check every row against its bytes and the log, every object against a row, and the log against itself
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark fsck
  proofmark fsck --state fsck.json --bytes-per-second 50000000
  proofmark fsck --repair --dry-run

Changes nothing without --repair, and runs beside a service that works. Exit code 1 lists what is wrong,
and what a repair would do.")]
pub struct Fsck {
    #[command(flatten)]
    settings: Settings,
    /// A file to keep where the audit has come to: one that was cut off goes on there
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Bytes to read and hash in a second at the most; a row that is looked at counts as 8 KiB
    #[arg(long, value_name = "BYTES")]
    bytes_per_second: Option<u64>,
    /// Repair what can be repaired: each is looked at again, done, and recorded
    #[arg(long)]
    repair: bool,
    /// Say what the repairs would do, and do none
    #[arg(long, requires = "repair")]
    dry_run: bool,
}

impl Fsck {
    /// Audits the whole house.
    pub async fn run(self, output: Output) -> Result<(), Stop> {
        let config = self.settings.clone().resolve()?;
        Host::must_be_here(&config)?;
        let from = self.state.as_deref().map(read).transpose()?.flatten().unwrap_or_default();
        let store = Store::open(&config.storage).await?;
        let url = config.storage.clone();
        let host = Host::open(config).await?;
        let here = is_its_store(&host, &store, &url).await;
        if let Err(failure) = here {
            host.close().await?;
            return Err(failure.into());
        }
        let bar = output.bar(None, "checking");
        let came_to = |checkpoint: &Checkpoint| {
            bar.set_position(checkpoint.report.bytes);
            bar.set_message(format!("{:?}, {} checked", checkpoint.step, checkpoint.report.checked));
            self.state.as_deref().map_or(Ok(()), |path| write(path, checkpoint))
        };
        let run = Run { from, bytes_per_second: self.bytes_per_second, came_to: &came_to };
        let audited = audit::fsck_from(&host.db, &store, run).await;
        bar.finish_and_clear();
        let repaired = match &audited {
            Ok(report) if self.repair && !self.dry_run => self.repair(&host, &store, report).await,
            Ok(_) | Err(_) => Ok(Vec::new()),
        };
        host.close().await?;
        let (report, repaired) = (audited?, repaired?);
        if let Some(path) = &self.state {
            std::fs::remove_file(path).ok();
        }
        show(&report, &repaired, output)
    }

    /// Does each repair once; returns those that found something to do.
    async fn repair(&self, host: &Host, store: &Store, report: &Report) -> Result<Vec<String>, Failure> {
        let mut done = Vec::new();
        let mut seen = Vec::new();
        for repair in report.violations.iter().filter_map(|violation| violation.repair.as_ref()) {
            if seen.contains(&repair) {
                continue;
            }
            seen.push(repair);
            if audit::repair(&host.db, store, repair, &identity::service()).await? {
                done.push(repair.to_string());
            }
        }
        Ok(done)
    }
}

async fn is_its_store(host: &Host, store: &Store, url: &str) -> Result<(), Failure> {
    let owner = keys::owner(&mut *host.db.acquire().await?).await?;
    must_be_its_store(store, url, owner.as_deref(), false).await
}

fn show(report: &Report, repaired: &[String], output: Output) -> Result<(), Stop> {
    let document = json!(report);
    if report.is_clean() {
        output.answer(&document, || {
            format!(
                "Everything holds: {} things and {} bytes were checked; {} orphaned objects wait for the sweep",
                report.checked, report.bytes, report.orphans
            )
        });
        return Ok(());
    }
    let count = report.violations.len() as u64 + report.more_violations;
    let detail = format!("{count} things are not as they should be");
    let would: Vec<String> = report
        .violations
        .iter()
        .filter_map(|violation| Some(format!("{}: would {}", violation.what, violation.repair.as_ref()?)))
        .collect();
    let mut problem = json!({ "code": "violations", "detail": detail });
    if let (Value::Object(problem), Value::Object(report)) = (&mut problem, document) {
        problem.extend(report);
        if repaired.is_empty() {
            problem.insert("repairs".to_owned(), json!(would));
        } else {
            problem.insert("repaired".to_owned(), json!(repaired));
        }
    }
    Err(Stop::Refused(problem))
}

fn read(path: &Path) -> Result<Option<Checkpoint>, Stop> {
    let unreadable = |why: &dyn std::fmt::Display| {
        Stop::Usage(format!("{} is not where an audit came to: {why}", path.display()))
    };
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(&error)),
    }
}

/// Written beside and renamed: a crash leaves the old one or the new one.
fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new("saving where the audit is", error.to_string());
    let bytes = serde_json::to_vec(checkpoint).map_err(|error| failed(&error))?;
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| failed(&error))
}
