//! `gc`: what a collection of garbage would take, and asking for one.

use super::connection::Registry;
use super::output::{Output, at};
use super::stop::Stop;
use serde_json::{Value, json};
use std::time::Duration;

/// Collect garbage: blobs that no manifest needs, after their grace period
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark gc --dry-run
  proofmark gc

The service collects by itself, beside its other work. Nothing has to stop for it. Where rules of retention are
enforced, the versions that they do not keep go first: `proofmark repository retention` lists them.")]
pub struct Gc {
    /// List what would go, and why; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Ask for a collection and do not wait for its end
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
    /// Items of a dry run at the most
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "dry_run")]
    limit: usize,
}

const PATH: &str = "/api/v1/collections";
/// How often a run under way is asked about.
const ASK_EVERY: Duration = Duration::from_millis(500);

impl Gc {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        if self.dry_run {
            let items = registry.list("/api/v1/garbage", &[], self.limit.saturating_add(1)).await?;
            let columns = [
                ("repository", "/repository"),
                ("blob", "/digest"),
                ("object", "/object"),
                ("bytes", "/size_bytes"),
                ("why", "/why"),
                ("since", "/since"),
            ];
            output.part(items, self.limit, &columns, "There is no garbage");
            return Ok(());
        }
        let asked = registry.post(PATH, &json!({})).await?;
        let wanted = at(&asked, "/wanted_at");
        if self.no_wait {
            output.answer(&asked, || "A collection was asked for".to_owned());
            return Ok(());
        }
        let bar = output.bar(None, "collecting");
        let done = loop {
            let standing = registry.get(PATH, &[]).await?;
            if answers(&standing, &wanted) {
                break standing;
            }
            bar.set_message(format!("collecting, {}", at(&standing, "/state/collected")));
            tokio::time::sleep(ASK_EVERY).await;
        };
        bar.finish_and_clear();
        output.answer(&done, || {
            let of = |what: &str| at(&done, &format!("/report/{what}"));
            format!(
                "{} links and {} blobs ({} bytes) were collected, and {} objects ({} bytes) deleted from the store",
                of("links"),
                of("blobs"),
                of("blob_bytes"),
                of("objects"),
                of("object_bytes")
            )
        });
        Ok(())
    }
}

/// Whether a run that began after it was asked for has ended. The times are all the database's.
fn answers(standing: &Value, wanted: &str) -> bool {
    let time =
        |pointer: &str| standing.pointer(pointer).and_then(Value::as_str).and_then(|text| text.parse().ok());
    let wanted: Option<chrono::DateTime<chrono::Utc>> = wanted.parse().ok();
    let (started, finished) = (time("/started_at"), time("/finished_at"));
    started >= wanted && finished >= started
}
