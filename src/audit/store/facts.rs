//! Rows that decide something, against the events that made and ended them. A row and its event are of one
//! transaction and have one time, by which the event is found.

use crate::failure::Failure;
use sqlx::PgConnection;
use uuid::Uuid;

/// The tables.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Block,
    Hold,
    Approval,
    Policy,
    Signer,
    Revocation,
    Grant,
    Scan,
    Token,
}

/// Every kind.
pub const FACTS: [Kind; 9] = [
    Kind::Block,
    Kind::Hold,
    Kind::Approval,
    Kind::Policy,
    Kind::Signer,
    Kind::Revocation,
    Kind::Grant,
    Kind::Scan,
    Kind::Token,
];

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Hold => "hold",
            Self::Approval => "approval",
            Self::Policy => "policy",
            Self::Signer => "signer",
            Self::Revocation => "revocation",
            Self::Grant => "grant",
            Self::Scan => "scan",
            Self::Token => "token",
        }
    }
}

/// A row that was looked at.
pub struct Row {
    pub id: String,
    /// Which of its events is not there, in words.
    pub missing: Option<String>,
}

/// The next rows of a kind behind this one, by id, each as one snapshot has it.
pub async fn page(
    connection: &mut PgConnection,
    kind: Kind,
    behind: &str,
    limit: i64,
) -> Result<Vec<Row>, Failure> {
    let id = behind.parse().unwrap_or_default();
    let page = match kind {
        Kind::Block => blocks(connection, id, limit).await,
        Kind::Hold => holds(connection, id, limit).await,
        Kind::Approval => approvals(connection, id, limit).await,
        Kind::Policy => policies(connection, id, limit).await,
        Kind::Signer => signers(connection, id, limit).await,
        Kind::Revocation => revocations(connection, id, limit).await,
        Kind::Grant => grants(connection, id, limit).await,
        Kind::Scan => scans(connection, id, limit).await,
        Kind::Token => tokens(connection, behind.parse().unwrap_or_default(), limit).await,
    };
    page.map_err(|error| Failure::new("looking for the events of facts", error))
}

/// What ends by itself ends at its time, not before; nobody does it, so no event tells of it.
async fn blocks(connection: &mut PgConnection, behind: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select b.id::text as "id!", case
             when not exists (
               select from events e where e.digest = b.manifest and e.kind = 'block.placed'
                 and (e.repository_id, e.principal_id, e.at) = (b.repository_id, b.by, b.at)
                 and id_said(facts_said(e.leaf), 'block') = b.id)
               then 'block ' || b.id || ' on ' || b.manifest || ' was placed by no event'
             when b.ended_at is not null and (b.ended_by is not null or b.ended_at is distinct from b.until
               or b.until > clock_timestamp())
               and not exists (
                 select from events e where e.digest = b.manifest and e.kind = 'block.ended'
                   and (e.repository_id, e.principal_id, e.at) = (b.repository_id, b.ended_by, b.ended_at)
                   and id_said(facts_said(e.leaf), 'block') = b.id)
               then 'block ' || b.id || ' on ' || b.manifest || ' was lifted by no event' end as missing
           from blocks b where b.id > $1 order by b.id limit $2"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
}

async fn holds(connection: &mut PgConnection, behind: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select h.id::text as "id!", case
             when not exists (
               select from events e where e.digest is null and e.at = h.at and e.kind = 'hold.placed'
                 and e.principal_id = h.by and e.repository_id is not distinct from h.repository_id
                 and id_said(facts_said(e.leaf), 'hold') = h.id)
               then 'hold ' || h.id || ' was placed by no event'
             when h.ended_at is not null and (h.ended_by is not null or h.ended_at is distinct from h.until
               or h.until > clock_timestamp())
               and not exists (
                 select from events e where e.digest is null and e.at = h.ended_at and e.kind = 'hold.ended'
                   and e.principal_id = h.ended_by and id_said(facts_said(e.leaf), 'hold') = h.id)
               then 'hold ' || h.id || ' was lifted by no event' end as missing
           from holds h where h.id > $1 order by h.id limit $2"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
}

async fn approvals(connection: &mut PgConnection, behind: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select a.id::text as "id!", case
             when not exists (
               select from events e where e.digest = a.manifest and e.kind = 'approval.given'
                 and (e.repository_id, e.environment_id, e.principal_id, e.at)
                   = (a.repository_id, a.environment_id, a.by, a.at)
                 and id_said(facts_said(e.leaf), 'approval') = a.id)
               then 'approval ' || a.id || ' of ' || a.manifest || ' was given by no event'
             when a.ended_at is not null and (a.ended_by is not null or a.ended_at is distinct from a.until
               or a.until > clock_timestamp())
               and not exists (
                 select from events e where e.digest = a.manifest and e.kind = 'approval.ended'
                   and (e.repository_id, e.principal_id, e.at) = (a.repository_id, a.ended_by, a.ended_at)
                   and id_said(facts_said(e.leaf), 'approval') = a.id)
               then 'approval ' || a.id || ' of ' || a.manifest || ' was taken back by no event' end as missing
           from approvals a where a.id > $1 order by a.id limit $2"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// A version ends when it is ended, or when another takes its place at the same time.
async fn policies(connection: &mut PgConnection, behind: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select p.id::text as "id!", case
             when not exists (
               select from events e where e.repository_id is null and e.at = p.at and e.kind = 'policy.changed'
                 and (e.environment_id, e.digest, e.principal_id) = (p.environment_id, p.digest, p.by)
                 and facts_said(e.leaf) ->> 'name' = p.name and not facts_said(e.leaf) ? 'ended')
               then 'policy ' || p.id || ' (' || p.name || ') was put in force by no event'
             when p.ended_at is not null and not exists (
               select from events e where e.repository_id is null and e.at = p.ended_at and e.kind = 'policy.changed'
                 and (e.environment_id, e.principal_id) = (p.environment_id, p.ended_by)
                 and facts_said(e.leaf) ->> 'name' = p.name)
               then 'policy ' || p.id || ' (' || p.name || ') was ended by no event' end as missing
           from policies p where p.id > $1 order by p.id limit $2"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
}

async fn signers(connection: &mut PgConnection, behind: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select s.id::text as "id!", case when not exists (
             select from events e where e.repository_id is null and e.at = s.registered_at
               and e.kind = 'signer.registered' and e.principal_id = s.registered_by
               and facts_said(e.leaf) ->> 'signer' = s.name)
             then 'signer ' || s.name || ' was registered by no event' end as missing
           from signers s where s.id > $1 order by s.id limit $2"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
}

async fn revocations(connection: &mut PgConnection, behind: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select v.id::text as "id!", case when not exists (
             select from events e join signers s on s.id = v.signer_id
             where e.repository_id is null and e.at = v.revoked_at and e.kind = 'signer.revoked'
               and e.principal_id = v.revoked_by and facts_said(e.leaf) ->> 'signer' = s.name)
             then 'the revocation of signer ' || v.signer_id || ' was made by no event' end as missing
           from signer_revocations v where v.id > $1 order by v.id limit $2"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// A role is given by itself, or with a token.
async fn grants(connection: &mut PgConnection, behind: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select g.id::text as "id!", case
             when not exists (
               select from events e cross join lateral facts_said(e.leaf) f(facts)
               where e.repository_id is null and e.at = g.created_at and e.principal_id = g.created_by
                 and (e.kind = 'grant.given' and id_said(f.facts, 'grant') = g.id
                   or e.kind = 'token.created' and id_said(f.facts, 'for') = g.principal_id
                     and list_said(f.facts, 'grants') @> jsonb_build_array(
                           jsonb_build_object('role', g.role, 'repositories', g.repositories))))
               then 'grant ' || g.id || ' of ' || g.role || ' was given by no event'
             when g.ended_at is not null and not exists (
               select from events e where e.repository_id is null and e.at = g.ended_at and e.kind = 'grant.ended'
                 and e.principal_id = g.ended_by and id_said(facts_said(e.leaf), 'grant') = g.id)
               then 'grant ' || g.id || ' of ' || g.role || ' was ended by no event' end as missing
           from grants g where g.id > $1 order by g.id limit $2"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
}

async fn tokens(connection: &mut PgConnection, behind: Uuid, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select t.id::text as "id!", case
             when not exists (
               select from events e where e.repository_id is null and e.at = t.created_at
                 and e.kind = 'token.created' and e.principal_id = t.created_by
                 and facts_said(e.leaf) ->> 'token' = t.id::text)
               then 'token ' || t.id || ' was made by no event'
             when t.ended_at is not null and not exists (
               select from events e where e.repository_id is null and e.at = t.ended_at
                 and e.kind = 'token.revoked' and e.principal_id = t.ended_by
                 and facts_said(e.leaf) ->> 'token' = t.id::text)
               then 'token ' || t.id || ' was revoked by no event' end as missing
           from tokens t where t.id > $1 order by t.id limit $2"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
}

async fn scans(connection: &mut PgConnection, behind: i64, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select s.id::text as "id!", case when not exists (
             select from events e where e.digest = s.manifest and e.kind = 'scan.recorded'
               and (e.repository_id, e.principal_id, e.at) = (s.repository_id, s.received_by, s.received_at)
               and id_said(facts_said(e.leaf), 'scan') = s.id)
             then 'scan ' || s.id || ' of ' || s.manifest || ' was recorded by no event' end as missing
           from scan_runs s where s.id > $1 order by s.id limit $2"#,
        behind,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Of the names behind the first key up to the second, those that nothing gave to what they name, neither
/// a push nor a reservation. A name that is frozen was given by the push that last moved it.
pub async fn untold_tags(
    connection: &mut PgConnection,
    behind: (i64, &str),
    to: &(i64, String),
) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"with page as (
             select repository_id, name, digest from tags
             where (repository_id, name) > ($1, $2) and (repository_id, name) <= ($3, $4)),
           told as (
             select distinct d.repository_id, d.digest, t.name
             from (select distinct repository_id, digest from page) d
               join events e on e.digest = d.digest and e.repository_id = d.repository_id
                 and e.kind in ('manifest.pushed', 'tag.reserved')
               cross join lateral facts_said(e.leaf) f(facts)
               cross join lateral (
                 select jsonb_array_elements_text(list_said(f.facts, 'tags')) where e.kind = 'manifest.pushed'
                 union all
                 select f.facts ->> 'tag' where e.kind = 'tag.reserved') t(name))
           select 'the tag ' || coalesce(r.name, 'repository ' || p.repository_id) || ':' || p.name || ' -> '
             || p.digest || ' was given by no event' as "missing!"
           from page p left join repositories r on r.id = p.repository_id
           where not exists (select from told t
                             where (t.repository_id, t.digest, t.name) = (p.repository_id, p.digest, p.name))"#,
        behind.0,
        behind.1,
        to.0,
        to.1,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for the pushes of tags", error))
}

/// Of the manifests behind the first key up to the second, those that no push brought.
pub async fn untold_manifests(
    connection: &mut PgConnection,
    behind: (i64, &str),
    to: &(i64, String),
) -> Result<Vec<String>, Failure> {
    sqlx::query_scalar!(
        r#"select 'the manifest ' || coalesce(r.name, 'repository ' || m.repository_id) || '@' || m.digest
             || ' was pushed by no event' as "missing!"
           from manifests m left join repositories r on r.id = m.repository_id
           where (m.repository_id, m.digest) > ($1, $2) and (m.repository_id, m.digest) <= ($3, $4)
             and not exists (select from events e where e.digest = m.digest
                             and e.repository_id = m.repository_id and e.kind = 'manifest.pushed')"#,
        behind.0,
        behind.1,
        to.0,
        to.1,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for the pushes of manifests", error))
}
