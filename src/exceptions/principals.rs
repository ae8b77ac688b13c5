//! The end of a principal: its approvals end with it, and what it stopped or accepted stays.

use super::Refused;
use super::store::{approvals, held};
use super::target::Target;
use crate::access::{Administer, Everything, Grant, Lane, PrincipalId};
use crate::identity::{self, Disabled};
use crate::ledger::{self, Kind};
use crate::postgres::{Db, Decisions, Scopes, act, database_time};
use serde_json::json;

pub use held::Held;

/// What ended, and what stays.
#[derive(Debug)]
pub struct Ended {
    /// The principal, its tokens and grants.
    pub disabled: Disabled,
    /// Approvals that ended. What was promoted by them goes on.
    pub approvals: Vec<i64>,
    /// Blocks, holds and waivers that stay.
    pub stays: Held,
}

/// Why a principal was not disabled.
#[derive(Debug, thiserror::Error)]
pub enum DisableRefused {
    /// By its rights.
    #[error(transparent)]
    Identity(#[from] identity::Refused),
    /// By its approvals.
    #[error(transparent)]
    Exceptions(#[from] Refused),
}

impl crate::postgres::Refusal for DisableRefused {
    fn fault(&self) -> Option<&crate::failure::Failure> {
        match self {
            Self::Identity(refused) => refused.fault(),
            Self::Exceptions(refused) => refused.fault(),
        }
    }
}

/// Disables a principal: its tokens, grants and approvals end at once, and no promotion is decided with them once this
/// is answered.
pub async fn disable_principal(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    id: PrincipalId,
    reason: &str,
) -> Result<Ended, DisableRefused> {
    act(|| async {
        let mut tx = db.begin().await.map_err(Refused::from)?;
        Scopes::decisions(Decisions::All).lock(&mut tx).await.map_err(Refused::from)?;
        let at = database_time(&mut tx).await.map_err(Refused::from)?;
        let by = grant.principal();
        let mut ended = Vec::new();
        for open in approvals::open_of(&mut tx, id).await.map_err(Refused::from)? {
            let lane = Lane { repository: open.repository, environment: open.environment };
            let target = Target::find(&mut tx, Some(&lane.repository), Some(&lane.environment)).await?;
            let digest = approvals::end(&mut tx, &target, open.id, at, by.id).await.map_err(Refused::from)?;
            let facts = json!({"approval": open.id, "reason": reason});
            let event = target.event(Kind::ApprovalEnded, at, by, digest.as_ref(), facts);
            ledger::append(&mut tx, event).await.map_err(Refused::from)?;
            ended.push(open.id);
        }
        let disabled = identity::disable(&mut tx, by, id, reason, at).await?;
        let stays = held::of(&mut tx, id).await.map_err(Refused::from)?;
        tx.commit().await.map_err(Refused::from)?;
        Ok(Ended { disabled, approvals: ended, stays })
    })
    .await
}
