//! Exceptions: what people decide beside the policies, for a reason and usually for a time.
//!
//! Knows approvals, blocks and holds. Each has a scope, a reason, an author, perhaps an expiry, an end that
//! is set once, and an origin. Promises that each is recorded with its event, and that ending one which can
//! turn an answer from allow to deny waits for every decision that it can change. Never decides by itself:
//! what an exception does to a decision is `policy`'s, and the facts are gathered by `promotion`.

mod approvals;
mod blocks;
mod holds;
mod origin;
mod reason;
mod refused;
mod store;
mod target;

pub use approvals::{NewApproval, approvals, approve, end_approval, find_approval};
pub use blocks::{BlockScope, NewBlock, block, blocks, end_block, find_block};
pub use holds::{HoldScope, NewHold, end_hold, find_hold, hold, hold_after_rollback, holds};
pub use origin::Origin;
pub use reason::{InvalidReason, Reason};
pub use refused::Refused;
pub use store::approvals::ApprovalRow;
pub use store::blocks::BlockRow;
pub use store::environments::find as find_environment;
pub use store::holds::HoldRow;
pub use target::Target;
