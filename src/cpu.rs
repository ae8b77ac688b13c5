//! Work that takes the processor for long: parsing documents, verifying signatures.
//!
//! Knows nothing of what is computed. Promises that it runs off the threads that serve requests, and that so much of
//! it runs at once that a core is left for them.

use crate::failure::Failure;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// One less than there are cores, and at least one.
static FREE: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    Semaphore::new(cores.saturating_sub(1).max(1))
});

/// Runs the work when its turn comes, in the order of the calls. Work that has begun is finished, even where nobody
/// waits for it any more.
pub async fn run<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let failed = |error: String| Failure::new(doing, error);
    let turn = FREE.acquire().await.map_err(|error| failed(error.to_string()))?;
    let done = spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.map_err(|error| failed(error.to_string()))
}
