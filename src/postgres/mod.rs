//! Postgres: the pool, transactions, locks, migrations, and names as columns.
//!
//! Knows how to reach a database (one that is given, or the private cluster in the data directory), what time it is for
//! decisions, and how names travel in and out of columns. Promises that scopes are locked in one order.
//! Never knows what a table means, but that of the job queue, which every module may write to.

mod act;
mod clocks;
mod db;
mod generations;
pub mod local;
mod names;
pub mod queue;
pub mod roles;
mod scopes;
mod tx;
mod wake;

pub(crate) use act::refusal;
pub use act::{Refusal, act};
pub use clocks::{Clocks, MAX_CLOCK_DIFFERENCE, agreed_time, database_time};
pub use db::{Db, Options, constraint, takes_from_the_reserve, with_reserve, with_same_connections};
pub use generations::Generation;
pub use scopes::{Decisions, EVIDENCE_QUOTA, Mode, QUOTA, Scopes};
pub use tx::{Kept, Tx};
pub use wake::{Growing, Wake};
