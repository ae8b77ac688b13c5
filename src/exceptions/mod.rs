//! Exceptions: what people decide beside the policies, for a reason and usually for a time.
//!
//! Knows approvals, blocks, holds, waivers and overrides. Each has a scope, a reason, an author, perhaps an expiry, an end that
//! is set once, and an origin. Promises that each is recorded with its event, and that ending one which can
//! turn an answer from allow to deny waits for every decision that it can change. Never decides by itself:
//! what an exception does to a decision is `policy`'s, and the facts are gathered by `promotion`.

mod approvals;
mod blocks;
mod every;
mod holds;
mod origin;
mod overrides;
mod principals;
mod reason;
mod refused;
mod reviews;
mod shown;
mod store;
mod target;
mod waivers;

pub use approvals::{NewApproval, approvals, approve, end_approval, find_approval};
pub use blocks::{
    BlockScope, BlockedDigests, InvalidCount, MAX_BLOCKED_DIGESTS, NewBlock, block, block_counts, blocks,
    end_block, find_block,
};
pub use every::{
    Attention, ExceptionAt, ExceptionFilter, ExceptionKind, ExceptionRow, ExceptionScope, exceptions,
};
pub use holds::{HoldScope, NewHold, end_hold, find_hold, hold, hold_after_rollback, holds, holds_in};
pub use origin::Origin;
pub use overrides::{
    MAX_OVERRIDE, NewOverride, OverrideFilter, Reviewer, create_override, find_override, overrides,
    review_override, revoke_override,
};
pub use principals::{DisableRefused, Ended, Held, disable_principal, enable_principal};
pub use reason::{InvalidReason, Reason};
pub use refused::Refused;
pub use shown::Page;
pub use store::approvals::ApprovalRow;
pub use store::blocks::BlockRow;
pub use store::environments::find as find_environment;
pub use store::holds::HoldRow;
pub use store::overrides::{OverrideRow, OverrideState};
pub use store::waivers::{WaiverRow, WaiverState};
pub use target::Target;
pub use waivers::{
    MAX_VULNERABILITIES, NewWaiver, WaiverEnd, WaiverFilter, approve_waiver, create_waiver, find_waiver,
    revoke_waiver, waivers,
};
