//! Evidence: scan reports and the findings in them.
//!
//! Knows how reports of Trivy and Grype read and what their findings have in common. Promises that a
//! report is known by its content and never by its name, that nothing a scanner said is dropped
//! (every rating, and what it suppressed, is kept), and that a set of findings is stored once.
//! Never decides whether findings are bad: that is `policy`.

mod bounded;
mod finding;
mod grype;
mod report;
mod severity;
mod store;
mod trivy;

pub use crate::policy::Severity;
pub use finding::{Class, Finding, FindingSet};
pub use report::{Report, Unreadable, read};
pub use severity::{Rating, SeverityOrder};
pub use store::finding_sets::{page as finding_sets, read as stored_findings, store as store_findings};
pub use store::findings::{Found, FoundAt, Question as FindingsQuestion, find};
pub use store::runs::{
    Among, CLOCK_SKEW, NewRun, Question as RunsQuestion, Recorded, Run, list as runs, names_an_index_of,
    record, run,
};
