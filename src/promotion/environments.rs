//! Environments: the places of the promotion path.

use super::store::environments as store;
use super::{Reason, Refused};
use crate::access::{Administer, Grant};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::EnvironmentName;
use crate::postgres::{Db, Generation, act, agreed_time};
use serde_json::json;

pub use store::{EnvironmentRow, Put};

/// Makes an environment, or describes it anew. Without a description, it keeps the one it has.
pub async fn put_environment(
    db: &Db,
    grant: &Grant<Administer, EnvironmentName>,
    description: Option<&str>,
) -> Result<Put, Refused> {
    let description = description.map(Reason::optional).transpose().map_err(Refused::Reason)?;
    let description = description.as_ref().map(Reason::as_str);
    act(|| async {
        let mut tx = db.begin().await?;
        let name = grant.scope();
        let put = store::put(&mut tx, name, description, grant.principal().id).await?;
        let event = Event {
            kind: Kind::EnvironmentChanged,
            at: agreed_time(&mut tx).await?,
            principal: grant.principal(),
            repository: None,
            environment: Some((put.id, name)),
            digest: None,
            facts: json!({"description": put.description, "new": put.new}),
            changes: vec![Generation::environment(name)],
        };
        ledger::append(&mut tx, event).await?;
        tx.commit().await?;
        Ok(put)
    })
    .await
}

/// Environments by name, after this one; the caller's door filters by what they may see.
pub async fn environments(db: &Db, after: &str, limit: i64) -> Result<Vec<EnvironmentRow>, Failure> {
    store::list(&mut *db.acquire().await?, after, limit).await
}
