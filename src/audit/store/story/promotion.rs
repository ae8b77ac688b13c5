//! Environments, policies, promotions, and the facts that people add.

use super::{Said, Wrong, wrong};
use sqlx::PgConnection;

/// The environment is described as its last event says.
pub async fn environments(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'the environment ' || v.name || ' is described otherwise' as "what!"
           from said join environments v on v.id = said.environment_id
           where v.description is distinct from said.facts ->> 'description'
             and not exists (
               select from events l where l.repository_id is null and l.at >= said.at - interval '1 hour'
                 and l.id > said.id and l.environment_id = v.id and l.kind = 'environment.changed')"#
    )
}

/// The version was put in force or ended then, its document is there, and the one before it ended.
pub async fn policies(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'policy ' || coalesce(said.facts ->> 'name', '?') || case
             when p.id is null and said.facts ? 'ended' then ' did not end'
             when p.id is null then ' has no such version'
             when d.digest is null then ' has lost its document'
             else ' still has the version before' end as "what!"
           from said
             left join policies p on p.environment_id = said.environment_id
               and p.name = said.facts ->> 'name' and p.digest = said.digest
               and case when said.facts ? 'ended' then (p.ended_by, p.ended_at) else (p.by, p.at) end
                 = (said.principal_id, said.at)
             left join policy_documents d on d.digest = said.digest
           where p.id is null or d.digest is null
             or said.facts ->> 'before' is not null and not exists (
               select from policies b where b.environment_id = p.environment_id and b.name = p.name
                 and b.digest = said.facts ->> 'before' and b.ended_at = said.at)"#
    )
}

/// The promotion is there, with the summary that was signed.
pub async fn promotions(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'the promotion of ' || coalesce(said.digest, '?')
             || case when p.id is null then ' is gone' else ' (' || p.id || ') says otherwise' end as "what!"
           from said left join promotions p on p.event_id = said.id
           where (p.repository_id, p.environment_id, p.manifest, p.decision, p.version, p.reason, p.promoted_by,
                  p.promoted_at, p.kind, 'sha256:' || encode(sha256(p.summary), 'hex'))
             is distinct from (said.repository_id, said.environment_id, said.digest, said.facts ->> 'decision',
                  said.facts ->> 'version', said.facts ->> 'reason', said.principal_id, said.at,
                  case said.kind when 'promotion.allowed' then 'promote' else 'rollback' end,
                  said.facts ->> 'summary')
             or not is_time(p.valid_until, time_said(said.facts, 'valid_until'))"#
    )
}

/// A no has its decision.
pub async fn refusals(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'the decision ' || coalesce(said.facts ->> 'decision', '?')
             || case when d.id is null then ' is gone' else ' says otherwise' end as "what!"
           from said left join decisions d on d.id = said.facts ->> 'decision'
           where (d.repository_id, d.environment_id, d.manifest, d.outcome)
             is distinct from (said.repository_id, said.environment_id, said.digest, said.facts ->> 'verdict')"#
    )
}

/// What was approved is, and what was taken back ended then.
pub async fn approvals(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'approval ' || coalesce(said.facts ->> 'approval', '?')
             || case when a.id is null then ' is gone' else ' says otherwise' end as "what!"
           from said left join approvals a on a.id = id_said(said.facts, 'approval')
             left join manifests m on m.repository_id = a.repository_id and m.digest = a.manifest
           where (a.repository_id, a.environment_id, a.manifest)
             is distinct from (said.repository_id, said.environment_id, said.digest)
             or a.sha256 <> m.sha256
             or said.kind = 'approval.given'
               and ((a.by, a.at, a.why) is distinct from (said.principal_id, said.at, said.facts ->> 'reason')
                 or not is_time(a.until, time_said(said.facts, 'until')))
             or said.kind = 'approval.ended'
               and (a.ended_by, a.ended_at) is distinct from (said.principal_id, said.at)"#
    )
}

/// What was blocked is, and what was lifted ended then.
pub async fn blocks(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'block ' || coalesce(said.facts ->> 'block', '?')
             || case when b.id is null then ' is gone' else ' says otherwise' end as "what!"
           from said left join blocks b on b.id = id_said(said.facts, 'block')
             left join manifests m on m.repository_id = b.repository_id and m.digest = b.manifest
           where b.id is null
             or (b.repository_id, b.environment_id, b.manifest)
               is distinct from (said.repository_id, said.environment_id, said.digest)
             or b.sha256 <> m.sha256
             or said.kind = 'block.placed'
               and ((b.by, b.at, b.why) is distinct from (said.principal_id, said.at, said.facts ->> 'reason')
                 or not is_time(b.until, time_said(said.facts, 'until')))
             or said.kind = 'block.ended'
               and (b.ended_by, b.ended_at) is distinct from (said.principal_id, said.at)"#
    )
}

/// What was held is, and what was lifted ended then.
pub async fn holds(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'hold ' || coalesce(said.facts ->> 'hold', '?')
             || case when h.id is null then ' is gone' else ' says otherwise' end as "what!"
           from said left join holds h on h.id = id_said(said.facts, 'hold')
           where h.id is null
             or (h.repository_id, h.environment_id) is distinct from (said.repository_id, said.environment_id)
             or said.kind = 'hold.placed'
               and ((h.by, h.at, h.why) is distinct from (said.principal_id, said.at, said.facts ->> 'reason')
                 or not is_time(h.until, time_said(said.facts, 'until')))
             or said.kind = 'hold.ended'
               and (h.ended_by, h.ended_at) is distinct from (said.principal_id, said.at)"#
    )
}
