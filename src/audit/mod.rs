//! Audit: the auditors' questions, security events, and fsck.
//!
//! Knows how to read the whole log and the whole house, and who was refused or read the log. Promises that an export has no gap up to
//! the size it names, and that nothing here holds a long snapshot or grows with what is read. Changes
//! nothing but by a repair that was asked for.

mod events;
mod fsck;
mod repair;
mod security;
mod store;

pub use events::{Auditor, Page, Question, export, page};
pub use fsck::{Checkpoint, ROW_BYTES, Report, Run, Step, Violation, fsck, fsck_from};
pub use repair::{Repair, next_damaged, repair};
pub use security::{
    SecurityEvent, SecurityEventKind, SecurityEventRow, SecurityEvents, SecurityQuestion,
    UnknownSecurityEventKind, forget_security_events, security_events,
};
