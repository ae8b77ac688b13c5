//! Evidence: scan reports and the findings in them.
//!
//! Knows how reports of Trivy and Grype and statements about vulnerabilities read, and what their findings
//! and scopes have in common. Promises that a report is known by its content and never by its name, that
//! nothing a scanner said is dropped (every rating, and what it suppressed, is kept), and that a set of
//! findings is stored once.
//! Never decides whether findings are bad: that is `policy`.

mod binding;
mod bounded;
mod finding;
mod grype;
mod kind;
mod report;
mod scope;
mod settling;
mod severity;
#[cfg(test)]
mod shapes;
mod spelling;
mod store;
mod trivy;
mod vulns;
mod warnings;

pub use crate::policy::{Aspect, Class, Severity, Target};
pub use binding::{BoundBy, Candidate, NotBound, bind};
pub use finding::{Finding, FindingSet};
pub use report::{Report, Unreadable, read};
pub use scope::{NamedDigest, Scope, Source};
pub use settling::{enqueue_settling, settle_scans};
pub use severity::{Rating, SeverityOrder};
pub use store::finding_sets::{page as finding_sets, read as stored_findings, store as store_findings};
pub use store::findings::{Found, FoundAt, Question as FindingsQuestion, find};
pub use store::runs::{
    Among, CLOCK_SKEW, NewRun, Question as RunsQuestion, Recorded, Retraction, Run, are_of_promoted,
    candidates, indexes_among, list as runs, record, repository_of, retract, run, scanned_alike, scanned_as,
};
pub use vulns::read_vulns;
