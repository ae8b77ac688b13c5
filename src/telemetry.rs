//! Structured logs and metrics.

use crate::config::{Config, LogFormat};
use crate::failure::Failure;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// Buckets of request durations, in seconds.
const DURATION_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Starts logging to standard error.
pub fn start_logs(config: &Config) -> Result<LogLevels, Failure> {
    let filter = filter(&config.log)?;
    let text = match config.log_format {
        Some(LogFormat::Text) => true,
        Some(LogFormat::Json) => false,
        None => std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let (started, levels) = if text {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.finish().try_init(), LogLevels(Box::new(move |filter| handle.reload(filter))))
    } else {
        let builder = builder.json().flatten_event(true).with_span_list(false).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.finish().try_init(), LogLevels(Box::new(move |filter| handle.reload(filter))))
    };
    started.map_err(|error| Failure::new("starting the log", error))?;
    Ok(levels)
}

fn filter(text: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(text).map_err(|error| Failure::new("reading PROOFMARK_LOG", error))
}

type Reload = dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync;

/// What is logged, to be changed while the service runs.
pub struct LogLevels(Box<Reload>);

impl LogLevels {
    /// Levels of a log that is not this process' own, as in tests: only whether they can be read is looked at.
    pub fn none() -> Self {
        Self(Box::new(|_| Ok(())))
    }

    /// Logs by this filter from now on.
    pub fn change(&self, text: &str) -> Result<(), Failure> {
        (self.0)(filter(text)?).map_err(|error| Failure::new("changing what is logged", error))
    }
}

/// One JSON object a line, with the fields of its event beside time, level and message.
pub fn json_lines<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    builder.json().flatten_event(true).with_span_list(false).finish()
}

/// Installs the metrics recorder of this process, once; tests share it, and may ask for it at the same time.
pub fn start_metrics() -> Result<PrometheusHandle, Failure> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets(&DURATION_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| Failure::new("starting metrics", error))?;
    Ok(installed.insert(handle).clone())
}
