//! An envelope or bundle that nobody known signed proves nothing, whatever it holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::attestation::{Envelope, Received, verify};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert!(verify(&envelope, &[]).is_err());
    }
    let _ = Received::documents(&bytes.to_vec().into());
});
