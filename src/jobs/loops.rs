//! The loops of one process.

use crate::failure::Failure;
use std::future::Future;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the first runs wait: they would take the first connections, which the first requests wait for.
const FIRST: Duration = Duration::from_millis(250);

/// The loops of one process.
#[derive(Debug, Default)]
pub struct Jobs {
    running: JoinSet<()>,
    stop: CancellationToken,
}

impl Jobs {
    /// Runs the job soon and then again after each pause; a failure is logged and waits four pauses.
    pub fn every<F, R>(&mut self, name: &'static str, pause: Duration, run: F)
    where
        F: Fn() -> R + Send + 'static,
        R: Future<Output = Result<(), Failure>> + Send,
    {
        let stop = self.stop.clone();
        self.running.spawn(async move {
            let mut rest = pause.min(FIRST);
            loop {
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    () = stop.cancelled() => return,
                }
                rest = match run().await {
                    Ok(()) => pause,
                    Err(failure) => {
                        tracing::error!(
                            job = name,
                            error = failure.chain(),
                            "a job failed and will run again"
                        );
                        metrics::counter!("proofmark_job_failures_total", "job" => name).increment(1);
                        pause * 4
                    }
                };
            }
        });
    }

    /// Told when the loops are to end: a long run is dropped then, at a point where a crash may cut it off.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks every loop to end, and waits for the runs in flight.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
    }
}
