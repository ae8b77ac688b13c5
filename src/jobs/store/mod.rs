//! The room's SQL.

pub mod leases;
