//! What events say, against the rows that they speak of: what was made is there and says the same, what
//! ended is ended, unless a later event took it back. Each statement is one snapshot over one page of events.

mod authority;
mod content;
mod evidence;
mod promotion;

use crate::failure::Failure;
use serde_json::Value;
use sqlx::PgConnection;

/// Events with their facts, side by side.
#[derive(Default)]
pub struct Said {
    events: Vec<i64>,
    kinds: Vec<String>,
    facts: Vec<Value>,
}

/// An event that the rows contradict.
pub struct Wrong {
    pub event: i64,
    /// Which row, and how.
    pub what: String,
}

impl Said {
    /// Adds an event.
    pub fn push(&mut self, event: i64, kind: &str, facts: Value) {
        self.events.push(event);
        self.kinds.push(kind.to_owned());
        self.facts.push(facts);
    }

    /// The kind of one of its events.
    pub fn kind(&self, event: i64) -> &str {
        let at = self.events.iter().position(|id| *id == event);
        at.and_then(|at| self.kinds.get(at)).map_or("", String::as_str)
    }

    /// Those of these kinds.
    fn only(&self, kinds: &[&str]) -> Self {
        let mut only = Self::default();
        for ((event, kind), facts) in self.events.iter().zip(&self.kinds).zip(&self.facts) {
            if kinds.contains(&kind.as_str()) {
                only.push(*event, kind, facts.clone());
            }
        }
        only
    }
}

/// The events with their columns as `said`, for the rest of the statement to compare with rows.
macro_rules! wrong {
    ($connection:expr, $said:expr, $rest:literal) => {
        sqlx::query_as!(
            super::Wrong,
            "with said as (
               select e.id, e.kind, e.at, e.principal_id, e.repository_id, e.environment_id, e.digest, s.facts
               from unnest($1::bigint[], $2::jsonb[]) s(event, facts) join events e on e.id = s.event)
             " + $rest,
            &$said.events,
            &$said.facts,
        )
        .fetch_all($connection)
        .await
    };
}
use wrong;

/// The events of a page that the rows contradict.
pub async fn contradicted(connection: &mut PgConnection, said: &Said) -> Result<Vec<Wrong>, Failure> {
    let mut wrong = Vec::new();
    macro_rules! ask {
        ($($statement:path: $kinds:expr,)*) => {
            $(
                let some = said.only(&$kinds);
                if !some.events.is_empty() {
                    let asked = $statement(connection, &some).await;
                    wrong.extend(asked.map_err(|error| Failure::new("comparing events with rows", error))?);
                }
            )*
        };
    }
    ask! {
        content::repositories: ["repository.created", "repository.changed"],
        content::manifests: ["manifest.pushed", "manifest.deleted", "manifest.expired"],
        content::named: ["manifest.pushed"],
        content::unnamed: ["tag.deleted", "tag.reserved", "manifest.deleted", "manifest.expired"],
        authority::tokens: ["token.created", "token.revoked"],
        authority::roles_with_tokens: ["token.created"],
        authority::grants: ["grant.given", "grant.ended"],
        authority::signers: ["signer.registered"],
        authority::revocations: ["signer.revoked"],
        evidence::attestations: ["attestation.recorded"],
        evidence::scans: ["scan.recorded"],
        promotion::environments: ["environment.changed"],
        promotion::policies: ["policy.changed"],
        promotion::promotions: ["promotion.allowed", "promotion.rolled-back"],
        promotion::refusals: ["promotion.refused"],
        promotion::approvals: ["approval.given", "approval.ended"],
        promotion::blocks: ["block.placed", "block.ended"],
        promotion::holds: ["hold.placed", "hold.ended"],
    }
    wrong.sort_by_key(|one| one.event);
    Ok(wrong)
}
