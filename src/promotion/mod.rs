//! Promotion: what may run where, and the answer to the deployer's question.
//!
//! Knows environments, policies, decisions and promotions. Promises that
//! every promotion has its decision, that what it was decided on was true in the transaction that
//! wrote it (facts that can turn a yes into a no wait for it, or it for them), that a decision can
//! be made again from its inputs, and that asking writes nothing. Never decides by itself: that is
//! `policy`.

mod answer;
mod attached;
mod decisions;
mod dry_run;
mod environments;
mod evaluate;
mod facts;
mod lane;
mod pending;
mod policies;
mod promote;
mod references;
mod refusals;
mod refused;
mod releases;
mod renew;
mod resolve;
mod resting;
mod rollback;
mod simulate;
mod store;
mod summary;
mod verify;
mod view;

pub use crate::exceptions::{InvalidReason, Reason};
pub use answer::{Candidate, KnownGood, PromotedByOverride};
pub use attached::Views;
pub use decisions::{Replayed, StoredDecision, decision, lane_of, replay};
pub use dry_run::{DryRun, dry_run};
pub use environments::{EnvironmentRow, environments, put_environment};
pub use lane::Allowance;
pub use pending::{PendingApproval, pending_approvals};
pub use policies::{PolicyRow, PutPolicy, end_policy, policies, policy_warnings, put_policy};
pub use promote::{Asked, Promoted, What, promote, promotions};
pub use references::{in_another_registry, verify_anywhere, verify_in_view};
pub use refused::Refused;
pub use releases::{ReleaseFilter, ReleaseRow, Releases, releases};
pub use renew::{enqueue_due, reevaluate, renew, renew_all, renewed_before};
pub use resolve::{NoKnownGood, Purpose, Question, known_good};
pub use resting::{Consequence, Resting, RestingVersion, resting_on};
pub use rollback::{AskedBack, rollback};
pub use simulate::{Consequences, Naming, simulate};
pub use store::promotions::PromotionRow;
pub use verify::{Verification, verify};
pub use view::{CURRENT, NotShown, ViewTags, view, view_has_blob, view_tags};
