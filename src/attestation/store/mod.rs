//! The SQL of attestation, one file beside each rule file it serves.

pub mod attestations;
pub mod build_types;
pub mod indexed;
pub mod listed;
pub mod origins;
pub mod pending;
pub mod receipts;
pub mod signatures;
