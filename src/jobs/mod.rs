//! Jobs: loops that run beside the requests, supervised and stopped together, and the worker of the job
//! queue.
//!
//! Knows when each runs next, which replica has a job that one replica runs at a time, and how much
//! of a connection's time a long one may take. Promises that a run that fails or panics is logged,
//! counted, shown by `/readyz` and tried again, that a long run goes on where it was cut off, and that
//! `stop` waits for no batch in flight. What a job does must be safe on every replica at once: a lease
//! only saves work.

mod clocks;
mod collection;
mod lease;
mod loops;
mod pace;
mod queue;
mod readiness;
mod restoring;
mod retention;
mod status;
mod store;

pub use clocks::ClockWatch;
pub use collection::{CollectionSettings, NAME as COLLECTION, collect};
pub use lease::{Due, Lease, Standing, Taken, standing, want};
pub use loops::{Jobs, Schedule};
pub use pace::Pace;
pub use queue::{Handlers, QueueSettings, Worker};
pub use readiness::{Readiness, ReadyReason, ReadyStatus};
pub use restoring::{Restored, restore_blobs};
pub use retention::{NAME as RETENTION, Retained, retain};
pub use status::{JobStatus, JobStatuses};
