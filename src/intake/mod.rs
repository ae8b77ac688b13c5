//! Intake: what comes in as one act: push a manifest, put a file, attest, record a scan.
//!
//! Knows which rooms one act touches and in which order. Promises one transaction for each act, so
//! that it happened whole or not at all. Never holds a rule of its own.

mod artifact;
mod attest;
mod brought;
mod carried;
mod file;
mod platform;
mod push;
mod scan;
mod scan_statement;

pub use artifact::{ArtifactRefused, PutArtifact, Shelf, put_artifact};
pub use attest::{AttestRefused, Attested, attest};
pub use carried::Reading;
pub use file::PutFile;
pub use push::{PushManifest, Pushed, push_manifest};
pub use scan::{RecordScan, RecordedScan, Rules as ScanRules, ScanRefused, record_scan, retract_scan};
pub use scan_statement::ScanReading;
