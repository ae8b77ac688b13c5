//! Attestation: who signed what about which artifact.
//!
//! Knows envelopes, bundles, statements, pending ones among them, and the summaries that the registry signs itself.
//! Promises that a payload is read only once a known key is found to have signed it (or is marked as
//! nobody's claim), that envelopes are kept exactly as received, and that trust is judged on reading:
//! that a key signed something is stored once, whether the key is believed for it never is.
//! Never knows what a policy asks for.

mod build_types;
mod bundle;
mod check;
mod envelope;
mod facts;
mod files;
mod json;
mod list;
mod origins;
mod pending;
mod provenance;
mod received;
mod record;
mod statement;
mod store;
pub mod summary;
mod verify;
mod wrapping;

pub use build_types::{
    BuildType, BuildTypeRefused, Ended, build_types, declare, end as end_build_type, enqueue_reading,
};
pub use check::check_attestations;
pub use envelope::{Envelope, IN_TOTO};
pub use facts::{COSIGN_VULN, Facts, Material, PROVENANCE_V0_2, PROVENANCE_V1, TEST_RESULT, VULNS};
pub use files::link_pushed;
pub use json::Malformed;
pub use list::{AttestationFilter, Listed, Verdict, attestations, envelope, home};
pub use origins::read_anew;
pub use pending::{Entered, add_key, enqueue_verifying, register, verify_key};
pub use provenance::{Pointers, READER, SourceLocation};
pub use received::{BUNDLE, DSSE, Received};
pub use record::{Carrier, Known, Recorded, Through, is_carried, record, record_opaque, subjects_here};
pub use statement::{COSIGN_SIGN, Statement, Subject};
pub use verify::{Unproved, Verified, verify};
