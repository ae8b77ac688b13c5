//! The SQL of attestation, one file beside each rule file it serves.

pub mod attestations;
pub mod listed;
pub mod signers;
