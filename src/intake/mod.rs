//! Intake: what comes in as one act: push a manifest, attest, record a scan.
//!
//! Knows which rooms one act touches and in which order. Promises one transaction for each act, so
//! that it happened whole or not at all. Never holds a rule of its own.

mod attest;
mod carried;
mod push;
mod scan;

pub use attest::{AttestRefused, Attested, attest};
pub use push::{PushManifest, Pushed, push_manifest};
pub use scan::{RecordScan, RecordedScan, Rules as ScanRules, ScanRefused, record_scan};
