//! What events tell of, against the rows that keep it: what was made is there, what ended is ended. That the
//! two say the same is looked for from the rows' side.
//!
//! `offset 0` keeps each subquery a look-up: Postgres reads no table whole to answer for a page.

use crate::failure::Failure;
use sqlx::PgConnection;

/// Of the events behind the first id up to the second, those that the rows contradict, in words; one snapshot.
/// What is done to a manifest or to a repository's rules waits for what was done before it, so that of such
/// events the later one has the greater id.
#[allow(clippy::too_many_lines, reason = "one statement, read from top to bottom")]
pub async fn lost(connection: &mut PgConnection, behind: i64, to: i64) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"select 'event ' || e.id || ' (' || e.kind || coalesce(' of ' || r.name, '')
             || coalesce('@' || e.digest, '') || '): the rows do not have what it tells of' as "what!"
           from events e cross join lateral facts_said(e.leaf) f(facts) left join repositories r on r.id = e.repository_id
           where e.id > $1 and e.id <= $2 and f.facts is not null and not case
             when e.kind in ('repository.created', 'repository.changed') then
               (to_jsonb(r.floating), coalesce(to_jsonb(r.quota_bytes), 'null'),
                coalesce(to_jsonb(r.evidence_quota_bytes), 'null'), coalesce(r.retention, 'null'))
                 is not distinct from (f.facts -> 'floating', coalesce(f.facts -> 'quota_bytes', 'null'),
                                       coalesce(f.facts -> 'evidence_quota_bytes', 'null'),
                                       coalesce(f.facts -> 'retention', 'null'))
               or exists (select from events l where l.repository_id = e.repository_id and l.id > e.id
                          and l.kind = 'repository.changed' offset 0)
             when e.kind = 'environment.changed' then
               exists (select from environments v where v.id = e.environment_id
                       and v.description = f.facts ->> 'description' offset 0)
               or exists (select from events l where l.repository_id is null and l.at >= e.at - interval '1 hour'
                          and l.id > e.id and l.environment_id = e.environment_id
                          and l.kind = 'environment.changed' offset 0)
             when e.kind = 'manifest.pushed' and not coalesce(
               exists (select from manifest_authors a where a.principal_id = e.principal_id and a.sha256 = case
                 when starts_with(e.digest, 'sha256:') then e.digest else (select m.sha256 from manifests m
                   where m.repository_id = e.repository_id and m.digest = e.digest offset 0) end offset 0)
                 or not starts_with(e.digest, 'sha256:') and not exists (select from manifests m
                   where m.repository_id = e.repository_id and m.digest = e.digest offset 0), false) then false
             when e.kind in ('manifest.pushed', 'manifest.deleted', 'manifest.expired') then
               exists (select from manifests m where m.repository_id = e.repository_id and m.digest = e.digest offset 0)
                 = (e.kind = 'manifest.pushed')
               or exists (select from events l where l.digest = e.digest and l.repository_id = e.repository_id
                          and l.id > e.id and l.kind in ('manifest.pushed', 'manifest.deleted', 'manifest.expired')
                          and (l.kind = 'manifest.pushed') <> (e.kind = 'manifest.pushed') offset 0)
             when e.kind = 'tag.reserved' then
               exists (select from tags t where t.repository_id = e.repository_id
                       and t.name = f.facts ->> 'tag' and t.digest = e.digest offset 0)
             when e.kind = 'token.created' then
               exists (select from tokens t where t.id = uuid_said(f.facts, 'token') offset 0)
             when e.kind = 'token.revoked' then
               exists (select from tokens t where t.id = uuid_said(f.facts, 'token') and t.ended_at = e.at offset 0)
             when e.kind = 'token.end-announced' then
               exists (select from token_ends_announced a where a.token_id = uuid_said(f.facts, 'token') and a.announced_at = e.at offset 0)
             when e.kind = 'token.rotated' then
               exists (select from tokens t where t.id = uuid_said(f.facts, 'token') and t.ended_at is not null offset 0)
                 or exists (select from tokens t where t.id = uuid_said(f.facts, 'token') and t.expires_at is not null offset 0)
             when e.kind in ('principal.disabled', 'principal.enabled') then
               exists (select from principals_disabled d
                       where d.principal_id = id_said(f.facts, substr(e.kind, 11)) offset 0) = (e.kind = 'principal.disabled')
               or exists (select from events l where l.id > e.id and l.repository_id is null
                          and l.kind in ('principal.disabled', 'principal.enabled')
                          and id_said(facts_said(l.leaf), substr(l.kind, 11)) = id_said(f.facts, substr(e.kind, 11)) offset 0)
             when e.kind in ('grant.given', 'grant.ended') then
               exists (select from grants g where g.id = id_said(f.facts, 'grant')
                       and (e.kind = 'grant.given' or g.ended_at = e.at) offset 0)
             when e.kind in ('signer.key-added', 'signer.verified') then
               exists (select from signers s join signer_identities k on k.signer_id = s.id
                       where s.name = f.facts ->> 'signer' and k.key_id = f.facts ->> 'key_id'
                         and (e.kind = 'signer.key-added' or k.active_schemes @> array(
                           select jsonb_array_elements_text(list_said(f.facts, 'schemes')))) offset 0)
             when e.kind in ('signer.registered', 'signer.revoked') then
               exists (select from signers s left join signer_revocations v on v.signer_id = s.id
                       where s.name = f.facts ->> 'signer'
                         and (e.kind = 'signer.registered' or v.revoked_at = e.at) offset 0)
             when e.kind in ('build-type.declared', 'build-type.ended') then
               exists (select from build_types b where b.id = id_said(f.facts, 'declaration')
                       and (e.kind = 'build-type.declared' or b.ended_at = e.at) offset 0)
             when e.kind = 'policy.changed' then
               exists (select from policies p where p.environment_id = e.environment_id and p.digest = e.digest
                       and case when f.facts ? 'ended' then p.ended_at else p.at end = e.at offset 0)
             when e.kind = 'attestation.recorded' then
               exists (select from attestations a where a.id = id_said(f.facts, 'attestation') offset 0)
             when e.kind = 'attestation.repeated' then
               exists (select from attestation_receipts a where a.id = id_said(f.facts, 'receipt')
                       and a.attestation_id = id_said(f.facts, 'attestation') offset 0)
             when e.kind = 'scan.recorded' then
               exists (select from scan_runs s where s.id = id_said(f.facts, 'scan') offset 0)
             when e.kind = 'scan.retracted' then
               exists (select from scan_retractions x where x.run_id = id_said(f.facts, 'scan') offset 0)
             when e.kind in ('promotion.allowed', 'promotion.rolled-back') then
               exists (select from promotions p where p.event_id = e.id offset 0)
             when e.kind = 'promotion.refused' then
               exists (select from decisions d where d.id = f.facts ->> 'decision' offset 0)
             when e.kind in ('approval.given', 'approval.ended') then
               exists (select from approvals a where a.id = id_said(f.facts, 'approval')
                       and (e.kind = 'approval.given' or a.ended_at = e.at) offset 0)
             when e.kind in ('block.placed', 'block.ended') then
               exists (select from blocks b where b.id = id_said(f.facts, 'block')
                       and (e.kind = 'block.placed' or b.ended_at = e.at) offset 0)
             when e.kind in ('hold.placed', 'hold.ended') then
               exists (select from holds h where h.id = id_said(f.facts, 'hold')
                       and (e.kind = 'hold.placed' or h.ended_at = e.at) offset 0)
             when e.kind in ('waiver.created', 'waiver.approved', 'waiver.revoked') then
               exists (select from waivers w where w.id = id_said(f.facts, 'waiver')
                       and case e.kind when 'waiver.created' then w.created_at
                             when 'waiver.approved' then w.approved_at else w.ended_at end = e.at offset 0)
             when e.kind in ('override.created', 'override.reviewed', 'override.revoked') then
               exists (select from overrides o where o.id = id_said(f.facts, 'override')
                       and case e.kind when 'override.created' then o.created_at
                             when 'override.reviewed' then o.reviewed_at else o.ended_at end = e.at offset 0)
             when e.kind = 'registry.trust-updated' then
               exists (select from trust_files t where t.version = id_said(f.facts, 'version') offset 0)
             else true end
           order by e.id"#,
        behind,
        to,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for what events tell of", error))
}

/// Of the same events, those that gave or took names of which the rows know nothing. A name that was moved or
/// shown again since has the earlier move or deletion in its history, of which nothing ever goes.
pub async fn lost_names(connection: &mut PgConnection, behind: i64, to: i64) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"select 'event ' || e.id || ' (' || e.kind || ' of ' || coalesce(r.name, '?') || '@' || coalesce(e.digest, '?')
             || '): the tag ' || coalesce(n.name, '?') || ' was not '
             || case e.kind when 'manifest.pushed' then 'given' else 'taken away' end as "what!"
           from events e cross join lateral facts_said(e.leaf) f(facts)
             cross join lateral jsonb_array_elements_text(case e.kind
               when 'tag.deleted' then jsonb_build_array(f.facts -> 'tag') else list_said(f.facts, 'tags') end) n(name)
             left join repositories r on r.id = e.repository_id
           where e.id > $1 and e.id <= $2
             and e.kind in ('manifest.pushed', 'manifest.deleted', 'manifest.expired', 'tag.deleted')
             and not case e.kind
               when 'manifest.pushed' then
                 exists (select from tags t
                         where t.repository_id = e.repository_id and t.name = n.name and t.digest = e.digest offset 0)
                 or exists (select from floating_tags t
                            where t.repository_id = e.repository_id and t.name = n.name and t.digest = e.digest offset 0)
               else
                 exists (select from tag_visibility t
                         where t.repository_id = e.repository_id and t.name = n.name and t.hidden offset 0)
                 or exists (select from floating_tags t
                            where t.repository_id = e.repository_id and t.name = n.name and t.digest is null offset 0) end
           order by e.id, n.name"#,
        behind,
        to,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for the names that events tell of", error))
}

/// Of the same events, those that tell of a token's roles or of an attestation's signatures that have no row.
pub async fn lost_parts(connection: &mut PgConnection, behind: i64, to: i64) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"select 'event ' || e.id || ' (' || e.kind || coalesce('@' || e.digest, '') || '): '
             || case e.kind when 'token.created' then 'the role ' || p.part::text || ' has no row'
                  else 'the signature by signer ' || (p.part #>> '{}') || ' has no row' end as "what!"
           from events e cross join lateral facts_said(e.leaf) f(facts)
             cross join lateral jsonb_array_elements(
               list_said(f.facts, case e.kind when 'token.created' then 'grants' else 'signers' end)) p(part)
           where e.id > $1 and e.id <= $2 and e.kind in ('token.created', 'attestation.recorded')
             and not case e.kind
               when 'token.created' then
                 exists (select from grants g
                         where g.principal_id = id_said(f.facts, 'for')
                           and (g.token_id is null or g.token_id = uuid_said(f.facts, 'token'))
                           and p.part = jsonb_build_object('role', g.role, 'repositories', g.repositories,
                                                           'environments', g.environments) offset 0)
               else
                 exists (select from attestation_signatures s
                         where s.attestation_id = id_said(f.facts, 'attestation')
                           and s.signer_id::text = p.part #>> '{}' offset 0) end
           order by e.id"#,
        behind,
        to,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for the roles and signatures that events tell of", error))
}
