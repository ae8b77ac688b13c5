//! The SQL of promotion, one file beside each rule file it serves.

pub mod decisions;
pub mod environments;
pub mod facts;
pub mod holds;
pub mod pending;
pub mod policies;
pub mod promotions;
pub mod references;
pub mod refusals;
pub mod releases;
pub mod summaries;
pub mod views;
