//! A report reads to the same set of findings each time, and every finding is counted once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::evidence::{SeverityOrder, read};

fuzz_target!(|bytes: &[u8]| {
    let order = SeverityOrder::default();
    if let Ok(report) = read(bytes, &order, 1000) {
        let found = report.findings.findings();
        assert!(found.len() <= 1000);
        assert_eq!(report.findings.counts().values().sum::<usize>(), found.len());
        for finding in found {
            assert!(!finding.vulnerability.is_empty());
            assert!(!finding.vulnerability.contains(char::is_control));
        }
        let again = read(bytes, &order, 1000).expect("what was read once is read again");
        assert_eq!(again.findings.digest(), report.findings.digest());
    }
});
