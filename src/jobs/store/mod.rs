//! The room's SQL.

pub mod leases;
pub mod readiness;
