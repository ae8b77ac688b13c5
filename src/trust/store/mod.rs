//! The SQL of trust.

mod signers;

pub use signers::*;
