//! Evidence: scan reports and findings.
