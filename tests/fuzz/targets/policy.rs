//! A policy that is accepted is the same when its canonical form is read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::policy::Policy;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = Policy::parse(bytes) {
        let canonical = policy.canonical().expect("a policy is written as canonical JSON");
        let again = Policy::from_canonical(&canonical).expect("and read back");
        assert_eq!(again.canonical().expect("and written again"), canonical);
    }
});
