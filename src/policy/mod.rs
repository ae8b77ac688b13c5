//! Policy: typed gates, facts, and the one function that decides.
//!
//! Knows what a policy may demand and what counts as a fact. Promises that a decision is a function
//! of its inputs alone (its id is their digest), that adding a block never turns a no into a yes,
//! that adding an attestation never turns a yes into a no (a test result or verification summary that
//! says FAILED is the exception), and that the order of facts does not matter. Pure: no clock, no look-ups.

mod decide;
mod decision;
mod document;
mod facts;
mod gate;
mod gates;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod origin_properties;
pub mod platforms;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod result_properties;
mod results;
mod running;
#[cfg(test)]
mod scan_properties;
mod scan_scope;
mod severity;
mod span;
mod table;
mod trust;
mod waiver;

pub use decide::{Action, Case, DECIDE_VERSION, Policies, PolicySets, decide, judge};
pub use decision::{
    AtRisk, Decision, Evidence, EvidenceKind, GateResult, NotToday, Outcome, Overridden, Verdict,
    WaivedFinding, Yes, in_words, reasons, warnings,
};
pub use document::{InvalidPolicy, MAX_POLICY_BYTES, Policy, PolicyName, override_review};
pub use facts::{
    Approval, Attestation, Block, EarlierOrigin, Facts, Finding, Hold, Known, Platform, Scan, ScanScope,
    SignedReport, Stay, Subject,
};
pub use gate::{Gate, Mode};
pub use results::{has_result, is_failed};
pub use running::{
    ACCEPTED_GRACE, Accepted, Position, Recorded, RecordedGate, SUPERSEDED_GRACE, Status, evaluate_running,
    levels,
};
pub use scan_scope::{Aspect, Class, Target, UnknownWord};
pub use severity::Severity;
pub use span::Span;
pub use table::{Condition, OnCandidate, OnPromotion, OnRunning, Risk};
pub use trust::{Revocation, Signature, Untrusted};
pub use waiver::{
    InvalidPackage, Justification, Override, UnknownJustification, UnknownWaiverStatus, Waiver, WaiverStatus,
    canonical_package, canonical_vulnerability, is_overridable, package_accepts,
};
