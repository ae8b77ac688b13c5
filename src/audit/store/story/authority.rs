//! Tokens, roles and signers.

use super::{Said, Wrong, wrong};
use sqlx::PgConnection;

/// What was made is, for whom it was made, and what was revoked ended then.
pub async fn tokens(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'token ' || coalesce(said.facts ->> 'token', '?')
             || case when t.id is null then ' is gone' else ' says otherwise' end as "what!"
           from said left join tokens t on t.id = uuid_said(said.facts, 'token')
           where t.id is null
             or said.kind = 'token.created'
               and ((t.principal_id, t.created_by, t.created_at)
                 is distinct from (id_said(said.facts, 'for'), said.principal_id, said.at)
                 or not is_time(t.expires_at, time_said(said.facts, 'expires_at')))
             or said.kind = 'token.revoked'
               and (t.ended_by, t.ended_at) is distinct from (said.principal_id, said.at)"#
    )
}

/// Roles that came with a token; one that was held before is the same, and any may have ended since.
pub async fn roles_with_tokens(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'the role ' || coalesce(g.role ->> 'role', '?') || ' on '
             || coalesce(g.role ->> 'repositories', '?') || ' is gone' as "what!"
           from said cross join lateral jsonb_array_elements(list_said(said.facts, 'grants')) g(role)
           where not exists (
             select from grants o where o.principal_id = id_said(said.facts, 'for')
               and o.role = g.role ->> 'role' and o.repositories = g.role ->> 'repositories'
               and (o.environments is null and jsonb_typeof(g.role -> 'environments') is distinct from 'array'
                 or to_jsonb(o.environments) @> (g.role -> 'environments')
                   and to_jsonb(o.environments) <@ (g.role -> 'environments')))"#
    )
}

/// What was given is, and what was taken back ended then.
pub async fn grants(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'grant ' || coalesce(said.facts ->> 'grant', '?')
             || case when g.id is null then ' is gone' else ' says otherwise' end as "what!"
           from said left join grants g on g.id = id_said(said.facts, 'grant')
           where g.id is null
             or said.kind = 'grant.given'
               and ((g.principal_id, g.role, g.repositories, g.created_by, g.created_at)
                 is distinct from (id_said(said.facts, 'to'), said.facts ->> 'role',
                                   said.facts ->> 'repositories', said.principal_id, said.at)
                 or (g.environments is null) = (jsonb_typeof(said.facts -> 'environments') = 'array')
                 or not coalesce(to_jsonb(g.environments) @> (said.facts -> 'environments')
                   and to_jsonb(g.environments) <@ (said.facts -> 'environments'), true))
             or said.kind = 'grant.ended'
               and (g.ended_by, g.ended_at) is distinct from (said.principal_id, said.at)"#
    )
}

/// The signer is there with its key and what it is believed for.
pub async fn signers(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'signer ' || coalesce(said.facts ->> 'signer', '?')
             || case when s.id is null then ' is gone' else ' says otherwise' end as "what!"
           from said left join signers s on s.name = said.facts ->> 'signer'
           where (s.key_id, s.scheme, s.registered_by, s.registered_at)
             is distinct from (said.facts ->> 'key_id', said.facts ->> 'scheme', said.principal_id, said.at)
             or to_jsonb(s.repositories) is distinct from said.facts -> 'repositories'
             or to_jsonb(s.predicate_types) is distinct from said.facts -> 'predicate_types'
             or not is_time(s.valid_from, coalesce(time_said(said.facts, 'valid_from'), 'epoch'))
             or not is_time(s.valid_until, time_said(said.facts, 'valid_until'))"#
    )
}

/// The signer is revoked, from the time on that was said.
pub async fn revocations(connection: &mut PgConnection, said: &Said) -> sqlx::Result<Vec<Wrong>> {
    wrong!(
        connection,
        said,
        r#"select said.id as "event!", 'the revocation of signer ' || coalesce(said.facts ->> 'signer', '?')
             || case when v.id is null then ' is gone' else ' says otherwise' end as "what!"
           from said left join signers s on s.name = said.facts ->> 'signer'
             left join signer_revocations v on v.signer_id = s.id
           where (v.compromised::text, v.reason, v.revoked_by, v.revoked_at)
             is distinct from (said.facts ->> 'compromised', said.facts ->> 'reason', said.principal_id, said.at)
             or not is_time(v.distrusted_from, time_said(said.facts, 'distrusted_from'))"#
    )
}
