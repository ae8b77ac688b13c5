//! Findings and runs in Postgres.

pub(super) mod finding_sets;
pub(super) mod findings;
pub(super) mod runs;
