//! Rows that decide something, against the events that made and ended them. Both are of one transaction and
//! most have one time, by which the event is found. `offset 0` keeps a subquery a look-up, as in `kept`.

use crate::failure::Failure;
use sqlx::PgConnection;

/// The tables.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Manifest,
    Tag,
    FloatingTag,
    Block,
    Hold,
    Approval,
    Waiver,
    Override,
    Policy,
    Signer,
    SignerKey,
    Revocation,
    BuildType,
    Grant,
    Token,
    Scan,
}

/// Every kind.
pub const FACTS: [Kind; 16] = [
    Kind::Manifest,
    Kind::Tag,
    Kind::FloatingTag,
    Kind::Block,
    Kind::Hold,
    Kind::Approval,
    Kind::Waiver,
    Kind::Override,
    Kind::Policy,
    Kind::Signer,
    Kind::SignerKey,
    Kind::Revocation,
    Kind::BuildType,
    Kind::Grant,
    Kind::Token,
    Kind::Scan,
];

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Tag => "tag",
            Self::FloatingTag => "floating-tag",
            Self::Block => "block",
            Self::Hold => "hold",
            Self::Approval => "approval",
            Self::Waiver => "waiver",
            Self::Override => "override",
            Self::Policy => "policy",
            Self::Signer => "signer",
            Self::BuildType => "build-type",
            Self::SignerKey => "signer-key",
            Self::Revocation => "revocation",
            Self::Grant => "grant",
            Self::Token => "token",
            Self::Scan => "scan",
        }
    }
}

/// A row that was looked at.
pub struct Row {
    /// Its key, as text: a page begins behind it.
    pub key: String,
    /// What no event says, in words.
    pub untold: Option<String>,
}

/// The next rows of a kind behind this key, each as one snapshot has it.
pub async fn page(
    connection: &mut PgConnection,
    kind: Kind,
    behind: &str,
    limit: i64,
) -> Result<Vec<Row>, Failure> {
    let page = match kind {
        Kind::Manifest => manifests(connection, behind, limit).await,
        Kind::Tag => tags(connection, behind, limit).await,
        Kind::FloatingTag => floating_tags(connection, behind, limit).await,
        Kind::Block => blocks(connection, behind, limit).await,
        Kind::Hold => holds(connection, behind, limit).await,
        Kind::Approval => approvals(connection, behind, limit).await,
        Kind::Waiver => waivers(connection, behind, limit).await,
        Kind::Override => overrides(connection, behind, limit).await,
        Kind::Policy => policies(connection, behind, limit).await,
        Kind::Signer => signers(connection, behind, limit).await,
        Kind::BuildType => build_types(connection, behind, limit).await,
        Kind::SignerKey => signer_keys(connection, behind, limit).await,
        Kind::Revocation => revocations(connection, behind, limit).await,
        Kind::Grant => grants(connection, behind, limit).await,
        Kind::Token => tokens(connection, behind, limit).await,
        Kind::Scan => scans(connection, behind, limit).await,
    };
    page.map_err(|error| Failure::new("looking for the events of rows", error))
}

/// Asks for a page of rows by a number.
macro_rules! by_id {
    ($connection:expr, $behind:expr, $limit:expr, $sql:literal) => {
        sqlx::query_as!(Row, $sql, $behind.parse().unwrap_or(0_i64), $limit).fetch_all($connection).await
    };
}

/// Asks for a page of rows by a repository and a name in it.
macro_rules! by_name {
    ($connection:expr, $behind:expr, $limit:expr, $sql:literal) => {{
        let (repository_id, name) = $behind.split_once('/').unwrap_or(("0", ""));
        let repository_id = repository_id.parse().unwrap_or(0_i64);
        sqlx::query_as!(Row, $sql, repository_id, name, $limit).fetch_all($connection).await
    }};
}

async fn manifests(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_name!(
        connection,
        behind,
        limit,
        r#"select m.repository_id || '/' || m.digest as "key!", case when not exists (
             select from events e where e.digest = m.digest and e.repository_id = m.repository_id
               and e.kind = 'manifest.pushed' offset 0)
             then 'the manifest ' || m.digest || ' of repository ' || m.repository_id || ' was pushed by no event'
             end as untold
           from manifests m where (m.repository_id, m.digest) > ($1, $2)
           order by m.repository_id, m.digest limit $3"#
    )
}

/// A name that stopped floating was given by the push that moved it last. The event comes soon after the
/// row: from there on it is looked for first, since an artifact may have many names.
async fn tags(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_name!(
        connection,
        behind,
        limit,
        r#"select t.repository_id || '/' || t.name as "key!", case when not exists (
             select from events e where e.digest = t.digest and e.at >= t.since
               and e.repository_id = t.repository_id
               and (e.kind = 'manifest.pushed' and facts_said(e.leaf) -> 'tags' ? t.name
                 or e.kind = 'tag.reserved' and facts_said(e.leaf) ->> 'tag' = t.name))
             and not exists (
             select from events e where e.digest = t.digest and e.at < t.since
               and e.repository_id = t.repository_id
               and (e.kind = 'manifest.pushed' and facts_said(e.leaf) -> 'tags' ? t.name
                 or e.kind = 'tag.reserved' and facts_said(e.leaf) ->> 'tag' = t.name))
             then 'the tag ' || t.name || ' -> ' || t.digest || ' of repository ' || t.repository_id
               || ' was given by no event' end as untold
           from (select t.*, least(t.claimed_at, f.moved_at) as since
                 from tags t left join lateral (
                   select digest, moved_at from floating_tags f
                   where f.repository_id = t.repository_id and f.name = t.name order by f.id desc limit 1) f
                   on f.digest = t.digest
                 where (t.repository_id, t.name) > ($1, $2) order by t.repository_id, t.name limit $3) t
           order by t.repository_id, t.name"#
    )
}

async fn floating_tags(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select f.id::text as "key!", case when f.digest is not null and not exists (
             select from events e where e.digest = f.digest and e.at >= f.moved_at
               and e.repository_id = f.repository_id and e.kind = 'manifest.pushed'
               and facts_said(e.leaf) -> 'tags' ? f.name)
             and not exists (
             select from events e where e.digest = f.digest and e.at < f.moved_at
               and e.repository_id = f.repository_id and e.kind = 'manifest.pushed'
               and facts_said(e.leaf) -> 'tags' ? f.name)
             then 'the tag ' || f.name || ' of repository ' || f.repository_id || ' was moved to ' || f.digest
               || ' by no event' end as untold
           from floating_tags f where f.id > $1 order by f.id limit $2"#
    )
}

/// What ends by itself ends at its time, not before; nobody does it, so no event tells of it.
async fn blocks(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select b.id::text as "key!", 'block ' || b.id || ' on ' || b.manifest || case
             when not exists (
               select from events e where e.digest = b.manifest and e.at = b.at and e.kind = 'block.placed'
                 and (e.repository_id, e.principal_id) = (b.repository_id, b.by)
                 and e.environment_id is not distinct from b.environment_id
                 and facts_said(e.leaf) @> jsonb_build_object('block', b.id, 'reason', b.why)
                 -- Blocks of an earlier version have what the grants of their authors gave them.
                 and coalesce(facts_said(e.leaf) ->> 'rank', rank_by_grants(b.by, b.at)) = b.rank
                 and case when facts_said(e.leaf) ? 'repositories'
                   then array(select jsonb_array_elements_text(list_said(facts_said(e.leaf), 'repositories')))
                   else block_reach_by_grants(b.by, b.at, b.environment_id) end = b.repositories
                 and time_is_said(b.until, facts_said(e.leaf), 'until'))
               then ' was placed by no event that says the same'
             when b.sha256 <> case when starts_with(b.manifest, 'sha256:') then b.manifest else m.sha256 end
               then ' counts for other bytes'
             when b.ended_at is not null
               and (b.ended_by is not null or b.ended_at is distinct from b.until or b.until > (select decision_time()))
               and not exists (
                 select from events e where e.digest = b.manifest and e.at = b.ended_at
                   and e.kind = 'block.ended' and e.principal_id = b.ended_by
                   and facts_said(e.leaf) @> jsonb_build_object('block', b.id))
               then ' was lifted by no event' end as untold
           from blocks b left join manifests m on m.repository_id = b.repository_id and m.digest = b.manifest
           where b.id > $1 order by b.id limit $2"#
    )
}

async fn holds(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select h.id::text as "key!", 'hold ' || h.id || case
             when not exists (
               select from events e where e.digest is null and e.at = h.at and e.kind = 'hold.placed'
                 and e.principal_id = h.by and e.repository_id is not distinct from h.repository_id
                 and e.environment_id is not distinct from h.environment_id
                 and facts_said(e.leaf) @> jsonb_build_object('hold', h.id, 'reason', h.why)
                 and coalesce(facts_said(e.leaf) ->> 'origin', 'manual') = h.origin
                 and coalesce(facts_said(e.leaf) ->> 'rank', case h.origin when 'manual' then rank_by_grants(h.by, h.at)
                   else 'promoter' end) = h.rank
                 and time_is_said(h.until, facts_said(e.leaf), 'until'))
               then ' was placed by no event that says the same'
             when h.ended_at is not null
               and (h.ended_by is not null or h.ended_at is distinct from h.until or h.until > (select decision_time()))
               and not exists (
                 select from events e where e.digest is null and e.at = h.ended_at and e.kind = 'hold.ended'
                   and e.principal_id = h.ended_by
                   and facts_said(e.leaf) @> jsonb_build_object('hold', h.id))
               then ' was lifted by no event' end as untold
           from holds h where h.id > $1 order by h.id limit $2"#
    )
}

async fn approvals(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select a.id::text as "key!", 'approval ' || a.id || ' of ' || a.manifest || case
             when not exists (
               select from events e where e.digest = a.manifest and e.at = a.at and e.kind = 'approval.given'
                 and (e.repository_id, e.environment_id, e.principal_id)
                   = (a.repository_id, a.environment_id, a.by)
                 and facts_said(e.leaf) @> jsonb_build_object('approval', a.id, 'reason', a.why)
                 and time_is_said(a.until, facts_said(e.leaf), 'until'))
               then ' was given by no event that says the same'
             when a.sha256 <> case when starts_with(a.manifest, 'sha256:') then a.manifest else m.sha256 end
               then ' counts for other bytes'
             when a.ended_at is not null
               and (a.ended_by is not null or a.ended_at is distinct from a.until or a.until > (select decision_time()))
               and not exists (
                 select from events e where e.digest = a.manifest and e.at = a.ended_at
                   and e.kind = 'approval.ended' and e.principal_id = a.ended_by
                   and facts_said(e.leaf) @> jsonb_build_object('approval', a.id))
               then ' was taken back by no event' end as untold
           from approvals a left join manifests m on m.repository_id = a.repository_id and m.digest = a.manifest
           where a.id > $1 order by a.id limit $2"#
    )
}

/// A version ends when it is ended, or when another takes its place at the same time.
/// Created, approved and revoked at their times, by one event each.
async fn waivers(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select w.id::text as "key!", 'waiver ' || w.id || case
             when not t.created then ' was created by no event that says the same'
             when w.sha256 <> case when starts_with(w.manifest, 'sha256:') then w.manifest else m.sha256 end
               then ' counts for other bytes'
             when w.approved_at is not null and not t.approved then ' was approved by no event'
             when w.ended_at is not null and not t.revoked then ' was revoked by no event' end as untold
           from (select * from waivers where id > $1 order by id limit $2) w
           left join manifests m on m.repository_id = w.repository_id and m.digest = w.manifest
           cross join lateral (
             select coalesce(bool_or(e.kind = 'waiver.created' and e.at = w.created_at and e.principal_id = w.created_by
                 and e.repository_id is not distinct from w.repository_id
                 and e.environment_id is not distinct from w.environment_id
                 and f.facts @> jsonb_build_object('waiver', w.id, 'repositories', w.repositories, 'status', w.status,
                                                   'reason', w.reason, 'origin', w.origin)
                 and f.facts ->> 'package' is not distinct from w.package
                 and f.facts ->> 'justification' is not distinct from w.justification
                 and f.facts -> 'vulnerabilities' = (select jsonb_agg(v.vulnerability order by v.vulnerability)
                                                     from waiver_vulnerabilities v where v.waiver_id = w.id)
                 and time_is_said(w.expires_at, f.facts, 'expires_at')), false) as created,
               coalesce(bool_or(e.kind = 'waiver.approved' and e.at = w.approved_at and e.principal_id = w.approved_by
                 and f.facts @> jsonb_build_object('waiver', w.id)), false) as approved,
               coalesce(bool_or(e.kind = 'waiver.revoked' and e.at = w.ended_at and e.principal_id = w.ended_by
                 and f.facts @> jsonb_build_object('waiver', w.id)), false) as revoked
             from (
               select * from events
               where w.manifest is null and digest is null and at in (w.created_at, w.approved_at, w.ended_at)
               union all
               select * from events where digest = w.manifest and at in (w.created_at, w.approved_at, w.ended_at)
             ) e cross join lateral facts_said(e.leaf) f(facts)
           ) t
           order by w.id"#
    )
}

/// Created, reviewed and revoked at their times, by one event each.
async fn overrides(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select o.id::text as "key!", 'override ' || o.id || ' of ' || o.manifest || case
             when not t.created then ' was created by no event that says the same'
             when o.sha256 <> case when starts_with(o.manifest, 'sha256:') then o.manifest else m.sha256 end
               then ' counts for other bytes'
             when o.reviewed_at is not null and not t.reviewed then ' was reviewed by no event'
             when o.ended_at is not null and not t.revoked then ' was revoked by no event' end as untold
           from (select * from overrides where id > $1 order by id limit $2) o
           left join manifests m on m.repository_id = o.repository_id and m.digest = o.manifest
           cross join lateral (
             select coalesce(bool_or(e.kind = 'override.created' and e.at = o.created_at
                 and e.principal_id = o.created_by
                 and (e.repository_id, e.environment_id) = (o.repository_id, o.environment_id)
                 and f.facts @> jsonb_build_object('override', o.id, 'reason', o.reason, 'origin', o.origin)
                 and f.facts -> 'gates' = to_jsonb(o.gates)
                 and time_is_said(o.expires_at, f.facts, 'expires_at')), false) as created,
               coalesce(bool_or(e.kind = 'override.reviewed' and e.at = o.reviewed_at
                 and e.principal_id = o.reviewed_by
                 and f.facts @> jsonb_build_object('override', o.id)), false) as reviewed,
               coalesce(bool_or(e.kind = 'override.revoked' and e.at = o.ended_at and e.principal_id = o.ended_by
                 and f.facts @> jsonb_build_object('override', o.id)), false) as revoked
             from events e cross join lateral facts_said(e.leaf) f(facts)
             where e.digest = o.manifest and e.at in (o.created_at, o.reviewed_at, o.ended_at)
           ) t
           order by o.id"#
    )
}

async fn policies(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select p.id::text as "key!", 'policy ' || p.id || ' (' || p.name || ')' || case
             when not exists (
               select from events e where e.repository_id is null and e.at = p.at and e.kind = 'policy.changed'
                 and (e.environment_id, e.digest, e.principal_id) = (p.environment_id, p.digest, p.by)
                 and facts_said(e.leaf) ->> 'name' = p.name and not facts_said(e.leaf) ? 'ended' offset 0)
               then ' was put in force by no event that says the same'
             when p.ended_at is not null and not exists (
               select from events e where e.repository_id is null and e.at = p.ended_at
                 and e.kind = 'policy.changed' and (e.environment_id, e.principal_id) = (p.environment_id, p.ended_by)
                 and facts_said(e.leaf) ->> 'name' = p.name offset 0)
               then ' was ended by no event' end as untold
           from policies p where p.id > $1 order by p.id limit $2"#
    )
}

async fn signers(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select s.id::text as "key!", case when not exists (
             select from events e cross join lateral facts_said(e.leaf) f(facts)
             where e.repository_id is null and e.at = s.registered_at and e.kind = 'signer.registered'
               and e.principal_id = s.registered_by
               and f.facts @> jsonb_build_object('signer', s.name)
               and f.facts -> 'repositories' = to_jsonb(s.repositories)
               and f.facts -> 'predicate_types' = to_jsonb(s.predicate_types))
             then 'signer ' || s.name || ' was registered by no event that says the same' end as untold
           from signers s where s.id > $1 order by s.id limit $2"#
    )
}

/// The newest event about a key says all of it. Those of an earlier version name one scheme, and the id that the key
/// had then.
async fn signer_keys(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select k.id::text as "key!", case when not exists (
             select from events e join signers s on s.id = k.signer_id
               cross join lateral facts_said(e.leaf) f(facts)
             where e.repository_id is null and e.at = k.changed_at
               and e.kind in ('signer.registered', 'signer.key-added') and e.principal_id = k.changed_by
               and f.facts @> jsonb_build_object('signer', s.name)
               and f.facts ->> 'key_id' is not distinct from coalesce(k.former_key_id, k.key_id)
               and coalesce(f.facts -> 'schemes', jsonb_build_array(f.facts -> 'scheme')) = to_jsonb(k.schemes)
               and time_is_said(k.valid_from, f.facts, 'valid_from')
               and time_is_said(k.valid_until, f.facts, 'valid_until'))
             then 'key ' || k.id || ' of signer ' || k.signer_id || ' was registered by no event that says the same'
             end as untold
           from signer_identities k where k.id > $1 order by k.id limit $2"#
    )
}

async fn build_types(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select b.id::text as "key!", case when not exists (
             select from events e cross join lateral facts_said(e.leaf) f(facts)
             where e.repository_id is null and e.at = b.declared_at and e.kind = 'build-type.declared'
               and e.principal_id = b.declared_by
               and f.facts @> jsonb_build_object('declaration', b.id, 'build_type', b.build_type)
               and (f.facts ->> 'source', f.facts ->> 'ref', f.facts ->> 'branch', f.facts ->> 'commit',
                   f.facts ->> 'dependency')
                 is not distinct from (b.source, b.source_ref, b.branch, b.commit_id, b.dependency))
             then 'build type ' || b.build_type || ' was declared by no event that says the same'
             when b.ended_at is not null and not exists (
             select from events e cross join lateral facts_said(e.leaf) f(facts)
             where e.repository_id is null and e.at = b.ended_at and e.principal_id = b.ended_by
               and (e.kind = 'build-type.ended' and f.facts @> jsonb_build_object('declaration', b.id)
                 or e.kind = 'build-type.declared' and f.facts @> jsonb_build_object('ended', b.id)))
             then 'the declaration of build type ' || b.build_type || ' was ended by no event' end as untold
           from build_types b where b.id > $1 order by b.id limit $2"#
    )
}

async fn revocations(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select v.id::text as "key!", case when not exists (
             select from events e join signers s on s.id = v.signer_id
               join signer_identities k on k.id = v.identity_id
               cross join lateral facts_said(e.leaf) f(facts)
             where e.repository_id is null and e.at = v.revoked_at and e.kind = 'signer.revoked'
               and e.principal_id = v.revoked_by and time_is_said(v.distrusted_from, f.facts, 'distrusted_from')
               and (list_said(f.facts, 'key_ids') ? k.key_id
                 or f.facts ->> 'key_id' = coalesce(k.former_key_id, k.key_id))
               and f.facts @> jsonb_build_object('signer', s.name, 'compromised', v.compromised, 'reason', v.reason))
             then 'the revocation of signer ' || v.signer_id || ' was made by no event that says the same'
             end as untold
           from signer_revocations v where v.id > $1 order by v.id limit $2"#
    )
}

/// A role is given by itself, or with a token.
async fn grants(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select g.id::text as "key!", 'grant ' || g.id || ' of ' || g.role || ' on ' || g.repositories || case
             when not exists (
               select from events e cross join lateral facts_said(e.leaf) f(facts)
                 cross join lateral jsonb_build_object('role', g.role, 'repositories', g.repositories,
                                                       'environments', g.environments) role
               where e.repository_id is null and e.at = g.created_at and e.principal_id = g.created_by
                 and (e.kind = 'grant.given'
                     and f.facts @> (role || jsonb_build_object('grant', g.id, 'to', g.principal_id))
                   or e.kind = 'token.created'
                     and f.facts @> jsonb_build_object('for', g.principal_id, 'grants', jsonb_build_array(role))
                     and (g.token_id is null
                       or f.facts @> jsonb_build_object('token', g.token_id, 'has_grants', true))))
               then ' was given by no event that says the same'
             when g.ended_at is not null and not exists (
               select from events e cross join lateral facts_said(e.leaf) f(facts)
               where e.repository_id is null and e.at = g.ended_at and e.principal_id = g.ended_by
                 and (e.kind = 'grant.ended' and f.facts @> jsonb_build_object('grant', g.id)
                   or e.kind = 'token.revoked' and f.facts @> jsonb_build_object('token', g.token_id)
                   or e.kind = 'principal.disabled'
                     and f.facts @> jsonb_build_object('disabled', g.principal_id)))
               then ' was ended by no event' end as untold
           from grants g where g.id > $1 order by g.id limit $2"#
    )
}

async fn tokens(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select t.id::text as "key!", 'token ' || t.id || case
             when not exists (
               select from events e where e.repository_id is null and e.at = t.created_at
                 and e.kind = 'token.created' and e.principal_id = t.created_by
                 and facts_said(e.leaf) @> jsonb_build_object('token', t.id, 'for', t.principal_id)
                 and coalesce(facts_said(e.leaf) -> 'has_grants', 'false') = to_jsonb(t.has_grants)
                 and coalesce(facts_said(e.leaf) -> 'addresses', 'null') = coalesce(to_jsonb(t.addresses), 'null')
                 and time_is_said(t.expires_at, facts_said(e.leaf), 'expires_at'))
               then ' was made by no event that says the same'
             when t.ended_at is not null and not exists (
               select from events e cross join lateral facts_said(e.leaf) f(facts)
               where e.repository_id is null and e.at = t.ended_at and e.principal_id = t.ended_by
                 and (e.kind = 'token.revoked' and f.facts @> jsonb_build_object('token', t.id)
                   or e.kind = 'principal.disabled' and f.facts @> jsonb_build_object('disabled', t.principal_id)))
               -- Another took its place some time before.
               and not exists (
               select from events e cross join lateral facts_said(e.leaf) f(facts)
               where e.repository_id is null and e.at <= t.ended_at and e.kind = 'token.rotated'
                 and e.at >= t.ended_at - interval '31 days' and e.principal_id = t.ended_by
                 and f.facts @> jsonb_build_object('token', t.id) and time_is_said(t.ended_at, f.facts, 'ends_at'))
               then ' was revoked by no event' end as untold
           from tokens t where t.id > $1 order by t.id limit $2"#,
        behind.parse().unwrap_or(uuid::Uuid::nil()),
        limit,
    )
    .fetch_all(connection)
    .await
}

async fn scans(connection: &mut PgConnection, behind: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
    by_id!(
        connection,
        behind,
        limit,
        r#"select s.id::text as "key!", 'scan ' || s.id || ' of ' || s.manifest || case
             when not exists (
               select from events e where e.digest = s.manifest and e.at = s.received_at and e.kind = 'scan.recorded'
                 and (e.repository_id, e.principal_id) = (s.repository_id, s.received_by)
                 and facts_said(e.leaf) @> jsonb_build_object('scan', s.id, 'scanner', s.scanner,
                       'scanner_version', s.scanner_version, 'report', s.report, 'finding_set', s.finding_set)
                 and (s.scanned_at = e.at or time_is_said(s.scanned_at, facts_said(e.leaf), 'scanned_at'))
                 and (s.database_updated_at = e.at
                   or time_is_said(s.database_updated_at, facts_said(e.leaf), 'database_updated_at')))
               then ' was recorded by no event that says the same'
             when s.sha256 <> case when starts_with(s.manifest, 'sha256:') then s.manifest else m.sha256 end
               then ' counts for other bytes'
             when exists (select from scan_retractions x where x.run_id = s.id and not exists (
                 select from events e where e.digest = s.manifest and e.at = x.retracted_at and e.kind = 'scan.retracted'
                   and (e.repository_id, e.principal_id) = (s.repository_id, x.retracted_by)
                   and facts_said(e.leaf) @> jsonb_build_object('scan', s.id, 'reason', x.reason)))
               then ' was retracted by no event that says the same'
             when exists (select from events e where e.digest = s.manifest and e.at = s.received_at
                   and e.kind = 'scan.recorded' and facts_said(e.leaf) @> jsonb_build_object('scan', s.id)
                   and (facts_said(e.leaf) -> 'scope' is distinct from s.scope
                     or facts_said(e.leaf) ->> 'bound_by' is distinct from s.bound_by))
               then ' has another scope than its event says'
             when exists (
                 select from unnest(s.aspects) a(aspect)
                 where (s.attestation_id is null or exists (select from attestation_signatures i
                     where i.attestation_id = s.attestation_id and i.counts_from = s.attestation_id))
                   and not exists (select from scan_coverage c where c.run_id = s.id and c.aspect = a.aspect))
               or exists (
                 select from scan_coverage c where c.run_id = s.id
                   and c.is_current <> (c.is_trusted and not is_replaced(c))
                   and not exists (select from scan_revocations_unsettled u where u.signer_id = c.signer_id))
               then ' counts for other aspects than it should' end as untold
           from scan_runs s left join manifests m on m.repository_id = s.repository_id and m.digest = s.manifest
           where s.id > $1 order by s.id limit $2"#
    )
}
