//! The private cluster in the data directory.

use crate::failure::Failure;
use std::path::Path;

/// A running private cluster.
pub struct Cluster {}

/// Starts it, making it when it is not there.
#[allow(clippy::unused_async)]
pub async fn start(_directory: &Path) -> Result<Cluster, Failure> {
    Err(Failure::new("starting the private Postgres", "not built yet"))
}

impl Cluster {
    /// How to connect.
    pub fn url(&self) -> String {
        String::new()
    }

    /// Stops it cleanly.
    #[allow(clippy::unused_async)]
    pub async fn stop(self) -> Result<(), Failure> {
        Ok(())
    }
}
