//! What is accepted as a manifest is stored under the digests of exactly its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::content::ParsedManifest;
use proofmark::names::{Algorithm, Digest};

fuzz_target!(|bytes: &[u8]| {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        if let Ok(manifest) = ParsedManifest::parse(bytes.to_vec().into(), None, algorithm, 1000) {
            assert_eq!(manifest.digest, Digest::of(algorithm, bytes));
            assert_eq!(manifest.body, bytes);
        }
    }
});
