//! An envelope or bundle that nobody known signed proves nothing, whatever it holds; and of whatever wraps several, no
//! more documents are taken than one request may have, each of them a piece of the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::attestation::{Envelope, Received, verify};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert!(verify(&envelope, &[]).is_err());
    }
    if let Ok(documents) = Received::documents(&bytes.to_vec().into()) {
        assert!(!documents.is_empty() && documents.len() <= 1000);
        assert!(documents.iter().map(|one| one.body().len()).sum::<usize>() <= bytes.len());
    }
});
