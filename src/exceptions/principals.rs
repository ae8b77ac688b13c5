//! The end of a principal: its approvals end with it, and what it stopped or accepted stays.

use super::Refused;
use super::store::{approvals, held};
use super::target::Target;
use crate::access::{Administer, Everything, Grant, Principal, PrincipalId};
use crate::identity::{self, Disabled, PrincipalRow};
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
    /// Blocks, holds, waivers and overrides that stay.
    pub stays: Held,
}

/// Why a principal was not disabled or enabled.
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

/// Disables a principal: its tokens and grants end at once, and no promotion is decided with its approvals once this is
/// answered. These end after that, one by one, so that no other decision waits for all of them; what is left when the
/// service stops meanwhile ends when the principal is enabled.
pub async fn disable_principal(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    id: PrincipalId,
    reason: &str,
) -> Result<Ended, DisableRefused> {
    let by = grant.principal();
    let (disabled, stays) = act(|| async {
        let mut tx = db.begin().await.map_err(Refused::from)?;
        Scopes::decisions(Decisions::All).lock(&mut tx).await.map_err(Refused::from)?;
        let disabled = identity::disable(&mut tx, by, id, reason).await?;
        let stays = held::of(&mut tx, id).await.map_err(Refused::from)?;
        tx.commit().await.map_err(Refused::from)?;
        Ok::<_, DisableRefused>((disabled, stays))
    })
    .await?;
    let approvals = end_approvals(db, by, id, reason).await?;
    Ok(Ended { disabled, approvals, stays })
}

/// Enables a principal that was disabled. Approvals that did not end with it end first.
pub async fn enable_principal(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    id: PrincipalId,
    reason: &str,
) -> Result<PrincipalRow, DisableRefused> {
    if identity::is_disabled(db, id).await.map_err(Refused::from)? {
        end_approvals(db, grant.principal(), id, reason).await?;
    }
    Ok(identity::enable(db, grant, id, reason).await?)
}

async fn end_approvals(db: &Db, by: &Principal, of: PrincipalId, reason: &str) -> Result<Vec<i64>, Refused> {
    let mut ended = Vec::new();
    for open in approvals::open_of(&mut *db.acquire().await?, of).await? {
        let is_ended = act(|| async {
            let mut tx = db.begin().await?;
            let target = Target::find(&mut tx, Some(&open.repository), Some(&open.environment)).await?;
            target.decisions().lock(&mut tx).await?;
            let at = database_time(&mut tx).await?;
            let Some(digest) = approvals::end(&mut tx, &target, open.id, at, by.id).await? else {
                return Ok::<_, Refused>(false);
            };
            let facts = json!({"approval": open.id, "reason": reason});
            ledger::append(&mut tx, target.event(Kind::ApprovalEnded, at, by, Some(&digest), facts)).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await?;
        if is_ended {
            ended.push(open.id);
        }
    }
    Ok(ended)
}
