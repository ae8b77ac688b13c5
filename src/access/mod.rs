//! Access: principal x action x scope -> a `Grant`, or why not.
//!
//! Knows the actions, the roles (sets of actions) and how a binding covers a scope. Promises that a
//! `Grant` exists only where a binding allows it, and that writers take the scope from it, never
//! beside it. Pure: never looks anything up.

mod action;
mod authority;
#[cfg(test)]
mod properties;
mod role;
mod scope;

pub use action::{
    Accept, Act, Action, Administer, Approve, Attest, Audit, Block, Delete, Deploy, Hold, Override, Promote,
    Pull, Push, Revoke, Rollback, Scan, Sign, View, Waive,
};
pub use authority::{Authority, Binding, Denied, Grant, Narrowing, Principal, PrincipalId};
pub use role::{Rank, Role, UnknownRank, UnknownRole};
pub use scope::{EveryLane, Everything, InEnvironment, InvalidView, Lane, Matching, Place, Scope, SomeLane};
