//! What is open of a principal beside its approvals.

use crate::failure::Failure;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// The ids of what stays open when its author is disabled.
#[derive(Debug, Serialize, ToSchema)]
pub struct Held {
    /// Blocks.
    pub blocks: Vec<i64>,
    /// Holds.
    pub holds: Vec<i64>,
    /// Waivers.
    pub waivers: Vec<i64>,
    /// Overrides.
    pub overrides: Vec<i64>,
}

/// The open ones of a principal.
pub async fn of(connection: &mut PgConnection, principal: i64) -> Result<Held, Failure> {
    sqlx::query_as!(
        Held,
        r#"with now as materialized (select decision_time() as at)
           select array(select b.id from blocks b, now where b.by = $1 and b.ended_at is null
               and coalesce(b.until > now.at, true) order by b.id) as "blocks!",
             array(select h.id from holds h, now where h.by = $1 and h.ended_at is null
               and coalesce(h.until > now.at, true) order by h.id) as "holds!",
             array(select w.id from waivers w, now where w.created_by = $1 and w.ended_at is null
               and coalesce(w.expires_at > now.at, true) order by w.id) as "waivers!",
             array(select o.id from overrides o, now where o.created_by = $1 and o.ended_at is null
               and o.expires_at > now.at order by o.id) as "overrides!""#,
        principal,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for what is open of a principal", error))
}
